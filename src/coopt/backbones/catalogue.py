"""What open_clip has: its model configurations and weight tags, read without importing it (which takes six seconds)."""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError

_UNUSUAL_BLOCKS = (
    "block_type",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)
"""Settings of a text tower for which open_clip takes another kind of block."""


@dataclass(frozen=True)
class BackboneInfo:
    """One row of `coopt backbones`.

    Attributes:
        name: the model, as in "openclip:NAME/TAG".
        tags: its published weights.
        supported: whether coopt trains prompts for it.
        reason: why not; empty when supported.
        context_length: of the text tower, in tokens.
        text_path: how fast prompts run: "fast", or "reference" where every prompt runs at its full length; empty when
            not supported.
    """

    name: str
    tags: tuple[str, ...]
    supported: bool
    reason: str
    context_length: int
    text_path: str = ""


def list_backbones() -> list[BackboneInfo]:
    """Every model of the installed open_clip, in the order of their names. Fast: reads configuration files only."""
    tags = weight_tags()
    rows = []
    for name, config in model_configs().items():
        reason = unsupported_reason(config)
        rows.append(
            BackboneInfo(
                name=name,
                tags=tuple(tags.get(name, {})),
                supported=reason is None,
                reason=reason or "",
                context_length=int(config["text_cfg"].get("context_length", 77)),
                text_path="" if reason else text_path_of(config),
            )
        )
    return rows


def unsupported_reason(config: dict) -> str | None:
    """Why prompts cannot be trained for a model of this configuration, from its attributes; None when they can."""
    text = config.get("text_cfg", {})
    if text.get("hf_model_name"):
        return f"its text tower is the Hugging Face model {text['hf_model_name']!r}, not one of open_clip's own"
    if "multimodal_cfg" in config or text.get("embed_cls"):
        return "its text tower appends a class token after the text, as CoCa does"
    if text.get("pool_type", "argmax") not in ("argmax", "eos", "last"):
        return f"its text tower pools at {text['pool_type']!r}, neither at the end token nor at the last position"
    return None


def text_path_of(config: dict) -> Literal["fast", "reference"]:
    """Which text path serves a supported configuration: the fast one is exact for causal towers read at the end token
    whose blocks hold nothing out of the ordinary."""
    text = config.get("text_cfg", {})
    bidirectional = text.get("no_causal_mask") or text.get("pool_type", "argmax") == "last"
    return "reference" if bidirectional or any(text.get(key) for key in _UNUSUAL_BLOCKS) else "fast"


@functools.cache
def model_configs() -> dict[str, dict]:
    """Name to open_clip configuration, in natural order of names. Read only: copy before changing one."""
    configs = {}
    for path in (open_clip_folder() / "model_configs").glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if all(part in config for part in ("embed_dim", "vision_cfg", "text_cfg")):
            configs[path.stem] = config
    return dict(sorted(configs.items(), key=lambda item: natural_key(item[0])))


@functools.cache
def weight_tags() -> dict[str, dict[str, dict]]:
    """Model to tag to where the tag's weights are ("hf_hub", "url") and how its images are prepared."""
    if "open_clip" not in sys.modules:
        try:
            return _tags_from_source(open_clip_folder())
        except Exception:  # another version of open_clip may write its table in a way that we do not read
            pass
    return import_open_clip("open_clip.pretrained")._PRETRAINED


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts "ViT-B-16" before "ViT-B-32" and both before "ViT-B-128"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def open_clip_folder() -> Path:
    """Where the installed open_clip lies, which is not imported.

    Raises:
        BackboneError: it is not installed.
    """
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError("The package open_clip_torch is not installed: pip install open_clip_torch.")
    return Path(next(iter(spec.submodule_search_locations)))


def _tags_from_source(folder: Path) -> dict[str, dict[str, dict]]:
    """Evaluate open_clip's table of weights without the rest of its package.

    Of `constants.py` and `pretrained.py` only the module-level tables and the small functions that fill them run;
    imports and everything that loads or downloads are left out.
    """
    names: dict[str, Any] = {"copy": copy}
    for file in ("constants.py", "pretrained.py"):
        tree = ast.parse((folder / file).read_text(encoding="utf-8"))
        kept = [node for node in tree.body if _is_table(node)]
        exec(compile(ast.Module(body=kept, type_ignores=[]), str(folder / file), "exec"), names)
    tags = names["_PRETRAINED"]
    if not isinstance(tags, dict) or not all(isinstance(value, dict) for value in tags.values()):
        raise TypeError("not a table of weights")
    return tags


def _is_table(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("_") and node.name.endswith("cfg")
    return isinstance(node, (ast.Assign, ast.For)) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
