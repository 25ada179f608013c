"""Recipes: schedules and the checks of their fields."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coopt.errors import ParameterError
from coopt.training.recipe import FAST, PAPER, Recipe
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


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_are_as_good_as_python_s() -> None:
    recipe = Recipe(epochs=np.int64(3), lr=np.float32(0.5))  # type: ignore[arg-type]
    assert recipe == Recipe(epochs=3, lr=0.5) and json.loads(json.dumps(recipe.to_dict()))["epochs"] == 3


def test_on_the_command_line_fields_are_options() -> None:
    with spoken({"lr": "--lr", "set": "--set"}):
        for given, said in ({"lr": -1.0}, "--lr must be"), ({"batch_size": 0}, "--set recipe.batch_size must be"):
            with pytest.raises(ParameterError, match=f"^{said}"):
                Recipe.of(given)
