"""What only the linear probe does; its search is held against recorded numbers in tests/test_parity.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.linear_probe import LinearProbe, search_c
from tests.methods.conftest import NAMES


@pytest.mark.parametrize("n_classes", [2, 4])
def test_it_is_scikit_learns_logistic_regression(n_classes: int, backbone: Any, features: Any, labels: Any) -> None:
    chosen = np.isin(labels, NAMES[:n_classes])
    x, y = features[chosen], labels[chosen]
    theirs = LogisticRegression(C=0.3, max_iter=1000).fit(x, y)
    ours = LinearProbe(backbone, C=0.3).fit(x, y)
    assert np.allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-5)


def test_c_is_chosen_on_validation_images(backbone: Backbone, features: Any, labels: Any) -> None:
    model = LinearProbe(backbone).fit(features[:12], labels[:12], features[12:], labels[12:])
    numbers = np.array([sorted(NAMES).index(label) for label in labels])
    assert search_c(features[:12], numbers[:12], features[12:], numbers[12:]) == model.C_


def test_without_validation_c_is_cross_validated(backbone: Backbone, features: Any, labels: Any) -> None:
    assert LinearProbe(backbone).fit(features, labels).C_ != 1.0
    assert LinearProbe(backbone).fit(features[:5], labels[:5]).C_ == 1.0  # a class has one image


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="A fitted LinearProbe belongs to its classes"):
        LinearProbe(backbone, C=1.0).fit(features, labels).with_classes(["cat", "dog"])
