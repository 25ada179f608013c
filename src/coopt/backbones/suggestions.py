"""What a backbone's name may have meant: the published models near to a text."""

from __future__ import annotations

import difflib
import re

from coopt.backbones.catalogue import model_configs, unsupported_reason, weight_tags
from coopt.backbones.file_formats import OPENAI_ON_HUB, WEIGHT_SUFFIXES


def did_you_mean(names: list[str]) -> str:
    """A question, with a blank after it; "" without names."""
    return f"Did you mean {' or '.join(map(repr, names))}? " if names else ""


def meant(name: str) -> list[str]:
    """The names that one of no known kind may have meant."""
    kind, colon, spec = name.partition(":")
    plain = re.sub(r"[^a-z]", "", kind.lower())
    if plain == "https" and "huggingface.co/" in spec:
        return [on_hub(spec.partition("huggingface.co/")[2])]
    if spec and plain in ("hfhub", "hf", "huggingface"):
        return [on_hub(spec)]
    if spec and plain == "localdir":
        return [f"openclip:local-dir:{spec}"]
    close = difflib.get_close_matches(plain, ["openclip", "openai", "bundled"], n=1, cutoff=0.6)
    if close == ["bundled"]:
        return close
    if close and colon and not spec:  # the kind alone says nothing
        return []
    return published(spec or kind) or [f"{word}:{spec}" for word in close]


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


def on_hub(address: str) -> str:
    """The name of a model on the Hugging Face hub; of OpenAI's, which lie there in another format, open_clip's name."""
    repo = "/".join(address.split("/")[:2])
    return of_openai(repo) or f"openclip:hf-hub:{repo}"


def of_openai(repo: str) -> str | None:
    """open_clip's name of a model that OpenAI published in transformers' format."""
    return OPENAI_ON_HUB.get(repo.rpartition("/")[2].lower())


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


def looks_like_path(rest: str) -> bool:
    return rest.startswith((".", "/", "~")) or bool(re.search(r"[/\\]", rest)) or rest.endswith(WEIGHT_SUFFIXES)


def close_to(word: str, words: list[str]) -> list[str]:
    """Up to three of the words that are like one, or that begin with it: laion2b_s34b_b88k for laion2b."""
    if word and (longer := [candidate for candidate in words if candidate.lower().startswith(f"{word.lower()}_")]):
        return longer[:3]
    lowered = {candidate.lower(): candidate for candidate in words}
    return [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=3, cutoff=0.6)]
