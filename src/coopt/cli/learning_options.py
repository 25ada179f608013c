"""How to learn, as options: `--recipe`, what `--epochs`, `--steps`, `--budget` and `--lr` change of it, and `--set NAME=VALUE`
for all else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from coopt.app.assignments import value_of
from coopt.app.method_options import SEED, method_names, method_options
from coopt.app.requests import AUTO
from coopt.cli.options import Duration, declared_option
from coopt.errors import ParameterError
from coopt.methods.schema import builtin_methods, recipe_parameters
from coopt.training.recipe import Recipe
from coopt.wording import SET, called, setting

_Function = TypeVar("_Function", bound=Callable[..., Any])

RECIPE = "recipe"

RECIPE_FIELDS = ("epochs", "steps", "seconds", "lr")
"""Fields of the recipe that have an option of their own; that of `seconds` is `--budget`."""

BUDGET = "Learn for at most so long: 60s, 5m, 1h, or a number of seconds."

METHOD_OPTIONS = {one.name: one for one in method_options()}
"""Parameters of methods that have an option of their own, which not all methods have."""


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """The texts NAME=VALUE of `--set` as a mapping; a name may be dotted, "recipe.lr".

    Raises:
        ParameterError: a text is no NAME=VALUE, or a name is given two values.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, typed = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not typed.strip():
            raise ParameterError(f"--set takes NAME=VALUE, such as --set recipe.lr=0.01. Got {text!r} instead.")
        value = value_of(typed)
        if name in values and values[name] != value:
            raise ParameterError(
                f"--set gives {name} two values, {values[name]!r} and {value!r}. Leave one of them out."
            )
        values[name] = value
    return values


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


