"""`coopt.ImageFeatures` in pipelines of scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import coopt
from coopt.backbones import Backbone
from coopt.data import extract_features
from coopt.errors import BadImagesError

from .conftest import save_picture


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [save_picture(tmp_path / f"{i}.png", i) for i in range(8)]


def made(backbone: Backbone, tmp_path: Path, **given: object) -> coopt.ImageFeatures:
    return coopt.ImageFeatures(backbone, runtime=coopt.Runtime(cache=coopt.FeatureCache(tmp_path / "cache")), **given)  # type: ignore[arg-type]


def test_rows_are_the_features_of_the_images(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    expected = extract_features(backbone, images).features[0].numpy()
    features = made(backbone, tmp_path, normalised=False).fit_transform(images)
    assert features.dtype == np.float32 and np.array_equal(features, expected)
    unit = made(backbone, tmp_path).transform(images)  # without a fit: there is nothing to learn
    assert unit == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-6)
    names = made(backbone, tmp_path).fit(images).get_feature_names_out()
    assert names[0] == "clip0" and len(names) == expected.shape[1]
    with pytest.raises(NotFittedError):
        made(backbone, tmp_path).get_feature_names_out()


def test_any_model_stands_on_them(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    labels = ["a", "b"] * 4
    pipeline = make_pipeline(made(backbone, tmp_path), LogisticRegression())
    by_hand = LogisticRegression().fit(made(backbone, tmp_path).transform(images), labels)
    predicted = pipeline.fit(images, labels).predict(images)
    assert list(predicted) == list(by_hand.predict(made(backbone, tmp_path).transform(images)))
    search = GridSearchCV(pipeline, {"imagefeatures__normalised": [True, False]}, cv=2).fit(images, labels)
    assert set(search.best_params_) == {"imagefeatures__normalised"}
    assert clone(pipeline[0]).get_params()["normalised"] is True
    assert list(pickle.loads(pickle.dumps(pipeline)).predict(images)) == list(predicted)


def test_a_bad_image_is_named(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    images[3].write_bytes(b"junk")
    with pytest.raises(BadImagesError, match=r"3\.png"):
        made(backbone, tmp_path).transform(images)
