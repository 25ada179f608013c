"""What became of jobs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from coopt.evaluation.run_files import Record

How = Literal["done", "complete", "elsewhere", "failed", "busy"]
"""How a job was seen to; busy: another process of this machine is at it, so it is looked at again."""


@dataclass(frozen=True)
class Settled:
    """What became of one job.

    Attributes:
        name: of the job.
        how: see `How`.
        reason: what went wrong.
        replaced: whether there was a result of another model, other data or other parameters.
        seconds: that it took.
        record: of a job that was done now in this process, with the fitted method.
    """

    name: str
    how: How
    reason: str = ""
    replaced: bool = False
    seconds: float = 0.0
    record: Record | None = field(default=None, compare=False, repr=False)


@dataclass
class Outcome:
    """What became of all jobs that were asked for.

    Attributes:
        done: names of those done now.
        complete: of those that were complete, or that another process completed meanwhile.
        elsewhere: of those that another machine claims.
        failed: name to what went wrong.
        replaced: how many there were already, but with another model, data or parameters.
        seconds: that those done now took, one after the other.
    """

    done: list[str] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    replaced: int = 0
    seconds: float = 0.0

    @property
    def settled(self) -> int:
        """How many jobs there is nothing more to do about."""
        return len(self.done) + len(self.complete) + len(self.elsewhere) + len(self.failed)

    def add(self, settled: Settled) -> None:
        """Notes what became of a job; of a busy one there is nothing to note yet."""
        if settled.how == "failed":
            self.failed[settled.name] = settled.reason
        elif settled.how != "busy":
            getattr(self, settled.how).append(settled.name)
        self.replaced += settled.replaced
        self.seconds += settled.seconds

    def reasons(self) -> list[tuple[str, int]]:
        """What went wrong and how often, in the order in which it was met."""
        return list(Counter(self.failed.values()).items())
