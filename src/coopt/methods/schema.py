"""What all methods take, as data that is read without importing any: `schema.json`, a JSON schema.

`make schema` writes it from the classes; a test holds the two together. In it "$defs" has the parameters of every method,
of recipes and of `coopt.Runtime`; what JSON Schema has no word for stands under "x-coopt". A configuration file is checked
against its "properties": the options that methods have, by the names of the command line.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coopt.methods.capabilities import Capabilities
from coopt.parameters import Parameter, declared_in
from coopt.runtime import Runtime
from coopt.training.recipe import Recipe

FILE = Path(__file__).with_name("schema.json")

PACKAGE = "coopt.methods"

OF_CALLERS = ("backbone", "class_names", "on_bad_image", "runtime")
"""Parameters of every method that say what it is given, and where, not what is learned."""


@dataclass(frozen=True)
class MethodSchema:
    """What can be known of a method before it is imported.

    Attributes:
        name: as on the command line and in saved files.
        title: its class.
        target: where the class is, "module:attribute".
        summary: one sentence.
        paper: where it was published.
        published: the numbers that were published, by what they are of.
        parameters: its own, without those in `OF_CALLERS`.
        runtime: the parameters of `coopt.Runtime` that matter to it.
        recipes: names of recipes that it knows; none where nothing is trained.
        capabilities: what it can do.
    """

    name: str
    title: str
    target: str
    summary: str
    paper: str
    published: Mapping[str, float]
    parameters: tuple[Parameter, ...]
    runtime: tuple[str, ...]
    recipes: tuple[str, ...]
    capabilities: Capabilities

    def to_schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        return {
            "title": self.title,
            "description": self.summary,
            "type": "object",
            "properties": {one.name: one.to_schema() for one in self.parameters},
            "additionalProperties": False,
            "x-coopt": {
                "target": self.target,
                "paper": self.paper,
                "published": dict(self.published),
                "runtime": list(self.runtime),
                "recipes": list(self.recipes),
                "capabilities": asdict(self.capabilities),
            },
        }

    @classmethod
    def from_schema(cls, name: str, schema: Mapping[str, Any]) -> MethodSchema:
        """What `to_schema` wrote."""
        more = schema["x-coopt"]
        return cls(
            name=name,
            title=schema["title"],
            target=more["target"],
            summary=schema["description"],
            paper=more["paper"],
            published=more["published"],
            parameters=_parameters(schema["properties"]),
            runtime=tuple(more["runtime"]),
            recipes=tuple(more["recipes"]),
            capabilities=Capabilities(**more["capabilities"]),
        )


@cache
def _read() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _parameters(properties: Mapping[str, Any]) -> tuple[Parameter, ...]:
    return tuple(Parameter.from_schema(name, one) for name, one in properties.items())


@cache
def builtin_methods() -> dict[str, MethodSchema]:
    """coopt's own methods by name; nothing of them is imported."""
    return {name: MethodSchema.from_schema(name, one) for name, one in _read()["$defs"]["methods"].items()}


def recipe_parameters() -> tuple[Parameter, ...]:
    """The fields of a recipe, but for its name."""
    return declared_in(Recipe)


def runtime_parameters() -> tuple[Parameter, ...]:
    """The parameters of `coopt.Runtime`."""
    return Runtime.parameters_declared


def schema_of(cls: Any) -> MethodSchema:
    """What a method's class says of itself; also one of another package."""
    return MethodSchema(
        name=cls.method,
        title=cls.__name__,
        target=f"{cls.__module__}:{cls.__qualname__}",
        summary=(inspect.getdoc(cls) or cls.__name__).split("\n\n")[0].replace("\n", " "),
        paper=cls.paper,
        published=cls.published,
        parameters=tuple(one for one in cls.parameters_declared if one.name not in OF_CALLERS),
        runtime=cls.runtime_used(),
        recipes=tuple(getattr(cls, "recipes", ())),
        capabilities=cls.capabilities,
    )


def made(known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole schema, from the classes in this folder; methods that are `known` keep their order, others come behind."""
    classes = {cls.method: cls for cls in _classes()}
    order = [
        *(name for name in known or () if name in classes),
        *(name for name in classes if name not in (known or ())),
    ]
    methods = {name: schema_of(classes[name]) for name in order}
    options: dict[str, Parameter] = {}
    for one in (*(p for m in methods.values() for p in m.parameters), *recipe_parameters(), *runtime_parameters()):
        if one.option:
            options.setdefault(one.name, one)  # of several methods with an option of one name the first describes it
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of the methods of coopt",
        "description": "Written by `make schema`. Entries of a configuration file may be any option of `coopt fit`.",
        "type": "object",
        "properties": {
            "method": {"enum": [name for name, one in methods.items() if one.capabilities.images]},
            **{name.replace("_", "-"): one.to_schema() for name, one in options.items()},
        },
        "$defs": {
            "methods": {name: one.to_schema() for name, one in methods.items()},
            "recipe": {"type": "object", "properties": {one.name: one.to_schema() for one in recipe_parameters()}},
            "runtime": {"type": "object", "properties": {one.name: one.to_schema() for one in runtime_parameters()}},
        },
    }


def _classes() -> Iterator[Any]:
    """The methods that are defined in the files of this folder."""
    for module in sorted(one.name for one in pkgutil.iter_modules([str(FILE.parent)])):
        for value in vars(importlib.import_module(f"{PACKAGE}.{module}")).values():
            defined_here = isinstance(value, type) and value.__module__ == f"{PACKAGE}.{module}"
            if defined_here and "method" in vars(value) and not inspect.isabstract(value):
                yield value


def schema_text(schema: Mapping[str, Any]) -> str:
    """The content of `schema.json`."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes `schema.json` anew."""
    known = json.loads(FILE.read_text(encoding="utf-8"))["$defs"]["methods"] if FILE.exists() else None
    FILE.write_text(schema_text(made(known)), encoding="utf-8")


if __name__ == "__main__":
    main()
