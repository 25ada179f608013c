"""Everything from the artwork to the bundled model and data, in steps or at once: `python -m tools.bundled STEP`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch

from tools.bundled import artwork, datasets, evaluate, hard, text_towers, training

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work" / "bundled"
PACKAGE = ROOT / "src" / "coopt" / "bundled"
RESULTS = Path(__file__).resolve().parent / "results"
STEPS = ("fetch", "data", "train", "export", "evaluate")
EXTRA = ("towers",)  # for checks, not part of what is shipped


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    for step in STEPS if options.step == "all" else (options.step,):
        began = time.time()
        {"fetch": _fetch, "data": _data, "train": _train, "export": _export, "evaluate": _evaluate, "towers": _towers}[
            step
        ](options)
        print(f"{step}: {(time.time() - began) / 60:.1f} minutes", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.bundled", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, *EXTRA, "all"), help="one step, or all up to evaluate")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--into", type=Path, default=PACKAGE, help="folder for model/ and data/ (default: the package)")
    parser.add_argument("--run", type=Path, default=WORK / "run", help="folder for the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for logs and tables")
    defaults = training.Settings()
    train = parser.add_argument_group("train")
    train.add_argument("--steps", type=int, default=defaults.steps, help="length of the run (default: %(default)s)")
    train.add_argument("--batch", type=int, default=defaults.batch)
    train.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    train.add_argument("--seed", type=int, default=defaults.seed)
    train.add_argument("--fresh", action="store_true", help="forget the checkpoint of an earlier run")
    towers = parser.add_argument_group("towers")
    towers.add_argument("--width", type=int, choices=tuple(text_towers.TOWERS), default=256, help="of the text tower")
    towers.add_argument("--loss", choices=("softmax", "sigmoid"), default="softmax")
    towers.add_argument("--tower-steps", type=int, help="length of the run (default: the width's)")
    towers.add_argument("--scenes", type=int, default=text_towers.SCENES, help="image features that are kept")
    towers.add_argument("--towers", type=Path, default=WORK / "towers", help="folder for these models")
    check = parser.add_argument_group("evaluate")
    check.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    check.add_argument("--contexts", type=int, nargs="+", default=[4, 16], help="context lengths M")
    check.add_argument("--seeds", type=int, default=1)
    check.add_argument("--coop-steps", type=int, default=evaluate.Recipe.steps)
    check.add_argument("--coop-rate", type=float, default=evaluate.Recipe.learning_rate)
    check.add_argument("--on", choices=("test", "val"), default="test", help="the part that is scored")
    check.add_argument("--only", nargs="+", default=[], metavar="DATASET")
    return parser


def _fetch(options: argparse.Namespace) -> None:
    artwork.fetch(WORK)
    artwork.load(WORK)


def _data(options: argparse.Namespace) -> None:
    folder, record, drawings = options.into / "data", options.results / "frozen.json", artwork.load(WORK)
    sizes = datasets.build(drawings, folder)
    print(f"{sum(sizes.values()) / 1e6:.1f} MB, hash {datasets.freeze(folder, record)}", flush=True)
    size = hard.build(drawings, folder)
    print(f"{size / 1e6:.1f} MB of hard problems, hash of the list {hard.freeze(folder, record)}", flush=True)


def _run(options: argparse.Namespace) -> training.Run:
    settings = training.Settings(
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    if options.fresh:
        (options.run / "checkpoint.pt").unlink(missing_ok=True)
    return training.Run(
        artwork.load(WORK), settings, options.run, options.results / "training.jsonl", options.into / "model"
    )


def _train(options: argparse.Namespace) -> None:
    if not _run(options).train():
        raise SystemExit("stopped; the same command goes on from here")


def _export(options: argparse.Namespace) -> None:
    run = _run(options)
    run.resume()
    print(f"{run.export() / 1e6:.1f} MB in {options.into / 'model'}", flush=True)


def _evaluate(options: argparse.Namespace) -> None:
    recipe = evaluate.Recipe(steps=options.coop_steps, learning_rate=options.coop_rate)
    out = options.results / ("evaluation.jsonl" if options.on == "test" else f"evaluation-{options.on}.jsonl")
    shots, contexts = tuple(options.shots), tuple(options.contexts)
    model_folder, data = options.into / "model", options.into / "data"
    evaluate.evaluate(model_folder, data, out, shots, contexts, options.seeds, recipe, options.only, options.on)
    shifted = [f"test-{style}" for style in datasets.SHIFTED_STYLES] if options.on == "test" else []
    for part in (options.on, *shifted):
        print(f"\n{part}\n{evaluate.table(out, part)}", flush=True)


def _towers(options: argparse.Namespace) -> None:
    settings = dataclasses.replace(text_towers.TOWERS[options.width], seed=options.seed, loss=options.loss)
    if options.tower_steps:
        settings = dataclasses.replace(settings, steps=options.tower_steps)
    folder = options.towers / f"w{options.width}{'' if options.loss == 'softmax' else '-' + options.loss}"
    if options.fresh:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    bundled = text_towers.Bundled(PACKAGE / "model", PACKAGE / "data")
    pool = text_towers.image_features(
        lambda: artwork.load(WORK), bundled, options.scenes, options.seed, options.towers / "features"
    )
    if not text_towers.TextRun(bundled, pool, settings, folder).train():
        raise SystemExit("stopped; the same command goes on from here")
