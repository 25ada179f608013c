"""Jobs on data that a test has made, with a backbone that it has at hand."""

from __future__ import annotations

from typing import Any

from coopt.backbones import Backbone
from coopt.data import FeatureCache
from coopt.evaluation.execution import Resources, execute
from coopt.evaluation.job import DatasetReference, Job
from coopt.evaluation.protocols import Problem, Sampling
from coopt.evaluation.runs import RunResult


def job_of(
    method: str,
    estimator: str,
    parameters: dict[str, Any] | None = None,
    shots: int = 0,
    seed: int | None = None,
    sampling: Sampling = "few-shot",
    protocol: Any = "few-shot",
    words: int = 0,
) -> Job:
    """A job whose data `at_hand` knows."""
    dataset = DatasetReference("colours", "colours")
    return Job(
        protocol,
        method,
        estimator,
        parameters or {},
        sampling,
        "small",
        "small",
        dataset,
        "own",
        (),
        shots,
        seed,
        words,
    )


def at_hand(problem: Problem, backbone: Backbone, cache: bool | FeatureCache = True) -> Resources:
    """Resources of one problem and one backbone, whatever the job says."""
    return Resources(cache=cache, load=lambda name: backbone, read=lambda job: problem)


def result_of(job: Job, problem: Problem, backbone: Backbone) -> RunResult:
    """What comes of a job."""
    return execute(job, at_hand(problem, backbone)).result
