"""What every method promises: the contract in `coopt.testing`, and what is stricter here or asks for more than a small model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import coopt
from coopt.backbones import Backbone
from coopt.data import Features
from coopt.errors import BackboneMismatchError, DataError, ParameterError, SavedFileError
from coopt.methods.base import ClipClassifier
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime
from coopt.testing import check_method
from coopt.testing import methods as contract
from tests.methods.conftest import NAMES
from tests.models import small_open_clip

FEW = {"lr": 0.02, "epochs": 25, "views": 2}
FEW_IMAGES = {"optimizer": "sgd", "lr": 0.001, "epochs": 12, "batch_size": 8, "views": 1}
FEW_STEPS = {"optimizer": "adam", "lr": 0.003, "epochs": 20, "batch_size": 8, "views": 1}
METHOD_PARAMETERS: dict[str, dict[str, Any]] = {
    "coop": dict(n_ctx=2, recipe=FEW),
    "coop-csc": dict(n_ctx=2, csc=True, recipe=FEW),
    "coop-middle-words": dict(init="a photo of a", position="middle", recipe=FEW),
    "cocoop": dict(n_ctx=2, init=None, recipe=FEW),
    "kgcoop": dict(n_ctx=2, init=None, guide_weight=0.1, recipe=FEW),
    "prograd": dict(n_ctx=2, init=None, recipe=FEW),
    "tcp": dict(n_ctx=2, guide_weight=0.1, recipe=FEW),
    "tcp-divergence": dict(n_ctx=2, guide_weight=0.1, divergence=2.0, recipe=FEW),
    "prompt_ensemble": dict(n_ctx=2, members=2, recipe=FEW),
    "prompt_ensemble-contexts": dict(members=2, average="contexts", recipe=FEW),
    "prolip": dict(penalty=0.01, recipe={"lr": 0.02, "epochs": 40}),
    "text_bias": dict(recipe=FEW),
    "text_bias-csc": dict(csc=True, recipe=FEW),
    "text_transformation": dict(recipe=FEW),
    "image_tuning": dict(recipe=FEW_IMAGES),
    "clip_lora": dict(recipe={**FEW_STEPS, "lr": 0.01}),
    "maple": dict(recipe=FEW_STEPS),
    "promptsrc": dict(
        templates="a photo of a {}.",
        image_weight=0.1,
        text_weight=0.1,
        logit_weight=0.1,
        recipe={**FEW_STEPS, "lr": 0.006, "epochs": 40, "average_mean": 40.0},
    ),
    "mmrl": dict(space=16, first_block=2, guide_weight=0.1, recipe={**FEW_STEPS, "lr": 0.03, "epochs": 12}),
    "two_stage": dict(recipe={**FEW_STEPS, "lr": 0.01}),
    "tip_adapter": dict(alpha=20.0),
    "tip_adapter-finetune": dict(finetune=True, recipe={"lr": 0.05}),
    "gda": {},
    "proker": dict(label_scale=20.0),
    "lp_plus_plus": {},
    "clap": dict(penalty=0.1, recipe={"epochs": 25}),
    "taskres": dict(recipe=FEW),
    "zero_shot": {},
    "zero_shot-ensemble": dict(templates="ensemble"),
    "linear_probe": dict(C=1.0),
}


@pytest.fixture(params=METHOD_PARAMETERS)
def estimator(request: pytest.FixtureRequest, backbone: Backbone) -> ClipClassifier:
    cls = METHODS.get(request.param.split("-")[0])
    return cls(backbone, runtime=Runtime(cache=False), **METHOD_PARAMETERS[request.param])


@pytest.fixture
def images(estimator: ClipClassifier, features: Any, pixels: Any) -> Any:
    """What the method learns from: features, unless it makes features of its own."""
    return features if estimator.capabilities.features_only else pixels


@pytest.fixture(scope="module")
def fits() -> dict[Any, ClipClassifier]:
    """What has been fitted, by the method's name in `METHOD_PARAMETERS`."""
    return {}


@pytest.fixture
def fitted(
    request: pytest.FixtureRequest, fits: dict[Any, ClipClassifier], estimator: ClipClassifier, images: Any, labels: Any
) -> ClipClassifier:
    """The estimator, fitted once for all tests here; not to be changed."""
    name = request.node.callspec.params["estimator"]
    if name not in fits:
        fits[name] = estimator.fit(images, labels)
    return fits[name]


