"""What a method puts into the towers works through fit, prediction, saving and loading, and moves what it should.

The methods here are written as another package would write them: a class, its parameters, sites and where they begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError, SavedFileError
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, Forward
from coopt.methods.learned import LearnedMethod
from coopt.methods.registry import METHODS
from coopt.methods.sites import ImageBlocks, Site, TextBlocks, TextTokens, WeightDelta
from coopt.parameters import parameter
from coopt.prompts.context import initial_context
from coopt.runtime import Runtime
from coopt.training.batches import generator_for
from tests.methods.conftest import NAMES

FEW = {"lr": 0.02, "epochs": 6, "views": 1}


class DeepText(LearnedMethod):
    """Context vectors, and others at the input of the text tower's second block."""

    method: ClassVar[str] = "deep_text"

    n_ctx: int = parameter(default=2, low=1)
    per_class: bool = parameter(default=False)

    def sites(self) -> Sequence[Site]:
        return (TextTokens(), TextBlocks(1, "deep", per_class=self.per_class))

    def initial(self) -> dict[str, Tensor]:
        context = initial_context(self.backbone_, self.class_names_, self.n_ctx, False, None, self.seed)
        shape = (len(self.class_names_),) * self.per_class + tuple(context.shape)
        return {"context": context, "deep": 0.02 * torch.randn(shape, generator=generator_for(self.seed, 7))}


class ImageTokens(LearnedMethod):
    """Tokens added to every image's at the image tower's first block, against a hand-made prompt."""

    method: ClassVar[str] = "image_tokens"
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)

    tokens: int = parameter(default=3, low=1)

    def sites(self) -> Sequence[Site]:
        return (ImageBlocks(0, "added"),)

    def initial(self) -> dict[str, Tensor]:
        shape = (self.tokens, self.backbone_.image.width)  # type: ignore[union-attr]
        return {"added": 0.02 * torch.randn(shape, generator=generator_for(self.seed, 8))}


