"""All methods by name: coopt's own, as `schema.json` lists them, and those that other packages announce.

A method of coopt is one file in this folder, and `make schema` after it was written. A method of another package is an entry
point of the group "coopt.methods"; see docs/methods.md.
"""

from __future__ import annotations

from coopt.methods.schema import builtin_methods
from coopt.registry import Registry

METHODS = Registry("coopt.methods", {name: one.target for name, one in builtin_methods().items()}, "method")
