"""What only CoCoOp does; whole recorded trainings are in tests/test_parity.py."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import coopt
from benchmarks.golden import pixels
from coopt.backbones import Backbone
from coopt.errors import ParameterError, SavedFileError
from coopt.methods import cocoop
from coopt.methods.cocoop import CoCoOp, image_contexts, initial_meta_net
from coopt.methods.coop import CoOp
from coopt.methods.reference_checkpoint import load_reference_checkpoint
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from tests.checkpoints import GOLDEN, recorded_cocoop, save_checkpoint
from tests.methods.conftest import NAMES
from tests.models import small_open_clip

FEW = {"lr": 0.02, "epochs": 25}


@pytest.fixture(scope="module")
def fitted(backbone: Backbone, features: Any, labels: Any) -> CoCoOp:
    model = CoCoOp(backbone, recipe=FEW, runtime=Runtime(cache=False)).fit(features, labels)
    assert isinstance(model, CoCoOp)
    return model


def with_state(backbone: Backbone, state: dict[str, Tensor], **parameters: Any) -> CoCoOp:
    """A fitted CoCoOp with this context and meta-net."""
    model = CoCoOp(backbone, init=None, **parameters)
    model._set_classes(backbone, NAMES, named=True)
    model.check_parameters()
    model._set_state(state)
    return model


def random_state(backbone: Backbone, n_ctx: int = 3) -> dict[str, Tensor]:
    context = 0.1 * torch.randn(n_ctx, backbone.text.width, generator=torch.Generator().manual_seed(4))
    return {"context": context, **initial_meta_net(backbone, 7)}


def slow_loss(backbone: Backbone, state: dict[str, Tensor], features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss and the logits by the book: one image at a time, every prompt at full length."""
    weight_1, bias_1, weight_2, bias_2 = (
        state[f"meta_net.{name}"] for name in ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    )
    encode = TextEncoder(backbone, context_prompts(backbone, NAMES, len(state["context"])), path="reference")
    rows = []
    for feature in features:
        image = feature / feature.norm()
        shift = weight_2 @ (weight_1 @ image + bias_1).clamp(min=0) + bias_2
        text = encode(state["context"] + shift)
        rows.append(backbone.logit_scale * (text / text.norm(dim=1, keepdim=True)) @ image)
    logits = torch.stack(rows)
    return F.cross_entropy(logits, targets), logits


@pytest.mark.parametrize("path", ["fast", "reference"])
@pytest.mark.parametrize("memory", [1, 1 << 30], ids=["chunks", "whole"])
def test_loss_and_gradients_are_those_of_the_definition(
    path: str, memory: int, backbone: Backbone, features: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, targets = torch.from_numpy(features[:5]), torch.tensor([0, 3, 1, 2, 1])
    model = with_state(backbone, random_state(backbone), runtime=Runtime(text_path=path))
    monkeypatch.setattr("coopt.text.encode.automatic_memory", lambda device: memory)

    leaves, theirs = ({k: v.clone().requires_grad_() for k, v in random_state(backbone).items()} for _ in range(2))
    loss = model._objective(leaves).loss_of(x, targets)
    (3 * loss).backward()
    monkeypatch.undo()
    expected, logits = slow_loss(backbone, theirs, x, targets)
    (3 * expected).backward()
    assert torch.allclose(loss, expected, rtol=1e-5)
    for name, leaf in leaves.items():
        wanted = theirs[name].grad
        assert leaf.grad is not None and wanted is not None
        assert (leaf.grad - wanted).norm() < 1e-4 * wanted.norm(), name
    assert np.allclose(model.logits(x), logits.detach().numpy(), atol=1e-3)


def test_an_images_logits_depend_on_nothing_but_the_image(fitted: CoCoOp, features: Any) -> None:
    together = fitted.logits(features)
    alone = np.concatenate([fitted.logits(row[None]) for row in features])
    shuffled = fitted.logits(features[::-1].copy())[::-1]
    assert np.allclose(together, alone, atol=1e-3) and np.allclose(together, shuffled, atol=1e-3)


def test_chunks_of_images_change_nothing(fitted: CoCoOp, features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted.logits(features)
    monkeypatch.setattr(TextEncoder, "groups_at_once", 5)  # 24 images: four chunks of five and one of four
    seen: list[int] = []
    call = TextEncoder.__call__
    monkeypatch.setattr(TextEncoder, "__call__", lambda self, context: seen.append(len(context)) or call(self, context))
    assert np.allclose(fitted.logits(features), whole, atol=1e-3)
    assert seen == [5, 5, 5, 5, 4]


def test_class_features_depend_on_the_image(backbone: Backbone, fitted: CoCoOp, features: Any) -> None:
    x = F.normalize(torch.from_numpy(features), dim=1)
    contexts = image_contexts(fitted._state(), x)
    shift = contexts - fitted.context_
    assert shift.std(dim=0).max() > 1e-3
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)  # the same for all vectors of an image
    fixed = with_state(backbone, {**fitted._state(), "meta_net.linear2.weight": torch.zeros(backbone.text.width, 3)})
    assert not np.allclose(fixed.logits(features), fitted.logits(features), atol=0.1)


def test_a_zero_meta_net_is_coop(backbone: Backbone, features: Any) -> None:
    state = {name: torch.zeros_like(t) if "linear2" in name else t for name, t in random_state(backbone).items()}
    ours = with_state(backbone, state)
    coop = CoOp(backbone, n_ctx=3)
    coop._set_classes(backbone, NAMES, named=True)
    coop._set_state({"context": state["context"]})
    assert np.allclose(ours.logits(features), coop.logits(features), atol=1e-3)
    assert ours.nearest_words(3) == coop.nearest_words(3)


def test_the_meta_net_begins_as_torchs_linear_layers(backbone: Backbone) -> None:
    drawn = initial_meta_net(backbone, 1)
    assert {name: tuple(t.shape) for name, t in drawn.items()} == {
        "meta_net.linear1.weight": (3, 48),
        "meta_net.linear1.bias": (3,),
        "meta_net.linear2.weight": (128, 3),
        "meta_net.linear2.bias": (128,),
    }
    for name, bound in (("linear1", 48**-0.5), ("linear2", 3**-0.5)):
        weight = drawn[f"meta_net.{name}.weight"]
        assert 0.9 * bound < weight.abs().max() <= bound and abs(float(weight.mean())) < 0.1 * bound
    again, other = initial_meta_net(backbone, 1), initial_meta_net(backbone, 2)
    assert all(torch.equal(again[name], t) and not torch.equal(other[name], t) for name, t in drawn.items())


def test_learning_lowers_the_loss_and_moves_all_tensors(backbone: Backbone, fitted: CoCoOp) -> None:
    assert fitted.losses_[-1] < 0.5 * fitted.losses_[0]
    start = {"context": fitted.initial()["context"], **initial_meta_net(backbone, 1)}
    assert all((tensor - start[name]).abs().max() > 1e-3 for name, tensor in fitted._state().items())


def test_recipes_mean_cocoops(backbone: Backbone, features: Any, labels: Any) -> None:
    paper = CoCoOp(backbone, recipe="paper")
    paper.check_parameters()
    assert (paper.recipe_.batch_size, paper.recipe_.epochs, paper.recipe_.optimizer) == (1, 10, "sgd")
    changed = CoCoOp(backbone, recipe={"name": "paper", "epochs": 1}).fit(features, labels)
    assert isinstance(changed, CoCoOp) and changed.recipe_.batch_size == 1
    assert changed.parameters["recipe"]["epochs"] == 1
    assert CoCoOp(backbone, recipe={"lr": 0.1}).parameters["recipe"]["batch_size"] == CoCoOp.recipes["fast"].batch_size
    assert CoOp(backbone).parameters["recipe"]["batch_size"] == 4096


def test_a_fitted_one_is_pickled(fitted: CoCoOp, features: Any) -> None:
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).logits(features), fitted.logits(features))


