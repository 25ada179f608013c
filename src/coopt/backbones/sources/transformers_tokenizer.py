"""The tokenizer of a model folder of the package transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coopt.backbones.caches import VOCABULARIES
from coopt.backbones.sources.transformers_config import Config, read_object
from coopt.backbones.tokenizers import ClipTokenizer, HubTokenizer, clip_tokenizer
from coopt.backbones.weights import first_lines
from coopt.backbones.zoo import require_transformers
from coopt.errors import BackboneError

_START, _END = "<|startoftext|>", "<|endoftext|>"


def read_tokenizer(folder: Path, config: Config) -> ClipTokenizer | HubTokenizer:
    """A model's tokenizer: coopt's own where the folder's is CLIP's, or else transformers' from the folder's files.

    Raises:
        BackboneError: the files are damaged, or transformers is not installed or does not know such a tokenizer.
    """
    if config.kind == "clip" and _is_clips(folder, config):
        return clip_tokenizer()
    require_transformers(f"The tokenizer in {folder}")
    import transformers  # pyright: ignore[reportMissingImports]

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each kind of tokenizer raises what its reader does
        raise BackboneError(
            f"The tokenizer in {folder} cannot be read by transformers {transformers.__version__} "
            f"({type(error).__name__}: {first_lines(error)})."
        ) from error
    return HubTokenizer(tokenizer, _clean(config, tokenizer), str(folder))


def _is_clips(folder: Path, config: Config) -> bool:
    """Whether the folder's table of tokens is that of CLIP's own tokenizer, or is missing and could be no other."""
    file = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    if file is None:
        return True  # of 49,408 tokens, or names would not have been let pass
    if file.suffix != ".json":
        return False
    content: Any = read_object(file, "tokenizer")
    if file.name == "tokenizer.json":
        model = content.get("model") or {}
        content = {**model.get("vocab", {})} if isinstance(model.get("vocab"), dict) else {}
    own = clip_tokenizer()
    return content == own.vocabulary(_START, _END)


def _clean(config: Config, tokenizer: Any) -> Any:
    """What is done to a text first. SigLIP 2 learned from lower case, which its tokenizers of earlier versions leave out.

    SigLIP's own tokenizer makes lower case and takes punctuation away itself.
    """
    if config.kind == "siglip" and not hasattr(tokenizer, "canonicalize_text"):
        return str.lower
    return str
