"""What only the text bias does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError, SavedFileError
from coopt.methods.text_bias import TextBias
from coopt.prompts.templates import template_features
from tests.methods.conftest import NAMES, ONE_STEP

FEW = {"lr": 0.02, "epochs": 25}


def test_nothing_learned_is_zero_shot(backbone: Backbone, features: Any, labels: Any) -> None:
    still = {"epochs": 1, "warmup_lr": 0.0}
    ours = TextBias(backbone, templates=["a {}.", "one {}."], recipe=still).fit(features, labels)
    theirs = coopt.ZeroShot(backbone, templates=["a {}.", "one {}."]).fit(features, labels)
    assert np.allclose(ours.logits(features), theirs.logits(features), atol=1e-4)


@pytest.mark.parametrize("csc", [False, True])
def test_one_step_is_the_gradient_of_the_formula(csc: bool, backbone: Backbone, features: Any, labels: Any) -> None:
    text = template_features(backbone, sorted(NAMES), ["a photo of a {}."])
    images = normalize(torch.from_numpy(features), dim=-1)
    targets = torch.tensor([sorted(NAMES).index(label) for label in labels])
    bias = torch.zeros((4, 48) if csc else 48, requires_grad=True)
    cross_entropy(100 * images @ normalize(text + bias, dim=-1).T, targets).backward()
    assert bias.grad is not None and bias.grad.abs().max() > 0.1

    model = TextBias(backbone, csc=csc, recipe=ONE_STEP).fit(features, labels)
    assert torch.allclose(model.learned_["bias"], -0.1 * bias.grad, atol=1e-5)
    expected = 100 * images @ normalize(text - 0.1 * bias.grad, dim=-1).T
    assert np.allclose(model.logits(features), expected.numpy(), atol=1e-3)


def test_new_classes_for_an_old_bias(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TextBias(backbone, recipe=FEW).fit(features, labels)
    other = model.with_classes(["cat", "violin"])
    cat = model.class_names_.index("cat")
    assert np.allclose(other.logits(features)[:, 0], model.logits(features)[:, cat], atol=1e-4)
    with pytest.raises(ParameterError, match=r"A bias for each class belongs to its classes"):
        TextBias(backbone, csc=True, recipe=FEW).fit(features, labels).with_classes(["cat", "violin"])


def test_a_bias_of_another_shape_is_refused(backbone: Backbone, features: Any, labels: Any, tmp_path: Path) -> None:
    import hashlib

    TextBias(backbone, recipe=FEW).fit(features, labels).save(tmp_path)
    data = save({"bias": torch.zeros(4, 48)})
    (tmp_path / "prompt.safetensors").write_bytes(data)
    description = json.loads((tmp_path / "prompt.json").read_text())
    description["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "prompt.json").write_text(json.dumps(description))
    with pytest.raises(SavedFileError, match=r"The saved tensor 'bias' has shape \(4, 48\); expected \(48,\)"):
        coopt.load(tmp_path, backbone=backbone)


@pytest.mark.usefixtures("unchecked")
def test_wrong_parameters(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="The 'csc' parameter of TextBias must be True or False. Got 1 instead"):
        TextBias(backbone, csc=1).fit(features, labels)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="exactly once"):
        TextBias(backbone, templates="no name").fit(features, labels)
