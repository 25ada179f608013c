"""Methods by name, and those of their parameters that have an option and an entry in configuration files. None is imported."""

from __future__ import annotations

from coopt.methods.registry import METHODS
from coopt.methods.schema import builtin_methods
from coopt.parameters import Parameter

SEED = "seed"
"""The parameter that is a field of requests, whatever the method."""


def method_names(learns: bool = True) -> tuple[str, ...]:
    """All methods, those of other packages too; `learns`: those that are known to learn nothing from images are left out."""
    known = builtin_methods()
    return tuple(name for name in METHODS.names() if not learns or name not in known or known[name].capabilities.images)


def method_options() -> tuple[Parameter, ...]:
    """Each once, as the first method declares it. All others are set by NAME=VALUE."""
    options: dict[str, Parameter] = {}
    for method in builtin_methods().values():
        for one in method.parameters:
            if one.option and one.name != SEED:
                options.setdefault(one.name, one)
    return tuple(options.values())
