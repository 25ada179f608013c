"""Nothing that is not a number becomes a prediction: it is refused where it comes in, with the name of what is broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.tensors import settled, without_direction
from coopt.data import FeatureCache, extract_features
from coopt.data.cache import FeatureKey
from coopt.errors import BackboneError, CooptError, DataError, SavedFileError, TrainingError
from coopt.methods.base import ClipClassifier
from coopt.methods.registry import METHODS
from coopt.methods.schema import builtin_methods
from coopt.runtime import Runtime
from tests.methods.conftest import NAMES

TEXT_WEIGHT, IMAGE_WEIGHT = "transformer.resblocks.0.mlp.c_fc.weight", "visual.conv1.weight"
QUICK = {"epochs": 2, "views": 1}
BAD = [float("nan"), float("inf"), float("-inf")]
WITH_TEXT = [name for name in METHODS if name != "linear_probe"]


def broken(backbone: Backbone, weight: str, value: float, where: int = 0) -> Backbone:
    """The same backbone with one number of one weight replaced."""
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        model.state_dict()[weight].view(-1)[where] = value
    return ClipBackbone(model, "broken", backbone.tokenizer, backbone.preprocessing)


def make(method: str, backbone: Backbone, **options: Any) -> Any:
    learns_by_steps = any(one.name == "recipe" for one in builtin_methods()[method].parameters)
    recipe = {"recipe": QUICK} if learns_by_steps else {}
    return METHODS.get(method)(backbone, runtime=Runtime(cache=False), **recipe, **options)


@contextmanager
def refused(*said: str, kind: type[CooptError] = CooptError) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert all(one in message for one in said), message
    assert "fp32" not in message and "float32" not in message  # which would not help


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("method", WITH_TEXT)
def test_a_broken_text_weight_is_named(
    method: str, value: float, backbone: Backbone, features: Any, pixels: Any, labels: Any
) -> None:
    images = features if METHODS.get(method).capabilities.features_only else pixels
    with refused(f"the weight '{TEXT_WEIGHT}' of broken holds values that are not finite; get its weights again"):
        make(method, broken(backbone, TEXT_WEIGHT, value)).fit(images, labels)


def test_the_class_is_named_that_has_the_broken_token(backbone: Backbone, features: Any) -> None:
    token = backbone.tokenizer.encode("cat")[0]
    bad = broken(backbone, "token_embedding.weight", float("nan"), token * backbone.text.width)
    said = "The text feature of the class 'cat' is not finite (NaN or infinite) (1 of 3 classes): the weight 'token_emb"
    with refused(said, kind=BackboneError):
        coopt.ZeroShot(bad, runtime=Runtime(text_path="reference")).fit_classes(["dog", "cat", "horse"])
    with refused("the weight 'token_embedding.weight'"):  # classes that attend together go wrong together
        coopt.ZeroShot(bad).fit_classes(["dog", "cat", "horse"])
    sound = coopt.ZeroShot(bad, runtime=Runtime(text_path="reference")).fit_classes(
        ["dog", "horse"]
    )  # the broken token is not used
    with refused(said):
        sound.with_classes(["dog", "cat", "horse"])
    conditional = coopt.CoCoOp(bad, n_ctx=1, recipe=QUICK, runtime=Runtime(text_path="reference")).fit(
        features[:4], ["dog", "horse"] * 2
    )
    with refused(
        "The score of the class 'cat' for image 0 is not finite: the weight 'token_embedding.weight' of broken"
    ):
        conditional.with_classes(["dog", "cat", "horse"]).predict(features[:2])


@pytest.mark.parametrize("method", list(METHODS))
def test_a_broken_image_weight_is_named(method: str, backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    model = make(method, broken(backbone, IMAGE_WEIGHT, float("nan")))
    with refused(f"The feature of '{paths[0]}' is not finite (NaN or infinite); the weight '{IMAGE_WEIGHT}' of broken"):
        model.fit(paths, labels).predict(paths)  # hand-made prompts see images only when they predict


@pytest.mark.parametrize("method", list(METHODS))
def test_a_broken_logit_scale_is_named(
    method: str, backbone: Backbone, features: Any, pixels: Any, labels: Any
) -> None:
    images = features if METHODS.get(method).capabilities.features_only else pixels
    with refused(
        "The logit scale of broken is nan. Expected a number above 0; get its weights again.", kind=BackboneError
    ):
        make(method, broken(backbone, "logit_scale", float("nan"))).fit(images, labels)


def test_bf16_is_doubted_only_where_it_was_used(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    import coopt.prompts.templates as templates

    class Overflowing(templates.TextEncoder):
        def __call__(self, context: Any = None) -> Any:
            return super().__call__(context) * float("inf")

    monkeypatch.setattr(templates, "TextEncoder", Overflowing)
    with pytest.raises(BackboneError, match=r"the weights of golden.* are finite, so use precision='fp32'\.$"):
        coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16")).fit_classes(NAMES)
    with refused(
        "The text feature of the class 'forest_road' is not finite (NaN or infinite) (4 of 4 classes): the wei"
    ):
        coopt.ZeroShot(backbone).fit_classes(NAMES)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "zero_shot"])
def test_what_was_learned_must_be_finite(
    method: str, backbone: Backbone, features: Any, pixels: Any, labels: Any
) -> None:
    model = make(method, backbone).fit(features if METHODS.get(method).capabilities.features_only else pixels, labels)
    for name, tensor in model._state().items():
        if tensor.is_floating_point():
            state = {**model._state(), name: tensor.clone().fill_(float("nan"))}
            with refused(f"What {type(model).__name__} learned is of no use: the tensor '{name}'", kind=TrainingError):
                model._set_state(state)
            break


def test_a_learned_context_that_is_too_large_is_refused(backbone: Backbone) -> None:
    model = coopt.CoOp(backbone, n_ctx=2)
    model._set_classes(backbone, NAMES, named=True)
    with refused("The text feature of the class 'forest_road' is not finite", "what was learned for them is too large"):
        model._set_state({"context": torch.full((2, backbone.text.width), 3e38)})


def test_files_with_values_that_are_not_finite_are_refused(
    backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    import hashlib

    from safetensors.torch import save

    folder = make("coop", backbone).fit(features, labels).save(tmp_path / "prompt")
    data = save({"context": torch.full((4, backbone.text.width), float("nan"))})
    (folder / "prompt.safetensors").write_bytes(data)
    about = json.loads((folder / "prompt.json").read_text())
    about["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "prompt.json").write_text(json.dumps(about))
    with refused("the tensor 'context' holds values that are not finite", kind=SavedFileError):
        coopt.load(folder, backbone)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_cached_features_without_a_direction_are_made_again(
    value: float, backbone: Backbone, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, labels = pictures
    cache = FeatureCache(tmp_path)
    expected = extract_features(backbone, paths, cache=cache).features
    put: dict[FeatureKey, Any] = {}
    monkeypatch.setattr(cache, "put_many", lambda found, name=None: put.update(found))
    extract_features(backbone, paths, cache=FeatureCache(tmp_path / "other"))
    monkeypatch.undo()
    keys: list[FeatureKey] = []
    original = cache.get_many
    monkeypatch.setattr(cache, "get_many", lambda asked: keys.extend(asked) or original(asked))
    extract_features(backbone, paths, cache=cache)
    cache.put_many({key: np.full(backbone.embed_dim, value, np.float32) for key in keys})
    assert torch.equal(extract_features(backbone, paths, cache=cache).features, expected)
    model: ClipClassifier = coopt.ZeroShot(backbone, runtime=Runtime(cache=cache)).fit_classes(sorted(set(labels)))
    assert (model.logits(paths) == model.logits(expected[0])).all()


def test_which_features_have_a_direction() -> None:
    rows = [[1.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0], [1e30, 1.0], [1e-30, 0.0], [1e-9, 0.0], [1e18, 0.0]]
    assert without_direction(torch.tensor(rows)).tolist() == [False, True, True, True, True, True, False, False]
    assert without_direction(torch.empty(0, 3)).shape == (0,)


def test_settled_tensors_are_new_only_where_they_must_be() -> None:
    whole = torch.arange(40.0).view(5, 8)
    assert settled(whole) is whole
    for odd in (whole.T, whole.flatten()[1:], whole[:, 1:], whole[::2], torch.ones(1).expand(3)):
        found = settled(odd)
        assert found.is_contiguous() and found.data_ptr() % 64 == 0 and torch.equal(found, odd)


def test_scores_beyond_one_part_name_the_right_image(
    backbone: Backbone, features: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopt.methods.base.SCORES_TOGETHER", 20)  # five images of four classes
    model = make("zero_shot", backbone).fit(features, labels)
    original = model._logits
    model._logits = lambda part: original(part) * torch.where(part[:, :1] == float(features[13, 0]), torch.nan, 1.0)
    with refused("The score of the class '3d printer' for image 13 is not finite", kind=BackboneError):
        model.predict(features)
    assert len(model.predict(features[:13])) == 13
    with refused("feature of image 7 is zero", kind=DataError):
        found = model.image_features(features)
        found.features[0, 7] = 0
        model.predict(found)
