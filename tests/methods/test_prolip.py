"""What only ProLIP does: the projection of the image tower, learned on features before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.clip_towers import Transformer
from coopt.backbones.siglip_towers import SiglipVision
from coopt.backbones.tokenizers import ClipTokenizer
from coopt.data import FeatureCache, extract_features
from coopt.errors import DataError, UnsupportedBackboneError
from coopt.methods.prolip import ProLIP, projection_of, unprojected
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from tests.backbones.small_models import scramble
from tests.methods.conftest import NAMES, ONE_STEP

STEP = {**ONE_STEP, "batch_size": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def made(vision: dict[str, Any], visual: torch.nn.Module | None = None) -> Backbone:
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(24, vision, TEXT)  # type: ignore[arg-type]
    if visual is not None:
        model.visual = visual  # type: ignore[assignment]
    scramble(model)
    size = vision["image_size"]
    return ClipBackbone(model, "small", ClipTokenizer(), Preprocessing(size=(size, size)))


TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "timm": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
    "timm-mlp": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "mlp"},
}
WIDTHS = {"vit": 64, "resnet": 256, "timm": 96, "timm-mlp": 48}


@pytest.fixture(scope="module", params=TOWERS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Backbone]:
    return request.param, made(TOWERS[request.param])


def test_the_projection_is_what_the_tower_ends_with(kind: tuple[str, Backbone], pixels: Any) -> None:
    name, backbone = kind
    before, (matrix, bias) = unprojected(backbone), projection_of(backbone)
    assert before.embed_dim == WIDTHS[name] == len(matrix) and matrix.shape[1] == backbone.embed_dim
    assert (bias is not None) == (name == "resnet")
    inputs = torch.from_numpy(pixels)
    with torch.no_grad():
        features = before.encode_image(inputs) @ matrix + (0 if bias is None else bias)
    expected = backbone.encode_image(inputs)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert before.fingerprint != backbone.fingerprint and unprojected(backbone) is before


def uneven_pixels() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(6)
    which = random.permutation(np.repeat(np.arange(4), (20, 1, 7, 3)))
    centres = random.normal(size=(4, 3, 32, 32))
    return (centres[which] + random.normal(size=(31, 3, 32, 32))).astype(np.float32), np.array(sorted(NAMES))[which]


@pytest.mark.parametrize("penalty", [None, 3.0])
def test_two_steps_are_those_of_the_formula(penalty: float | None, kind: tuple[str, Backbone]) -> None:
    """The gradient worked out by hand, in NumPy; the second step feels the penalty."""
    _, backbone = kind
    images, labels = uneven_pixels()
    y = np.array([sorted(NAMES).index(label) for label in labels])
    matrix, bias = (None if one is None else one.double().numpy() for one in projection_of(backbone))
    assert matrix is not None
    x = unprojected(backbone).encode_image(torch.from_numpy(images)).double().numpy()
    text = template_features(backbone, sorted(NAMES), ["a photo of a {}."]).double().numpy()
    learned, losses, rate = matrix.copy(), [], 1e-3
    for _ in range(2):
        z = x @ learned + (0 if bias is None else bias)
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        f = z / norm
        scores = backbone.logit_scale * f @ text.T
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        pull = 4 / 31 if penalty is None else penalty
        losses.append(-np.log(shares[np.arange(31), y]).mean() + pull * ((learned - matrix) ** 2).sum())
        of_f = backbone.logit_scale * (shares - np.eye(4)[y]) @ text / 31
        of_z = (of_f - f * (f * of_f).sum(axis=1, keepdims=True)) / norm
        learned = learned - rate * (x.T @ of_z + 2 * pull * (learned - matrix))
    recipe = {**STEP, "lr": rate, "warmup_lr": None, "momentum": 0.0, "epochs": 2}
    model = ProLIP(backbone, penalty=penalty, recipe=recipe, runtime=Runtime(cache=False)).fit(images, labels)
    rates = model.recipe_.learning_rates(2)
    assert rates == [rate, rate]
    np.testing.assert_allclose(model.losses_, losses, rtol=1e-4)
    moved = learned - matrix
    got = model.learned_["projection"].double().numpy() - matrix
    np.testing.assert_allclose(got, moved, rtol=2e-2, atol=2e-3 * abs(moved).max())


def test_one_module_predicts_and_can_be_exported(kind: tuple[str, Backbone], pixels: Any, labels: Any) -> None:
    _, backbone = kind
    model = ProLIP(backbone, recipe={"lr": 1e-3, "epochs": 5}, runtime=Runtime(cache=False)).fit(pixels, labels)
    assert model.losses_[-1] < model.losses_[0]
    inputs = torch.from_numpy(pixels)
    classifier = model.classifier()
    with torch.no_grad():
        np.testing.assert_allclose(classifier(inputs).numpy(), model.logits(pixels), rtol=1e-4, atol=2e-3)
        exported = torch.export.export(model.head(), (torch.randn(3, len(projection_of(backbone).matrix)),)).module()
        features = model.image_features(pixels).features[0][:3]
        np.testing.assert_allclose(exported(features).numpy(), model.logits(pixels)[:3], rtol=1e-4, atol=2e-3)


def test_held_by_a_large_penalty_it_is_zero_shot(backbone: Backbone, pixels: Any, labels: Any) -> None:
    still = {"lr": 1e-6, "epochs": 3}
    model = ProLIP(backbone, penalty=1e4, recipe=still, runtime=Runtime(cache=False)).fit(pixels, labels)
    plain = coopt.ZeroShot(backbone, runtime=Runtime(cache=False)).fit_classes(sorted(NAMES))
    np.testing.assert_allclose(model.logits(pixels), plain.logits(pixels), atol=2e-2)
    other = model.with_classes(["violin", "cat"])
    np.testing.assert_allclose(
        other.logits(pixels)[:, 1], model.logits(pixels)[:, model.class_names_.index("cat")], atol=1e-3
    )


def test_both_kinds_of_features_are_kept_apart(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    cache = FeatureCache(tmp_path)
    extract_features(backbone, paths, cache=cache)
    model = ProLIP(backbone, recipe={"lr": 1e-3, "epochs": 3}, runtime=Runtime(cache=cache)).fit(paths, labels)
    sizes = cache.size().per_backbone
    assert sorted(one.entries for one in sizes.values()) == [12, 12] and len(sizes) == 2
    without = ProLIP(backbone, recipe={"lr": 1e-3, "epochs": 3}, runtime=Runtime(cache=False)).fit(paths, labels)
    assert (without.logits(paths) == model.logits(paths)).all()
    again = extract_features(backbone, paths, cache=cache).features
    assert again.shape[-1] == backbone.embed_dim


def test_tables_and_towers_without_a_projection_are_refused(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(DataError, match="Got a table of features, but ProLIP changes the image encoder"):
        ProLIP(backbone).fit(features, labels)
    other = made(TOWERS["vit"], SiglipVision(32, 16, Transformer(24, 2, 1, 4.0, quick_gelu=False), 48, 2))
    with pytest.raises(UnsupportedBackboneError, match=r"does not end with a linear projection .* Use another method"):
        ProLIP(other).fit(np.zeros((8, 3, 32, 32), np.float32), NAMES * 2)
