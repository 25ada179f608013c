"""What only CoOp does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coopt
from coopt.backbones import Backbone
from coopt.errors import (
    DataError,
    FewShotsWarning,
    ParameterError,
    SavedFileError,
    SkippedImageWarning,
    TrainingError,
)
from coopt.methods.coop import CoOp
from coopt.methods.views import fresh_views
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from coopt.training.recipe import CSC_RECIPES, RECIPES
from tests.methods.conftest import NAMES, stopped_at_epoch

GOLDEN = Path(__file__).parents[1] / "golden"
FEW = {"lr": 0.02, "epochs": 25, "views": 2}


def test_untrained_words_are_the_hand_made_prompt(backbone: Backbone, features: Any, labels: Any) -> None:
    """No step taken: "a photo of a" as context is the template "a photo of a {}."."""
    model = CoOp(backbone, init="a photo of a", recipe={"epochs": 1, "lr": 0.0, "warmup_lr": 0.0}).fit(features, labels)
    expected = template_features(backbone, sorted(NAMES), ["a photo of a {}."])
    assert torch.allclose(model.text_features_, expected, atol=1e-5)
    assert (model.predict(features) == coopt.ZeroShot(backbone).fit(features, labels).predict(features)).all()


def test_learning_lowers_the_loss(backbone: Backbone, features: Any, labels: Any) -> None:
    model = CoOp(backbone, n_ctx=2, recipe=FEW).fit(features, labels)
    assert len(model.losses_) == 25 and model.losses_[-1] < 0.2 * model.losses_[0]


@pytest.mark.parametrize("recipe", ["paper", FEW])
def test_paths_learn_the_same(recipe: Any, backbone: Backbone, features: Any, labels: Any) -> None:
    recipe = {"name": "paper", "epochs": 3} if recipe == "paper" else recipe
    fast = CoOp(backbone, n_ctx=2, recipe=recipe, runtime=Runtime(text_path="fast")).fit(features, labels)
    slow = CoOp(backbone, n_ctx=2, recipe=recipe, runtime=Runtime(text_path="reference")).fit(features, labels)
    assert torch.allclose(fast.context_, slow.context_, atol=1e-4)


def test_bf16_learns_too(backbone: Backbone, features: Any, labels: Any) -> None:
    model = CoOp(backbone, n_ctx=2, recipe=FEW, runtime=Runtime(precision="bf16")).fit(features, labels)
    assert model.context_.dtype is torch.float32 and model.score(features, labels) > 0.9


def test_paper_recipe_sees_fresh_views(backbone: Backbone, pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from coopt.methods import views

    seen: list[tuple] = []
    original = views.extract_features
    monkeypatch.setattr(views, "extract_features", lambda *a, **k: (seen.append(k["views"]), original(*a, **k))[1])
    paths, labels = pictures
    CoOp(backbone, n_ctx=2, recipe={"name": "paper", "epochs": 3}).fit(paths, labels)
    drawn = [view for views in seen for view in views if view != "test"]
    assert len(drawn) == len(set(drawn)) == 3


def test_fresh_views_do_not_depend_on_where_a_run_was_stopped(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    model = CoOp(backbone, n_ctx=2, recipe={"name": "paper", "epochs": 5}).fit(paths, labels)
    views = fresh_views(backbone, paths, 5, model.seed, "fp32")
    in_order = [views(epoch) for epoch in range(5)]
    assert not torch.equal(in_order[0], in_order[1])
    assert torch.equal(fresh_views(backbone, paths, 5, model.seed, "fp32")(3), in_order[3])


def test_new_classes_for_an_old_context(backbone: Backbone, features: Any, labels: Any) -> None:
    model = CoOp(backbone, n_ctx=2, recipe=FEW).fit(features, labels)
    other = model.with_classes(["cat", "violin", "forest_road"])
    assert other.class_names_ == ("cat", "violin", "forest_road") and other.logits(features).shape == (24, 3)
    assert np.allclose(
        other.logits(features)[:, 0], model.logits(features)[:, model.class_names_.index("cat")], atol=1e-4
    )
    assert model.class_names_ == tuple(sorted(NAMES))
    with pytest.raises(DataError, match="at least two classes"):
        model.with_classes(["cat"])


def test_class_specific_context_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    model = CoOp(backbone, n_ctx=2, csc=True, recipe=FEW).fit(features, labels)
    with pytest.raises(ParameterError, match="class-specific context belongs to its classes"):
        model.with_classes(["cat", "dog"])
    words = model.nearest_words(1)
    assert isinstance(words, dict) and list(words) == sorted(NAMES)


@pytest.mark.parametrize("method", [CoOp, coopt.KgCoOp])
def test_class_specific_context_has_a_fast_recipe_of_its_own(
    method: type[CoOp], backbone: Backbone, features: Any, labels: Any
) -> None:
    model = method(backbone, n_ctx=2, csc=True).fit(features, labels)
    assert len(model.losses_) == model.recipe_.epochs == CSC_RECIPES["fast"].epochs != RECIPES["fast"].epochs
    assert model.parameters["recipe"] == CSC_RECIPES["fast"].to_dict()
    assert method(backbone, csc=True, recipe={"epochs": 3}).full_recipe.lr == CSC_RECIPES["fast"].lr
    assert method(backbone, csc=True, recipe="paper").full_recipe == RECIPES["paper"]


def test_a_killed_run_goes_on(backbone: Any, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle and fitted again, with fresh views every epoch: the same bits as without the stop."""
    paths, labels = pictures
    recipe = {"name": "paper", "epochs": 6, "batch_size": 5}
    expected = CoOp(backbone, n_ctx=2, recipe=recipe, runtime=Runtime(cache=False)).fit(paths, labels)
    model = CoOp(backbone, n_ctx=2, recipe=recipe, runtime=Runtime(cache=False, checkpoint=tmp_path / "c.safetensors"))
    stopped_at_epoch(3, lambda: model.fit(paths, labels), monkeypatch)
    assert torch.equal(model.fit(paths, labels).context_, expected.context_)
    assert model.losses_ == expected.losses_


