"""What a recipe costs and what it reaches, on all bundled data sets: recipes are chosen here, on the validation parts.

    python benchmarks/recipe.py --only mixed fleet --shots 1 4 16 --set 'fast: {}' --set 'longer: {epochs: 200}'
    python benchmarks/recipe.py --on val --set 'fast: {}' --set 'longer: {epochs: 200}'
    python benchmarks/recipe.py --on test --set 'fast: {}' --set 'paper: {recipe: paper}' --seeds 1 2 3 [--json FILE]
    python benchmarks/recipe.py --runs results/mini-recipes     # the same from runs of `coopt suite run mini-recipes`

Every candidate is a name and the parameters of `CoOp` that it changes (`n_ctx`, `init`, `recipe` ...; the fields of a
recipe may stand beside them). It is fitted on the few-shot sample of each seed. The cost is counted, not timed: a step is
one text pass, whatever its batch (one that looks at the loss alone, a third). `--json FILE` keeps every fit, and each
candidate's accuracy and text passes over all of them. The hard problems (mixed, fleet) are taken where --only names them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from coopt.runtime import Runtime

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import say
from benchmarks.report import add_json_option, on_screen, report
from coopt import CoOp, Recipe, ZeroShot, load_backbone
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split, extract_features, few_shot
from coopt.data.bundled import BundledDataset, bundled_datasets, hard_datasets
from coopt.errors import SavedFileError
from coopt.evaluation.run_files import read_records
from coopt.evaluation.runs import RunResult
from coopt.training.batches import batch_order
from coopt.training.recipe import RECIPES

RECIPE_FIELDS = {f.name for f in fields(Recipe)} - {"name"}


@dataclass(frozen=True)
class Row:
    """One fit, or one prompt written by hand (then `shots` is 0)."""

    candidate: str
    dataset: str
    shots: int
    seed: int
    accuracy: float
    text_passes: float | int


def parameters_of(text: str) -> tuple[str, dict[str, Any]]:
    """`NAME: {...}` as a name and parameters of `CoOp`."""
    ((name, given),) = yaml.safe_load(text).items()
    recipe = {key: given.pop(key) for key in list(given) if key in RECIPE_FIELDS}
    if recipe:
        given["recipe"] = {"name": given.get("recipe", "fast"), **recipe}
    return str(name), given


def rows_of_runs(folder: Path) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """The runs of a suite of few-shot learning on the test parts, and what each candidate changes of `CoOp`'s parameters."""
    rows, parameters = [], {}
    usual = {**CoOp().parameters, "recipe": RECIPES["fast"].to_dict()}
    for record in read_records(folder):
        if isinstance(record, SavedFileError):
            raise record
        run = record.result
        passes: float | int = 1
        if run.seed is not None:
            recipe = Recipe.of(run.setting.parameters["recipe"])
            passes = run.text_passes or _passes(run, recipe)
            changed = {key: value for key, value in run.setting.parameters.items() if value != usual[key]}
            named = {"recipe": recipe.name} if recipe == RECIPES.get(recipe.name) else {}
            parameters[run.method] = {**changed, **(named if "recipe" in changed else {})}
        rows.append(Row(run.method, run.dataset, run.shots, run.seed or 0, run.accuracy, passes))
    return rows, parameters


def _passes(run: RunResult, recipe: Recipe) -> int:
    """Text passes of a run from before they were noted, when all was over after the epochs."""
    assert run.seed is not None
    return recipe.epochs_for(run.shots, run.n_train) * len(batch_order(run.n_train, 0, recipe, run.seed))


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

    def row(
        self, name: str, parameters: dict[str, Any], shots: int, seed: int, method: Callable[..., CoOp] = CoOp
    ) -> Row:
        """One fit."""
        sample = few_shot(self.dataset, shots, seed).train
        names = list(self.dataset.class_names)
        model = method(self.backbone, seed=seed, class_names=names, runtime=Runtime(cache=self.cache), **parameters)
        model.fit(list(sample.paths), list(sample.labels))
        accuracy = 100 * model.score(self.features, self.labels)
        measured = Row(name, self.described.name, shots, seed, accuracy, model.text_passes_)
        say(f"{name}, {measured.dataset}, {shots} shots, seed {seed}: {measured.accuracy:.1f}")
        return measured


def summary(rows: Sequence[Row], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each candidate over data sets: accuracy with its deviation over seeds, by shots and in all, and text passes.

    Args:
        rows: of all candidates and prompts written by hand.
        parameters: of the candidates; None for a prompt.
    """
    summaries = []
    for name in dict.fromkeys(row.candidate for row in rows):
        mine = [row for row in rows if row.candidate == name]
        passes = [row.text_passes for row in mine]
        by_shots = {str(k): _over_seeds([row for row in mine if row.shots == k]) for k in _shots(mine)}
        fitted = {"by_shots": by_shots, "text_passes": {"total": sum(passes), "mean": float(np.mean(passes))}}
        one = {"name": name, "parameters": parameters.get(name), "accuracy": _over_seeds(mine)}
        summaries.append({**one, **(fitted if by_shots else {})})
    return summaries


def _shots(rows: Sequence[Row]) -> list[int]:
    return sorted({row.shots for row in rows if row.shots})


def _over_seeds(rows: Sequence[Row]) -> dict[str, float]:
    """Mean and standard deviation, over seeds, of the mean over all else."""
    means = [np.mean([row.accuracy for row in rows if row.seed == seed]) for seed in sorted({row.seed for row in rows})]
    return {"mean": float(np.mean(means)), "std": float(np.std(means))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=("val", "test"), default="val", help="the part that is scored")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="YAML", help="a candidate")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[], metavar="DATASET", choices=names())
    parser.add_argument("--runs", type=Path, metavar="DIR", help="take the runs of a suite, and fit nothing")
    add_json_option(parser)
    arguments = parser.parse_args()
    if bool(arguments.sets) == bool(arguments.runs):
        parser.error("give candidates by --set, or finished runs by --runs")
    if arguments.runs:
        arguments.on = "test"
        rows, candidates = rows_of_runs(arguments.runs)
    else:
        candidates = dict(parameters_of(text) for text in arguments.sets)
        rows = list(fits(candidates, arguments))
    result = {
        "on": arguments.on,
        "shots": _shots(rows),
        "seeds": sorted({row.seed for row in rows if row.shots}),
        "data_sets": len({row.dataset for row in rows}),
        "candidates": summary(rows, candidates),
        "rows": [asdict(row) for row in rows],
    }
    report(result, on_screen(sections.recipe(result)), arguments)


def names() -> list[str]:
    """Of all bundled data sets."""
    return [one.name for one in (*bundled_datasets(), *hard_datasets())]


def fits(candidates: Mapping[str, dict[str, Any]], arguments: argparse.Namespace) -> Iterator[Row]:
    """Every candidate on every data set, after the prompts written by hand."""
    backbone, cache = load_backbone("bundled"), FeatureCache()
    every = {one.name: one for one in (*bundled_datasets(), *hard_datasets())}
    for described in [every[name] for name in arguments.only] or bundled_datasets():
        task = Task(described, backbone, cache, arguments.on)
        yield from task.hand_made()
        for name, parameters in candidates.items():
            for shots in arguments.shots:
                yield from (task.row(name, parameters, shots, seed) for seed in arguments.seeds)


if __name__ == "__main__":
    torch.set_num_threads(1)  # steps are small here, and threads would only wait for each other
    main()
