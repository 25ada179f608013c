"""What every method promises, as checks."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

import coopt
from coopt.backbones import Backbone
from coopt.errors import BackboneMismatchError, CooptError, DataError, ParameterError, SavedFileError
from coopt.methods.saving import JSON_NAME, TENSORS_NAME
from coopt.parameters import Parameter
from coopt.testing.models import small_backbone
from coopt.testing.problem import CLASS_NAMES, Problem

SOME = 4
"""Tensors of a saved state that are damaged; an image tower has hundreds."""

ROUNDING = 2e-3
"""How far scores may move with the number of threads; they are some tens large."""


def check_method(cls: Any, /, **parameters: Any) -> None:
    """Holds a method to the contract of coopt's methods.

    Its parameters are declared, kept by the constructor as they are, checked by `fit` and say themselves in JSON; fitting
    twice gives the same bits; labels may be names or numbers; the order of the classes does not matter; every kind of image
    is taken; `head` and `classifier` are modules that predict the same; what is saved is small and loads as what it was, and what does not fit is refused; a pickle names its backbone;
    `clone`, `cross_val_score` and `GridSearchCV` work, in two processes too.

    Args:
        cls: the method.
        parameters: for its constructor, such as those without which it does not learn. Where there is a `recipe` and none
            is given, training is short.

    Raises:
        AssertionError: says which promise is broken, and how.
    """
    if "recipe" not in parameters and any(one.name == "recipe" for one in cls.parameters_declared):
        parameters["recipe"] = {"epochs": 5, "views": 1}
    problem = Problem(cls, parameters, small_backbone())
    for check in CHECKS:
        try:
            check(problem)
        except CooptError as error:
            said = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{cls.__name__} in {check.__name__.strip('_')}: unexpected {said}") from error


def _parameters_are_declared(problem: Problem) -> None:
    import inspect

    from sklearn.base import clone

    declared = {one.name: one for one in problem.cls.parameters_declared}
    taken = list(inspect.signature(problem.cls).parameters.values())
    problem.hold(
        {one.name for one in taken} == set(declared) and taken[0].name == "backbone",
        f"the constructor must take the declared parameters, the backbone first. It takes {[one.name for one in taken]}; "
        f"declared are {sorted(declared)}.",
    )
    for one in taken:
        problem.hold(
            one.default is declared[one.name].default or one.default == declared[one.name].default,
            f"the constructor's default of {one.name!r} must be the declared one.",
        )
        problem.hold(
            declared[one.name].help or declared[one.name].doc,
            f"the parameter {one.name!r} must be described (help=...).",
        )
    estimator = problem.estimator()
    given = estimator.get_params(deep=False)
    problem.hold(
        vars(estimator) == given,
        f"the constructor must keep its arguments and nothing else. It keeps {vars(estimator)}.",
    )
    for name, value in given.items():
        problem.hold(
            getattr(problem.cls(**{name: value}), name) is value, f"the constructor must keep {name!r} as it was given."
        )
    problem.hold(
        cast(Any, clone(estimator)).get_params(deep=False) == given,
        "scikit-learn's clone must have the same parameters.",
    )
    try:
        saved = json.loads(json.dumps(estimator.parameters))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{problem.cls.__name__}: its parameters must be JSON: {error}") from error
    again = problem.cls.from_parameters(saved, backbone=problem.backbone)
    problem.hold(again.parameters == saved, f"parameters must come back from JSON as {saved}. Got {again.parameters}.")


def _wrong_parameters_are_refused(problem: Problem) -> None:
    for one in problem.cls.parameters_declared:
        for value in _wrong_values(one):
            estimator = problem.estimator().set_params(**{one.name: value})
            problem.refused(
                ParameterError,
                functools.partial(estimator.fit, problem.images, problem.labels),
                f"{one.name}={value!r}",
                mentions=one.name,
            )


def _wrong_values(one: Parameter) -> list[Any]:
    wrong: dict[str, list[Any]] = {
        "int": ["many", 1.5],
        "number": ["much"],
        "bool": ["yes"],
        "choice": ["none of them"],
    }
    below = [] if one.low is None else [one.low - 1]
    above = [] if one.high is None else [one.high + 1]
    return [*wrong.get(one.kind, []), *below, *above]


def _predictions_have_the_form_of_the_labels(problem: Problem) -> None:
    estimator = problem.reference
    problem.hold(
        estimator.classes_.tolist() == sorted(CLASS_NAMES),
        f"classes_ must be the sorted names. Got {estimator.classes_}.",
    )
    scores, shares = problem.scores, estimator.predict_proba(problem.images)
    problem.hold(
        scores.shape == shares.shape == (24, 4),
        f"scores of 24 images of 4 classes must be (24, 4). Got {scores.shape}.",
    )
    problem.hold(np.isfinite(scores).all(), "scores must be finite.")
    predicted = estimator.predict(problem.images)
    problem.hold(
        np.array_equal(estimator.classes_[scores.argmax(1)], predicted),
        "predict must give the class of the best score.",
    )
    problem.hold(
        np.array_equal(shares.argmax(1), scores.argmax(1)), "the best score must have the largest probability."
    )
    problem.hold(
        estimator.score(problem.images, predicted) == 1, "score must be the share of predictions that are right."
    )

    def of_numbers() -> Any:
        return problem.estimator().fit(problem.images, problem.numbers)

    problem.refused(DataError, of_numbers, "integers for labels without class_names", mentions="class_names")
    by_number = problem.estimator(class_names=CLASS_NAMES).fit(problem.images, problem.numbers)
    problem.hold(by_number.classes_.tolist() == [0, 1, 2, 3], "integers for labels must come back as integers.")
    by_name = problem.fitted(class_names=CLASS_NAMES)
    same = [CLASS_NAMES[i] for i in by_number.predict(problem.images)] == by_name.predict(problem.images).tolist()
    problem.hold(same, "labels as names and as integers must give the same answers.")


def _the_order_of_classes_does_not_matter(problem: Problem) -> None:
    other = problem.fitted(class_names=[CLASS_NAMES[i] for i in (2, 0, 3, 1)])
    agreement = np.mean(other.predict(problem.images) == problem.reference.predict(problem.images))
    # Not all: random vectors of each class begin elsewhere in another order.
    problem.hold(agreement >= 0.5, f"another order of the classes must give the same answers. {agreement:.0%} are.")


def _fitting_twice_gives_the_same_bits(problem: Problem) -> None:
    again = problem.fitted()
    problem.hold(np.array_equal(again.logits(problem.images), problem.scores), "fitting twice must give the same bits.")
    again.fit(problem.images, problem.labels)
    problem.hold(
        np.array_equal(again.logits(problem.images), problem.scores),
        "fitting a fitted one again must give the same bits.",
    )


def _new_classes(problem: Problem) -> None:
    names = ["dog", "tree", "house"]
    if not problem.cls.capabilities.new_classes:
        problem.refused(ParameterError, lambda: problem.reference.with_classes(names), "new classes")
        return
    try:
        other = problem.reference.with_classes(names)
    except ParameterError as error:  # such as a context for each class
        problem.hold(
            set(problem.parameters) - {"recipe"}, f"with its usual parameters, it must take new classes. {error}"
        )
        return
    problem.hold(set(other.predict(problem.images)) <= set(names), "with_classes must answer with the new classes.")
    problem.hold(
        np.array_equal(problem.reference.logits(problem.images), problem.scores),
        "with_classes must leave the estimator as it is.",
    )


def _images_of_every_kind(problem: Problem) -> None:
    random = np.random.default_rng(1)
    arrays = [random.integers(0, 60, (40, 36, 3), dtype=np.uint8) for _ in range(6)]
    for i, array in enumerate(arrays):
        array[..., i % 3] += 180
    labels = ["red", "green", "blue"] * 2
    pictures = [Image.fromarray(array) for array in arrays]
    pixels = torch.stack([problem.backbone.preprocessing.test(one) for one in pictures])
    estimator = problem.estimator(class_names=["red", "green", "blue"]).fit(pixels, labels)
    expected = estimator.logits(pixels)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.png") for i in range(6)]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
        for what, images in {"paths": paths, "PIL images": pictures, "arrays of uint8": np.stack(arrays)}.items():
            scores = estimator.logits(images)
            problem.hold(np.allclose(scores, expected, atol=ROUNDING), f"{what} must give the scores of their pixels.")
            problem.estimator().fit(images, labels)
    if not problem.cls.capabilities.features_only:
        problem.refused(
            DataError, lambda: problem.estimator().fit(problem.features, problem.labels), "a table of features"
        )
        return
    given = problem.estimator().fit(problem.features, problem.labels)
    problem.refused(DataError, lambda: given.predict(problem.features[:, :-1]), "features of another width", "columns")
    broken = problem.features.copy()
    broken[3, 2] = np.nan
    problem.refused(DataError, lambda: given.predict(broken), "features that are not finite", "finite")


def _one_module_predicts(problem: Problem) -> None:
    estimator = problem.reference
    problem.hold(isinstance(estimator.head(), torch.nn.Module), "head() must be a torch module.")
    pixels = torch.from_numpy(problem.pixels)
    classifier = estimator.classifier()
    with torch.no_grad():
        scores = classifier(pixels)
    problem.hold(
        np.allclose(scores.numpy(), estimator.logits(pixels), atol=ROUNDING),
        "classifier(), which puts the image tower before head(), must give the scores that logits gives.",
    )
    shares = classifier.probabilities(scores).numpy()
    problem.hold(
        np.allclose(shares, estimator.predict_proba(pixels), atol=ROUNDING),
        "classifier() must give the probabilities of predict_proba.",
    )


def _not_fitted_is_said(problem: Problem) -> None:
    from sklearn.exceptions import NotFittedError

    estimator = problem.estimator()
    problem.refused(NotFittedError, lambda: estimator.predict(problem.images), "predict before fit")
    problem.refused(NotFittedError, lambda: estimator.save("nowhere"), "save before fit")


def _saved_and_loaded_is_identical(problem: Problem) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = problem.reference.save(Path(folder, "prompt"))
        loaded = coopt.load(saved, problem.backbone)
        problem.hold(
            type(loaded) is problem.cls, f"what is loaded must be a {problem.cls.__name__}. Got {type(loaded)}."
        )
        problem.hold(
            np.array_equal(loaded.logits(problem.images), problem.scores), "a loaded one must give the same bits."
        )
        problem.hold(
            np.array_equal(loaded.classes_, problem.reference.classes_), "a loaded one must have the same classes."
        )
        again = loaded.save(Path(folder, "again"))
        for name in (JSON_NAME, TENSORS_NAME):
            problem.hold(
                (again / name).read_bytes() == (saved / name).read_bytes(),
                f"{name} of a loaded one must be the same bytes.",
            )
        size, weights = sum(file.stat().st_size for file in saved.iterdir()), _bytes_of(problem.backbone)
        problem.hold(size < weights / 4, f"what is saved must not hold the backbone. It is {size} bytes of {weights}.")
        problem.refused(BackboneMismatchError, lambda: coopt.load(saved, small_backbone(1)), "another backbone")
        _wrong_state_is_refused(problem, saved)


def _bytes_of(backbone: Backbone) -> int:
    return sum(weights.numel() * weights.element_size() for weights in backbone.model.state_dict().values())


def _wrong_state_is_refused(problem: Problem, saved: Path) -> None:
    description = json.loads((saved / JSON_NAME).read_text(encoding="utf-8"))
    tensors = load_tensors((saved / TENSORS_NAME).read_bytes())
    wrong: dict[str, dict[str, torch.Tensor]] = {"a tensor too many": {**tensors, "surplus": torch.zeros(1)}}
    for name, tensor in islice(tensors.items(), SOME):
        wrong[f"a saved state without {name!r}"] = {key: one for key, one in tensors.items() if key != name}
        wrong[f"a saved {name!r} with a dimension more"] = {**tensors, name: tensor[None].clone()}
        if tensor.is_floating_point():
            wrong[f"a saved {name!r} that is not finite"] = {**tensors, name: torch.full_like(tensor, torch.nan)}
    for what, state in wrong.items():
        data = dump_tensors(state)
        (saved / TENSORS_NAME).write_bytes(data)
        changed = {**description, "tensors_sha256": hashlib.sha256(data).hexdigest()}
        (saved / JSON_NAME).write_text(json.dumps(changed), encoding="utf-8")
        problem.refused(SavedFileError, lambda: coopt.load(saved, problem.backbone), what)


def _pickles_name_the_backbone(problem: Problem) -> None:
    weights = _bytes_of(problem.backbone)
    for what, estimator in {"not fitted": problem.estimator(), "fitted": problem.reference}.items():
        size = len(pickle.dumps(estimator))
        problem.hold(
            size < weights / 4,
            f"a pickle ({what}) must name its backbone, not carry it. It is {size} bytes of {weights}.",
        )
    again = pickle.loads(pickle.dumps(problem.reference))
    problem.hold(again.backbone_ is problem.backbone, "a pickle must find the backbone that its process holds.")
    problem.hold(np.array_equal(again.logits(problem.images), problem.scores), "a pickle must give the same bits.")


def _two_processes(problem: Problem) -> None:
    from joblib import Parallel, delayed
    from sklearn.model_selection import GridSearchCV, cross_val_score

    strict: Any = {"error_score": "raise"}
    for scores in cast(Any, Parallel(n_jobs=2))(delayed(_scores)(problem.reference, problem.images) for _ in range(2)):
        problem.hold(np.allclose(scores, problem.scores, atol=ROUNDING), "another process must give the same scores.")
    here, there = (
        cross_val_score(problem.estimator(), problem.images, problem.labels, cv=2, n_jobs=n, **strict) for n in (1, 2)
    )
    problem.hold(np.allclose(here, there, atol=0.1), f"cross_val_score must be {here} with n_jobs=2, too. Got {there}.")
    grid = (
        {"runtime__precision": ["fp32", "auto"]}
        if problem.cls.capabilities.text
        else {"on_bad_image": ["fail", "skip"]}
    )
    search = GridSearchCV(problem.estimator(), grid, cv=2, n_jobs=2, **strict)
    search.fit(problem.images, problem.labels)
    problem.hold(len(search.cv_results_["params"]) == 2, f"GridSearchCV over {grid} must try two settings.")


def _scores(estimator: Any, images: Any) -> np.ndarray:
    return estimator.logits(images)


CHECKS: tuple[Callable[[Problem], None], ...] = (
    _parameters_are_declared,
    _wrong_parameters_are_refused,
    _predictions_have_the_form_of_the_labels,
    _the_order_of_classes_does_not_matter,
    _fitting_twice_gives_the_same_bits,
    _new_classes,
    _images_of_every_kind,
    _one_module_predicts,
    _not_fitted_is_said,
    _saved_and_loaded_is_identical,
    _pickles_name_the_backbone,
    _two_processes,
)