class LowRank(LearnedMethod):
    """A change of rank one to a weight of the text tower, which begins as none."""

    method: ClassVar[str] = "low_rank"

    def _weight(self) -> str:
        return next(n for n, one in self.backbone_.text.named_parameters() if n.endswith("mlp.c_fc.weight"))

    def sites(self) -> Sequence[Site]:
        return (WeightDelta("text", (self._weight(),)),)

    def initial(self) -> dict[str, Tensor]:
        rows, columns = dict(self.backbone_.text.named_parameters())[self._weight()].shape
        return {"a": torch.randn((rows, 1), generator=generator_for(self.seed, 9)), "b": torch.zeros(1, columns)}

    def weights(self, tower: str, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        frozen = dict(self.backbone_.text.named_parameters())[self._weight()]
        return {self._weight(): frozen + parameters["a"] @ parameters["b"]}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        return super().loss(forward, batch) + 1e-3 * forward.parameters["b"].square().sum()


VARIANTS: dict[str, tuple[type[LearnedMethod], dict[str, Any]]] = {
    "deep": (DeepText, {}),
    "deep-per-class": (DeepText, {"per_class": True}),
    "tokens": (ImageTokens, {}),
    "low-rank": (LowRank, {}),
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_registered", {cls.method: cls for cls in (DeepText, ImageTokens, LowRank)})


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, backbone: Backbone) -> LearnedMethod:
    cls, parameters = VARIANTS[request.param]
    return cls(backbone, recipe=FEW, runtime=Runtime(cache=False), **parameters)


def test_it_learns_predicts_saves_and_loads(
    model: LearnedMethod, features: Any, pixels: Any, labels: Any, tmp_path: Path
) -> None:
    images = features if model.capabilities.features_only else pixels
    model.fit(images, labels)
    assert model.losses_[-1] < model.losses_[0] and len(model.losses_) == 6
    start = model.initial()
    assert all((model.learned_[name] - start[name]).abs().max() > 1e-4 for name in start if name != "a")
    again = type(model)(**model.get_params(deep=False)).fit(images, labels)
    assert (again.logits(images) == model.logits(images)).all()
    folder = model.save(tmp_path / "prompt")
    loaded = coopt.load(folder, model.backbone_)
    assert type(loaded) is type(model) and (loaded.logits(images) == model.logits(images)).all()
    loaded.save(tmp_path / "again")
    for name in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_classifier_says_what_the_method_says(
    model: LearnedMethod, features: Any, pixels: Any, labels: Any
) -> None:
    model.fit(features if model.capabilities.features_only else pixels, labels)
    inputs = torch.from_numpy(pixels)
    classifier = model.classifier()
    with torch.no_grad():
        np.testing.assert_allclose(classifier(inputs).numpy(), model.logits(pixels), rtol=1e-4, atol=1e-3)
    assert classifier.predict(inputs) == model.predict(pixels).tolist()


def test_other_classes(model: LearnedMethod, features: Any, pixels: Any, labels: Any) -> None:
    images = features if model.capabilities.features_only else pixels
    model.fit(images, labels)
    if getattr(model, "per_class", False):
        with pytest.raises(coopt.errors.ParameterError, match="belongs to its classes"):
            model.with_classes(["dog", "axolotl"])
        return
    other = model.with_classes(["dog", "axolotl"])
    assert other.logits(images).shape == (24, 2) and model.class_names_ == tuple(sorted(NAMES))


def test_a_change_that_begins_as_none_begins_at_the_hand_made_prompt(
    backbone: Backbone, features: Any, labels: Any
) -> None:
    still = {"optimizer": "sgd", "lr": 0.0, "weight_decay": 0.0, "epochs": 1}
    model = LowRank(backbone, recipe=still, runtime=Runtime(cache=False)).fit(features, labels)
    plain = coopt.ZeroShot(backbone).fit_classes(sorted(NAMES))
    np.testing.assert_allclose(model.logits(features), plain.logits(features), rtol=1e-4, atol=1e-3)


def test_deep_prompts_on_both_paths(backbone: Backbone, features: Any, labels: Any) -> None:
    fast, slow = (
        DeepText(backbone, recipe=FEW, runtime=Runtime(text_path=path)).fit(features, labels)  # type: ignore[arg-type]
        for path in ("fast", "reference")
    )
    np.testing.assert_allclose(fast.losses_, slow.losses_, rtol=1e-4)
    assert fast.step_bytes(backbone, NAMES) > 0


def test_image_sites_take_images(backbone: Backbone, features: Any, pixels: Any, labels: Any, tmp_path: Path) -> None:
    model = ImageTokens(backbone, recipe=FEW, runtime=Runtime(cache=False))
    with pytest.raises(DataError, match="changes the image encoder"):
        model.fit(features, labels)
    model.fit(pixels, labels)
    before = coopt.ZeroShot(backbone).fit_classes(sorted(NAMES)).image_features(pixels).features
    assert (model.image_features(pixels).features - before).abs().max() > 1e-3


def test_a_wrong_state_is_found_by_its_shapes(backbone: Backbone) -> None:
    model = DeepText(backbone)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    state = model.initial()
    model._check_state(state)
    with pytest.raises(
        SavedFileError, match=r"The saved tensor 'deep' has shape \(3, \d+\); expected \(2, \d+\) for golden.* 4 cl"
    ):
        model._check_state({**state, "deep": torch.zeros(3, backbone.text.width)})
    with pytest.raises(SavedFileError, match="a saved tensor 'more', which DeepText does not learn"):
        model._check_state({**state, "more": torch.zeros(1)})
    with pytest.raises(KeyError, match="deep"):
        model._check_state({"context": state["context"]})


class Mapped(LearnedMethod):
    """Image tokens and class-specific vectors, both computed from what is learned, for whatever classes there are."""

    method: ClassVar[str] = "mapped"
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)

    def sites(self) -> Sequence[Site]:
        return TextTokens(), TextBlocks(1, "deep", per_class=True), ImageBlocks(0, "added")

    def initial(self) -> dict[str, Tensor]:
        backbone, generator = self.backbone_, generator_for(self.seed, 7)
        shapes = {
            "context": (2, backbone.text.width),
            "net": (backbone.embed_dim, backbone.text.width),
            "map": (backbone.text.width, backbone.image.width),  # type: ignore[union-attr]
        }
        return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def put_in(self, learned: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        deep = (self.unchanged_text() @ learned["net"])[:, None].expand(-1, 2, -1)
        return {"context": learned["context"], "deep": deep, "added": learned["context"] @ learned["map"]}


def test_what_stands_at_the_sites_may_be_computed_from_what_is_learned(
    backbone: Backbone, pixels: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS, "_registered", {"mapped": Mapped})
    model = Mapped(backbone, recipe=FEW, runtime=Runtime(cache=False)).fit(pixels, labels)
    assert set(model.learned_) == {"context", "net", "map"}
    assert all((model.learned_[name] - one).abs().max() > 1e-4 for name, one in model.initial().items())
    slow = Mapped(backbone, recipe=FEW, runtime=Runtime(cache=False, text_path="reference")).fit(pixels, labels)
    np.testing.assert_allclose(model.losses_, slow.losses_, rtol=1e-4)
    loaded = coopt.load(model.save(tmp_path / "prompt"), backbone)
    assert (loaded.logits(pixels) == model.logits(pixels)).all()
    other = model.with_classes(["cat", "axolotl"])
    np.testing.assert_allclose(
        other.logits(pixels)[:, 0], model.logits(pixels)[:, model.class_names_.index("cat")], atol=1e-3
    )