def learns_images(estimator: ClipClassifier) -> bool:
    """Whether the method can fit any images: hand-made prompts learn nothing, one bias for all classes too little."""
    return estimator.method != "zero_shot" and not (isinstance(estimator, coopt.TextBias) and not estimator.csc)


def test_every_method_is_under_contract() -> None:
    assert {name.split("-")[0] for name in METHOD_PARAMETERS} == set(METHODS)


ONE_OF_EACH_KIND = ("coop", "cocoop", "image_tuning", "tip_adapter", "proker", "linear_probe")
"""For what methods of a kind have from one place: what travels between processes, files, and what is made of images."""

one_of_each_kind = pytest.mark.parametrize("estimator", ONE_OF_EACH_KIND, indirect=True)


@pytest.mark.parametrize("name", METHOD_PARAMETERS)
def test_the_public_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in ONE_OF_EACH_KIND:
        monkeypatch.setattr(contract, "CHECKS", [one for one in contract.CHECKS if one is not contract._two_processes])
    parameters = {key: value for key, value in METHOD_PARAMETERS[name].items() if key != "recipe"}
    check_method(METHODS.get(name.split("-")[0]), **parameters)


def test_predictions_have_the_form_of_the_labels(fitted: ClipClassifier, images: Any, labels: Any) -> None:
    estimator = fitted
    assert estimator.classes_.tolist() == sorted(NAMES)
    assert set(estimator.predict(images)) <= set(NAMES)
    probabilities = estimator.predict_proba(images)
    assert probabilities.shape == (24, 4) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (estimator.classes_[probabilities.argmax(axis=1)] == estimator.predict(images)).all()
    if learns_images(estimator):
        assert estimator.score(images, labels) > 0.9


def test_saved_and_loaded_is_identical(fitted: ClipClassifier, images: Any, tmp_path: Path) -> None:
    estimator = fitted
    estimator.save(tmp_path / "prompt")
    loaded = coopt.load(tmp_path / "prompt", backbone=estimator.backbone_)
    assert type(loaded) is type(estimator)
    assert (loaded.logits(images) == estimator.logits(images)).all()
    assert (loaded.classes_ == estimator.classes_).all()
    files = list((tmp_path / "prompt").iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < (20_000 if estimator.capabilities.features_only else 500_000)
    loaded.save(tmp_path / "again")
    for name in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "prompt" / name).read_bytes()


def layouts(estimator: ClipClassifier) -> dict[str, tuple[Any, ...]]:
    """How each tensor that a fitted estimator holds lies in memory: type, shape, strides, and bytes past a multiple of 64."""
    held: dict[str, Any] = {}
    for name, value in vars(estimator).items():
        if isinstance(value, torch.nn.Module):
            held |= {f"{name}.{key}": tensor for key, tensor in value.state_dict().items()}
        elif isinstance(value, dict):
            held |= {f"{name}.{key}": one for key, one in value.items()}
        held[name] = value
    tensors = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    return {name: (t.dtype, tuple(t.shape), t.stride(), t.data_ptr() % 64) for name, t in tensors.items()}


def test_tensors_lie_in_memory_alike_however_they_came(fitted: ClipClassifier, tmp_path: Path) -> None:
    """Products over other strides or alignments may differ in their last bits; on which processors is chance."""
    learned = layouts(fitted)
    loaded = layouts(coopt.load(fitted.save(tmp_path / "prompt"), backbone=fitted.backbone_))
    assert loaded == learned and len(learned) >= 1
    contiguous = {name: (torch.empty(shape).stride(), 0) for name, (_, shape, _, _) in learned.items()}
    assert {name: (strides, offset) for name, (_, _, strides, offset) in learned.items()} == contiguous


