"""`--set NAME=VALUE`: what is typed there, as names and values; and `--epochs` and `--lr`, which are short for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import yaml

from coopt.errors import ParameterError
from coopt.training.recipe import Recipe

RECIPE = "recipe"
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None, "null": None}


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """The texts NAME=VALUE of `--set` as a mapping; a name may be dotted, "recipe.lr".

    Raises:
        ParameterError: a text is no NAME=VALUE, or a name is given two values.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, typed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not typed.strip():
            raise ParameterError(f"--set takes NAME=VALUE, such as --set recipe.lr=0.01. Got {text!r} instead.")
        value = value_of(typed)
        if name in found and found[name] != value:
            raise ParameterError(
                f"--set gives {name} two values, {found[name]!r} and {value!r}. Leave one of them out."
            )
        found[name] = value
    return found


def value_of(text: str) -> Any:
    """A value as it was meant: a number, true or false (yes, no, on, off), none, a list, or else text.

    YAML's own rules would read 1e-2 as text, 010 as 8 and "{} texture." as broken.
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    if text[0] in "[\"'":
        with suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text


def changed_recipe(recipe: str | dict[str, Any], changes: dict[str, Any]) -> str | dict[str, Any]:
    """`--recipe` with the fields that other options change of it.

    Raises:
        ParameterError: a recipe has no such field.
    """
    known = [one.name for one in fields(Recipe) if one.name != "name"]
    for name in changes:
        if name == "name":
            raise ParameterError("A recipe's name is given with --recipe NAME, not with --set recipe.name=NAME.")
        if name not in known:
            close = get_close_matches(name, known, n=2)
            hint = f"Did you mean {' or '.join(f'recipe.{one}' for one in close)}? " if close else ""
            raise ParameterError(f"A recipe has no field {name!r}. {hint}Its fields are {', '.join(known)}.")
    if not changes:
        return recipe
    return {**({"name": recipe} if isinstance(recipe, str) else recipe), **changes}


def recipe_changes(given: dict[str, Any], epochs: int | None, lr: float | None) -> dict[str, Any]:
    """The fields of the recipe that are changed by `--epochs`, `--lr` and (among what `--set` gave) recipe.FIELD.

    Raises:
        ParameterError: an option and `--set` give one field two values.
    """
    dotted = {name.removeprefix(f"{RECIPE}."): value for name, value in given.items() if name.startswith(f"{RECIPE}.")}
    for field, value in (("epochs", epochs), ("lr", lr)):
        if value is None:
            continue
        if field in dotted and dotted[field] != value:
            raise ParameterError(
                f"--{field} {value} and --set recipe.{field}={dotted[field]} contradict each other. Give one of them."
            )
        dotted[field] = value
    return dotted


def recipe_of(recipe: str, epochs: int | None, lr: float | None, texts: Sequence[str]) -> Recipe:
    """The recipe of a command that has no other parameters to be set.

    Raises:
        ParameterError: what is set is not a field of the recipe, or is out of its range.
    """
    given = assignments(texts)
    for name, value in given.items():
        if not name.startswith(f"{RECIPE}."):
            changed_recipe(recipe, {name: value})  # says what the fields are
            raise ParameterError(f"--set takes fields of the recipe: write --set recipe.{name}={value}.")
    return Recipe.of(changed_recipe(recipe, recipe_changes(given, epochs, lr)))
