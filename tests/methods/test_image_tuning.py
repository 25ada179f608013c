"""What only the fine-tuning of the image encoder does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.protocol import fingerprint_of
from coopt.backbones.tokenizers import ClipTokenizer
from coopt.data import FeatureCache, load_dataset
from coopt.errors import DataError, SavedFileError, SkippedImageWarning, UnsupportedBackboneError
from coopt.evaluation.protocols import few_shot_problem
from coopt.methods.image_tuning import ImageEncoderTuning
from coopt.methods.pixels import TrainingPixels
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from coopt.training.recipe import Recipe
from tests.evaluation.jobs import job_of, result_of
from tests.methods.conftest import NAMES, ONE_STEP, stopped_at_epoch
from tests.models import TEXT

STEP = {**ONE_STEP, "warmup_lr": 0.001, "views": 1}
FEW = {"optimizer": "sgd", "lr": 0.001, "epochs": 4, "batch_size": 8}


def weights(backbone: Backbone) -> str:
    return fingerprint_of(backbone.model, "")


def test_one_step_is_the_gradient_of_the_formula(backbone: Backbone, pixels: Any, labels: Any) -> None:
    text = template_features(backbone, sorted(NAMES), ["a {}."])
    targets = torch.tensor([sorted(NAMES).index(label) for label in labels])
    visual: Any = copy.deepcopy(backbone.model.visual).requires_grad_(True)
    loss = cross_entropy(100 * normalize(visual(torch.from_numpy(pixels)), dim=-1) @ text.T, targets)
    loss.backward()
    with torch.no_grad():
        for parameter in visual.parameters():
            assert parameter.grad is not None
            parameter -= 0.001 * parameter.grad
        expected = 100 * normalize(visual(torch.from_numpy(pixels)), dim=-1) @ text.T

    before = weights(backbone)
    model = ImageEncoderTuning(backbone, templates="a {}.", recipe=STEP).fit(pixels, labels)
    assert model.losses_[0] == pytest.approx(loss.item(), rel=1e-4)
    assert np.allclose(model.logits(pixels), expected.numpy(), atol=5e-3)
    assert not np.allclose(model.logits(pixels), coopt.ZeroShot(backbone).fit(pixels, labels).logits(pixels), atol=0.1)
    assert weights(backbone) == before and not any(p.requires_grad for p in backbone.model.parameters())


def test_a_tuned_tower_makes_another_backbone(backbone: Backbone, pixels: Any, labels: Any) -> None:
    images = torch.from_numpy(pixels)
    same = backbone.with_image_tower(backbone.image_tower())
    assert same.fingerprint == backbone.fingerprint
    assert torch.equal(same.encode_image(images), backbone.encode_image(images))
    model = ImageEncoderTuning(backbone, recipe=STEP).fit(pixels, labels)
    tuned = backbone.with_image_tower(model.tower_)
    assert tuned.fingerprint != backbone.fingerprint and tuned.text.open is not None
    assert (coopt.ZeroShot(tuned).fit(pixels, labels).logits(pixels) == model.logits(pixels)).all()


def test_a_backbone_may_keep_its_image_tower_to_itself(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "image", None)
    with pytest.raises(UnsupportedBackboneError, match="the image tower of a ClipBackbone cannot be trained"):
        Backbone.image_tower(backbone)
    with pytest.raises(UnsupportedBackboneError, match="cannot be exchanged"):
        Backbone.with_image_tower(backbone, torch.nn.Identity())


def test_features_are_refused(backbone: Backbone, features: Any, pixels: Any, labels: Any) -> None:
    message = "Got a table of features, but ImageEncoderTuning changes the image encoder.*Give images"
    with pytest.raises(DataError, match=message):
        ImageEncoderTuning(backbone).fit(features, labels)
    model = ImageEncoderTuning(backbone, recipe=STEP).fit(pixels, labels)
    with pytest.raises(DataError, match=message):
        model.predict(features)
    found = model.image_features(pixels)
    assert not np.allclose(found.features[0], backbone.encode_image(torch.from_numpy(pixels)), atol=1e-3)
    assert (model.logits(found) == model.logits(pixels)).all()


def test_the_feature_cache_is_left_alone(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    cache = FeatureCache(tmp_path)
    frozen = coopt.ZeroShot(backbone, runtime=Runtime(cache=cache)).fit(paths, labels)
    expected = frozen.logits(paths)
    entries = cache.size().entries
    model = ImageEncoderTuning(backbone, recipe=STEP, runtime=Runtime(cache=cache)).fit(paths, labels)
    uncached = ImageEncoderTuning(backbone, recipe=STEP, runtime=Runtime(cache=False)).fit(paths, labels)
    assert (model.logits(paths) == uncached.logits(paths)).all() and not np.allclose(model.logits(paths), expected)
    assert cache.size().entries == entries and (frozen.logits(paths) == expected).all()


def test_statistics_of_batch_normalisation_stay() -> None:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": (1, 1, 1, 1), "width": 16, "patch_size": None}
    net = open_clip.CLIP(32, vision, TEXT)
    backbone = ClipBackbone(net, "test:RN", ClipTokenizer(), Preprocessing(size=(32, 32)))
    pixels, labels = torch.randn(6, 3, 32, 32), ["a", "b"] * 3
    model = ImageEncoderTuning(backbone, recipe=STEP, runtime=Runtime(cache=False)).fit(pixels, labels)
    before, after = dict(net.visual.named_buffers()), dict(model.tower_.get_submodule("visual").named_buffers())
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    scale = model.tower_.get_parameter("visual.bn1.weight")
    assert not torch.equal(scale, net.visual.bn1.weight)  # type: ignore[union-attr]


def test_new_classes_for_a_tuned_encoder(backbone: Backbone, pixels: Any, labels: Any) -> None:
    model = ImageEncoderTuning(backbone, recipe=STEP).fit(pixels, labels)
    other = model.with_classes(["cat", "violin", "forest_road"])
    assert np.allclose(other.logits(pixels)[:, 0], model.logits(pixels)[:, model.class_names_.index("cat")], atol=1e-4)


def test_views_follow_the_recipe(backbone: Backbone, pictures: Any) -> None:
    def training(views: int, images: Any = pictures[0]) -> TrainingPixels:
        return TrainingPixels(
            images, backbone.preprocessing, Recipe(views=views, batch_size=5, steps_per_epoch=None), 1
        )

    plain = torch.stack([backbone.preprocessing.test(Image.open(path)) for path in pictures[0]])
    for images in (pictures[0], [Image.open(path) for path in pictures[0]], plain):
        steps = list(training(1, images).steps(3))
        assert [len(index) for index, _ in steps] == [5, 5]  # 12 images: the incomplete batch is dropped
        assert all(torch.equal(pixels, plain[index]) for index, pixels in steps)
    first, again = (next(training(0).steps(3)) for _ in range(2))
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], plain[first[0]])
    assert len({training(0).views(epoch)[0] for epoch in range(5)}) == 5
    assert set(training(3).views(0)) == {"test", 1, 2}


def test_a_killed_run_goes_on(backbone: Any, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, labels = pictures
    expected = ImageEncoderTuning(backbone, recipe=FEW).fit(paths, labels).logits(paths)
    model = ImageEncoderTuning(backbone, recipe=FEW, runtime=Runtime(checkpoint=tmp_path / "c.safetensors"))
    stopped_at_epoch(2, lambda: model.fit(paths, labels), monkeypatch)
    assert (model.fit(paths, labels).logits(paths) == expected).all()


def test_bad_images_are_named_and_skipped_or_refused(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    paths, labels = [tmp_path / "broken.jpg", *pictures[0]], ["red", *pictures[1]]
    with pytest.raises(DataError, match=r"broken\.jpg"):
        ImageEncoderTuning(backbone, recipe=FEW).fit(paths, labels)
    with pytest.warns(SkippedImageWarning, match=r"broken\.jpg"):
        model = ImageEncoderTuning(backbone, recipe=FEW, on_bad_image="skip").fit(paths, labels)
    whole = ImageEncoderTuning(backbone, recipe=FEW).fit(*pictures)
    assert (model.logits(pictures[0]) == whole.logits(pictures[0])).all()


def test_an_encoder_that_does_not_fit_is_refused(backbone: Backbone, pixels: Any, labels: Any) -> None:
    model = ImageEncoderTuning(backbone, recipe=STEP).fit(pixels, labels)
    state = model._state()
    model._check_state(state)
    del state["visual.proj"]
    with pytest.raises(KeyError, match=r"visual\.proj"):
        model._check_state(state)
    state["visual.proj"] = torch.zeros(48, 64)
    with pytest.raises(SavedFileError, match=r"'visual\.proj' has shape \(48, 64\); expected \(64, 48\)"):
        model._check_state(state)


def test_it_runs_under_the_few_shot_protocol(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    for path, label in zip(*pictures, strict=True):
        for part in ("train", "test"):
            (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / label / path.name).write_bytes(path.read_bytes() + part.encode())
    dataset = load_dataset(tmp_path)
    job = job_of("image encoder", "image_tuning", {"recipe": {**FEW, "epochs": 12, "views": 1}}, 4, 1)
    result = result_of(job, few_shot_problem(dataset), backbone)
    assert result.estimator is not None and result.n_train == 12 and dataset.test is not None
    alone = 100 * result.estimator.score(list(dataset.test.paths), list(dataset.test.labels))
    assert result.accuracy == pytest.approx(alone) and alone > 50
