"""`precision` is of both towers: what image features an estimator sees, and that it keeps to them when loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.base import clone

import coopt
from coopt.backbones import Backbone, precision
from coopt.backbones.precision import resolved
from coopt.data import FeatureCache, extract_features
from coopt.errors import ParameterError, PrecisionWarning
from coopt.methods.registry import METHODS
from coopt.methods.schema import builtin_methods
from coopt.methods.views import fresh_views
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime

QUICK = {"epochs": 2, "views": 2}
SEEN = {"fp32": {"cpu"}, "bf16": {"cpu+bf16"}}
BOTH = [name for name, one in builtin_methods().items() if one.capabilities.text and one.capabilities.features_only]


def make(method: str, backbone: Backbone, precision: str, cache: Any = True) -> Any:
    learns_by_steps = any(one.name == "recipe" for one in builtin_methods()[method].parameters)
    recipe = {"recipe": QUICK} if learns_by_steps else {}
    return METHODS.get(method)(backbone, runtime=Runtime(precision=precision, cache=cache), **recipe)  # type: ignore[arg-type]


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
    rough = (
        coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16"))
        .fit_classes(["red", "blue"])
        .image_features(paths)
        .features[0]
    )
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("precision", SEEN)
def test_pixels_are_encoded_as_asked(precision: Any, backbone: Backbone, pixels: Any) -> None:
    model = coopt.ZeroShot(backbone, runtime=Runtime(precision=precision)).fit_classes(["red", "blue"])
    expected = extract_features(backbone, pixels, precision=precision).features
    assert torch.equal(model.image_features(pixels).features, expected)


@pytest.mark.parametrize("precision", SEEN)
def test_fresh_views_are_encoded_as_asked(precision: Any, backbone: Backbone, pictures: Any) -> None:
    from coopt.training.batches import generator_for

    paths, labels = pictures
    model = coopt.CoOp(backbone, n_ctx=2, recipe={"name": "paper", "epochs": 1}, runtime=Runtime(precision=precision))
    model.fit(paths, labels)
    seed = int(torch.randint(2**31, (), generator=generator_for(model.seed, 0, 2)))
    expected = extract_features(backbone, paths, views=[seed], precision=precision).features[0]
    assert torch.equal(fresh_views(backbone, paths, 1, model.seed, model.image_precision)(0), expected)


def test_a_tuned_image_encoder_predicts_as_it_learned(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    recipe = {"lr": 0.001, "epochs": 1, "batch_size": 6, "views": 1}
    model = coopt.ImageEncoderTuning(backbone, recipe=recipe, runtime=Runtime(precision="bf16")).fit(paths, labels)
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
    exact = coopt.load(folder, backbone, runtime=Runtime(precision="fp32"))
    assert torch.equal(exact.image_features(paths).features, extract_features(backbone, paths).features)
    again = coopt.load(exact.save(tmp_path / "again"), backbone)
    assert again.parameters["precision"] == "fp32" and (again.logits(paths) == exact.logits(paths)).all()
    assert not (exact.logits(paths) == model.logits(paths)).all()


AUTO = [(0.25, "bf16"), (0.69, "bf16"), (0.71, "fp32"), (1.0, "fp32"), (40.0, "fp32"), (float("inf"), "fp32")]


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(("cost", "used"), [AUTO[0], AUTO[4]])
def test_auto_is_the_faster_and_says_which(
    method: str,
    cost: float,
    used: str,
    cost_of_bf16: Any,
    backbone: Backbone,
    pictures: Any,
    arithmetics: set[str],
    tmp_path: Path,
) -> None:
    cost_of_bf16(cost)
    paths, labels = pictures
    model = make(method, backbone, "auto", cache=FeatureCache(tmp_path / "cache")).fit(paths, labels)
    assert (model.machine.precision, model.precision_) == ("auto", used)
    assert (clone(model).machine.precision, model.image_precision) == ("auto", used)
    same = make(method, backbone, used).fit(paths, labels)
    assert (model.logits(paths) == same.logits(paths)).all()
    assert arithmetics == SEEN[used]
    folder = model.save(tmp_path / "prompt")
    assert coopt.describe(folder)["parameters"]["precision"] == used == coopt.load(folder, backbone).precision_
    assert coopt.load(folder, backbone, runtime=Runtime(precision="auto")).precision_ == used


@pytest.mark.parametrize(("cost", "used"), AUTO)
def test_auto_everywhere(cost: float, used: Any, cost_of_bf16: Any, backbone: Backbone, pixels: Any) -> None:
    cost_of_bf16(cost)
    assert resolved("auto", torch.device("cpu")) == used
    expected = extract_features(backbone, pixels, precision=used).features
    assert torch.equal(extract_features(backbone, pixels, precision="auto").features, expected)
    prompts = template_features(backbone, ["red", "blue"], ["a {}."], precision=used)
    assert torch.equal(template_features(backbone, ["red", "blue"], ["a {}."], precision="auto"), prompts)


@pytest.mark.parametrize("cost", [1.5, 27.0])
def test_slow_bf16_is_warned_of_and_done_where_it_was_asked_for(
    cost: float, cost_of_bf16: Any, backbone: Backbone, recwarn: pytest.WarningsRecorder
) -> None:
    cost_of_bf16(cost)
    model = coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16")).fit_classes(["red", "blue"])
    assert model.precision_ == "bf16" and [str(one.message) for one in recwarn] == [
        f"bf16 takes about {cost:.2g} times as long as fp32 on this processor, or longer in large models. Use "
        "precision='fp32', or precision='auto' for the faster of the two."
    ]
    model.with_classes(["red", "green"])
    coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16")).fit_classes(["red", "blue"])
    assert len(recwarn) == 1  # once is enough
    assert isinstance(recwarn[0].message, PrecisionWarning)


@pytest.mark.parametrize("cost", [0.25, 1.0, 1.3])
def test_bf16_that_is_not_slow_is_no_matter(
    cost: float, cost_of_bf16: Any, backbone: Backbone, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    cost_of_bf16(cost)
    model = coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16")).fit_classes(["red", "blue"])
    assert coopt.load(model.save(tmp_path / "prompt"), backbone).precision_ == "bf16" and not list(recwarn)


def test_bf16_that_the_device_does_not_know_is_refused(cost_of_bf16: Any, backbone: Backbone) -> None:
    cost_of_bf16(float("inf"))
    with pytest.raises(ParameterError, match=r"The device 'cpu' has no bf16\. Use precision='fp32'\."):
        coopt.ZeroShot(backbone, runtime=Runtime(precision="bf16")).fit_classes(["red", "blue"])


@pytest.mark.parametrize("method", BOTH)
def test_a_prompt_learned_in_bf16_predicts_in_fp32_where_bf16_is_slow(
    method: str, cost_of_bf16: Any, backbone: Backbone, pictures: Any, tmp_path: Path
) -> None:
    paths, labels = pictures
    model = make(method, backbone, "bf16").fit(paths, labels)
    folder = model.save(tmp_path / "prompt")
    cost_of_bf16(27.0)
    said = (
        r"^The prompt was learned in bf16, which takes about 27 times as long as fp32 on this processor, so it predicts in "
        r"fp32: features differ by less than one percent, and about one answer in 400 with them\. With precision='bf16' it "
        r"predicts as it was learned\.$"
    )
    with pytest.warns(PrecisionWarning, match=said):
        loaded = coopt.load(folder, backbone)
    exact = coopt.load(folder, backbone, runtime=Runtime(precision="fp32"))
    assert loaded.precision_ == "fp32" and (loaded.logits(paths) == exact.logits(paths)).all()
    names = ["blue", "red"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        other = loaded.with_classes(names) if loaded.capabilities.new_classes else loaded
    assert other.precision_ == "fp32"
    again = loaded.save(tmp_path / "again")  # what it was learned with is kept
    assert (again / "prompt.json").read_bytes() == (folder / "prompt.json").read_bytes()
    with pytest.warns(PrecisionWarning, match=r"^bf16 takes about 27 times as long"):
        asked = coopt.load(folder, backbone, runtime=Runtime(precision="bf16"))
    assert asked.precision_ == "bf16" and (asked.logits(paths) == model.logits(paths)).all()


def test_what_bf16_costs_is_measured_once_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much it is depends on the machine."""
    monkeypatch.undo()
    precision.cost_of_bf16.cache_clear()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    cost = precision.cost_of_bf16("cpu")
    assert 0 < cost < float("inf") and precision.cost_of_bf16("cpu") == cost
    assert precision.cost_of_bf16.cache_info().misses == 1
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert precision.cost_of_bf16("meta") == float("inf")  # a device that computes nothing


@pytest.mark.usefixtures("unchecked")
def test_a_precision_that_cannot_be(backbone: Backbone, pictures: Any, tmp_path: Path) -> None:
    paths, labels = pictures
    probe = coopt.LinearProbe(backbone, C=1.0).fit(paths, labels).save(tmp_path / "probe")
    with pytest.raises(ParameterError, match=r"The method 'linear_probe' has no precision: it predicts in fp32\."):
        coopt.load(probe, backbone, runtime=Runtime(precision="bf16"))
    for asked in ("fp32", "auto"):  # as it does
        assert coopt.load(probe, backbone, runtime=Runtime(precision=asked)).precision_ == "fp32"  # type: ignore[arg-type]
    prompt = coopt.ZeroShot(backbone).fit_classes(["red", "blue"]).save(tmp_path / "prompt")
    with pytest.raises(ParameterError, match="must be one of auto, fp32, bf16. Got 'fp16'"):
        coopt.load(prompt, backbone, runtime=Runtime(precision="fp16"))  # type: ignore[arg-type]
