"""Parameters as texts NAME=VALUE, as `coopt fit --set` takes them and as a configuration file keeps them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import yaml

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None, "null": None}


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
    if text[:1] in ("[", '"'):
        with suppress(ValueError):
            return json.loads(text)
    if text[:1] in ("[", '"', "'"):
        with suppress(yaml.YAMLError):
            return yaml.safe_load(text)
    return text


def assignment(name: str, value: Any) -> str:
    """The text NAME=VALUE from which `value_of` reads the value again."""
    if value is None or isinstance(value, bool):
        return f"{name}={'none' if value is None else str(value).lower()}"
    if isinstance(value, str) and value_of(value) == value:
        return f"{name}={value}"
    return f"{name}={json.dumps(list(value) if isinstance(value, tuple) else value)}"