def test_features_of_any_layout_give_the_same_bits(estimator: ClipClassifier, features: Any, labels: Any) -> None:
    if not estimator.capabilities.features_only:
        return
    shifted = np.empty(features.size + 1, np.float32)[1:].reshape(features.shape)
    shifted[:] = features
    seen: list[tuple[Any, ...]] = []
    estimator._logits = lambda part: seen.append((part.stride(), part.data_ptr() % 64)) or part[:, :4]  # type: ignore
    clone(estimator).fit(features, labels)
    estimator.fit(features, labels)
    for given in (
        features,
        np.asfortranarray(features),
        shifted,
        torch.from_numpy(shifted),
        torch.tensor(features).T.T,
    ):
        estimator.logits(given)
    assert set(seen) == {((features.shape[1], 1), 0)}


def test_permuted_classes_give_permuted_answers(estimator: ClipClassifier, images: Any, labels: Any) -> None:
    permuted = [NAMES[i] for i in (2, 0, 3, 1)]
    a = clone(estimator).set_params(class_names=NAMES).fit(images, labels).logits(images)
    b = clone(estimator).set_params(class_names=permuted).fit(images, labels).logits(images)
    parameters = estimator.get_params()
    if parameters.get("csc") and parameters.get("init", "") is None:
        return  # the random context belongs to a place in the order, so another start gives another end
    assert np.allclose(a[:, [2, 0, 3, 1]], b, atol=2e-2, rtol=1e-3)


@one_of_each_kind
def test_images_of_every_kind(estimator: ClipClassifier, backbone: Backbone, pictures: Any) -> None:
    from PIL import Image

    paths, labels = pictures
    recipe = estimator.get_params().get("recipe")
    if isinstance(recipe, dict):
        estimator.set_params(recipe={**recipe, "views": 1})
    opened = [Image.open(path) for path in paths]
    pixels = torch.stack([backbone.preprocessing.test(image.convert("RGB")) for image in opened])
    table = backbone.encode_image(pixels)
    expected = clone(estimator).fit(paths, labels).logits(paths)
    tables = (table, table.numpy()) if estimator.capabilities.features_only else ()
    for images in ([str(path) for path in paths], opened, pixels, *tables):
        ours = clone(estimator).fit(images, labels).logits(images)
        assert np.allclose(ours, expected, atol=1e-2, rtol=1e-3)
    if learns_images(estimator):
        assert (estimator.fit(paths, labels).predict(paths) == labels).all()


@one_of_each_kind
def test_cross_validation(estimator: ClipClassifier, images: Any, labels: Any) -> None:
    scores = cross_val_score(estimator, images, labels, cv=3, error_score="raise")
    assert scores.shape == (3,) and (not learns_images(estimator) or scores.mean() > 0.9)


def test_features_of_another_backbone_are_refused(
    request: pytest.FixtureRequest, estimator: ClipClassifier, features: Any, labels: Any
) -> None:
    if not estimator.capabilities.features_only:
        with pytest.raises(DataError, match="Got a table of features, but .* Give images"):
            estimator.fit(features, labels)
        return
    estimator = request.getfixturevalue("fitted")
    with pytest.raises(DataError, match="Features have 47 columns, but golden.* makes features of 48"):
        estimator.predict(features[:, :-1])
    features = features.copy()
    features[3, 2] = np.nan
    with pytest.raises(DataError, match=r"finite and not zero\. 1 of 24 rows are not: 3\. The first is not finite"):
        estimator.predict(features)
    features[3] = 0
    with pytest.raises(DataError, match=r"1 of 24 rows are not: 3\. The first is zero"):
        estimator.predict(features)
    with pytest.raises(DataError, match=r"The feature of image 3 is zero"):  # put into the class by hand, unchecked
        estimator.predict(Features(torch.from_numpy(features)[None], tuple(range(24))))


@one_of_each_kind
def test_another_backbone_is_refused_on_loading(fitted: ClipClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "prompt")
    with pytest.raises(
        BackboneMismatchError, match="learned with the backbone 'golden:.*but 'test:CLIP' has fingerprint"
    ):
        coopt.load(tmp_path / "prompt", backbone=small_open_clip())


