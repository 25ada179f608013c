"""What `coopt fit` says and writes about a run."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coopt import __version__
from coopt.cli.output import Output, percent, size_of
from coopt.cli.settings import FitSettings
from coopt.data import ImageDataset, display_name
from coopt.evaluation import Evaluation
from coopt.methods.base import ClipClassifier
from coopt.prompts.templates import DEFAULT_TEMPLATE

RESULT_FORMAT = 1


def data_sentence(dataset: ImageDataset) -> list[str]:
    """What there is to learn from, and what was decided about it."""
    parts = [f"{len(dataset.train)} images to learn from"]
    if dataset.test is not None:
        parts.append(f"{len(dataset.test)} held out")
    if dataset.val is not None:
        parts.append(f"{len(dataset.val)} for validation (not used)")
    lines = [f"{dataset.name}: {len(dataset.class_names)} classes, {', '.join(parts)}."]
    if dataset.test is None:
        lines.append("No images are held out, so accuracy is not measured.")
    return lines + list(dataset.notes)


def result_of(
    settings: FitSettings,
    whole: ImageDataset,
    dataset: ImageDataset,
    estimator: ClipClassifier,
    zero_shot: Evaluation | None,
    learned: Evaluation | None,
    typed: Sequence[str],
) -> dict[str, Any]:
    """Everything needed to do the run again, and what came of it."""
    backbone = estimator.backbone_
    context, losses = getattr(estimator, "context_", None), getattr(estimator, "losses_", [])
    return {
        "format": RESULT_FORMAT,
        "kind": "fit",
        "method": estimator.method,
        "command": display_name(shlex.join(typed)),
        "settings": settings.identity(whole.hash),
        "recipe": estimator.parameters.get("recipe"),
        "versions": versions(),
        "machine": {"device": str(backbone.device), "platform": platform.platform()},
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.id,
        },
        "dataset": {
            "name": whole.name,
            "path": display_name(settings.where),
            "hash": whole.hash,
            "sample_hash": dataset.hash,
            "train": len(dataset.train),
            "val": 0 if dataset.val is None else len(dataset.val),
            "test": 0 if dataset.test is None else len(dataset.test),
            "held_out_made": dataset.held_out_made,
            "notes": list(dataset.notes),
        },
        "class_names": list(estimator.class_names_),
        "seed": settings.seed,
        "shots": settings.shots,
        "n_ctx": None if context is None else int(context.shape[-2]),
        "epochs": len(losses),
        "loss": losses[-1] if losses else None,
        "peak_memory_bytes": peak_memory(),
        "metrics": {
            "zero_shot": None if zero_shot is None else {"template": DEFAULT_TEMPLATE, **zero_shot.to_dict()},
            "learned": None if learned is None else learned.to_dict(),
        },
    }


def saved_extra(
    settings: FitSettings,
    whole: ImageDataset,
    dataset: ImageDataset,
    zero_shot: Evaluation | None,
    learned: Evaluation | None,
) -> dict[str, Any]:
    """What goes with the prompt wherever it is sent: what it was learned from, and how well it did."""
    return {
        "learned_from": {
            "dataset": whole.name,
            "hash": whole.hash,
            "images": len(dataset.train),
            "shots": settings.shots,
            "seed": settings.seed,
            "test_fraction": settings.test_fraction,
            "held_out_made": dataset.held_out_made,
        },
        "accuracy": {
            "images": 0 if learned is None else learned.n,
            "zero_shot": None if zero_shot is None else zero_shot.accuracy,
            "learned": None if learned is None else learned.accuracy,
        },
    }


def report(
    output: Output,
    result: dict[str, Any],
    zero_shot: Evaluation | None,
    learned: Evaluation | None,
    folder: Path,
    data: str,
) -> None:
    """Tells people what came of it and what to do next; machines get the result. `data`: as it was typed."""
    if zero_shot is not None and learned is not None:
        _say_accuracy(output, zero_shot, learned)
    files = sum(file.stat().st_size for file in folder.iterdir() if file.name.startswith("prompt."))
    seconds = result["seconds"]["total"]
    output.say()
    output.say(f"Saved to '{display_name(folder)}' ({size_of(files)}) after {seconds:.1f} seconds. Next:")
    name = shlex.quote(display_name(folder))
    output.say(f"  coopt predict {name} IMAGES...")
    output.say(f"  coopt eval {name} {data}")
    if result["n_ctx"]:
        output.say(f"  coopt words {name}")
    output.result({**result, "out": display_name(folder)})


def _say_accuracy(output: Output, zero_shot: Evaluation, learned: Evaluation) -> None:
    output.say()
    rows = [
        [name, percent(one.accuracy), percent(one.macro_f1), percent(one.mean_class_accuracy)]
        for name, one in ((f'zero-shot, "{DEFAULT_TEMPLATE}"', zero_shot), ("learned prompt", learned))
    ]
    output.table(["On held-out images, %", "accuracy", "macro-F1", "class mean"], rows, right=(1, 2, 3))
    if learned.n < 100:
        output.say(f"Few images are held out: a single one is {100 / learned.n:.1f} points of accuracy.")
    if learned.accuracy == zero_shot.accuracy == 100:
        output.say("Both are without a mistake on these images; they are too easy to tell which is better.")
    elif learned.accuracy <= zero_shot.accuracy:
        output.say("The learned prompt is no better than the hand-made one here. More images per class help most.")
    before = {one.name: one.accuracy for one in zero_shot.classes}
    worst = [one for one in learned.worst_classes() if one.accuracy < 100]
    if worst:
        output.say()
        output.table(
            ["Weakest classes, %", "images", "zero-shot", "learned"],
            [[display_name(c.name), str(c.n), percent(before[c.name]), percent(c.accuracy)] for c in worst],
            right=(1, 2, 3),
        )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"coopt": __version__, "python": platform.python_version()}
    for name, package in (("torch", "torch"), ("open_clip", "open_clip_torch"), ("pillow", "pillow")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def peak_memory() -> int | None:
    """The most memory that this process has held so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
