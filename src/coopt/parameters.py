"""Parameters declared once, as data: type, range, default, help.

    class Mean(Declared):
        weight: float = parameter(default=1.0, low=0, help="What each image counts.")

From that declaration come the constructor with its signature, the one check that all values pass, what the command line
offers, the JSON schema of configuration files and the tables of parameters in the documentation.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from coopt.errors import ParameterError
from coopt.wording import subject

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Type checkers alone need to know."""
        return lambda cls: cls


Kind = Literal["int", "number", "bool", "choice", "text", "other"]
_DECLARED = "coopt.parameter"


@dataclass(frozen=True)
class Parameter:
    """One parameter, as it was declared.

    Attributes:
        name: as in Python.
        kind: what values it takes; "other" is known to `check` alone.
        default: when nothing is given.
        none: whether None is a value.
        low, high: the range of a number, both included.
        above, below: a number must be more, or less, than this.
        choices: the values of a "choice".
        said: what a value must be, as messages say it, where the rest of the declaration does not tell.
        check: more than the rest of the declaration can say: False for a wrong value, or an error of its own.
        help: one sentence or two, for the command line, and for the documentation unless `doc` is there.
        doc: the same, for readers of Python.
        option: whether the command line has an option for it; the others are set by `--set NAME=VALUE`.
        metavar: what stands for the value in that option's help.
        shown_default: what that option's help says of the default: its value (True), nothing (False), or this text.
        positional: whether it may be given without its name.
        added_later: what is saved leaves it out as long as it has its default, so that runs from before it was there stay valid.
    """

    name: str
    kind: Kind
    default: Any
    none: bool = False
    low: int | float | None = None
    high: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    choices: tuple[str, ...] = ()
    said: str | None = None
    check: Callable[[Any], Any] | None = dataclasses.field(default=None, compare=False, repr=False)
    help: str = ""
    doc: str = ""
    option: bool = False
    metavar: str | None = None
    shown_default: bool | str = True
    positional: bool = False
    added_later: bool = False

    @property
    def expected(self) -> str:
        """What a value must be: "an int >= 1"."""
        if self.said is not None:
            return self.said
        if self.kind == "bool":
            return "True or False"
        if self.kind == "choice" and len(self.choices) == 2:
            return " or ".join(map(repr, self.choices))
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind in ("int", "number"):
            return ("an int" if self.kind == "int" else "a number") + self._range
        return "text"

    @property
    def _range(self) -> str:
        bounds = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        parts = [f"{sign} {bound:.12g}" for sign, bound in bounds if bound is not None]
        return f" {' and '.join(parts)}" if parts else ""

    def holds(self, value: Any) -> bool:
        """Whether a value is allowed.

        Raises:
            CooptError: what `check` says itself.
        """
        if value is None and self.none:
            return True
        if self.kind in ("int", "number"):
            wanted = Integral if self.kind == "int" else Real
            right = isinstance(value, wanted) and not isinstance(value, bool) and self._within(float(value))
        elif self.kind == "other":
            right = True
        else:
            right = {
                "bool": isinstance(value, bool),
                "choice": isinstance(value, str) and value in self.choices,
                "text": isinstance(value, str),
            }[self.kind]
        return bool(right and (self.check is None or self.check(value)))

    def _within(self, value: float) -> bool:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        return math.isfinite(value) and low <= value <= high and above < value < below

    def require(self, value: Any, called: str) -> None:
        """Refuses a value that is not allowed; `called` is the parameter as the subject of a sentence.

        Raises:
            ParameterError: it is not.
        """
        if not self.holds(value):
            raise ParameterError(f"{called} must be {self.expected}. Got {value!r} instead.")

    def to_schema(self) -> dict[str, Any]:
        """As JSON Schema; what that has no word for stands under "x-coopt"."""
        types = {"int": "integer", "number": "number", "bool": "boolean", "choice": "string", "text": "string"}
        schema: dict[str, Any] = {}
        if self.kind in types:
            schema["type"] = [types[self.kind], "null"] if self.none else types[self.kind]
        if self.choices:
            schema["enum"] = [*self.choices, *((None,) if self.none else ())]
        inclusive = {"minimum": self.low, "maximum": self.high}
        bounds = {**inclusive, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        schema |= {name: bound for name, bound in bounds.items() if bound is not None}
        schema["default"] = list(self.default) if isinstance(self.default, tuple) else self.default
        schema["description"] = self.help
        fields = ("kind", "none", "said", "doc", "option", "metavar", "shown_default", "positional", "added_later")
        usual = {one.name: one.default for one in dataclasses.fields(self)}
        schema["x-coopt"] = {n: getattr(self, n) for n in fields if getattr(self, n) != usual[n]}
        return schema

    @classmethod
    def from_schema(cls, name: str, schema: Mapping[str, Any]) -> Parameter:
        """What `to_schema` wrote, without its `check`."""
        default = schema["default"]
        return cls(
            name=name,
            default=tuple(default) if isinstance(default, list) else default,
            low=schema.get("minimum"),
            high=schema.get("maximum"),
            above=schema.get("exclusiveMinimum"),
            below=schema.get("exclusiveMaximum"),
            choices=tuple(one for one in schema.get("enum", ()) if one is not None),
            help=schema["description"],
            **schema["x-coopt"],
        )


def parameter(
    *,
    default: Any,
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    choices: tuple[str, ...] = (),
    said: str | None = None,
    check: Callable[[Any], Any] | None = None,
    help: str = "",
    doc: str = "",
    option: bool = False,
    metavar: str | None = None,
    shown_default: bool | str = True,
    kw_only: bool = True,
    added_later: bool = False,
) -> Any:
    """Declares a parameter of a class: `n_ctx: int | None = parameter(default=None, low=1)`.

    The kind of values is read from the annotation (int, float, bool, str; with None or not) and `choices`; see
    `Parameter` for the rest. Works in subclasses of `Declared`, and in dataclasses.
    """
    given = {
        "low": low, "high": high, "above": above, "below": below, "choices": tuple(choices), "said": said, "check": check,
        "help": help, "doc": doc, "option": option, "metavar": metavar, "shown_default": shown_default, "positional": not kw_only,
        "added_later": added_later,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata={_DECLARED: given})


def fitted(*, init: Literal[False] = False) -> Any:
    """Declares an attribute that there is once something was learned, and that the constructor knows nothing of."""
    return dataclasses.field(init=init)


def declared_in(cls: type) -> tuple[Parameter, ...]:
    """The parameters that a dataclass declares."""
    notes = {one.name: one for one in dataclasses.fields(cls)}
    return tuple(_made(name, one.type, one) for name, one in notes.items() if _DECLARED in one.metadata)


def _made(name: str, annotation: Any, declared: dataclasses.Field[Any]) -> Parameter:
    words = set(re.findall(r"\w+", annotation if isinstance(annotation, str) else _text_of(annotation)))
    given = dict(declared.metadata[_DECLARED])
    kinds: dict[str, Kind] = {"bool": "bool", "float": "number", "int": "int", "str": "text"}
    types = words - {"None", "Optional", "typing"} - ({"int"} if "float" in words else set())
    plain = kinds.get(next(iter(types)), "other") if len(types) == 1 else "other"
    kind: Kind = "choice" if given["choices"] else plain
    none = bool(words & {"None", "Optional", "NoneType"}) or declared.default is None
    return Parameter(name=name, kind=kind, default=declared.default, none=none, **given)


def _text_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(parameter, fitted))
class Declared:
    """Base of classes whose constructor keeps declared parameters under their own names, and does nothing else.

    A subclass declares its parameters (`parameter`), and what it has once fitted (`fitted`). It has the parameters of its
    bases too; one that is declared again replaces theirs.

    Attributes:
        parameters_declared: all of them: those that may be given without a name, then what the class itself declares,
            then what its bases declare, the nearest first.
    """

    parameters_declared: ClassVar[tuple[Parameter, ...]] = ()
    _declared_here: ClassVar[tuple[Parameter, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        annotations = inspect.get_annotations(cls)
        here: list[Parameter] = []
        for name, value in list(vars(cls).items()):
            if isinstance(value, dataclasses.Field):
                delattr(cls, name)
                if _DECLARED in value.metadata:
                    here.append(_made(name, annotations[name], value))
        cls._declared_here = tuple(here)
        every: dict[str, Parameter] = {}
        for base in cls.__mro__:
            for one in vars(base).get("_declared_here", ()):
                every.setdefault(one.name, one)
        cls.parameters_declared = tuple(sorted(every.values(), key=lambda one: not one.positional))
        if "__init__" not in vars(cls):
            cls.__init__ = _constructor(cls)  # type: ignore[method-assign]
        if vars(cls).get("__doc__"):
            cls.__doc__ = _with_parameters(vars(cls)["__doc__"], cls.parameters_declared)

    def __init_post__(self) -> None:
        """Called by the constructor, last."""

    @classmethod
    def _unexpected(cls, name: str, value: Any) -> Exception:
        """The error for an argument that is no parameter."""
        return TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, and with `deep` as NAME__PARAMETER those of parameters that have some themselves."""
        given = {name: getattr(self, name) for name in sorted(one.name for one in self.parameters_declared)}
        if not deep:
            return given
        nested = {name: value for name, value in given.items() if isinstance(value, Declared)}
        return given | {f"{name}__{k}": v for name, value in nested.items() for k, v in value.get_params().items()}

    def set_params(self, **params: Any) -> Any:
        """Changes parameters, which take effect when they are next used; returns the object.

        Raises:
            ParameterError: there is no such parameter.
        """
        for name, value in params.items():
            self._set_param(name, value)
        return self

    def _set_param(self, name: str, value: Any) -> None:
        known = [one.name for one in self.parameters_declared]
        if name not in known:
            raise ParameterError(
                f"{type(self).__name__} has no parameter {name!r}. Its parameters are {', '.join(sorted(known))}."
            )
        setattr(self, name, value)

    def check_parameters(self) -> None:
        """Checks every parameter against its declaration. Subclasses check what takes more than one value to tell.

        Raises:
            ParameterError: a value is out of its range.
        """
        for one in self.parameters_declared:
            one.require(getattr(self, one.name), subject(one.name, type(self).__name__))

    def __repr__(self) -> str:
        """The call that makes it: parameters that are not as usual."""
        changed = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in self.parameters_declared
            if repr(getattr(self, one.name)) != repr(one.default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _with_parameters(text: str, parameters: tuple[Parameter, ...]) -> str:
    """A class's docstring with a section of its parameters, before that of its attributes or of what it raises."""
    described = [f"{one.name}: {one.doc or one.help}" for one in parameters if one.doc or one.help]
    wrapped = [
        line
        for one in described
        for line in textwrap.wrap(one, 120, initial_indent=" " * 8, subsequent_indent=" " * 12)
    ]
    head, heading, rest = "", "", ""
    for section in ("\n    Attributes:\n", "\n    Raises:\n"):
        head, heading, rest = text.partition(section)
        if heading:
            break
    return head.rstrip() + "\n\n" + "\n".join(["    Args:", *wrapped]) + "\n" + (heading + rest if heading else "    ")


def _constructor(cls: type[Declared]) -> Callable[..., None]:
    """`__init__` for the declared parameters, with the signature that it stands for."""
    declared = cls.parameters_declared
    kinds = {True: inspect.Parameter.POSITIONAL_OR_KEYWORD, False: inspect.Parameter.KEYWORD_ONLY}
    hints = {name: hint for base in reversed(cls.__mro__) for name, hint in inspect.get_annotations(base).items()}
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        inspect.Parameter(one.name, kinds[one.positional], default=one.default, annotation=hints[one.name])
        for one in declared
    ]
    positional = [one.name for one in declared if one.positional]
    names = {one.name for one in declared}

    def __init__(self: Declared, *arguments: Any, **given: Any) -> None:  # noqa: N807
        if len(arguments) > len(positional):
            most = len(positional) + 1
            raise TypeError(f"{cls.__name__}() takes {most} positional arguments but {len(arguments) + 1} were given")
        for name, value in zip(positional, arguments, strict=False):
            if name in given:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}")
            given[name] = value
        for name in given.keys() - names:
            raise type(self)._unexpected(name, given[name])
        for one in declared:
            setattr(self, one.name, given.get(one.name, one.default))
        self.__init_post__()

    __init__.__signature__ = inspect.Signature([first, *parameters], return_annotation=None)  # type: ignore[attr-defined]
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return __init__
