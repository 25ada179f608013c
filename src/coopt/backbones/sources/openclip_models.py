"""What open_clip has: its model configurations and weight tags, read without importing it (which takes six seconds)."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Literal

from coopt.backbones.source import BackboneInfo
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError

TAGS = Path(__file__).with_name("openclip_tags.json")

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

_POOLERS = (None, "mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler")
"""What text towers of the package transformers may pool with; None: what is usual for the encoder. open_clip's "max_pooler" is
not among them: it fails when it is called."""

TextPath = Literal["fast", "packed", "reference"]


def list_models() -> list[BackboneInfo]:
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
                why="" if reason else why_not_fast(config),
            )
        )
    return rows


def unsupported_reason(config: dict) -> str | None:
    """Why prompts cannot be trained for a model of this configuration, from its attributes; None when they can."""
    text = config.get("text_cfg", {})
    if text.get("tokenizer_mode"):
        return f"its tokenizer frames texts in a way of its own (tokenizer_mode {text['tokenizer_mode']!r})"
    if text.get("hf_model_name"):
        pooler = text.get("hf_pooler_type")
        return f"its text tower pools with {pooler!r}" if pooler not in _POOLERS else None
    if not text.get("embed_cls") and text.get("pool_type", "argmax") not in ("argmax", "eos", "last"):
        return f"its text tower pools at {text['pool_type']!r}, neither at the end token nor at the last position"
    return None


def text_path_of(config: dict) -> TextPath:
    """Which text path serves a supported configuration; `why_not_fast` has the reason.

    "fast" is exact for causal towers read at the end token whose blocks hold nothing out of the ordinary; "packed", each
    prompt at its own length, for towers whose attention does not see padding; all others take the "reference" path.
    """
    if config.get("text_cfg", {}).get("hf_model_name"):
        return "packed"
    return "reference" if why_not_fast(config) else "fast"


def why_not_fast(config: dict) -> str:
    """Why the fast path does not serve a supported configuration; empty where it does."""
    text = config.get("text_cfg", {})
    if text.get("hf_model_name"):
        return "not causal; padding is masked"
    if text.get("embed_cls"):
        return "a class token behind the text, which sees a token of padding"
    if text.get("no_causal_mask"):
        return "not causal, and padding is seen"
    if text.get("pool_type", "argmax") == "last":
        return "read at the last position, and padding is seen"
    unusual = [key for key in _UNUSUAL_BLOCKS if text.get(key)]
    return f"blocks with {', '.join(unusual)}" if unusual else ""


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
    """Model to tag to where the tag's weights are ("hf_hub", "url") and how its images are prepared.

    They stand in open_clip's code and not in a file of data, so a copy of them comes with coopt, made by
    `tools/open_clip_tags.py`. An open_clip with another code is imported and asked, which takes seconds.
    """
    copy = json.loads(TAGS.read_text(encoding="utf-8"))
    if copy["sha256"] != code_of_tags():
        return ask_open_clip()
    return {model: {tag: _with_tuples(row) for tag, row in tags.items()} for model, tags in copy["tags"].items()}


def code_of_tags() -> str:
    """SHA-256 of the code that makes the table of tags in the installed open_clip, whose version alone may be another."""
    digest = hashlib.sha256()
    for file in ("constants.py", "pretrained.py"):
        digest.update((open_clip_folder() / file).read_text(encoding="utf-8").encode())
    return digest.hexdigest()


def ask_open_clip() -> dict[str, dict[str, dict]]:
    """What `weight_tags` gives, from open_clip itself."""
    pretrained = import_open_clip("open_clip.pretrained")
    tags: dict[str, dict[str, dict]] = {}
    for model, tag in pretrained.list_pretrained():
        tags.setdefault(model, {})[tag] = pretrained.get_pretrained_cfg(model, tag)
    return tags


def _with_tuples(row: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


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
