"""The bundled model and data: artwork to scenes, scenes to a small CLIP, and few-shot data sets beside it.

`python -m tools.bundled all` (from the repository root, with npm on the path and `resvg-py` installed) does everything
again from fixed seeds, on a GPU where there is one; on one CPU core it takes about an hour and three quarters, most of it
training. Single steps: `fetch`, `data`, `train`, `export`, `evaluate`, `towers`; `--help` tells their options. `train` can be
stopped with Ctrl-C, paused, or killed, and goes on from its last checkpoint when called again.

Where things are:

- `concepts` (what there is in the world), `artwork` (its drawings, from npm packages), `world` (how scenes are drawn by
  chance, and which facts are true of them), `compose` (scenes to pixels), `captions` (what is said about them).
- `model` (open_clip's CLIP by configuration, and the export), `training` (the contrastive run).
- `tasks` (the few-shot data sets: classes, hand-made prompts), `datasets` (their pictures, one `archive` for each, and the
  hash that freezes them before training), `evaluate` (zero-shot, linear probe and a plain CoOp, independent of the package).
- `hard` (the two hard problems beside them, in the step `data` too: a list of all other pictures as one data set, and one of
  many similar classes, uneven counts and wrong labels).
- `text_towers` (step `towers --width 256` or `512`, which `all` leaves out): text towers of other widths, with token
  embeddings of other sizes, for the same image tower. They are not shipped; what a recipe must not hang on is checked with
  them. Like `train` it goes on from its last checkpoint; with `--threads 1` it gives the same bits, stopped or not. On one core
  it takes 11 and 15 minutes, and 4 before the first for the features of the scenes. Zero-shot on the validation parts, with
  the naive and with hand-made prompts, and the root mean square of the embeddings of "a photo of a":

      width  128 (shipped)   72.5  76.1   0.076
      width  256             74.0  78.1   0.180
      width  512             73.9  75.8   0.013

  The rows of words that no caption holds keep the size that all rows began with: 0.02, 0.15 and 0.005.
- `results/`: `frozen.json` (hashes of tasks, prompts and pictures, written before training, and of the hard problems, written
  before a recipe was chosen on them; a test holds the shipped data to it), `training.jsonl` (the log of the shipped model) and `trials.jsonl` (short trials on
  the way there). What the package reaches with them is in `results/` and docs/results.md at the root of the repository.
- `.work/bundled` (not in git): the downloaded packages, the rasterised artwork, the checkpoints.

To try something without touching what is shipped, give other folders: `--into`, `--run` and `--results`. What is chosen
(a learning rate, a context length) is chosen with `evaluate --on val`; the test parts are for the end.
"""
