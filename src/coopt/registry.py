"""Things found by name: those that come with coopt, and those that other installed packages announce.

Another package announces a thing through an entry point, in its pyproject.toml:

    [project.entry-points."coopt.methods"]
    my-method = "my_package.my_method:MyMethod"

Names are listed without importing anything; what a name stands for is imported when it is asked for.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, overload

from coopt.errors import CooptError, ParameterError

Thing = TypeVar("Thing")


class Registry:
    """Names and what they stand for.

    A name that comes with coopt cannot be taken by another package: its entry point of that name is passed over.

    Args:
        group: of the entry points, such as "coopt.methods".
        builtin: name to "module:attribute", imported at first use.
        what: one of the things, as messages call it.
    """

    def __init__(self, group: str, builtin: Mapping[str, str], what: str = "name") -> None:
        self.group = group
        self.what = what
        self._builtin = dict(builtin)
        self._registered: dict[str, Any] = {}

    def names(self) -> tuple[str, ...]:
        """All names: coopt's own in their order, then those registered here, then those of other packages."""
        return tuple(dict.fromkeys([*self._builtin, *self._registered, *sorted(_announced(self.group))]))

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._registered or name in _announced(self.group)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> Any:
        """What a name stands for.

        Raises:
            ParameterError: nothing has this name; says which names are near.
            CooptError: another package announces it, but it cannot be imported, or two packages do.
        """
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name in self._registered:
            return self._registered[name]
        announced = _announced(self.group).get(name)
        if announced is None:
            raise ParameterError(self._unknown(name))
        if len(announced) > 1:
            raise CooptError(
                f"The {self.what} {name!r} is announced by several packages: {', '.join(map(_package, announced))}. "
                "Uninstall all but one."
            )
        return self._loaded(announced[0])

    def origin(self, name: str) -> str | None:
        """The installed package that announces a name; None for coopt's own and for those registered here."""
        if name in self._builtin or name in self._registered or name not in _announced(self.group):
            return None
        return _package(_announced(self.group)[name][0])

    @overload
    def register(self, name: str, thing: Thing) -> Thing: ...

    @overload
    def register(self, name: str) -> Callable[[Thing], Thing]: ...

    def register(self, name: str, thing: Any = None) -> Any:
        """Make a thing known in this process; without one, as a decorator: `@registry.register("mine")`.

        Registering the same name again replaces the thing, as running a notebook's cell again does.

        Raises:
            ParameterError: coopt itself has something of this name.
        """
        if thing is None:
            return lambda thing: self.register(name, thing)
        if name in self._builtin:
            raise ParameterError(f"The {self.what} {name!r} comes with coopt. Take another name.")
        self._registered[name] = thing
        return thing

    def _unknown(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
        question = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        return f"There is no {self.what} {name!r}. {question}Known: {', '.join(names)}."

    def _loaded(self, announced: EntryPoint) -> Any:
        try:
            return announced.load()
        except Exception as error:  # somebody else's module: whatever it raises
            raise CooptError(
                f"The {self.what} {announced.name!r} of the package {_package(announced)} cannot be loaded from "
                f"{announced.value!r}: {type(error).__name__}: {error}. Update that package, or uninstall it."
            ) from error


def _announced(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """The entry points of a group by name: one each, unless packages disagree about what it is."""
    return _announced_on(group, tuple(sys.path))


@functools.cache
def _announced_on(group: str, path: tuple[str, ...]) -> dict[str, Sequence[EntryPoint]]:
    by_name: dict[str, dict[str, EntryPoint]] = {}
    for announced in entry_points(group=group):
        by_name.setdefault(announced.name, {}).setdefault(announced.value, announced)
    return {name: list(by_value.values()) for name, by_value in by_name.items()}


def _package(announced: EntryPoint) -> str:
    return announced.dist.name if announced.dist else announced.module
