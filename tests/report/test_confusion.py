"""The picture of a confusion matrix: what is drawn, for few and for many classes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from coopt.report.confusion import MOST_CLASSES, confusion_figure


def test_few_classes_have_their_numbers() -> None:
    axes = confusion_figure(np.array([[3, 1], [0, 1200]]), ["cat", "a name of more than twenty-eight $letters"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "a name of more than twenty-…"]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "1200"]
    assert axes.get_title() == "1203 of 1204 images right"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])


def test_names_are_no_formulas() -> None:
    labels = confusion_figure(np.eye(2, dtype=int), ["$x^2$", "b"]).axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == [r"\$x^2\$", "b"]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_names_do_not_overlap(classes: int) -> None:
    figure = confusion_figure(np.eye(classes, dtype=int), [f"the class number {i}" for i in range(classes)])
    FigureCanvasAgg(figure).draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == classes
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert all(box.x0 >= 0 and box.y1 <= figure.bbox.height for box in boxes)


def test_of_many_classes_those_with_mistakes_are_drawn() -> None:
    counts = np.eye(MOST_CLASSES + 50, dtype=int)
    counts[120, 3] = 5
    counts[7, 149] = 2
    axes = confusion_figure(counts, [f"c{i}" for i in range(len(counts))]).axes[0]
    shown = {label.get_text() for label in axes.get_yticklabels()}
    assert len(shown) == MOST_CLASSES and {"c120", "c3", "c7", "c149"} <= shown
    assert axes.get_title() == "150 of 157 images right; the 100 of 150 classes with the most mistakes"
    assert len(axes.texts) == 0
