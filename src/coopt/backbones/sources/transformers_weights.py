"""Weights under the names of the package transformers, as those of the modules that coopt builds.

CLIP's two transformers get open_clip's names: queries, keys and values are one matrix there, and projections stand the
other way round. Nothing is computed: the numbers are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from coopt.backbones.sources.transformers_config import Config
from coopt.backbones.weights import read_parts
from coopt.errors import BackboneError

# Made anew by every model, or of no use to features: BERT's pooler reads out in another way.
_NOT_WEIGHTS = re.compile(r"\.(position_ids|token_type_ids)$|^text_model\.(roberta\.)?pooler\.")
_LAYER = re.compile(r"(.*\.layers?)\.(\d+)\.(.+)")

_CLIP_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_CLIP_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "head": "text_projection",
}
_CLIP_VISION = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "head.probe": "query",
    "head.attention": "attn",
    "head.layernorm": "ln_head",
    "head.mlp.fc1": "mlp.c_fc",
    "head.mlp.fc2": "mlp.c_proj",
}
_BERT_PARTS = {
    "attention.output.dense": "attn.out_proj",
    "attention.output.LayerNorm": "ln_1",
    "intermediate.dense": "mlp.c_fc",
    "output.dense": "mlp.c_proj",
    "output.LayerNorm": "ln_2",
}
_BERT_QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
_BERT = {
    "embeddings.word_embeddings.weight": "token_embedding.weight",
    "embeddings.position_embeddings.weight": "positional_embedding",
    "embeddings.LayerNorm": "ln_embedding",
    "pre_LN": "head.0",
    "transformation": "head.1",
}
_SEGMENTS = "embeddings.token_type_embeddings.weight"


def read_state(files: Sequence[Path], config: Config) -> dict[str, Tensor]:
    """The weights of a model under the names of the modules that coopt builds.

    Args:
        files: all of which hold a part.
        config: of the model.

    Raises:
        BackboneError: a file is damaged, or the weights are not those of such a model.
    """
    state = {name: value for name, value in read_parts(files).items() if not _NOT_WEIGHTS.search(name)}
    try:
        return converted(state, config)
    except (KeyError, IndexError, RuntimeError) as error:
        raise BackboneError(
            f"The weights {files[0]} are not those of a {config.family.model}: {_said(error)}."
        ) from error


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]


def converted(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Weights under the names of transformers' model, as `read_state` gives them.

    Raises:
        KeyError: queries, keys or values are incomplete.
        RuntimeError, IndexError: their shapes do not fit together.
    """
    text = _under("text_model.", state)
    if config.kind in ("clip", "metaclip_2", "siglip"):
        out = _renamed(text, _CLIP_TEXT, "transformer.resblocks", _CLIP_PARTS, _CLIP_QKV, "attn.in_proj_")
    else:
        out = _bert(text, state)
    vision = _under("vision_model.", state)
    if config.kind != "align":
        vision = _renamed(vision, _CLIP_VISION, "transformer.resblocks", _CLIP_PARTS, _CLIP_QKV, "attn.in_proj_")
    out |= {f"visual.{name}": value for name, value in vision.items()}
    for name, value in state.items():
        if name == "visual_projection.weight":
            out["visual.proj"] = value.T
        elif name == "text_projection.weight" and config.kind in ("clip", "metaclip_2"):
            out["text_projection"] = value.T
        elif name == "temperature":  # ALIGN divides by it
            out["logit_scale"] = -value.double().log()
        elif name in ("logit_scale", "logit_bias"):
            out[name] = value
        elif not name.startswith(("text_model.", "vision_model.", "text_projection.")):
            out[name] = value  # which no module has: loading says so
    for name in ("logit_scale", "logit_bias"):
        if name in out:
            out[name] = out[name].reshape(())
    return out


def _bert(text: dict[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    text = {name.removeprefix("roberta."): value for name, value in text.items()}
    segments = text.pop(_SEGMENTS)
    out = _renamed(text, _BERT, "blocks", _BERT_PARTS, _BERT_QKV, "attn.in_proj.")
    out["segment_embedding"] = segments[0]  # a prompt is one segment
    out |= {f"head.2.{end}": value for end, value in _under("text_projection.", state).items()}
    return {f"text.{name}": value for name, value in out.items()}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _renamed(
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    blocks: str,
    parts: Mapping[str, str],
    qkv: Sequence[str],
    in_proj: str,
) -> dict[str, Tensor]:
    """A tower's weights under other names, with queries, keys and values in one.

    Args:
        state: under transformers' names.
        names: those of what is no layer, to ours.
        blocks: what stands before the layer's number with us.
        parts: names within a layer, to ours.
        qkv: those of queries, keys and values.
        in_proj: what our name of the three begins with.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            out[_ours(name, names)] = value
            continue
        within, end = layer[3].rpartition(".")[::2]
        if within not in qkv:
            out[f"{blocks}.{layer[2]}.{_ours(layer[3], parts)}"] = value
        elif within == qkv[0]:
            three = [state[f"{layer[1]}.{layer[2]}.{one}.{end}"] for one in qkv]
            out[f"{blocks}.{layer[2]}.{in_proj}{end}"] = torch.cat(three)
    return out


def _ours(name: str, names: Mapping[str, str]) -> str:
    """A name with its longest known beginning exchanged; one that is not known stays, and loading says so."""
    for known in sorted(names, key=len, reverse=True):
        if name == known or name.startswith(f"{known}."):
            return names[known] + name[len(known) :]
    return name
