"""`precision` is of both towers: what image features an estimator sees, and that it keeps to them when loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import coopt
from coopt.backbones import Backbone
from coopt.data import FeatureCache, extract_features
from coopt.errors import ParameterError
from coopt.methods.saving import METHODS

QUICK = {"epochs": 2, "views": 2}
SEEN = {"fp32": {"cpu"}, "bf16": {"cpu+bf16"}}
BOTH = [name for name, cls in METHODS.items() if "precision" in cls().get_params() and cls.uses_features]


def make(method: str, backbone: Backbone, precision: str, **options: Any) -> Any:
    recipe = {} if method == "zero_shot" else {"recipe": QUICK}
    return METHODS[method](backbone, precision=precision, **recipe | options)


@pytest.mark.parametrize("precision", SEEN)
@pytest.mark.parametrize("method", BOTH)
def test_images_are_encoded_as_asked(
    method: str, precision: Any, backbone: Backbone, pictures: Any, arithmetics: set[str], tmp_path: Path
) -> None:
    paths, labels = pictures
    cache = FeatureCache(tmp_path)
    for other in SEEN:  # features of both kinds are there to be confused
        extract_features(backbone, paths, views=("test", 1), cache=cache, precision=other)  # type: ignore[arg-type]
    arithmetics.clear()
    model = make(method, backbone, precision, cache=cache).fit(paths, labels)
    logits = model.logits(paths)
    assert arithmetics == SEEN[precision]
    table = extract_features(backbone, paths, precision=precision).features[0]
    assert (logits == model.logits(table)).all()
    assert (model.predict_proba(paths) == model.predict_proba(table)).all()
    assert (model.predict(paths) == model.predict(table)).all()
    assert model.score(paths, labels) == model.score(table, labels)
    without = make(method, backbone, precision, cache=False).fit(paths, labels)
    assert (without.logits(paths) == logits).all()


def test_fp32_is_the_tower_itself(backbone: Backbone, pictures: Any) -> None:
    from PIL import Image

    paths, labels = pictures
    model = coopt.CoOp(backbone, n_ctx=2, recipe=QUICK).fit(paths, labels)
    pixels = torch.stack([backbone.preprocessing.test(Image.open(path)) for path in paths])
    pixels = torch.cat([pixels, pixels[-1:].expand(32 - len(pixels), -1, -1, -1)])  # as a small model's batches are
    exact = backbone.encode_image(pixels)[: len(paths)]
    assert torch.equal(model.image_features(paths).features[0], exact)
    rough = coopt.ZeroShot(backbone, precision="bf16").fit_classes(["red", "blue"]).image_features(paths).features[0]
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("precision", SEEN)
def test_pixels_are_encoded_as_asked(precision: Any, backbone: Backbone, pixels: Any) -> None:
    model = coopt.ZeroShot(backbone, precision=precision).fit_classes(["red", "blue"])
    expected = extract_features(backbone, pixels, precision=precision).features
    assert torch.equal(model.image_features(pixels).features, expected)


@pytest.mark.parametrize("precision", SEEN)
def test_fresh_views_are_encoded_as_asked(precision: Any, backbone: Backbone, pictures: Any) -> None:
    from coopt.training.batches import generator_for

    paths, labels = pictures
    model = coopt.CoOp(backbone, n_ctx=2, recipe={"name": "paper", "epochs": 1}, precision=precision)
    model.fit(paths, labels)
    seed = int(torch.randint(2**31, (), generator=generator_for(model.seed, 0, 2)))
    expected = extract_features(backbone, paths, views=[seed], precision=precision).features[0]
    assert torch.equal(model._fresh_views(paths, 1)(0), expected)


def test_a_tuned_image_encoder_predicts_as_it_learned(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    recipe = {"lr": 0.001, "epochs": 1, "batch_size": 6, "views": 1}
    model = coopt.ImageEncoderTuning(backbone, recipe=recipe, precision="bf16").fit(paths, labels)
    expected = extract_features(backbone.with_image_tower(model.tower_), paths).features
    assert torch.equal(model.image_features(paths).features, expected)


@pytest.mark.parametrize("method", BOTH)
def test_a_loaded_prompt_keeps_its_precision_unless_told_otherwise(
    method: str, backbone: Backbone, pictures: Any, tmp_path: Path
) -> None:
    paths, labels = pictures
    model = make(method, backbone, "bf16").fit(paths, labels)
    folder = model.save(tmp_path / "prompt")
    assert (coopt.load(folder, backbone).logits(paths) == model.logits(paths)).all()
    exact = coopt.load(folder, backbone, precision="fp32")
    assert torch.equal(exact.image_features(paths).features, extract_features(backbone, paths).features)
    again = coopt.load(exact.save(tmp_path / "again"), backbone)
    assert again.get_params()["precision"] == "fp32" and (again.logits(paths) == exact.logits(paths)).all()
    assert not (exact.logits(paths) == model.logits(paths)).all()


@pytest.mark.usefixtures("unchecked")
def test_a_precision_that_cannot_be(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    probe = coopt.LinearProbe(backbone, C=1.0).fit(paths, labels).save(tmp_path / "probe")
    with pytest.raises(ParameterError, match=r"The method 'linear_probe' has no precision: it predicts in fp32\."):
        coopt.load(probe, backbone, precision="bf16")
    prompt = coopt.ZeroShot(backbone).fit_classes(["red", "blue"]).save(tmp_path / "prompt")
    with pytest.raises(ParameterError, match="must be one of fp32, bf16. Got 'fp16'"):
        coopt.load(prompt, backbone, precision="fp16")  # type: ignore[arg-type]