@pytest.mark.parametrize("change", [{"n_ctx": 3}, {"seed": 2}, {"position": "front"}, {"recipe": {**FEW, "lr": 0.1}}])
def test_a_checkpoint_is_of_one_run(change: dict, backbone: Any, features: Any, labels: Any, tmp_path: Path) -> None:
    model = CoOp(backbone, n_ctx=2, recipe=FEW, runtime=Runtime(checkpoint=tmp_path / "c")).fit(features, labels)
    with pytest.raises(TrainingError, match="another run"):
        model.set_params(**change).fit(features, labels)
    with pytest.raises(TrainingError, match="another run"):
        CoOp(backbone, n_ctx=2, recipe=FEW, runtime=Runtime(checkpoint=tmp_path / "c")).fit(features + 1, labels)


def test_bad_images_are_named_and_skipped_or_refused(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    paths, labels = [*paths, tmp_path / "broken.jpg"], [*labels, "red"]
    for recipe in (FEW, {"name": "paper", "epochs": 2}):
        with pytest.raises(DataError, match=r"broken\.jpg"):
            CoOp(backbone, n_ctx=2, recipe=recipe).fit(paths, labels)
        with pytest.warns(SkippedImageWarning, match=r"broken\.jpg"):
            model = CoOp(backbone, n_ctx=2, recipe=recipe, on_bad_image="skip").fit(paths, labels)
    with pytest.raises(DataError, match=r"broken\.jpg"):  # every image must have its answer
        model.predict(paths)


def test_uneven_classes_are_normal(backbone: Backbone, features: Any, labels: Any) -> None:
    keep = np.r_[0:9, 10, 14]
    model = CoOp(backbone, n_ctx=2, recipe=FEW).fit(features[keep], labels[keep])
    assert model.score(features, labels) > 0.9


def test_a_class_without_an_image_is_allowed(backbone: Backbone, features: Any, labels: Any) -> None:
    """A prompt needs a name, not an image: the class competes in training and can be predicted."""
    model = CoOp(backbone, n_ctx=2, recipe=FEW, class_names=[*NAMES, "violin"]).fit(features, labels)
    assert model.logits(features).shape == (24, 5)
    with pytest.raises(DataError, match="Class 'violin' has no image to learn from"):
        coopt.LinearProbe(backbone, C=1.0, class_names=[*NAMES, "violin"]).fit(features, labels)


def test_one_class_is_refused(backbone: Backbone, features: Any) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        CoOp(backbone).fit(features, ["cat"] * 24)


def test_reference_checkpoint(backbone: Backbone) -> None:
    """The recorded checkpoint, loaded, answers as the recorded run did at its end."""
    import json

    from benchmarks.golden import pixels

    case = json.loads((GOLDEN / "coop_end_m4.json").read_text())
    recorded = np.load(GOLDEN / "coop_end_m4.npz")
    folder = GOLDEN / "checkpoint_coop_end_m4"
    model = coopt.load(folder, backbone=backbone, class_names=case["classnames"])
    images = pixels(case["data_seed"], case["n_images"], 32)
    assert np.allclose(model.logits(images), recorded["logits_after"], atol=2e-3, rtol=1e-4)
    file = folder / "prompt_learner" / "model.pth.tar-6"
    assert (
        coopt.load(file, backbone=backbone, class_names=case["classnames"]).logits(images) == model.logits(images)
    ).all()
    with pytest.raises(ParameterError, match="names neither its backbone nor its classes"):
        coopt.load(folder)


def test_a_reference_checkpoint_of_another_width_is_refused() -> None:
    from tests.models import small_open_clip

    with pytest.raises(
        SavedFileError, match=r"does not fit test:CLIP with 4 classes.*shape \(4, 128\); expected \(4, 64\)"
    ):
        coopt.load(GOLDEN / "checkpoint_coop_end_m4", backbone=small_open_clip(), class_names=NAMES)


def test_images_of_all_modes_train_together(backbone: Backbone, tmp_path: Path) -> None:
    paths, labels = [], []
    for i, mode in enumerate(["RGB", "L", "P", "CMYK", "RGBA", "LA", "I;16", "1"]):
        image = Image.new("RGB", (40, 30), (200, 30, 30) if i % 2 else (30, 30, 200))
        image = Image.new("I;16", (40, 30), 40000) if mode == "I;16" else image.convert(mode)
        paths.append(tmp_path / f"{i}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
        image.save(paths[-1])
        labels.append("ab"[i % 2])
    assert CoOp(backbone, n_ctx=1, recipe=FEW).fit(paths, labels).predict(paths).shape == (8,)


def test_a_class_that_lost_its_images_is_warned_of(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    (tmp_path / "broken.jpg").write_bytes(b"")
    lost = "Class 'yellow' has no readable image to learn from"
    with pytest.warns(FewShotsWarning, match=lost), pytest.warns(SkippedImageWarning):
        CoOp(backbone, n_ctx=2, recipe=FEW, on_bad_image="skip").fit(
            [*paths, tmp_path / "broken.jpg"], [*labels, "yellow"]
        )
