"""scikit-learn's own checks of estimators, on every method.

They give tables of any width with numbers for labels, where a method takes images, or features as wide as its backbone makes
them, of classes that have names. `OnTables` puts the one in the place of the other, and does nothing else; so that everything
that is not about the form of the data is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import coopt
from coopt.errors import DataError
from coopt.runtime import Runtime
from coopt.testing import small_backbone

SIDE = 32


class OnTables:
    """A method behind the form of data that scikit-learn's checks give. Mixed into the method's class."""

    def fit(self, images: Any, labels: Any) -> Any:
        vars(self).pop("n_features_in_", None)
        images, labels = (np.asarray(one) if hasattr(one, "__array__") else one for one in (images, labels))
        wide = self._widened(images)
        if not _are_classes(labels):
            return super().fit(wide, labels)  # type: ignore[misc]
        values, which = np.unique(labels, return_inverse=True)
        super().fit(wide, [f"class {chr(ord('a') + i)}" for i in which])  # type: ignore[misc]
        self.classes_ = values
        if np.ndim(images) == 2:
            self.n_features_in_ = np.shape(images)[1]
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.classifier_tags.poor_score = True  # two epochs on features of a random model
        return tags

    def logits(self, images: Any) -> np.ndarray:
        return super().logits(self._widened(images))  # type: ignore[misc]

    def predict(self, images: Any) -> np.ndarray:
        return super().predict(self._widened(images))  # type: ignore[misc]

    def score(self, images: Any, labels: Any) -> float:
        return float(np.mean(self.predict(images) == labels))

    def _widened(self, table: Any) -> Any:
        """A table of numbers filled up to features, or to pixels; a first column of ones, since no feature is zero."""
        if hasattr(table, "__array__") or (isinstance(table, list) and table and isinstance(table[0], list)):
            table = np.asarray(table)
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind not in "fiu":
            return table
        features = self.capabilities.features_only  # type: ignore[attr-defined]
        if table.shape[1] != getattr(self, "n_features_in_", table.shape[1]):
            raise DataError(
                f"X has {table.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input"
            )
        width = BACKBONE.embed_dim if features else 3 * SIDE * SIDE
        wide = np.zeros((len(table), width), np.float32)
        wide[:, 0] = 1
        wide[:, 1 : 1 + table.shape[1]] = table[:, : width - 1]
        return wide if features else wide.reshape(-1, 3, SIDE, SIDE)


def _are_classes(labels: Any) -> bool:
    """Whether they are one name or whole number for each image."""
    if not isinstance(labels, np.ndarray | list) or np.ndim(labels) != 1:
        return False
    values = np.asarray(labels)
    return values.dtype.kind in "iUO" or (values.dtype.kind == "f" and bool((values == np.round(values)).all()))


BACKBONE = small_backbone()
SHORT = {"epochs": 2, "views": 1}


class CoOp(OnTables, coopt.CoOp): ...


class CoCoOp(OnTables, coopt.CoCoOp): ...


class TextBias(OnTables, coopt.TextBias): ...


class TextTransformation(OnTables, coopt.TextTransformation): ...


class ImageEncoderTuning(OnTables, coopt.ImageEncoderTuning): ...


class TipAdapter(OnTables, coopt.TipAdapter): ...


class GDA(OnTables, coopt.GDA): ...


class LPPlusPlus(OnTables, coopt.LPPlusPlus): ...


class LinearProbe(OnTables, coopt.LinearProbe): ...


class ZeroShot(OnTables, coopt.ZeroShot): ...


# One of each kind: KgCoOp is a CoOp to scikit-learn, ProKeR a GDA, CLAP and TaskRes are learned as the text bias is, methods that
# change both towers as the image encoder is.
ESTIMATORS = [
    CoOp(BACKBONE, n_ctx=1, recipe=SHORT),
    CoCoOp(BACKBONE, n_ctx=1, init=None, recipe=SHORT),
    TextBias(BACKBONE, recipe=SHORT),
    TextTransformation(BACKBONE, recipe=SHORT),
    ImageEncoderTuning(BACKBONE, recipe=SHORT),
    TipAdapter(BACKBONE),
    GDA(BACKBONE),
    LPPlusPlus(BACKBONE, steps=10),
    LinearProbe(BACKBONE, C=1.0),
    ZeroShot(BACKBONE),
]
for one in ESTIMATORS:
    one.set_params(runtime=Runtime(cache=False))

NAMES_OF_ARGUMENTS = "the arguments are called images and labels"
TWO_AND_MORE = "learning takes at least two classes, which is what the message says; one image of each is enough"
EXPECTED = {
    "check_fit_score_takes_y": NAMES_OF_ARGUMENTS,
    "check_n_features_in_after_fitting": f"score(X, y=...): {NAMES_OF_ARGUMENTS}",
    "check_complex_data": "complex labels are refused before complex features, and in words of our own",
    "check_dtype_object": "a table of Python objects is not taken for numbers, even where all are: it is refused",
    "check_estimators_empty_data_messages": "tables without a column are widened here; for a method they are of a wrong width",
    "check_classifiers_regression_target": "continuous labels are refused as what are neither names nor integers",
    "check_supervised_y_2d": "labels in a column are refused, and labels.ravel() recommended, not flattened with a warning",
    "check_fit2d_1sample": TWO_AND_MORE,
    "check_fit2d_predict1d": "one-dimensional floats are refused as pixels of a wrong shape; there is nothing to reshape",
    "check_requires_y_none": "labels that are None are refused in words of our own",
}
"""Checks that fail for every method, and why that is right."""

NO_IMAGES = "hand-made prompts need no images: fit looks at the labels alone"
EXPECTED_OF_ZERO_SHOT = {**EXPECTED, "check_estimators_nan_inf": NO_IMAGES, "check_fit1d": NO_IMAGES}


def expected(estimator: Any) -> dict[str, str]:
    return EXPECTED_OF_ZERO_SHOT if isinstance(estimator, ZeroShot) else EXPECTED


@pytest.mark.filterwarnings(
    "ignore:.*does not inherit from `sklearn.base.BaseEstimator`", "ignore:.*discards the imaginary"
)
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected, xfail_strict=True)
def test_what_scikit_learn_asks_of_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)
