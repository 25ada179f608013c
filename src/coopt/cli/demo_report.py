"""What `coopt demo` says and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coopt.cli.output import Output, percent
from coopt.data.bundled import BundledDataset
from coopt.evaluation.metrics import Summary
from coopt.methods.coop import CoOp
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.prompts.words import NearestWord
from coopt.report.examples import Example, ExampleRow, examples_figure, first_of_each_class
from coopt.report.figures import save_figure
from coopt.report.plots import accuracy_figure
from coopt.suites.suite import AVERAGE
from coopt.suites.tables import CurvePoint, Table
from coopt.wording import counted

PICTURES = 8
"""In a row of the figure with examples."""
ROWS = 6
"""Data sets in the figure with examples, at most."""
WORDS_SHOWN = 4
"""Context vectors whose nearest words are printed; `coopt words` shows all."""


def say_table(output: Output, datasets: Sequence[BundledDataset], table: Table) -> None:
    """Accuracy by data set, method and shots; the average first."""
    headers = ["Accuracy on test pictures, %", *table.columns]
    titles = {AVERAGE: f"mean of {len(datasets)} data sets"} | {one.name: _title(one) for one in datasets}
    rows: list[list[str]] = []
    for section in table.sections:
        rows += [[]] * bool(rows) + [[titles[section.at.get("dataset", section.title)]]]
        for row in section.rows:
            rows.append([f"  {row.method}", *("" if cell.ours is None else _cell(cell.ours) for cell in row.cells)])
    width = len(headers)
    output.say()
    output.table(headers, [row + [""] * (width - len(row)) for row in rows], right=range(1, width))


def _cell(ours: Summary) -> str:
    return percent(ours.mean) if ours.n == 1 else f"{percent(ours.mean)} ±{percent(ours.std):>4}"


def say_words(
    output: Output, dataset: BundledDataset, words: Sequence[Sequence[NearestWord]], scale: dict[str, float]
) -> None:
    """The words nearest to the learned vectors, and how little that says."""
    output.say()
    rows = [
        [f"{i + 1}", ", ".join(f"{word.word} ({word.distance:.2f})" for word in near)]
        for i, near in enumerate(words[:WORDS_SHOWN])
    ]
    more = f", {WORDS_SHOWN} of {counted(len(words), 'vector')}" if len(words) > WORDS_SHOWN else ""
    output.table([f"Prompt for {dataset.name}{more}", "nearest words (distance)"], rows)
    mean = sum(near[0].distance for near in words) / len(words)
    reads = (
        "farther than random ones, so do not read them as words"
        if mean >= scale["random_to_word"]
        else "nearer than random ones; even so, they seldom mean the words they are near"
    )
    output.say(
        f"For scale: words are {scale['word_to_word']:.2f} from the next word, random vectors "
        f"{scale['random_to_word']:.2f}, and the learned ones {mean:.2f} on average: {reads}."
    )


def say_next(output: Output, out: Path, dataset: BundledDataset, figures: Sequence[Path], seconds: float) -> None:
    """Where things lie, and what to type next."""
    output.say()
    output.say(f"Done in {counted(round(seconds), 'second')}. In '{out}':")
    said = {
        "accuracy.png": "accuracy against shots",
        "accuracy.svg": "the same for print",
        "examples.png": "test pictures with predictions before and after learning",
    }
    lines = [(path.name, said[path.name]) for path in figures]
    lines += [
        ("prompt", f"the prompt learned for {dataset.name}"),
        ("results.json", "all numbers and how to redo them"),
    ]
    for name, what in lines:
        output.say(f"  {name:13} {what}")
    output.say()
    output.say("Now on your own images, a folder with one sub-folder per class:")
    output.command("coopt fit path/to/folder --out my-prompt")
    output.command("coopt predict my-prompt path/to/new/images")


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
    return ExampleRow(_title(dataset), examples)


def _title(dataset: BundledDataset) -> str:
    same = dataset.description in (dataset.name, dataset.name.replace("-", " "))
    return dataset.name if same else f"{dataset.name}: {dataset.description}"
