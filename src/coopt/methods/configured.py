"""What every method is given: backbone, classes and the machine; and its parameters as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from coopt.backbones import Backbone
from coopt.backbones.precision import UsedPrecision
from coopt.data import FeatureCache
from coopt.errors import ParameterError
from coopt.methods.capabilities import Capabilities
from coopt.methods.estimator import Estimator
from coopt.parameters import fitted, parameter
from coopt.runtime import DECISIVE, Precision, Runtime, refuse_moved
from coopt.text.memory import bytes_of
from coopt.wording import setting, subject

if TYPE_CHECKING:
    from typing_extensions import Self

LOCAL_PARAMETERS = ("backbone", "class_names", "on_bad_image", "runtime")
"""Parameters that belong to the machine or the moment, not to what is learned."""


class Configured(Estimator):
    """Base of all methods, before they learn or predict anything."""

    method: ClassVar[str]
    """The method's name in saved files."""

    title: ClassVar[str] = ""
    """What tables of results call it; none: its name."""

    paper: ClassVar[str] = ""
    """Where it was published."""

    published: ClassVar[Mapping[str, float]] = {}
    """Numbers of that paper, by what they are of."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    """What it can do."""

    backbone: str | Backbone = parameter(
        default="bundled", kw_only=False, doc="A name for `coopt.load_backbone`, or a loaded backbone."
    )
    class_names: Sequence[str] | None = parameter(
        default=None, doc="The classes in order; needed when labels are integers."
    )
    on_bad_image: Literal["fail", "skip"] = parameter(
        default="fail",
        choices=("fail", "skip"),
        doc='"fail" at an image that cannot be read when fitting, or "skip" it with a warning.',
    )
    runtime: Runtime | None = parameter(
        default=None,
        check=lambda runtime: isinstance(runtime, Runtime),
        said="a coopt.Runtime or None",
        doc="How the machine is used: device, precision, memory, cache ...; None: `coopt.Runtime()`.",
    )

    precision_: UsedPrecision = fitted()

    @property
    def full_title(self) -> str:
        """What tables of results call it, with these parameters."""
        return self.title or self.method

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that decide what is learned, ready for JSON; once fitted, with what "auto" came to."""
        given = {k: v for k, v in self.get_params(deep=False).items() if k not in LOCAL_PARAMETERS}
        for one in self.parameters_declared:
            if one.added_later and given[one.name] == one.default:
                del given[one.name]
        if self.capabilities.text:
            given |= {name: getattr(self.machine, name) for name in DECISIVE}
            asked = self._asked_precision
            given["precision"] = getattr(self, "precision_", asked) if asked == "auto" else asked
        return {k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v for k, v in sorted(given.items())}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], runtime: Runtime | None = None, **others: Any) -> Self:
        """An estimator from what `parameters` gave, where what belongs to the machine stands among the others.

        Args:
            parameters: as in saved prompts and runs.
            runtime: the rest of the machine; what it says of precision and text path comes before what `parameters` say.
            others: backbone, classes and the like.

        Raises:
            ParameterError: a value is not allowed, or a precision is given for a method that has none.
            TypeError: the method has no such parameter.
        """
        given, usual = runtime or Runtime(), Runtime()
        saved = {name: value for name, value in parameters.items() if cls.capabilities.text and name in DECISIVE}
        if not cls.capabilities.text and given.precision not in (None, "auto", "fp32"):
            raise ParameterError(
                f"The method {cls.method!r} has no precision: it predicts in fp32. Leave out "
                f"{setting('precision', given.precision)}."
            )
        whole = given.changed(**{n: v for n, v in saved.items() if getattr(given, n) == getattr(usual, n)})
        rest = {name: value for name, value in parameters.items() if name not in saved}
        return cls(**rest, **others, runtime=None if whole == usual else whole)

    @property
    def machine(self) -> Runtime:
        """The `runtime` that was given, or one as usual."""
        return Runtime() if self.runtime is None else self.runtime

    @classmethod
    def runtime_used(cls) -> tuple[str, ...]:
        """The parameters of `Runtime` that matter to this method."""
        unused = set() if cls.capabilities.text else {"precision", "text_path", "memory"}
        return tuple(one.name for one in Runtime.parameters_declared if one.name not in unused | {"checkpoint"})

    @property
    def _asked_precision(self) -> Precision:
        return (self.machine.precision if self.capabilities.text else None) or "fp32"

    @property
    def image_precision(self) -> Precision:
        """Of the image tower's matrix products: `precision_`; "fp32" for a method without a text pass, and for one that
        changes the image tower."""
        if self.capabilities.image_tower:  # it predicts as it learned
            return "fp32"
        return getattr(self, "precision_", self._asked_precision)

    @classmethod
    def _unexpected(cls, name: str, value: Any) -> Exception:
        refuse_moved(name, value, cls.__name__)
        return super()._unexpected(name, value)

    def _set_param(self, name: str, value: Any) -> None:
        owner, nested, rest = name.partition("__")
        if owner == "runtime" and nested:  # of this estimator alone: others may share the object
            self.runtime = self.machine.changed(**{rest: value})
            return
        if name not in self.get_params(deep=False):
            refuse_moved(name, value, type(self).__name__)
        super()._set_param(name, value)

    def check_parameters(self) -> None:
        """See `Declared.check_parameters`."""
        super().check_parameters()
        self._check_runtime(
            "cache", isinstance(self.machine.cache, bool | FeatureCache), "True, False or a FeatureCache"
        )
        bytes_of(self.machine.memory)

    def _check_runtime(self, name: str, holds: bool, expected: str) -> None:
        """Checks what `coopt.Runtime` itself cannot, which knows nothing of the other modules."""
        if not holds:
            got = getattr(self.machine, name)
            raise ParameterError(f"{subject(name, 'Runtime')} must be {expected}. Got {got!r} instead.")
