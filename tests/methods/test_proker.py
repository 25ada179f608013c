"""What only ProKeR does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError, ParameterError, SavedFileError
from coopt.methods.feature_adapter import held_out
from coopt.methods.proker import BETAS, RIDGES, ProKeR
from tests.methods.conftest import NAMES
from tests.methods.test_gda import SORTED, numbers, text_of, unit


def table_by_hand(a: np.ndarray, b: np.ndarray, beta: float) -> np.ndarray:
    return np.array([[np.exp(-beta * np.sum((x - y) ** 2)) for y in b] for x in a])


def by_hand(
    x: np.ndarray,
    y: np.ndarray,
    text: np.ndarray,
    others: np.ndarray,
    ridge: float,
    beta: float,
    label_scale: float = 5.0,
    scale: float = 100.0,
) -> np.ndarray:
    """Scores as the paper's equation says, with a plain solution of the linear system."""
    missed = label_scale * np.eye(len(text))[y] - scale * x @ text.T
    solved = np.linalg.solve(table_by_hand(x, x, beta) + ridge * np.eye(len(x)), missed)
    return scale * others @ text.T + table_by_hand(others, x, beta) @ solved


@pytest.mark.parametrize("rows", [range(24), [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 8, 12, 16, 20]])
@pytest.mark.parametrize(("ridge", "beta", "label_scale"), [(0.5, 1.3, 1.0), (3.0, 0.4, 7.0)])
def test_logits_are_those_of_the_formula(
    rows: Any, ridge: float, beta: float, label_scale: float, backbone: Backbone, features: Any, labels: Any
) -> None:
    rows = list(rows)
    model = ProKeR(backbone, ridge=ridge, beta=beta, label_scale=label_scale).fit(features[rows], labels[rows])
    x, y, text = unit(features[rows]), numbers(labels[rows]), text_of(backbone)
    expected = by_hand(x, y, text, unit(features), ridge, beta, label_scale)
    assert np.allclose(model.logits(features), expected, atol=1e-3)
    assert (model.ridge_, model.beta_, model.chosen_) == (ridge, beta, "given")


def test_the_coefficients_minimise_the_objective(backbone: Backbone, features: Any, labels: Any) -> None:
    """sum |scores - L Y|^2 + lambda |g|^2: no slope along any coefficient, by finite differences, and it is convex."""
    x, y, text, ridge, beta = unit(features), numbers(labels), text_of(backbone), 0.7, 0.8
    table, zero_shot, wanted = table_by_hand(x, x, beta), 100 * x @ text.T, 5.0 * np.eye(4)[y]

    def objective(a: np.ndarray) -> float:
        return float(np.sum((zero_shot + table @ a - wanted) ** 2) + ridge * np.sum(a * (table @ a)))

    found = ProKeR(backbone, ridge=ridge, beta=beta).fit(features, labels).coefficients_.double().numpy()
    random = np.random.default_rng(0)
    for _ in range(20):
        along = random.normal(size=found.shape)
        slope = (objective(found + 1e-4 * along) - objective(found - 1e-4 * along)) / 2e-4
        away = abs(objective(found + along) - objective(found))
        assert abs(slope) < 1e-3 * away and away > 1


def test_what_is_held_out_chooses(backbone: Backbone, features: Any, labels: Any) -> None:
    noisy = features + 1.2 * np.random.default_rng(3).normal(size=features.shape).astype(np.float32)
    x, y, text = unit(noisy), numbers(labels), text_of(backbone)
    results = {}
    parts = [part.numpy() for part in held_out(torch.from_numpy(x), torch.from_numpy(y), seed=2)]
    for setting in ((ridge, beta) for ridge in RIDGES for beta in BETAS):
        hits, loss = 0, 0.0
        for out in parts:
            scores = by_hand(x[~out], y[~out], text, x[out], *setting)
            hits += int((scores.argmax(axis=1) == y[out]).sum())
            shifted = scores - scores.max(axis=1, keepdims=True)
            loss += float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(shifted)), y[out]]))
        results[setting] = (-hits, loss)
    best = min(results, key=lambda setting: results[setting])
    assert len({hits for hits, _ in results.values()}) > 2
    model = ProKeR(backbone, seed=2).fit(noisy, labels)
    assert (model.ridge_, model.beta_) == best
    assert model.chosen_ == "by accuracy on training images held out, in 4 parts"
    of_beta = min((setting for setting in results if setting[1] == 1.0), key=lambda setting: results[setting])
    halfway = ProKeR(backbone, seed=2, beta=1.0).fit(noisy, labels)
    assert (halfway.ridge_, halfway.beta_) == of_beta


