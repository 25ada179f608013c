"""Is the method that a comparison takes a good one? On the test parts, which the comparison does not see.

    python benchmarks/choose.py --runs FILE [--seeds 4 5] [--shots 4 16]     # as many processes as you like, a file for each
    python benchmarks/choose.py --show FILE... [--json FILE]

On samples of every bundled data set, methods are compared as `coopt compare` compares them, and then each learns from the whole
sample and is measured on the test part. FILE gets a line for every comparison, and a run that was stopped goes on from there.
The rule was made with the samples of seeds 1 to 3 at 4 and 16 shots.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import say
from benchmarks.report import add_json_option, on_screen, report
from coopt.app.comparing import compare_on
from coopt.app.comparison_files import ComparisonFolder
from coopt.app.estimators import estimator_for
from coopt.app.requests import CompareRequest
from coopt.backbones import Backbone, load_backbone
from coopt.data import ImageDataset, few_shot
from coopt.data.bundled import bundled_datasets
from coopt.evaluation import evaluate


def run(dataset: ImageDataset, shots: int, seed: int, backbone: Backbone) -> dict[str, Any]:
    """One comparison, and what each of its methods reaches on the test part."""
    sample = few_shot(dataset, shots, seed)
    request = CompareRequest(Path(dataset.name), shots=shots, seed=seed)
    began = time.monotonic()
    result = compare_on(request, backbone, sample, ComparisonFolder(None, False), "")
    took = time.monotonic() - began
    test = {}
    for line in result.methods:
        estimator = estimator_for(request, line.method, line.parameters, learns=False)
        estimator.set_params(backbone=backbone, class_names=sample.class_names, runtime__cache=True)
        estimator.fit(list(sample.train.paths), list(sample.train.labels))
        assert sample.test is not None
        test[line.title] = evaluate(estimator, list(sample.test.paths), list(sample.test.labels)).accuracy
    return {
        "dataset": dataset.name,
        "shots": shots,
        "seed": seed,
        "seconds": took,
        "one_thing": result.one_thing,
        "hand_made": result.methods[0].title,
        "taken": result.best.title,
        "most_accurate": result.choice.most_accurate.title,
        "held_out": {line.title: line.accuracy for line in result.methods},
        "test": test,
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over data sets and seeds by shots, and where the method taken is furthest below the hand-made prompt."""
    by_shots = {}
    for shots in sorted({one["shots"] for one in runs}):
        mine = [one for one in runs if one["shots"] == shots]
        seeds = sorted({one["seed"] for one in mine})

        def over_seeds(values: Sequence[tuple[int, float]], seeds: Sequence[int] = seeds) -> dict[str, float]:
            means = [float(np.mean([value for seed, value in values if seed == one])) for one in seeds]
            return {"mean": float(np.mean(means)), "std": float(np.std(means))}

        methods = {title: over_seeds([(one["seed"], one["test"][title]) for one in mine]) for title in mine[0]["test"]}
        gains: dict[str, list[float]] = {}
        for one in mine:
            gains.setdefault(one["dataset"], []).append(one["test"][one["taken"]] - one["test"][one["hand_made"]])
        worst = min(gains, key=lambda name: np.mean(gains[name]))
        taken = [one["taken"] for one in mine]
        by_shots[str(shots)] = {
            "methods": methods,
            "taken": over_seeds([(one["seed"], one["test"][one["taken"]]) for one in mine]),
            "most_accurate": over_seeds([(one["seed"], one["test"][one["most_accurate"]]) for one in mine]),
            "best_in_hindsight": over_seeds([(one["seed"], max(one["test"].values())) for one in mine]),
            "worst": {"dataset": worst, "gain": float(np.mean(gains[worst]))},
            "how_often": {title: taken.count(title) for title in sorted(set(taken), key=lambda one: -taken.count(one))},
            "seconds": {
                "mean": float(np.mean([one["seconds"] for one in mine])),
                "max": max(one["seconds"] for one in mine),
            },
        }
    return {
        "data_sets": len({one["dataset"] for one in runs}),
        "seeds": sorted({one["seed"] for one in runs}),
        "by_shots": by_shots,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, help="compare, and add to this file")
    parser.add_argument("--show", type=Path, nargs="+", help="files of runs to show")
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5])
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.runs:
        known = _read([arguments.runs]) if arguments.runs.exists() else []
        done = {(one["dataset"], one["shots"], one["seed"]) for one in known}
        backbone = load_backbone("bundled")
        with arguments.runs.open("a") as file:
            for seed in arguments.seeds:
                for shots in arguments.shots:
                    for described in bundled_datasets():
                        if (described.name, shots, seed) in done:
                            continue
                        one = run(described.load(), shots, seed, backbone)
                        file.write(json.dumps(one) + "\n")
                        file.flush()
                        say(f"{described.name}, {shots} shots, seed {seed}: {one['taken']}, {one['seconds']:.0f} s")
    if arguments.show:
        result = summary(_read(arguments.show))
        report(result, on_screen(sections.choosing(result)), arguments)


def _read(files: Sequence[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main()
