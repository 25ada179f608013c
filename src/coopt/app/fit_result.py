"""What came of a fit: for the reader of `result.json`, and for whoever called it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt.app.comparing import CompareResult
from coopt.app.requests import FitRequest
from coopt.app.system import machine, peak_memory, versions
from coopt.data import ImageDataset, display_name
from coopt.evaluation import Evaluation
from coopt.events import Warned
from coopt.methods.base import ClipClassifier
from coopt.prompts.templates import DEFAULT_TEMPLATE

RESULT_FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """What was measured on the held-out images.

    Attributes:
        zero_shot: a hand-made prompt.
        learned: what was learned.
        probe: a linear probe on the same features; None where it was not fitted.
        chance: the accuracy of guessing, in percent.
    """

    zero_shot: Evaluation
    learned: Evaluation
    probe: Evaluation | None
    chance: float

    @property
    def at_chance(self) -> bool:
        """Whether what was learned cannot be told from guessing."""
        return self.learned.interval[0] <= self.chance

    @property
    def probe_is_better(self) -> bool:
        """Whether the probe is better by more than so few images may err: each accuracy is outside the other's interval."""
        if self.probe is None:
            return False
        return self.probe.accuracy > self.learned.interval[1] and self.learned.accuracy < self.probe.interval[0]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "zero_shot": {"template": DEFAULT_TEMPLATE, **self.zero_shot.to_dict()},
            "learned": self.learned.to_dict(),
            "linear_probe": None if self.probe is None else self.probe.to_dict(),
            "chance": self.chance,
            "at_chance": self.at_chance,
        }


@dataclass(frozen=True)
class FitResult:
    """Everything needed to do the run again, and what came of it.

    Attributes:
        method: its name.
        title: of what was learned, as tables call it.
        command: how the run was started.
        settings: what makes runs the same.
        recipe: with all its fields; None for a method that has none.
        versions, machine: what computed.
        backbone: its name, fingerprint and preprocessing.
        dataset: its name, path, hashes, the sizes of its parts, and what was decided about it.
        class_names: in the order of the scores.
        seed, shots, precision: as used.
        n_ctx: context vectors; None for a method that has none.
        epochs, loss: done (a step of L-BFGS is one), and the last one's.
        losses: of all of them.
        text_passes, stopped, agreements: see `coopt.methods.learned.LearnedMethod`; None for a method that has none.
        peak_memory_bytes: the most that the process has held.
        measured: on the held-out images; None: there are none.
        leaks: images that are in the training and the test part.
        skipped: of the held-out images, those that could not be read, and why.
        seconds: in total, and of learning.
        compared: the comparison that took the method; None: it was named.
        warnings: what was warned of.
        out: the folder that was written.
        estimator: what was learned, ready to predict; not part of the JSON.
    """

    method: str
    title: str
    command: str
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    backbone: Mapping[str, Any]
    dataset: Mapping[str, Any]
    class_names: tuple[str, ...]
    seed: int
    shots: int | None
    precision: str
    n_ctx: int | None
    epochs: int
    loss: float | None
    losses: tuple[float, ...]
    text_passes: float | int | None
    stopped: str | None
    agreements: Sequence[float] | None
    peak_memory_bytes: int | None
    measured: Measured | None
    leaks: int
    skipped: tuple[tuple[str, str], ...]
    seconds: Mapping[str, float]
    warnings: tuple[Warned, ...]
    out: Path
    compared: CompareResult | None
    estimator: ClipClassifier = field(repr=False, compare=False)

    @property
    def accuracy(self) -> float | None:
        """Of what was learned, on the held-out images (percent); None: there are none."""
        return None if self.measured is None else self.measured.learned.accuracy

    def to_dict(self) -> dict[str, Any]:
        """The content of `result.json`."""
        as_they_are = (
            *(
                "recipe",
                "versions",
                "machine",
                "backbone",
                "dataset",
                "class_names",
                "seed",
                "shots",
                "precision",
                "n_ctx",
            ),
            *("epochs", "loss", "losses", "text_passes", "stopped", "agreements", "peak_memory_bytes"),
        )
        nothing = dict.fromkeys(("zero_shot", "learned", "linear_probe", "chance", "at_chance"))
        return {
            "format": RESULT_FORMAT,
            "kind": "fit",
            **{name: getattr(self, name) for name in ("method", "command", "settings", *as_they_are)},
            "class_names": list(self.class_names),
            "losses": list(self.losses),
            "metrics": nothing if self.measured is None else self.measured.to_dict(),
            "leaks": self.leaks,
            "skipped": [list(one) for one in self.skipped],
            "seconds": dict(self.seconds),
            **({} if self.compared is None else {"compared": self.compared.to_dict()}),
            "warnings": [one.to_record() for one in self.warnings],
        }


def result_of(
    *,
    request: FitRequest,
    path: str,
    whole: ImageDataset,
    dataset: ImageDataset,
    estimator: ClipClassifier,
    identity: Mapping[str, Any],
    **known: Any,
) -> FitResult:
    """The result of a run.

    Args:
        request: what was asked for.
        path: of the data, as they are found again.
        whole: all of the data.
        dataset: those that were learned from.
        estimator: fitted.
        identity: what makes runs the same.
        known: the other fields.
    """
    backbone = estimator.backbone_
    context, losses = getattr(estimator, "context_", None), getattr(estimator, "losses_", [])
    return FitResult(
        method=estimator.method,
        title=estimator.full_title,
        settings=identity,
        recipe=estimator.parameters.get("recipe"),
        versions=versions(),
        machine=machine(backbone.device),
        backbone={
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.id,
        },
        dataset={
            "name": whole.name,
            "path": display_name(path),
            "hash": whole.hash,
            "sample_hash": dataset.hash,
            "train": len(dataset.train),
            "val": 0 if dataset.val is None else len(dataset.val),
            "test": 0 if dataset.test is None else len(dataset.test),
            "held_out_made": dataset.held_out_made,
            "notes": list(dataset.notes),
        },
        class_names=tuple(estimator.class_names_),
        seed=request.seed,
        shots=request.shots,
        precision=estimator.precision_,
        n_ctx=None if context is None else int(context.shape[-2]),
        epochs=len(losses),
        loss=losses[-1] if losses else None,
        losses=tuple(losses),
        **{name: getattr(estimator, f"{name}_", None) for name in ("text_passes", "stopped", "agreements")},
        peak_memory_bytes=peak_memory(),
        estimator=estimator,
        **known,
    )


def saved_extra(
    request: FitRequest, whole: ImageDataset, dataset: ImageDataset, measured: Measured | None
) -> dict[str, Any]:
    """What goes with the prompt wherever it is sent: what it was learned from, and how well it did."""
    return {
        "learned_from": {
            "dataset": whole.name,
            "hash": whole.hash,
            "images": len(dataset.train),
            "shots": request.shots,
            "seed": request.seed,
            "test_fraction": request.test_fraction,
            "held_out_made": dataset.held_out_made,
        },
        "accuracy": {
            "images": 0 if measured is None else measured.learned.n,
            "zero_shot": None if measured is None else measured.zero_shot.accuracy,
            "learned": None if measured is None else measured.learned.accuracy,
        },
    }