def test_new_classes(backbone: Backbone, fitted: CoCoOp, features: Any) -> None:
    before = fitted.logits(features)
    other = fitted.with_classes(["violin", "cat", "grand piano"])
    assert other.logits(features).shape == (24, 3) and other.predict(features[:1])[0] in other.class_names_
    old = fitted.class_names_.index("cat")
    assert np.allclose(other.logits(features)[:, 1], before[:, old], atol=1e-3)
    assert (fitted.logits(features) == before).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta_net.linear1.weight", r"'meta_net.linear1.weight' has shape \(2, 48\); expected \(3, 48\) for golden"),
        ("context", r"'context' has shape \(4, 128, 1\); expected \(4, 128\)"),
    ],
)
def test_tensors_of_another_shape_are_refused(name: str, message: str, fitted: CoCoOp) -> None:
    state = fitted._state()
    state[name] = state[name][:2] if name != "context" else state[name][..., None]
    with pytest.raises(SavedFileError, match=message):
        fitted._check_state(state)


def test_reference_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    """The recorded end of a training, as a checkpoint, answers as the recorded run did."""
    case = json.loads((GOLDEN / "cocoop_m4.json").read_text())
    expected = np.load(GOLDEN / "cocoop_m4.npz")["logits_after"]
    images = pixels(case["data_seed"], case["n_images"], 32)
    folder = save_checkpoint(tmp_path / "whole", recorded_cocoop())
    model = coopt.load(folder, backbone=backbone, class_names=case["classnames"])
    assert isinstance(model, CoCoOp) and model.recipe_.batch_size == 1
    assert np.allclose(model.logits(images), expected, atol=2e-3, rtol=1e-4)
    again = coopt.load(model.save(tmp_path / "saved"), backbone=backbone)
    assert np.array_equal(again.logits(images), model.logits(images))
    half = save_checkpoint(tmp_path / "half", {name: tensor.half() for name, tensor in recorded_cocoop().items()})
    rounded = coopt.load(half, backbone=backbone, class_names=case["classnames"])
    assert isinstance(rounded, CoCoOp) and rounded.context_.dtype is torch.float32
    assert np.allclose(rounded.logits(images), expected, atol=0.1)


def test_reference_checkpoints_that_do_not_fit_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path, recorded_cocoop())
    with pytest.raises(ParameterError, match="class names stand at the end. Leave out position='middle'"):
        load_reference_checkpoint(checkpoint, backbone, NAMES, position="middle")
    with pytest.raises(SavedFileError, match=r"does not fit test:CLIP with 4 classes.*\(4, 128\); expected \(4, 64\)"):
        coopt.load(checkpoint, backbone=small_open_clip(), class_names=NAMES)
    part = {name: tensor for name, tensor in recorded_cocoop().items() if name != "meta_net.linear1.weight"}
    with pytest.raises(SavedFileError, match="is damaged: its meta-net lacks the tensor 'meta_net.linear1.weight'"):
        coopt.load(save_checkpoint(tmp_path, part), backbone=backbone, class_names=NAMES)
    with pytest.raises(SavedFileError, match="expected a tensor 'ctx' of two or three dimensions"):
        coopt.load(save_checkpoint(tmp_path, {"ctx": torch.zeros(4)}), backbone=backbone, class_names=NAMES)


def test_the_reduction_never_leaves_nothing(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cocoop, "REDUCTION", 1000)
    assert initial_meta_net(backbone, 1)["meta_net.linear1.weight"].shape == (1, 48)
