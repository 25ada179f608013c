"""The few-shot protocol: every method on the same samples, at 1, 2, 4, 8 and 16 labelled images per class.

Zhou et al., IJCV 2022, section 4.1 and figure 3: hand-made prompts without any image; the linear probe and CoOp on the
few-shot sample of each seed; accuracy on the whole test part; mean and spread over the seeds.

    contenders = paper_contenders("a photo of a {}, a type of pet.")
    for result in few_shot_runs(dataset, contenders, backbone):
        print(result.method, result.shots, result.seed, result.accuracy)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset
from coopt.errors import ParameterError
from coopt.evaluation.contenders import ENSEMBLED, HAND_MADE, NAIVE, PROBE, Contender, paper_contenders
from coopt.evaluation.metrics import means_over, summarize
from coopt.evaluation.protocols import few_shot_problem
from coopt.evaluation.runs import Bench, RunResult

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (1, 2, 3)
AVERAGE = "average"
"""Stands for the mean over all data sets where a data set's name would stand."""


def few_shot_runs(
    dataset: ImageDataset,
    contenders: Sequence[Contender],
    backbone: Backbone,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    cache: bool | FeatureCache = True,
    done: Iterable[RunResult] = (),
) -> Iterator[RunResult]:
    """Runs the protocol on one data set, giving each result as soon as it is there.

    Test images are encoded once for all methods, and training images once ever when there is a cache.

    Args:
        dataset: with a test part.
        contenders: the methods to compare; see `paper_contenders`.
        backbone: for all of them.
        shots: labelled images per class.
        seeds: of the samples and of learning.
        cache: of image features.
        done: results of an earlier run; those that would come out the same are given as they are.

    Raises:
        DataError: the data set has no test part.
        ParameterError: shots or seeds are out of their range.
    """
    check_grid(shots, seeds)
    known = {result.run: result for result in done}
    bench = Bench(few_shot_problem(dataset), backbone, cache)
    for k, seed, contender in schedule(contenders, shots, seeds):
        run = bench.setting(contender, k, seed).run
        yield known[run] if run in known else bench.run(contender, k, seed)


def count_runs(contenders: Sequence[Contender], shots: Sequence[int] = SHOTS, seeds: Sequence[int] = SEEDS) -> int:
    """How many results `few_shot_runs` gives."""
    return sum(1 for _ in schedule(contenders, shots, seeds))


def schedule(
    contenders: Sequence[Contender], shots: Sequence[int], seeds: Sequence[int]
) -> Iterator[tuple[int, int | None, Contender]]:
    """What needs no image first, then by shots and seeds, so that a stopped run has whole rows."""
    yield from ((0, None, c) for c in contenders if c.sampling == "none")
    yield from ((k, seed, c) for k in shots for seed in seeds for c in contenders if c.sampling != "none")


def check_grid(shots: Sequence[int], seeds: Sequence[int]) -> None:
    """Refuses shots and seeds that make no grid.

    Raises:
        ParameterError: none, a repeated one, or one that is too small or no int.
    """
    for name, values, low in (("shots", shots, 1), ("seeds", seeds, 0)):
        valid = all(isinstance(v, int) and not isinstance(v, bool) and v >= low for v in values)
        if not values or not valid or len(set(values)) != len(values):
            raise ParameterError(
                f"The '{name}' of the few-shot protocol must be different ints >= {low}, at least one. "
                f"Got {tuple(values)!r} instead."
            )


@dataclass(frozen=True)
class FewShotSummary:
    """One method on one data set (or on their average) at one number of shots, over the seeds.

    Attributes:
        method, dataset, shots: as in `RunResult`; `dataset` may be `AVERAGE`.
        mean: accuracy in percent.
        std: its standard deviation over the seeds (divided by n).
        interval: half the width of the 95% interval of the mean.
        n: number of seeds.
    """

    method: str
    dataset: str
    shots: int
    mean: float
    std: float
    interval: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def summarise(results: Iterable[RunResult]) -> list[FewShotSummary]:
    """Mean and spread over seeds, in the order in which data sets and methods come.

    With several data sets `AVERAGE` comes first: each seed's mean over the data sets, then mean and spread over seeds.
    A place of the average that some data set does not have yet is left out.
    """
    cells: dict[tuple[str, str, int], dict[int | None, float]] = defaultdict(dict)
    for result in results:
        cells[result.dataset, result.method, result.shots][result.seed] = result.accuracy
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in cells))
    rows = list(dict.fromkeys((method, shots) for _, method, shots in cells))
    summaries = []
    for method, shots in rows if len(datasets) > 1 else ():
        means = [*means_over([cells.get((dataset, method, shots), {}) for dataset in datasets]).values()]
        if means:
            summaries.append(FewShotSummary(method, AVERAGE, shots, **asdict(summarize(means))))
    for dataset in datasets:
        for method, shots in rows:
            if (dataset, method, shots) in cells:
                values = list(cells[dataset, method, shots].values())
                summaries.append(FewShotSummary(method, dataset, shots, **asdict(summarize(values))))
    return summaries


__all__ = [
    "AVERAGE",
    "ENSEMBLED",
    "HAND_MADE",
    "NAIVE",
    "PROBE",
    "SEEDS",
    "SHOTS",
    "Contender",
    "FewShotSummary",
    "RunResult",
    "check_grid",
    "count_runs",
    "few_shot_runs",
    "paper_contenders",
    "schedule",
    "summarise",
]
