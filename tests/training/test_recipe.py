"""Recipes: schedules and the checks of their fields."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coopt.errors import ParameterError
from coopt.methods.registry import METHODS
from coopt.training.recipe import CSC_RECIPES, FAST, MOST_PASSES, PAPER, Recipe
from coopt.wording import spoken


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200)])
def test_epochs_of_the_paper(shots: int, epochs: int) -> None:
    assert PAPER.epochs_for(shots) == epochs


def test_one_epoch_is_the_warm_up() -> None:
    assert PAPER.learning_rates(1) == [1e-5]


def test_without_warm_up_the_first_epoch_is_like_the_second() -> None:
    assert FAST.warmup_lr is None and FAST.learning_rates(3)[:2] == [FAST.lr, FAST.lr]
    assert Recipe(lr=0.01).learning_rates(1) == [0.01]
    with pytest.raises(ParameterError, match="'warmup_lr' parameter of a recipe must be a number >= 0"):
        Recipe(warmup_lr=-1.0)


def test_a_mapping_changes_the_recipe_it_names() -> None:
    assert Recipe.of({"name": "paper", "epochs": 50}).lr == PAPER.lr
    assert Recipe.of({"lr": 0.1}) == Recipe.of({"name": "fast", "lr": 0.1})
    assert Recipe.of(FAST.to_dict()) == FAST and Recipe.of("paper") is PAPER


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("quick", "'recipe' parameter of a method must be one of fast, paper. Got 'quick'"),
        ({"learning_rate": 1}, "no field 'learning_rate'. Its fields are name, optimizer, lr"),
        ({"lr": -1}, "'lr' parameter of a recipe must be a number >= 0. Got -1"),
        ({"lr": float("nan")}, "'lr' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter of a recipe must be an int >= 1. Got 0"),
        ({"epochs": 2.5}, "'epochs' parameter of a recipe must be an int >= 1. Got 2.5"),
        ({"optimizer": "lion"}, "'optimizer' parameter of a recipe must be 'sgd' or 'adam'. Got 'lion'"),
        ({"beta1": 1.5}, "'beta1' parameter of a recipe must be a number >= 0 and < 1. Got 1.5"),
        ({"beta1": 1}, "'beta1' parameter of a recipe must be a number >= 0 and < 1. Got 1"),
        ({"beta2": -0.1}, "'beta2' parameter of a recipe must be a number >= 0 and < 1. Got -0.1"),
        ({"embedding_rms": 0}, "'embedding_rms' parameter of a recipe must be a number > 0. Got 0"),
        ({"lbfgs": -1}, "'lbfgs' parameter of a recipe must be a number >= 0. Got -1"),
        ({"lbfgs": "on"}, "'lbfgs' parameter of a recipe must be a number >= 0. Got 'on'"),
        ({"balance": 2}, "'balance' parameter of a recipe must be a number >= 0 and <= 1. Got 2"),
        ({"balance": None}, "'balance' parameter of a recipe must be a number >= 0 and <= 1. Got None"),
        ({"steps": 0}, "'steps' parameter of a recipe must be an int >= 1. Got 0"),
        ({"steps": 1.5}, "'steps' parameter of a recipe must be an int >= 1. Got 1.5"),
        ({"seconds": 0}, "'seconds' parameter of a recipe must be a number > 0. Got 0"),
        ({"seconds": float("inf")}, "'seconds' parameter of a recipe must be a number > 0. Got inf"),
        (3, "must be a name, a mapping or a Recipe. Got 3"),
        ({"lrr": 1}, "no field 'lrr'. Did you mean 'lr'?"),
        ({"name": "papr", "lr": 0.1}, "changed must be one of fast, paper. Got 'papr' instead; give all fields"),
        ({"name": ["paper"]}, "changed must be one of fast, paper. Got ['paper'] instead"),
    ],
)
def test_bad_recipes_are_refused(value: object, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Recipe.of(value)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_recipe_with_a_name_of_its_own_is_known_by_all_its_fields() -> None:
    mine = Recipe(name="mine", lr=0.3)
    assert Recipe.of(mine.to_dict()) == mine


PAPERS_RECORD = {
    "name": "paper",
    "optimizer": "sgd",
    "lr": 0.002,
    "warmup_lr": 1e-05,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "batch_size": 32,
    "epochs": None,
    "steps_per_epoch": None,
    "views": 0,
}
OLD_FAST = {**PAPERS_RECORD, "name": "fast", "optimizer": "adam", "lr": 0.05, "warmup_lr": None, "batch_size": 4096}
OLD_FAST |= {"epochs": 16, "steps_per_epoch": 1, "views": 1}


def test_the_record_of_the_paper_s_recipe_is_what_it_was() -> None:
    """It is hashed: with a field more, finished runs would be unknown."""
    assert json.dumps(PAPER.to_dict()) == json.dumps(PAPERS_RECORD)


@pytest.mark.parametrize("record", [PAPERS_RECORD, OLD_FAST], ids=["paper", "fast"])
def test_a_record_from_before_there_were_more_fields_means_what_it_meant(record: dict) -> None:
    recipe = Recipe.of(record)
    assert json.dumps(recipe.to_dict()) == json.dumps(record)
    assert (recipe.beta1, recipe.beta2, recipe.balance) == (0.9, 0.999, 0.0)
    for name in ("embedding_rms", "lbfgs", "steps", "seconds"):
        assert getattr(recipe, name) is None


def every_recipe() -> dict[str, Recipe]:
    return {f"{cls.method}-{name}": one for cls in _methods() for name, one in cls.recipes.items()} | {
        f"csc-{name}": one for name, one in CSC_RECIPES.items()
    }


def _methods() -> list:
    every = (METHODS.get(name) for name in METHODS)
    return [cls for cls in every if hasattr(cls, "recipes")]


@pytest.mark.parametrize("name", every_recipe())
def test_every_recipe_comes_back_from_its_record(name: str) -> None:
    recipe = every_recipe()[name]
    for changed in (recipe, replace(recipe, steps=7, seconds=2.5), replace(recipe, name="mine", balance=0.25)):
        record = json.loads(json.dumps(changed.to_dict()))
        assert Recipe.of(record) == changed
        assert len(record) >= 10


def test_a_mapping_that_names_a_recipe_gets_all_its_fields() -> None:
    assert Recipe.of({"lbfgs": 1.0}) == replace(FAST, lbfgs=1.0)
    assert Recipe.of({"name": "fast", "lr": 0.1, "steps": 3}) == replace(FAST, lr=0.1, steps=3)
    assert Recipe.of({"lbfgs": None}) == replace(FAST, lbfgs=None)
    assert Recipe.of({"name": "paper", "balance": 1.0}) == replace(PAPER, balance=1.0)
    assert Recipe.of({"lr": 0.1}, CSC_RECIPES) == replace(CSC_RECIPES["fast"], lr=0.1)
    with_one_missing = {name: value for name, value in OLD_FAST.items() if name != "views"}
    assert Recipe.of(with_one_missing).lbfgs == FAST.lbfgs


def test_the_bound_on_text_passes_grows_with_the_root_of_the_images() -> None:
    assert FAST.lbfgs is not None
    assert FAST.most_passes(400) == round(20 * FAST.lbfgs) and FAST.most_passes(10**9) == MOST_PASSES
    assert Recipe(lbfgs=0.0).most_passes(10**9) == 0


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_are_as_good_as_python_s() -> None:
    recipe = Recipe(epochs=np.int64(3), lr=np.float32(0.5))  # type: ignore[arg-type]
    assert Recipe(steps=np.int64(2), seconds=np.float32(0.5)) == Recipe(steps=2, seconds=0.5)  # type: ignore[arg-type]
    assert recipe == Recipe(epochs=3, lr=0.5) and json.loads(json.dumps(recipe.to_dict()))["epochs"] == 3


def test_on_the_command_line_fields_are_options() -> None:
    with spoken({"lr": "--lr", "set": "--set"}):
        for given, said in ({"lr": -1.0}, "--lr must be"), ({"batch_size": 0}, "--set recipe.batch_size must be"):
            with pytest.raises(ParameterError, match=f"^{said}"):
                Recipe.of(given)
