"""What a recipe costs and what it reaches, on all bundled data sets: recipes are chosen here, on the validation parts.

    python benchmarks/recipe.py --on val --set 'fast: {}' --set 'longer: {epochs: 200}'
    python benchmarks/recipe.py --on test --set 'fast: {}' --set 'paper: {recipe: paper}' --seeds 1 2 3

Every candidate is a name and the parameters of `CoOp` that it changes (`n_ctx`, `init`, `recipe` ...; the fields of a
recipe may stand beside them). It is fitted on the few-shot sample of each seed. The cost is counted, not timed: a step is
one text pass, whatever its batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from coopt import CoOp, Recipe, ZeroShot, load_backbone
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split, extract_features, few_shot
from coopt.data.bundled import BundledDataset, bundled_datasets
from coopt.training.batches import batch_order

RECIPE_FIELDS = {f.name for f in fields(Recipe)} - {"name"}


@dataclass(frozen=True)
class Row:
    """One fit, or one prompt written by hand (then `shots` is 0)."""

    candidate: str
    dataset: str
    shots: int
    seed: int
    accuracy: float
    text_passes: int


def parameters_of(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME: {...}` as a name and parameters of `CoOp`."""
    ((name, given),) = yaml.safe_load(text).items()
    recipe = {key: given.pop(key) for key in list(given) if key in RECIPE_FIELDS}
    if recipe:
        given["recipe"] = {"name": given.get("recipe", "fast"), **recipe}
    return str(name), given


class Task:
    """One data set, its features computed once where they can be."""

    def __init__(self, described: BundledDataset, backbone: Backbone, cache: FeatureCache, on: str) -> None:
        self.described, self.backbone, self.cache = described, backbone, cache
        self.dataset: ImageDataset = described.load()
        part: Split | None = getattr(self.dataset, on)
        assert part is not None
        self.labels = list(part.labels)
        self.features = extract_features(backbone, list(part.paths), cache=cache).features[0]

    def hand_made(self) -> Iterator[Row]:
        """The naive prompt and the data set's own."""
        for name, template in (("naive", "a photo of a {}."), ("hand-made", self.described.template)):
            model = ZeroShot(self.backbone, templates=template).fit_classes(self.dataset.class_names)
            yield Row(name, self.described.name, 0, 0, 100 * model.score(self.features, self.labels), 1)

    def row(self, name: str, parameters: dict[str, Any], shots: int, seed: int) -> Row:
        """One fit."""
        sample = few_shot(self.dataset, shots, seed).train
        names = list(self.dataset.class_names)
        model = CoOp(self.backbone, seed=seed, class_names=names, cache=self.cache, **parameters)
        model.fit(list(sample.paths), list(sample.labels))
        epochs = model.recipe_.epochs_for(shots)
        passes = epochs * len(batch_order(len(sample), 0, model.recipe_, seed))
        return Row(name, self.described.name, shots, seed, 100 * model.score(self.features, self.labels), passes)


def table(rows: Sequence[Row]) -> str:
    """Mean over data sets and, over seeds, mean and standard deviation of that; one line per candidate."""
    shots = sorted({row.shots for row in rows if row.shots})
    lines = [f"{'candidate':24}" + "".join(f"{k:>14}" for k in shots) + f"{'mean':>9}{'text passes':>13}"]
    for name in dict.fromkeys(row.candidate for row in rows):
        mine = [row for row in rows if row.candidate == name]
        if not mine[0].shots:
            lines.append(f"{name:24}{np.mean([row.accuracy for row in mine]):>14.1f}")
            continue
        cells, overall = "", []
        for k in shots:
            seeds = sorted({row.seed for row in mine})
            means = [np.mean([r.accuracy for r in mine if r.shots == k and r.seed == seed]) for seed in seeds]
            overall.append(np.mean(means))
            cells += f"{np.mean(means):>8.1f} ±{np.std(means):4.1f}"
        passes = np.mean([row.text_passes for row in mine])
        lines.append(f"{name:24}{cells}{np.mean(overall):>9.2f}{passes:>13.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=("val", "test"), default="val", help="the part that is scored")
    parser.add_argument("--set", dest="sets", action="append", required=True, metavar="YAML", help="a candidate")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[], metavar="DATASET")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    arguments = parser.parse_args()
    candidates = [parameters_of(text) for text in arguments.sets]
    backbone, cache = load_backbone("bundled"), FeatureCache()
    rows: list[Row] = []
    began = time.monotonic()
    for described in bundled_datasets():
        if arguments.only and described.name not in arguments.only:
            continue
        task = Task(described, backbone, cache, arguments.on)
        rows += task.hand_made()
        for name, parameters in candidates:
            rows += [task.row(name, parameters, k, seed) for k in arguments.shots for seed in arguments.seeds]
        print(f"{described.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"accuracy on {arguments.on} in %, mean over {len({row.dataset for row in rows})} data sets")
    print(table(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)  # steps are small here, and threads would only wait for each other
    main()
