"""A softmax over the classes, or a sigmoid of each with a backbone that was trained with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone, ScoreHead
from coopt.errors import ParameterError
from tests.methods.conftest import NAMES


@pytest.fixture(scope="module")
def siglip(backbone: Backbone) -> Backbone:
    """The small model with a score head as SigLIP has one."""
    other = backbone.with_preprocessing(backbone.preprocessing)
    other.score_head = ScoreHead(scale=12.0, bias=-4.0, link="sigmoid")
    return other


METHODS = [coopt.ZeroShot, coopt.CoOp, coopt.KgCoOp, coopt.CoCoOp, coopt.TextBias]


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.method)
def test_of_a_backbone_that_was_trained_with_a_sigmoid(cls: Any, siglip: Backbone, features: Any, labels: Any) -> None:
    quick = {} if cls is coopt.ZeroShot else {"recipe": {"epochs": 2}}
    model = cls(siglip, **quick).fit(features, labels)
    scores = torch.from_numpy(model.logits(features)).double()
    usual = model.predict_proba(features)
    np.testing.assert_allclose(usual, scores.softmax(dim=1), atol=1e-6)
    np.testing.assert_allclose(usual.sum(axis=1), 1, atol=1e-6)
    each = model.predict_proba(features, kind="sigmoid")
    np.testing.assert_allclose(each, scores.sigmoid(), atol=1e-6)
    without_bias = (scores + 4).sigmoid()
    assert float((torch.from_numpy(each) - without_bias).abs().min()) > 1e-3
    assert (each.argmax(axis=1) == usual.argmax(axis=1)).all()


def test_the_exported_module_gives_the_same(siglip: Backbone, features: Any, labels: Any) -> None:
    model = coopt.ZeroShot(siglip).fit(features, labels)
    scores = torch.from_numpy(model.logits(features))
    for kind in ("softmax", "sigmoid"):
        given = model.classifier(kind).probabilities(scores).numpy()  # type: ignore[arg-type]
        np.testing.assert_allclose(given, model.predict_proba(features, kind), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [coopt.CoOp, coopt.LinearProbe, coopt.TipAdapter], ids=lambda cls: cls.method)
def test_what_has_none_is_refused(cls: Any, backbone: Backbone, siglip: Backbone, features: Any, labels: Any) -> None:
    quick = {"recipe": {"epochs": 1}} if cls is coopt.CoOp else {}
    model = cls(backbone if cls is coopt.CoOp else siglip, **quick).fit(features, labels)
    for call in (lambda: model.predict_proba(features, kind="sigmoid"), lambda: model.classifier("sigmoid")):
        with pytest.raises(ParameterError, match=r"has no probabilities of the kind 'sigmoid'.* Use 'softmax'\."):
            call()
    with pytest.raises(ParameterError, match="must be 'softmax' or 'sigmoid'. Got 'logistic'"):
        model._check_kind("logistic")
    assert model.predict_proba(features).shape == (len(features), len(NAMES))