def test_one_image_of_each_class(backbone: Backbone, features: Any, labels: Any) -> None:
    model = ProKeR(backbone).fit(features[:4], labels[:4])
    assert (model.ridge_, model.beta_) == (1.0, 0.5) and "no class has two images" in model.chosen_
    model.set_params(ridge=2.0).fit(features[:4], labels[:4])
    assert (model.ridge_, model.beta_) == (2.0, 0.5)
    assert np.isfinite(ProKeR(backbone, class_names=NAMES).fit(features[:1], labels[:1]).logits(features)).all()


def test_many_images_are_not_all_tried(
    backbone: Backbone, features: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    trial = ProKeR._trial
    monkeypatch.setattr(ProKeR, "_trial", lambda self, x, y, scores: seen.append(x) or trial(self, x, y, scores))
    monkeypatch.setattr("coopt.methods.proker.SEARCHED", 13)
    model = ProKeR(backbone).fit(features, labels)
    assert len(seen[0]) == 12 and len(model.keys_) == 24  # two whole classes of six
    rows = {tuple(row) for row in seen[0].tolist()}
    ProKeR(backbone, class_names=SORTED[::-1]).fit(features, labels)
    assert {tuple(row) for row in seen[1].tolist()} == rows
    monkeypatch.setattr("coopt.methods.proker.SEARCHED", 2)  # not even one class
    ProKeR(backbone).fit(features, labels)
    assert len(seen[2]) == 6


def test_the_order_of_images_does_not_matter(backbone: Backbone, features: Any, labels: Any) -> None:
    order = np.random.default_rng(0).permutation(24)
    a = ProKeR(backbone).fit(features, labels)
    b = ProKeR(backbone).fit(features[order], labels[order])
    assert (a.ridge_, a.beta_) == (b.ridge_, b.beta_)
    assert np.allclose(b.logits(features), a.logits(features), atol=1e-3)


def test_a_class_without_an_image(backbone: Backbone, features: Any, labels: Any) -> None:
    model = ProKeR(backbone, class_names=[*SORTED, "violin"], ridge=1.0, beta=1.0).fit(features, labels)
    text = text_of(backbone, [*SORTED, "violin"])
    expected = by_hand(unit(features), numbers(labels), text, unit(features), 1.0, 1.0)
    assert np.allclose(model.logits(features), expected, atol=1e-3)


def test_too_many_images_for_the_memory_are_refused(
    backbone: Backbone, features: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopt.methods.proker.free_memory", lambda device: 9000)
    said = r"all 24 images at once, which takes 9\.22KB of memory; 9KB are free\. Learn from fewer images of each class"
    with pytest.raises(DataError, match=said):
        ProKeR(backbone).fit(features, labels)
    monkeypatch.setattr("coopt.methods.proker.free_memory", lambda device: None)  # nobody can tell
    ProKeR(backbone).fit(features, labels)


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="A fitted ProKeR belongs to its classes"):
        ProKeR(backbone).fit(features, labels).with_classes(["cat", "dog"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": torch.zeros(23, 4)}, "coefficients are of 23 images; expected one row for each of 24 keys"),
        ({"coefficients": torch.zeros(24, 5)}, r"'coefficients' has shape \(24, 5\); expected \(any, 4\)"),
        ({"ridge": torch.zeros(1)}, r"'ridge' has shape \(1,\); expected \(\)"),
    ],
)
def test_state_that_does_not_fit_is_refused(
    change: dict, message: str, backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    model = ProKeR(backbone).fit(features, labels)
    state = load_file(model.save(tmp_path) / "prompt.safetensors")
    loaded = coopt.load(tmp_path, backbone)
    assert (loaded.ridge_, loaded.beta_) == (model.ridge_, model.beta_)
    with pytest.raises(SavedFileError, match=message):
        model._check_state({**state, **change})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "value"), [("ridge", 0), ("beta", -1.0), ("label_scale", 0)])
def test_wrong_parameters(name: str, value: Any, backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match=rf"The '{name}' parameter of ProKeR must be .*number > 0.*Got {value}"):
        ProKeR(backbone, **{name: value}).fit(features, labels)
