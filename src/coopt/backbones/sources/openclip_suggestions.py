"""What a name may have meant: the published models near to a text."""

from __future__ import annotations

import re

from coopt.backbones.file_formats import looks_like_path, of_openai, on_hub
from coopt.backbones.source import close_to
from coopt.backbones.sources.openclip_models import model_configs, unsupported_reason, weight_tags


def meant(name: str) -> list[str]:
    """The published models, or those of the Hugging Face hub, that a name of no known scheme may have meant."""
    kind, _, spec = name.partition(":")
    plain = re.sub(r"[^a-z]", "", kind.lower())
    if plain == "https" and "huggingface.co/" in spec:
        return [on_hub(spec.partition("huggingface.co/")[2])]
    if spec and plain in ("hfhub", "hf", "huggingface"):
        return [on_hub(spec)]
    if spec and plain == "localdir":
        return [f"openclip:local-dir:{spec}"]
    return published(spec or kind)


def published(text: str) -> list[str]:
    """The published models that a text without "openclip:" may have meant, as names with a tag."""
    if same := of_openai(text):
        return [same]
    if text.startswith(("hf-hub:", "local-dir:")):
        return []
    model, rest = split_model(re.sub(r"@(\d+)(px)?", r"-\1", text).strip("/ "))
    by_lower = {name.lower(): name for name in model_configs()}
    stem = model.lower().replace("_", "-").removesuffix(".pt").removesuffix("px")
    models = [by_lower[stem]] if stem in by_lower else close_to(stem, list(model_configs()))
    return [name for model in models if (name := with_tag(model, rest))]


def with_tag(model: str, rest: str = "") -> str:
    """A model with the tag that was meant, or with its best known one; "" for a model without usable weights."""
    tags = list(weight_tags().get(model, {}))
    if not tags or unsupported_reason(model_configs()[model]):
        return ""
    if rest and looks_like_path(rest):
        return f"openclip:{model}/{rest}"
    wanted = rest.lower().replace("-", "_")
    chosen = next(iter([tag for tag in tags if tag == wanted] or close_to(wanted, tags)), tags[0])
    return f"openclip:{model}/{chosen}"


def split_model(spec: str) -> tuple[str, str]:
    """(model, tag or path) of MODEL/TAG."""
    model, _, rest = spec.partition("/")
    if model not in model_configs() and rest:
        # OpenAI writes ViT-B/16, open_clip ViT-B-16: take the longest beginning that is a model.
        parts = spec.split("/")
        for count in range(len(parts), 1, -1):
            if "-".join(parts[:count]) in model_configs():
                return "-".join(parts[:count]), "/".join(parts[count:])
    return model, rest
