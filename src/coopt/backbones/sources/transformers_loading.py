"""Backbones of the package transformers, by the names `transformers:...` (see `transformers_names.py`).

Towers are built of coopt's own modules from the configuration, and the weights put in by name; only ALIGN's
EfficientNet is built by transformers. Of that package tokenizers are used besides, and nothing of it where CLIP's own do.
So a CLIP in this format is the same model, with the same fingerprint, as in open_clip's or OpenAI's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones.bert_text import BertText, PostNormBlock
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.clip_towers import (
    Clip,
    QuickGELU,
    Transformer,
    VisionTransformer,
    causal_mask,
    fill,
    set_details,
)
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Tokenizer
from coopt.backbones.siglip_towers import Siglip, SiglipVision
from coopt.backbones.sources.transformers_config import Config
from coopt.backbones.sources.transformers_download import fetch
from coopt.backbones.sources.transformers_names import find_transformers
from coopt.backbones.sources.transformers_tokenizer import read_tokenizer
from coopt.backbones.sources.transformers_weights import read_state
from coopt.backbones.weights import first_lines
from coopt.errors import BackboneError

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": functools.partial(nn.GELU, "tanh"),
    "gelu_pytorch_tanh": functools.partial(nn.GELU, "tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
}


def load_transformers(spec: str, device: torch.device | str = "cpu", download: bool = False) -> ClipBackbone:
    """A backbone from what follows "transformers:" in its name.

    Args:
        spec: see `transformers_names.py`.
        device: where the model lives.
        download: whether the network may be used for a model of the hub that is not on this machine.

    Raises:
        WeightsNotFoundError: the model is not on this machine.
        UnsupportedBackboneError: it is of a kind that coopt does not read.
        BackboneError: its files are damaged, or do not belong together.
    """
    source = find_transformers(spec, download)
    if source.folder is None:
        fetch(source.name, source.repo)
        source = find_transformers(spec)
    assert source.folder is not None and source.config is not None
    # The small first: weights take seconds to read.
    tokenizer = read_tokenizer(source.folder, source.config)
    model = build(source.config, tokenizer)
    try:
        fill(model, read_state(source.weights, source.config))
    except RuntimeError as error:
        raise BackboneError(
            f"The weights {source.weights[0]} are not those of the {source.config.family.model} that "
            f"{source.config.path} describes. {first_lines(error)}"
        ) from error
    if isinstance(model, Clip):
        model.attn_mask = causal_mask(model.context_length)
    return ClipBackbone(model, source.name, tokenizer, Preprocessing(**source.images), device)


def build(config: Config, tokenizer: Tokenizer) -> nn.Module:
    """A model of a configuration, whose weights are still to be filled in.

    Raises:
        BackboneError: the tokenizer is not the model's.
    """
    _check_tokenizer(config, tokenizer)
    with torch.device("meta"):  # no memory, and no random numbers that would be thrown away
        if config.kind in ("clip", "metaclip_2"):
            return _clip(config, tokenizer)
        if config.kind == "siglip":
            return _siglip(config)
        text = _bert(config, tokenizer)
        if config.kind != "align":
            return TwoTowers(_vision_transformer(config), text)
    return TwoTowers(_align_vision(config), text)


class TwoTowers(nn.Module):
    """An image tower, a text tower and the logit scale (as a logarithm)."""

    logit_bias = None

    def __init__(self, visual: nn.Module, text: BertText) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.logit_scale = nn.Parameter(torch.empty((), device="meta"))


class _AlignVision(nn.Module):
    """ALIGN's EfficientNet, as transformers builds it: pixels to features."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.embeddings, self.encoder = tower.embeddings, tower.encoder
        self.pooler = tower.pooler

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n D"]:
        """The mean over the last convolution's grid."""
        grid = self.encoder(self.embeddings(pixels), return_dict=True).last_hidden_state
        return self.pooler(grid).flatten(1)


def _check_tokenizer(config: Config, tokenizer: Tokenizer) -> None:
    """A tokenizer that the tower was not trained with gives features of something else, without an error."""
    framing, text = tokenizer.framing, config.text
    wrong = "The tokenizer beside it is of another model."
    if tokenizer.vocab_size > text["vocab_size"]:
        raise BackboneError(
            f"{config.path}: the text tower has {text['vocab_size']} tokens, and its tokenizer {tokenizer.vocab_size}. "
            f"{wrong}"
        )
    if config.kind == "altclip" and text["pad_token_id"] != framing.pad:
        raise BackboneError(
            f"{config.path}: the text tower counts positions from the padding's id {text['pad_token_id']}, and its "
            f"tokenizer pads with {framing.pad}. {wrong}"
        )
    if _reads_out_at(config) == "argmax" and framing.end < tokenizer.vocab_size - 1:
        raise BackboneError(
            f"{config.path}: the text tower is read out at the highest id of a text, and its tokenizer ends a text with "
            f"{framing.end} of {tokenizer.vocab_size}. {wrong}"
        )