@one_of_each_kind
def test_damaged_files_are_refused(fitted: ClipClassifier, backbone: Any, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "prompt")
    tensors = folder / "prompt.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(SavedFileError, match="not the file that was saved"):
        coopt.load(folder, backbone=backbone)
    tensors.unlink()
    with pytest.raises(SavedFileError, match="Cannot read .*incomplete"):
        coopt.load(folder, backbone=backbone)
    (folder / "prompt.json").write_text("{")
    with pytest.raises(SavedFileError, match="not a saved prompt of coopt"):
        coopt.load(folder, backbone=backbone)
    with pytest.raises(SavedFileError, match="There is no saved prompt at"):
        coopt.load(tmp_path, backbone=backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99; this coopt reads up to 1"),
        ({"method": "magic"}, "holds the method 'magic'"),
        ({"parameters": {"n_ctx": 2, "surprise": 1}}, "does not fit the method"),
        ({"class_names": "cat"}, "a field has the wrong type"),
    ],
)
def test_edited_descriptions_are_refused(change: dict, message: str, backbone: Any, tmp_path: Path) -> None:
    folder = coopt.ZeroShot(backbone).fit_classes(NAMES).save(tmp_path / "prompt")
    description = json.loads((folder / "prompt.json").read_text())
    (folder / "prompt.json").write_text(json.dumps({**description, **change}))
    with pytest.raises(SavedFileError, match=message):
        coopt.load(folder, backbone=backbone)


def test_grid_search_over_n_ctx(backbone: Backbone, features: Any, labels: Any) -> None:
    search = GridSearchCV(
        coopt.CoOp(backbone, recipe=FEW, runtime=Runtime(cache=False)), {"n_ctx": [1, 2]}, cv=2, error_score="raise"
    )
    assert search.fit(features, labels).best_params_["n_ctx"] in (1, 2)
    assert search.best_estimator_.context_.shape == (search.best_params_["n_ctx"], backbone.text.width)


def test_grid_search_over_paths(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    search = GridSearchCV(coopt.CoOp(backbone, recipe=FEW), {"n_ctx": [1, 2]}, cv=2, error_score="raise")
    assert search.fit(paths, labels).predict(paths[:2]).tolist() == labels[:2]


@pytest.mark.parametrize(
    ("cls", "parameters", "message"),
    [
        ("CoOp", {"n_ctx": 0}, "The 'n_ctx' parameter of CoOp must be an int >= 1. Got 0 instead."),
        ("CoOp", {"n_ctx": 2.0}, "must be an int >= 1. Got 2.0"),
        ("CoOp", {"seed": -1}, "The 'seed' parameter of CoOp must be an int >= 0 and <= 4294967295. Got -1"),
        ("LinearProbe", {"seed": 2**32}, "must be an int >= 0 and <= 4294967295. Got 4294967296 instead."),
        (
            "CoOp",
            {"init": ""},
            "The 'init' parameter of CoOp must be words such as 'a photo of a', or be left out. Got ''",
        ),
        ("CoCoOp", {"init": " _"}, "must be words such as 'a photo of a', or be left out. Got ' _' instead."),
        ("CoOp", {"csc": "yes"}, "The 'csc' parameter of CoOp must be True or False. Got 'yes' instead."),
        ("CoOp", {"position": "top"}, "must be one of end, middle, front. Got 'top'"),
        ("CoOp", {"on_bad_image": "ignore"}, "must be 'fail' or 'skip'. Got 'ignore'"),
        (
            "CoOp",
            {"runtime": Runtime(cache=3)},
            "The 'cache' parameter of Runtime must be True, False or a FeatureCache. Got 3",
        ),
        ("CoOp", {"runtime": Runtime(memory="much")}, "must be 'auto', a number of bytes, or a text such as '4G'"),
        ("CoOp", {"runtime": "cpu"}, "The 'runtime' parameter of CoOp must be a coopt.Runtime or None. Got 'cpu'"),
        ("CoOp", {"recipe": "best"}, "must be one of fast, paper. Got 'best'"),
        ("LinearProbe", {"C": 0}, "The 'C' parameter of LinearProbe must be None or a number > 0. Got 0 instead."),
        ("ZeroShot", {"templates": "no name"}, "exactly once"),
        ("ZeroShot", {"templates": []}, "at least one template"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_parameters(cls: str, parameters: dict, message: str, backbone: Any, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        getattr(coopt, cls)(backbone, **parameters).fit(features, labels)
    assert message in str(caught.value)


def test_import_is_light() -> None:
    code = "import sys, coopt; dir(coopt); assert not {'torch', 'open_clip', 'sklearn'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
