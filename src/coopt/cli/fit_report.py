"""What `coopt fit` says and writes about a run."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from coopt import __version__
from coopt.cli.fit_advice import Measured, chance_sentence, say_probe, say_toy, say_what_to_change
from coopt.cli.output import MEASURES, Output, measures, percent, size_of
from coopt.cli.settings import FitSettings
from coopt.data import ImageDataset, display_name
from coopt.methods.base import ClipClassifier
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.wording import counted

RESULT_FORMAT = 1

_TITLES = {
    "coop": "learned prompt",
    "cocoop": "learned prompt (CoCoOp)",
    "kgcoop": "learned prompt (KgCoOp)",
    "tip_adapter": "Tip-Adapter",
    "text_bias": "text bias",
    "text_transformation": "text transformation",
    "linear_probe": "linear probe",
    "image_tuning": "tuned image encoder",
}


def title_of(estimator: ClipClassifier) -> str:
    """What was learned, as tables call it."""
    finetuned = "-F" if getattr(estimator, "finetune", False) else ""
    return _TITLES.get(estimator.method, estimator.method) + finetuned


def say_data(output: Output, settings: FitSettings, dataset: ImageDataset, typed: Sequence[str]) -> None:
    """What there is to learn from and with, and what was decided about it."""
    parts = [f"{counted(len(dataset.train), 'image')} to learn from"]
    if dataset.test is not None:
        parts.append(f"{len(dataset.test)} held out")
    if dataset.val is not None:
        parts.append(f"{len(dataset.val)} for validation (not used)")
    lines = [f"{dataset.name}: {counted(len(dataset.class_names), 'class')}, {', '.join(parts)}."]
    if dataset.test is None:
        lines.append("No images are held out, so accuracy is not measured.")
    for line in (*lines, *dataset.notes):
        output.say(line)
    if settings.toy:
        say_toy(output, typed)


def result_of(
    settings: FitSettings,
    whole: ImageDataset,
    dataset: ImageDataset,
    estimator: ClipClassifier,
    measured: Measured | None,
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
        "machine": {
            "device": str(backbone.device),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
        },
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
        "precision": estimator.precision_,
        "n_ctx": None if context is None else int(context.shape[-2]),
        "epochs": len(losses),
        "loss": losses[-1] if losses else None,
        "peak_memory_bytes": peak_memory(),
        "metrics": _metrics(measured),
    }


def _metrics(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return dict.fromkeys(("zero_shot", "learned", "linear_probe", "chance", "at_chance"))
    return {
        "zero_shot": {"template": DEFAULT_TEMPLATE, **measured.zero_shot.to_dict()},
        "learned": measured.learned.to_dict(),
        "linear_probe": None if measured.probe is None else measured.probe.to_dict(),
        "chance": measured.chance,
        "at_chance": measured.at_chance,
    }


def saved_extra(
    settings: FitSettings, whole: ImageDataset, dataset: ImageDataset, measured: Measured | None
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
            "images": 0 if measured is None else measured.learned.n,
            "zero_shot": None if measured is None else measured.zero_shot.accuracy,
            "learned": None if measured is None else measured.learned.accuracy,
        },
    }


def report(
    output: Output,
    result: dict[str, Any],
    measured: Measured | None,
    folder: Path,
    settings: FitSettings,
    title: str,
    typed: Sequence[str],
) -> None:
    """Tells people what came of it and what to do next; machines get the result.

    Args:
        output: where to speak.
        result: see `result_of`.
        measured: on the held-out images; None: there are none.
        folder: where it was saved.
        settings: the options.
        title: of what was learned, in tables.
        typed: the command line.
    """
    if measured is not None:
        _say_accuracy(output, measured, title)
    files = sum(file.stat().st_size for file in folder.iterdir() if file.name.startswith("prompt."))
    saved = f"Saved to '{display_name(folder)}' ({size_of(files)}) after {result['seconds']['total']:.1f} seconds."
    output.say()
    if measured is not None and measured.at_chance:
        output.say(chance_sentence(measured))
        output.say(f"{saved} Before it is of use, change:")
        say_what_to_change(output, settings, measured, typed)
    else:
        if measured is not None:
            _say_comparison(output, measured, settings, title)
        output.say(f"{saved} Next:")
        _say_next(output, folder, settings, bool(result["n_ctx"]))
    if measured is not None and measured.probe_is_better:
        say_probe(output, settings, folder)
    output.result({**result, "out": display_name(folder)})


def _say_next(output: Output, folder: Path, settings: FitSettings, has_words: bool) -> None:
    name = shlex.quote(display_name(folder))
    output.command(f"coopt predict {name} IMAGES...")
    output.command(f"coopt eval {name} {settings.data_typed}")
    if has_words:
        output.command(f"coopt words {name}")


def _say_accuracy(output: Output, measured: Measured, title: str) -> None:
    zero_shot, learned, probe = measured.zero_shot, measured.learned, measured.probe
    found = [(f'zero-shot, "{DEFAULT_TEMPLATE}"', zero_shot), (title, learned)]
    found += [] if probe is None else [("linear probe (same features)", probe)]
    output.say()
    output.table(
        ["On held-out images, %", *MEASURES],
        [[name, *measures(one)] for name, one in found],
        right=(1, 2, 3, 4),
    )
    before = {one.name: one.accuracy for one in zero_shot.classes}
    worst = [one for one in learned.worst_classes() if one.accuracy < 100]
    if worst:
        output.say()
        output.table(
            ["Weakest classes, %", "images", "zero-shot", title],
            [[display_name(c.name), str(c.n), percent(before[c.name]), percent(c.accuracy)] for c in worst],
            right=(1, 2, 3),
        )


def _say_comparison(output: Output, measured: Measured, settings: FitSettings, title: str) -> None:
    zero_shot, learned = measured.zero_shot, measured.learned
    if learned.accuracy == zero_shot.accuracy == 100:
        output.say("Both are without a mistake on these images; they are too easy to tell which is better.")
    elif learned.accuracy <= zero_shot.accuracy:
        limit = (
            "The bundled model is what limits it; see above." if settings.toy else "More images per class help most."
        )
        output.say(f"The {title} is no better than the hand-made prompt here. {limit}")


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
