"""How to train, as options: `--recipe`, what `--epochs` and `--lr` change of it, and `--set` for everything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from coopt.errors import ParameterError

_Function = TypeVar("_Function", bound=Callable[..., Any])


class RecipeType(click.ParamType):
    """The name of a recipe, or (from a configuration file) a mapping of its changed fields."""

    name = "recipe"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it is (what a name means is the method's to say), unless no method could take it."""
        from coopt.training.recipe import Recipe

        try:
            Recipe.of(value)
        except ParameterError as error:
            self.fail(str(error), param, ctx)
        return value


def recipe_options(set_help: str) -> Callable[[_Function], _Function]:
    """The options; the command gets them as `recipe`, `epochs`, `lr` and `set`. `set_help`: what `--set` takes."""
    options = (
        click.option(
            "--recipe",
            type=RecipeType(),
            default="fast",
            show_default=True,
            metavar="[fast|paper]",
            help="How to train.",
        ),
        click.option(
            "--epochs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Rounds through the images, instead of the recipe's.",
        ),
        click.option(
            "--lr", type=click.FloatRange(min=0), metavar="RATE", help="Learning rate, instead of the recipe's."
        ),
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

    for field in ("epochs", "lr"):
        dotted = [text for text in given["set"] if text.partition("=")[0].strip() == f"recipe.{field}"]
        if given[field] is None or not dotted or from_file(field) == from_file("set"):
            continue
        if from_file(field):
            given[field] = None
        else:
            given["set"] = tuple(text for text in given["set"] if text not in dotted)
    return given
