"""YAML as people mean it."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Nothing but plain values, and 1e-2 is a number (YAML 1.1, which PyYAML reads, asks for 1.0e-2)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """The values in a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or asks for more than plain values.
    """
    return yaml.load(text, Loader=_Loader)
