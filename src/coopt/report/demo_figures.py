"""The figures of the demonstration: accuracy against shots, and test pictures with predictions before and after learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coopt.data.bundled import BundledDataset
from coopt.methods.coop import CoOp
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.context import DEFAULT_INIT
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.report.examples import Example, ExampleRow, examples_figure, first_of_each_class
from coopt.report.figures import save_figure
from coopt.report.plots import accuracy_figure
from coopt.suites.tables import CurvePoint

PICTURES = 8
"""In a row of the figure with examples."""
ROWS = 6
"""Data sets in the figure with examples, at most."""


def figure_note(n_seeds: int, recipe: str, n_ctx: Sequence[int]) -> str:
    """What the numbers in the figure are.

    Args:
        n_seeds: how many seeds they are of.
        recipe: its name.
        n_ctx: lengths of contexts that begin at random; none: the context begins as words.
    """
    seeds = "one seed" if n_seeds == 1 else f"mean and standard deviation of {n_seeds} seeds"
    return f"accuracy on the test pictures, {seeds} · bundled model · recipe {recipe} · {_context(n_ctx)}"


def _context(n_ctx: Sequence[int]) -> str:
    if not n_ctx:
        return f'the context begins as "{DEFAULT_INIT}"'
    if tuple(n_ctx) == (1,):
        return "1 context vector that begins at random"
    return f"{' and '.join(map(str, n_ctx))} context vectors that begin at random"


def write_figures(
    out: Path,
    note: str,
    datasets: Sequence[BundledDataset],
    points: Sequence[CurvePoint],
    learned: Callable[[BundledDataset], CoOp],
) -> list[Path]:
    """Accuracy against shots, and test pictures with predictions; returns the files."""
    described = {one.name: one.description for one in datasets if one.description != one.name}
    written = save_figure(accuracy_figure(points, described, note), out / "accuracy")
    rows = [_example_row(dataset, learned(dataset)) for dataset in datasets[:ROWS]]
    heading = "The first test picture of each class, with its class and what the naive and the learned prompt say."
    return written + save_figure(examples_figure(rows, heading), out / "examples", ("png",))


def _example_row(dataset: BundledDataset, learned: CoOp) -> ExampleRow:
    test = dataset.load().test
    assert test is not None
    chosen = test.take(first_of_each_class(test.labels, PICTURES))
    naive = ZeroShot(learned.backbone_, templates=DEFAULT_TEMPLATE, runtime=learned.runtime).fit_classes(
        dataset.class_names
    )
    features = learned.image_features(list(chosen.paths)).features[0]
    said = zip(chosen.paths, chosen.labels, naive.predict(features), learned.predict(features), strict=True)
    examples = tuple(Example(path, label, str(before), str(after)) for path, label, before, after in said)
    return ExampleRow(dataset_title(dataset), examples)


def dataset_title(dataset: BundledDataset) -> str:
    """What a table or a row of pictures of a data set is headed by."""
    same = dataset.description in (dataset.name, dataset.name.replace("-", " "))
    return dataset.name if same else f"{dataset.name}: {dataset.description}"