def _reads_out_at(config: Config) -> str:
    """In early configurations of CLIP the end's id is wrongly 2: then a text is read out at its highest id."""
    if config.kind == "clip":
        highest = config.text["vocab_size"] - 1
        return "argmax" if config.text["eos_token_id"] in (None, 2, highest) else "eos"
    return "eos" if config.kind == "metaclip_2" else ""


def _clip(config: Config, tokenizer: Tokenizer) -> Clip:
    text, vision = config.text, config.vision
    plain = {
        "embed_dim": config.projection,
        "vision_cfg": {
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": _ratio(vision),
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
        },
        "text_cfg": {
            "context_length": config.tokens,
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": _ratio(text),
        },
    }
    model = Clip(plain, quick_gelu=False)
    _set_details(model, text)
    _set_details(model.visual, vision)
    if _reads_out_at(config) == "eos":
        model.text_pool_type, model.text_eos_id = "eos", text["eos_token_id"]
    return model


def _siglip(config: Config) -> Siglip:
    text, vision = config.text, config.vision
    visual = SiglipVision(
        vision["image_size"],
        vision["patch_size"],
        _transformer(vision),
        vision["intermediate_size"],
        vision["num_attention_heads"],
    )
    dim = text.get("projection_size") or text["hidden_size"]
    model = Siglip(visual, text["vocab_size"], config.tokens, _transformer(text), dim)
    _set_details(model, text)
    _set_details(model.visual, vision)
    visual.mlp.gelu = _ACTIVATIONS[vision["hidden_act"]]()
    return model


def _vision_transformer(config: Config) -> VisionTransformer:
    vision = config.vision
    size, patch = vision["image_size"], vision["patch_size"]
    visual = VisionTransformer((size, size), (patch, patch), _transformer(vision), config.projection)
    _set_details(visual, vision)
    return visual


def _transformer(tower: dict[str, Any]) -> Transformer:
    return Transformer(
        tower["hidden_size"], tower["num_attention_heads"], tower["num_hidden_layers"], _ratio(tower), quick_gelu=False
    )


def _ratio(tower: dict[str, Any]) -> float:
    """What the width is multiplied with, and rounded down, for the feed-forward layers' width."""
    return (tower["intermediate_size"] + 0.5) / tower["hidden_size"]


def _set_details(tower: nn.Module, of_config: dict[str, Any]) -> None:
    set_details(tower, _ACTIVATIONS[of_config["hidden_act"]], float(of_config["layer_norm_eps"]))


def _bert(config: Config, tokenizer: Tokenizer) -> BertText:
    text = config.text
    width, heads, hidden = text["hidden_size"], text["num_attention_heads"], text["intermediate_size"]
    activation, eps = _ACTIVATIONS[text["hidden_act"]], float(text["layer_norm_eps"])
    blocks = [PostNormBlock(width, heads, hidden, activation, eps) for _ in range(text["num_hidden_layers"])]
    first, second, out = nn.Identity(), nn.Identity(), width
    if config.kind == "altclip":
        out = text["project_dim"]
        first, second = nn.LayerNorm(width, eps=eps), nn.Linear(width, out)
    head = nn.Sequential(first, second, nn.Linear(out, config.projection, bias=config.kind == "align"))
    tower = BertText(
        text["vocab_size"],
        text["max_position_embeddings"],
        blocks,
        config.tokens,
        tokenizer.framing.pad,
        head,
        config.projection,
        counted=config.kind == "altclip",
    )
    tower.ln_embedding.eps = eps
    return tower


def _align_vision(config: Config) -> nn.Module:
    from transformers import AlignVisionConfig, AlignVisionModel  # pyright: ignore[reportMissingImports]

    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights, which are replaced
            return _AlignVision(AlignVisionModel(AlignVisionConfig(**config.vision)))
    except Exception as error:  # wrong types and sizes surface as whatever the layers raise
        raise BackboneError(
            f"{config.path}: transformers cannot build the image tower of vision_config ({type(error).__name__}: "
            f"{first_lines(error)})."
        ) from error
