"""Writes the table of open_clip's published weights that comes with coopt, from the installed open_clip.

    python tools/open_clip_tags.py

To be run when the tests say that open_clip has another table (tests/backbones/sources/test_openclip.py).
"""

from __future__ import annotations

import json

import open_clip

from coopt.backbones.sources.openclip_models import TAGS, ask_open_clip, code_of_tags


def main() -> None:
    models = []
    for model, tags in ask_open_clip().items():
        rows = [f"   {json.dumps(tag)}: {json.dumps(row)}" for tag, row in tags.items()]
        models.append(f"  {json.dumps(model)}: {{\n" + ",\n".join(rows) + "\n  }")
    head = f' "open_clip": {json.dumps(open_clip.__version__)},\n "sha256": {json.dumps(code_of_tags())},\n'
    TAGS.write_text("{\n" + head + ' "tags": {\n' + ",\n".join(models) + "\n }\n}\n", encoding="utf-8")
    print(f"{TAGS}: {len(models)} models, {TAGS.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
