"""The line of the demonstration that is about a hard problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coopt.data.bundled import find_bundled
from coopt.evaluation.job import Job
from coopt.evaluation.store import Store
from coopt.wording import counted


@dataclass(frozen=True)
class HardResult:
    """What came of the hard problem.

    Attributes:
        dataset: its name.
        classes: how many it has.
        naive, learned: accuracies of these prompts on its test part, in percent.
        shots: labelled images per class that were learned from.
    """

    dataset: str
    classes: int
    naive: float
    learned: float
    shots: int

    def __str__(self) -> str:
        return (
            f"{self.dataset}, the hard one of {self.classes} classes: naive {self.naive:.1f}, learned from "
            f"{counted(self.shots, 'image')} per class {self.learned:.1f}"
        )


def hard_result(jobs: Sequence[Job], store: Store) -> HardResult:
    """What came of `coopt.suites.demo.hard_suite`: its jobs are those of the naive and of the learned prompt."""
    naive, learned = (store.read(job.name).result for job in jobs)
    classes = len(find_bundled(learned.dataset).class_names)
    return HardResult(learned.dataset, classes, naive.accuracy, learned.accuracy, learned.shots)
