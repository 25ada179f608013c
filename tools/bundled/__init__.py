"""The bundled model and data: artwork to scenes, scenes to a small CLIP, and few-shot data sets beside it.

`python -m tools.bundled all` (from the repository root) does everything again from fixed seeds.
"""
