"""What people give as images, labels and class names: taken in every usual form, refused where it cannot be meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import sparse

import coopt
from coopt.backbones import Backbone
from coopt.data import Features, as_class_names
from coopt.errors import CooptError, DataError
from coopt.evaluation import evaluate
from coopt.methods.inputs import as_images, is_pixels
from coopt.runtime import Runtime
from tests.methods.conftest import NAMES

pytestmark = pytest.mark.usefixtures("unchecked")

ANIMALS = ["dog", "cat", "horse"]


def keys(names: list[str]) -> Any:
    return dict.fromkeys(names, 0)


FORMS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": lambda names: np.array(names, dtype=object),
    "generator": lambda names: (name for name in names),
    "map": lambda names: map(str, names),
    "dict": keys,
    "keys": lambda names: keys(names).keys(),
    "values": lambda names: dict(enumerate(names)).values(),
}

NO_NAMES: list[tuple[Any, str]] = [
    ("cat", r"must be a list of names\. Got the single string 'cat'; write \['cat', \.\.\.\] with all classes\."),
    (b"cat", r"Got the single string b'cat'"),
    ({"cat", "dog"}, r"must stand in an order, which a set has not\. Write sorted\(class_names\)"),
    (frozenset(["cat", "dog"]), r"which a set has not"),
    (None, r"must be a list of names\. Got None"),
    (7, r"must be a list of names\. Got 7"),
    ([1, 2], r"Class names must be text that is not blank\. Got 1"),
    (["cat", " "], r"must be text that is not blank\. Got ' '"),
    (["cat", "cat"], r"must differ\. Got 'cat' more than once"),
    (["cat"], r"at least two classes\. Got 1: \['cat'\]"),
    ([], r"at least two classes\. Got 0"),
    (np.array([["cat", "dog"]]), r"must be text"),
]


@pytest.fixture
def model(backbone: Backbone, features: Any, labels: Any) -> coopt.CoOp:
    return coopt.CoOp(backbone, n_ctx=1, recipe={"epochs": 1}, runtime=Runtime(cache=False)).fit(features, labels)  # type: ignore


@pytest.mark.parametrize("form", FORMS)
def test_class_names_of_every_form(form: str, model: Any, backbone: Backbone, features: Any, tmp_path: Path) -> None:
    def names() -> Any:
        return FORMS[form](ANIMALS)

    zero_shot = coopt.ZeroShot(backbone).fit_classes(names())
    fitted = coopt.ZeroShot(backbone, class_names=names()).fit(features[:3], [0, 1, 2])
    loaded = coopt.load(model.save(tmp_path / "prompt"), backbone, class_names=names())
    for one in (model.with_classes(names()), zero_shot, zero_shot.with_classes(names()), fitted, loaded):
        assert one.class_names_ == tuple(ANIMALS) and all(type(name) is str for name in one.class_names_)
    assert evaluate(zero_shot, features[:3], ["dog", "cat", "cat"], FORMS[form](["cat", "dog"])).n == 3


@pytest.mark.parametrize(("names", "message"), NO_NAMES)
def test_what_is_no_list_of_names(
    names: Any, message: str, model: Any, backbone: Backbone, features: Any, tmp_path: Path
) -> None:
    folder = model.save(tmp_path / "prompt")
    ways: list[Callable[[], Any]] = [
        lambda: model.with_classes(names),
        lambda: coopt.ZeroShot(backbone).fit_classes(names),
        lambda: as_class_names(names),
    ]
    if names is not None:  # which means: the usual ones
        ways += [
            lambda: coopt.ZeroShot(backbone, class_names=names).fit(features[:2], [0, 1]),
            lambda: coopt.load(folder, backbone, class_names=names),
            lambda: evaluate(model, features, ["cat"] * 24, names),
        ]
    for way in ways:
        with pytest.raises(DataError, match=message):
            way()


@pytest.mark.parametrize(
    "none",
    [
        [],
        (),
        np.array([]),
        iter([]),
        np.empty((0, 48), np.float32),
        torch.empty(0, 48),
        torch.empty(0, 3, 32, 32),
        np.empty((0, 32, 32, 3), np.uint8),
        Features(torch.empty(1, 0, 48), ()),
    ],
    ids=["list", "tuple", "array", "iterator", "table", "tensor", "pixels", "arrays", "features"],
)
def test_no_images_give_no_rows(none: Any, model: Any, backbone: Backbone, features: Any) -> None:
    by_number = coopt.ZeroShot(backbone, class_names=NAMES).fit(features[:1], [0])
    if not isinstance(none, type(iter([]))):
        assert by_number.predict(none).shape == (0,) and by_number.predict(none).dtype == by_number.classes_.dtype
        assert model.predict(none).tolist() == [] and model.predict(none).dtype == model.classes_.dtype
        assert model.predict_proba(none).shape == (0, 4)
    assert model.logits(none).shape == (0, 4) and model.logits(none).dtype == np.float32
    with pytest.raises(DataError, match=r"Got no images to score\. Expected at least one, with its label\."):
        model.score(none, [])
    with pytest.raises(DataError, match=r"Got no labels"):
        evaluate(model, none, [])
    with pytest.raises(DataError, match=r"Got no images to learn from|Expected a list of images.* Got Features"):
        model.fit(none, [])


def test_images_of_every_form(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    model = coopt.CoOp(backbone, n_ctx=1, recipe={"name": "paper", "epochs": 1})
    expected = model.fit(paths, labels).logits(paths)

    def arrays() -> list[np.ndarray]:
        return [np.array(Image.open(path)) for path in paths]

    forms: list[Callable[[], Any]] = [
        lambda: tuple(paths),
        lambda: (path for path in paths),
        lambda: np.array([str(path) for path in paths]),
        lambda: dict(enumerate(paths)).values(),
    ]
    for images in forms:
        assert (model.logits(images()) == expected).all()
        assert (model.fit(images(), labels).logits(paths) == expected).all()
    for images in (arrays, lambda: np.stack(arrays())):
        model.fit(images(), labels)  # its views are drawn by content, and an array is not a file
        assert (model.logits(images()) == model.logits(paths)).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.png", r"Expected a list of images\. Got a single str; write \[image\]\."),
        (Path("a.png"), r"Got a single PosixPath; write \[image\]\."),
        (Image.new("RGB", (8, 8)), r"Got a single Image; write \[image\]\."),
        ({"a.png", "b.png"}, r"Images must stand in an order\. Got a set; give a list\."),
        ({"a": "a.png"}, r"Images must stand in an order\. Got a dict; give a list\."),
        (None, r"Expected a list of images, .* Got NoneType\."),
        (3, r"Expected a list of images, .* Got int\."),
    ],
)
def test_what_is_no_list_of_images(images: Any, message: str, model: Any) -> None:
    for way in (
        model.predict,
        model.image_features,
        lambda given: model.fit(given, ["cat"]),
        lambda given: model.score(given, []),
    ):
        with pytest.raises(DataError, match=message):
            way(images)


@pytest.mark.parametrize(
    "as_given",
    [
        list,
        tuple,
        np.array,
        iter,
        lambda values: np.array(values, np.uint8),
        torch.tensor,
        lambda v: [np.int64(x) for x in v],
    ],
)
def test_integers_of_every_form(as_given: Any, backbone: Backbone, features: Any, labels: Any) -> None:
    numbers = [NAMES.index(label) for label in labels]
    model = coopt.ZeroShot(backbone, class_names=NAMES).fit(features, as_given(numbers))
    assert model.classes_.tolist() == [0, 1, 2, 3] and model.predict(features).dtype == model.classes_.dtype
    share = float(np.mean(model.predict(features) == numbers))
    assert model.score(features, as_given(numbers)) == share == model.score(features, labels)
    named = coopt.ZeroShot(backbone, class_names=NAMES).fit(features, iter(labels))
    assert named.score(features, labels) == share == named.score(features, as_given(numbers))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([True, False], r"Label 0 is True \(bool\)\. Expected all labels to be class names \(str\), or all to be int"),
        (np.array([True, False]), r"\(bool\)\."),
        ([0.0, 1.0], r"Label 0 is 0\.0 \(float\)\. .* Write \[int\(label\) for label in labels\]\.$"),
        (np.array([0.0, 1.0]), r"\(float64\)\. .* Write \[int"),
        ([torch.tensor(0), torch.tensor(1)], r"\(Tensor\)\. .* Write \[int"),
        ([0.5, 1.0], r"Label 0 is 0\.5 \(float\)\. Expected .* or all to be integers\.$"),
        ([0, float("nan")], r"Label 1 is nan \(float\)\."),
        (["cat", None], r"Label 1 is None \(NoneType\)"),
        (["cat", 1], r"Label 1 is 1 \(int\)"),
        ([b"cat", b"dog"], r"Label 0 is b'cat' \(bytes\)"),
        ([0, 4], r"Label 1 is 4\. Expected integers from 0 to 3"),
        ([0, -1], r"Label 1 is -1\."),
        ([0, 2**70], r"Label 1 is 1180591620717411303424\."),
        ({0, 1}, r"Labels must stand in the order of the images\. Got a set; give a list\."),
        ({"a.png": 0, "b.png": 1}, r"Labels must stand in the order of the images\. Got a dict; give a list\."),
        ("cat", r"one label per image\. Got the single string 'cat'"),
        (1, r"one label per image\. Got 1\."),
        (None, r"one label per image\. Got None\."),
        ([0], r"Got 1 label for 2 images"),
    ],
)
def test_what_are_no_labels(labels: Any, message: str, backbone: Backbone, features: Any) -> None:
    with pytest.raises(DataError, match=message):
        coopt.ZeroShot(backbone, class_names=NAMES).fit(features[:2], labels)


def test_scores_count_what_is_asked(backbone: Backbone, features: Any) -> None:
    model = coopt.ZeroShot(backbone).fit_classes(NAMES)
    said = model.predict(features)
    assert model.score(features, said) == 1.0
    wrong = ["no such class", *said[1:]]  # as a fold of a cross-validation may have
    assert model.score(features, wrong) == 23 / 24
    assert model.score(features, wrong, sample_weight=[0] + [1] * 23) == 1.0
    with pytest.raises(CooptError, match="Got 23 labels for 24 images"):
        model.score(features, said[1:])


@pytest.mark.parametrize(
    ("cls", "parameters", "saved"),
    [
        ("CoOp", {"n_ctx": np.int64(2), "seed": np.int32(3)}, {"n_ctx": 2, "seed": 3}),
        ("KgCoOp", {"guide_weight": np.float32(0.5)}, {"guide_weight": 0.5}),
        ("TipAdapter", {"alpha": np.float32(0.5), "beta": np.int64(3)}, {"alpha": 0.5, "beta": 3}),
        ("LinearProbe", {"C": np.float32(0.5), "seed": np.int64(3)}, {"C": 0.5, "seed": 3}),
        ("ZeroShot", {"templates": np.array(["a {}.", "the {}."])}, {"templates": ["a {}.", "the {}."]}),
    ],
)
def test_parameters_may_be_numpys(
    cls: str, parameters: dict, saved: dict, backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    """As a search over np.arange gives them."""
    recipe = {} if cls in ("LinearProbe", "ZeroShot") else {"recipe": {"epochs": 1}}
    model = getattr(coopt, cls)(backbone, runtime=Runtime(cache=False), **recipe, **parameters).fit(features, labels)
    loaded = coopt.load(model.save(tmp_path / "prompt"), backbone)
    assert saved.items() <= loaded.get_params().items() and (loaded.logits(features) == model.logits(features)).all()
    plain = getattr(coopt, cls)(backbone, runtime=Runtime(cache=False), **recipe, **saved).fit(features, labels)
    assert (plain.logits(features) == model.logits(features)).all()


def test_labels_of_validation_images_are_counted(backbone: Backbone, features: Any, labels: Any) -> None:
    for model in (coopt.LinearProbe(backbone), coopt.TipAdapter(backbone)):
        with pytest.raises(DataError, match="Got 23 labels for 24 images"):
            model.fit(features, labels, features, labels[1:])
        model.fit(features, labels, features, iter(labels))


def test_integers_are_images_and_not_pixels() -> None:
    for shape in ((2, 8, 8, 3), (2, 3, 8, 8)):
        assert not is_pixels(np.zeros(shape, np.uint8)) and not is_pixels(torch.zeros(shape, dtype=torch.uint8))
        assert is_pixels(np.zeros(shape, np.float32)) and is_pixels(torch.zeros(shape, dtype=torch.float16))
    assert not is_pixels(np.zeros((2, 8), np.float32)) and not is_pixels([np.zeros((8, 8, 3))])


class Frame:
    """A table of another library, whose elements are the names of its columns."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, *arguments: Any, **more: Any) -> np.ndarray:
        return self.values

    def __iter__(self) -> Any:
        return iter([f"column {i}" for i in range(self.values.shape[1])])


def test_a_data_frame_is_a_table() -> None:
    table = np.ones((3, 5), np.float32)
    assert as_images(Frame(table)) is table


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.coo_matrix, sparse.dok_array])
def test_a_sparse_table_is_refused(make: Any) -> None:
    with pytest.raises(DataError, match=r"Got a sparse table\. .*Write table\.toarray\(\)\."):
        as_images(make(np.eye(3)))
