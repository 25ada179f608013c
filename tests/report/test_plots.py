"""Figures: what is drawn is what the summaries say, and the files are whole."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from coopt.errors import SavedFileError
from coopt.evaluation.metrics import Summary
from coopt.report.examples import Example, ExampleRow, examples_figure, first_of_each_class
from coopt.report.figures import save_figure
from coopt.report.plots import accuracy_figure, shots_position
from coopt.suites.suite import AVERAGE
from coopt.suites.tables import CurvePoint


def points(datasets: tuple[str, ...] = (AVERAGE, "pets", "cars"), curves: tuple[str, ...] = ("CoOp",)) -> list:
    found = []
    for d, dataset in enumerate(datasets):
        for method, mean in (("naive prompt", 40.0), ("hand-made prompt", 55.0), ("prompt ensemble", 45.0)):
            found.append(CurvePoint(method, dataset, 0, Summary(mean + d, 0.0, 0.0, 1)))
        for c, method in enumerate(("linear probe", *curves)):
            for shots in (1, 4, 16):
                accuracy = Summary(40.0 + 3 * shots**0.5 * (c + 1) + d, 2.0, 2.2, 3)
                found.append(CurvePoint(method, dataset, shots, accuracy))
    return found


def drawn(axes: Axes) -> dict[str, tuple[list[float], list[float], str, str]]:
    """Label to x, y, line style and marker."""
    return {
        str(line.get_label()): (
            [float(x) for x in line.get_xdata()],  # type: ignore[union-attr]
            [float(y) for y in line.get_ydata()],  # type: ignore[union-attr]
            str(line.get_linestyle()),
            str(line.get_marker()),
        )
        for line in axes.get_lines()
    }


def test_draws_the_numbers_in_the_papers_form() -> None:
    figure = accuracy_figure(points(), note="three seeds")
    average, pets, _ = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["mean of 2 data sets", "pets", "cars"]
    lines = drawn(pets)
    x, y, style, marker = lines["CoOp"]
    assert (x, style, marker) == ([1.0, 3.0, 5.0], "-", "o")
    assert y == pytest.approx([41 + 6, 41 + 12, 41 + 24])
    assert lines["linear probe"][2:] == ("--", "x")
    assert lines["hand-made prompt"] == ([0.0], [56.0], "None", "*")
    assert lines["naive prompt"][1] == [41.0, 41.0]
    assert [float(x) for x in average.get_xticks()] == [shots_position(k) for k in (0, 1, 4, 16)] == [0, 1, 3, 5]
    assert [label.get_text() for label in average.get_xticklabels()] == ["0", "1", "4", "16"]
    band = pets.collections[-1].get_paths()[0].vertices  # CoOp's, drawn last
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((47 - 2, 65 + 2))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("naive prompt", "hand-made prompt", "prompt ensemble", "linear probe", "CoOp")
    ]


def test_curves_differ_in_colour_and_marker() -> None:
    names = ("CoOp (M=16)", "CoOp (M=4)", "CoOp (M=16, class-specific)")
    (axes,) = accuracy_figure(points(("pets",), names)).axes
    looks = [(line.get_color(), line.get_marker()) for line in axes.get_lines() if line.get_label() in names]
    assert len(looks) == len({color for color, _ in looks}) == len({marker for _, marker in looks}) == 3


def test_a_flat_panel_looks_flat() -> None:
    flat = [CurvePoint("CoOp", "pets", k, Summary(90 + k / 16, 0.1, 0.1, 3)) for k in (1, 16)]
    (axes,) = accuracy_figure(flat).axes
    low, high = axes.get_ylim()
    assert high - low >= 10 and low < 90 < 91 < high


def test_nothing_is_cut_off() -> None:
    note = "accuracy on the test pictures, mean and standard deviation of 3 seeds · bundled model · recipe fast · M=4"
    for datasets in ((AVERAGE, "a", "b"), ("a",), (AVERAGE, "a"), (AVERAGE, *map(str, range(18)))):
        figure = accuracy_figure(points(datasets, ("CoOp (M=16)", "CoOp (M=4)")), note=note)
        figure.savefig(io.BytesIO(), format="png")  # lays it out
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.y0 > 0 and box.x1 <= figure.bbox.width
        assert " ".join(text.get_text() for text in reversed(figure.texts)) == note
        for text in figure.texts:
            below = text.get_window_extent()
            assert below.x0 >= 0 and below.x1 <= figure.bbox.width and below.y0 >= 0 and below.y1 <= box.y0 + 1
        for axes in figure.axes:
            if axes.axison:
                tight = axes.get_tightbbox()
                assert tight is not None and tight.y0 >= box.y1 - 2 and tight.x0 >= -1 and tight.x1 <= figure.bbox.width


def test_files_are_whole_and_always_the_same(tmp_path: Path) -> None:
    png, svg = save_figure(accuracy_figure(points()), tmp_path / "new" / "accuracy")
    with Image.open(png) as image:
        image.load()
        assert image.width == round(3 * 2.75 * 160) and len(image.convert("L").getcolors() or ()) > 50
    assert svg.read_text().startswith("<?xml") and "</svg>" in svg.read_text()
    before = png.read_bytes(), svg.read_bytes()
    save_figure(accuracy_figure(points()), tmp_path / "new" / "accuracy")
    assert (png.read_bytes(), svg.read_bytes()) == before


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedFileError, match="Cannot write"):
        save_figure(accuracy_figure(points()), tmp_path / "file" / "accuracy")


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    save_figure(accuracy_figure(points()), tmp_path / "accuracy")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_examples_show_pictures_classes_and_predictions(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "red.png")
    row = ExampleRow(
        "walls: colour",
        (
            Example(tmp_path / "red.png", "red", before="blue", after="red"),
            Example(tmp_path / "red.png", "a name that is much too long to stand there", before="red", after="blue"),
        ),
    )
    figure = examples_figure([row], "heading")
    texts = [text.get_text() for text in figure.texts]
    assert texts[:5] == ["heading", "walls: colour", "class", "naive", "learned"]
    assert texts[5:] == ["red", "✗ blue", "✓ red", "a name that is much…", "✗ red", "✗ blue"]
    assert [axes.images[0].get_array().shape for axes in figure.axes] == [(8, 8, 3)] * 2  # type: ignore[union-attr]
    (png,) = save_figure(figure, tmp_path / "examples", ("png",))
    with Image.open(png) as image:
        assert image.convert("RGB").getcolors(10**6) and (200, 0, 0) in {
            c for _, c in image.convert("RGB").getcolors(10**6)
        }  # type: ignore[union-attr]


def test_examples_are_the_first_of_each_class() -> None:
    assert first_of_each_class(["a", "a", "b", "a", "c"], 2) == [0, 2]
    assert first_of_each_class(["a", "b"], 8) == [0, 1]