def recipe_changes(given: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the recipe that are changed: by their own options (`typed`; None: not given), and by recipe.FIELD among
    what `--set` gave.

    Raises:
        ParameterError: an option and `--set` give one field two values.
    """
    dotted = {name.removeprefix(f"{RECIPE}."): value for name, value in given.items() if name.startswith(f"{RECIPE}.")}
    for field, value in typed.items():
        if value is None:
            continue
        if field in dotted and dotted[field] != value:
            raise ParameterError(
                f"{setting(field, value)} and --set recipe.{field}={dotted[field]} contradict each other. Give one of them."
            )
        dotted[field] = value
    return dotted


def recipe_of(options: dict[str, Any]) -> Recipe:
    """The recipe of a command that has no other parameters to be set, from its options, of which these are taken out.

    Raises:
        ParameterError: what is set is not a field of the recipe, or is out of its range.
    """
    recipe, given = options.pop(RECIPE), assignments(options.pop("set"))
    typed = {name: options.pop(name) for name in RECIPE_FIELDS}
    for name, value in given.items():
        if not name.startswith(f"{RECIPE}."):
            changed_recipe(recipe, {name: value})  # says what the fields are
            raise ParameterError(f"--set takes fields of the recipe: write --set recipe.{name}={value}.")
    return Recipe.of(changed_recipe(recipe, recipe_changes(given, typed)))


class RecipeType(click.ParamType):
    """The name of a recipe, or (from a configuration file) a mapping of its changed fields."""

    name = "recipe"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is (what a name means is the method's to say), unless no method could take it."""
        try:
            Recipe.of(value)
        except ParameterError as error:
            self.fail(str(error), param, ctx)
        return value


def recipe_options(set_help: str) -> Callable[[_Function], _Function]:
    """The options; the command gets them as `recipe`, `RECIPE_FIELDS` and `set`. `set_help`: what `--set` takes."""
    of_recipe = {one.name: one for one in recipe_parameters()}
    options = (
        declared_option(METHOD_OPTIONS[RECIPE], type=RecipeType()),
        declared_option(of_recipe["epochs"], default=None),
        declared_option(of_recipe["steps"], default=None),
        declared_option(of_recipe["seconds"], flags="--budget", type=Duration(), metavar="TIME", help=BUDGET),
        declared_option(of_recipe["lr"], default=None),
        click.option("--set", multiple=True, metavar="NAME=VALUE", help=set_help),
    )

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def run(*arguments: Any, **given: Any) -> Any:
            return function(*arguments, **_typed_ones_win(click.get_current_context(), given))

        decorated: Any = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _typed_ones_win(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Of `--epochs 8` and `--set recipe.epochs=9`, the one that a configuration file gives makes way for the typed one."""

    def from_file(name: str) -> bool:
        return ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP

    for field in RECIPE_FIELDS:
        dotted = [text for text in given["set"] if text.partition("=")[0].strip() == f"recipe.{field}"]
        if given[field] is None or not dotted or from_file(field) == from_file("set"):
            continue
        if from_file(field):
            given[field] = None
        else:
            given["set"] = tuple(text for text in given["set"] if text not in dotted)
    return given


def methods_options(function: _Function) -> _Function:
    """`--method`, and the options for what methods declare but for recipes."""
    names = (*method_names(), AUTO)
    decorated: Any = function
    for name in reversed(METHOD_OPTIONS):
        if name != RECIPE:
            decorated = declared_option(METHOD_OPTIONS[name])(decorated)
    return click.option(
        "--method",
        type=click.Choice(names),
        default=names[0],
        show_default=True,
        metavar="NAME",
        help=f"How to learn: {', '.join(names)}. {AUTO} compares methods as `coopt compare` does, and takes one.",
    )(decorated)


def seed_option(function: _Function) -> _Function:
    """`--seed`, which is every method's."""
    declared = next(one for one in builtin_methods()[method_names()[0]].parameters if one.name == SEED)
    return declared_option(declared)(function)


def method_parameters(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a method among the options of `coopt fit`, which are taken out of `options`.

    Raises:
        ParameterError: an option or a parameter that the method does not have, or two that contradict each other.
    """
    from coopt.app.estimators import method_class, no_such_option, parameters_of

    if method == AUTO:
        return _automatic_parameters(options)
    known = parameters_of(method)
    has_recipe = RECIPE in known
    typed, texts = {name: options.pop(name) for name in RECIPE_FIELDS}, options.pop("set")
    usually = {name: one.default for name, one in METHOD_OPTIONS.items()}
    given = {name: options.pop(name) for name in usually}
    for name, value in {**given, **typed}.items():
        if value != usually.get(name) and not (name in known or (name in typed and has_recipe)):
            raise no_such_option(method, name)
    more = assignments(texts)
    free = [name for name in known if called(name).startswith(f"--{SET} ")]
    for name, value in more.items():
        if name not in free and not (name.startswith(f"{RECIPE}.") and has_recipe):
            raise _no_such_parameter(method, name, value, free, has_recipe)
    # None: not given. A method of another package may have a default of its own there; with coopt's methods it is None.
    optional = {name for name, one in METHOD_OPTIONS.items() if one.default is None}
    usual_of = method_class(method)().get_params(deep=False)
    parameters = {
        name: usual_of[name] if value is None and name in optional else value
        for name, value in given.items()
        if name in known
    }
    if has_recipe:
        parameters[RECIPE] = changed_recipe(given[RECIPE], recipe_changes(more, typed))
    return parameters | {name: value for name, value in more.items() if name in free}


def _automatic_parameters(options: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the comparison: `--budget` is what it may take, `--set` sets the others."""
    from coopt.app.estimators import no_such_option

    typed, texts = {name: options.pop(name) for name in RECIPE_FIELDS}, options.pop("set")
    budget = typed.pop("seconds")
    given = {name: options.pop(name) for name in METHOD_OPTIONS}
    usually = {name: one.default for name, one in METHOD_OPTIONS.items()}
    for name, value in {**given, **typed}.items():
        if value != usually.get(name):
            raise no_such_option(AUTO, name)
    parameters = assignments(texts)
    if isinstance(parameters.get("methods"), str):
        parameters["methods"] = [one.strip() for one in parameters["methods"].split(",")]
    return parameters | ({} if budget is None else {"budget": budget})


def _no_such_parameter(method: str, name: str, value: Any, free: list[str], has_recipe: bool) -> ParameterError:
    if called(name).removeprefix("--").replace("-", "_") == name:
        return ParameterError(f"{name} has an option of its own: write {setting(name, value)}.")
    there = [*free, *([f"{RECIPE}.{one.name}" for one in fields(Recipe) if one.name != "name"] if has_recipe else [])]
    meant = [f"{RECIPE}.{name}"] if f"{RECIPE}.{name}" in there else get_close_matches(name, there, n=2)
    hint = f"Did you mean {' or '.join(meant)}? " if meant else ""
    return ParameterError(
        f"The method {method!r} has no parameter {name!r}. {hint}"
        f"--{SET} takes {', '.join(there) or 'nothing for this method'}."
    )
