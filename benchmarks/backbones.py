"""Each family of backbones: our text features against the model's own, and a step against encoding everything anew.

    python benchmarks/backbones.py [--classes 500] [--width 64] [--layers 3] [--repeats 3] [--only NAMES] [--json FILE]

One small model with random weights for each family is made on the spot. The reference way sends every prompt through the
tower's own forward at the tower's full length; ours takes the path that `TextEncoder` chooses. Both learn one context, on
cached image features, for the names of ImageNet's classes, and take turns in one process. The names are cut into tokens by CLIP's
tokenizer for all families, between the start, end and padding that each family has. Errors are relative to the norm: features of
"a photo of a ..." against the model's own `encode_text` or `get_text_features`, and a context's gradient against the
reference path's. Exits with 1 where features differ by more than 1e-5 or gradients by more than 1e-4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import say, seconds
from benchmarks.names import imagenet_names
from benchmarks.report import add_json_option, on_screen, report
from coopt.backbones import Backbone, Preprocessing, load_backbone
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.protocol import Framing
from coopt.backbones.sources.openclip_loading import build_model
from coopt.backbones.tokenizers import clip_tokenizer
from coopt.errors import ClassNameWarning
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts, template_prompts
from coopt.text.reference import padded_ids
from coopt.training.heap import kept_heap
from tests.backbones.hf_models import FramedTokenizer, hf_configuration, text_config
from tests.backbones.small_models import VIT, scramble

WORDS = 49408
"""Tokens of CLIP's tokenizer; those that frame a text follow it where a family's own ids are not the tokenizer's."""

MOST_FEATURE_ERROR, MOST_GRADIENT_ERROR = 1e-5, 1e-4
BATCH = 32


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        package: that the model is of.
        backbone: of it.
        own: token ids at full length to what the model itself makes of them.
    """

    package: str
    backbone: Backbone
    own: Callable[[Tensor], Tensor]


class Reframed:
    """CLIP's words between other tokens: ids below 1000 frame texts in some family, so words come behind them."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.vocab_size = WORDS + 1000

    def encode(self, text: str) -> list[int]:
        return [1000 + number for number in clip_tokenizer().encode(text)]

    def decode(self, ids: list[int]) -> str:
        return clip_tokenizer().decode([number - 1000 for number in ids])


def open_clip_family(arguments: argparse.Namespace, framing: Framing | None = None, **text: Any) -> Family:
    """An open_clip model with a text tower of its own kind."""
    sizes = {"width": arguments.width, "heads": max(2, arguments.width // 64), "layers": arguments.layers}
    tokenizer = clip_tokenizer() if framing is None else Reframed(framing)
    config: dict[str, Any] = {
        "embed_dim": 48,
        "custom_text": True,
        "vision_cfg": {**VIT, "layers": 1},
        "text_cfg": {"context_length": 77, "vocab_size": tokenizer.vocab_size, **sizes, **text},
    }
    if text.get("embed_cls"):
        config["vision_cfg"] |= {"attentional_pool": True, "output_tokens": True}
        config["multimodal_cfg"] = {**config["text_cfg"], "layers": 1}
        for key in ("embed_cls", "output_tokens"):
            config["multimodal_cfg"].pop(key)
    return _of_open_clip(build_model(config), tokenizer)


def encoder_family(arguments: argparse.Namespace, kind: str) -> Family:
    """An open_clip model whose text tower is an encoder of transformers."""
    sizes = {
        "hidden_size": arguments.width,
        "num_hidden_layers": arguments.layers,
        "intermediate_size": 4 * arguments.width,
    }
    tokenizer = Reframed(FramedTokenizer(kind).framing)
    encoder = {**text_config(kind, tokenizer.vocab_size), **sizes, "max_position_embeddings": 258}
    config = hf_configuration(context_length=256)
    return _of_open_clip(build_model(config, text_config=encoder), tokenizer)


def _of_open_clip(model: Any, tokenizer: Any) -> Family:
    torch.manual_seed(0)
    scramble(model.eval())
    backbone = ClipBackbone(model, "random", tokenizer, Preprocessing(size=(32, 32)))
    return Family("open_clip", backbone, lambda ids: backbone.model.encode_text(ids, normalize=False))  # type: ignore[operator]


def transformers_family(arguments: argparse.Namespace, kind: str, tokens: int, clip_words: bool = False) -> Family:
    """A model of transformers, written to a folder and loaded from there."""
    from tests.backbones.sources.small_transformers import features_of, made

    heads = max(2, arguments.width // 64)
    sizes = {"hidden_size": arguments.width, "num_hidden_layers": arguments.layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * arguments.width, "max_position_embeddings": tokens}
    if not clip_words:
        sizes["vocab_size"] = WORDS + 1000
    if kind.startswith("siglip"):
        sizes["projection_size"] = 40
    with tempfile.TemporaryDirectory(prefix="coopt-") as folder:
        model = made(kind, Path(folder), text_config=sizes)
        backbone = load_backbone(f"transformers:{folder}", "cpu")
    if not clip_words:
        backbone.tokenizer = Reframed(backbone.tokenizer.framing)
    pad = backbone.tokenizer.framing.pad

    def own(ids: Tensor) -> Tensor:
        mask = {"attention_mask": (ids != pad).long()} if backbone.text.text_path == "packed" else {}
        return features_of(model.get_text_features(input_ids=ids, **mask))

    return Family("transformers", backbone, own)


Maker = Callable[[argparse.Namespace], Family]
WITHOUT_START = Framing(start=None, end=1, pad=1)
FAMILIES: dict[str, Maker] = {
    "CLIP": open_clip_family,
    "SigLIP": lambda given: open_clip_family(
        given, WITHOUT_START, context_length=64, no_causal_mask=True, pool_type="last", proj_bias=True
    ),
    "CLIPA": lambda given: open_clip_family(given, context_length=32, no_causal_mask=True, pool_type="last"),
    "MobileCLIP-S": lambda given: open_clip_family(given, no_causal_mask=True),
    "CoCa": lambda given: open_clip_family(given, context_length=76, embed_cls=True, output_tokens=True),
    "BiomedCLIP (BERT)": lambda given: encoder_family(given, "bert"),
    "XLM-R": lambda given: encoder_family(given, "xlm-roberta"),
    "CLIP in transformers' format": lambda given: transformers_family(given, "clip", 77, clip_words=True),
    "MetaCLIP 2": lambda given: transformers_family(given, "metaclip_2", 77),
    "SigLIP in transformers' format": lambda given: transformers_family(given, "siglip", 64),
    "SigLIP 2": lambda given: transformers_family(given, "siglip2", 64),
    "ALIGN": lambda given: transformers_family(given, "align", 512),
    "AltCLIP": lambda given: transformers_family(given, "altclip", 514),
    "ChineseCLIP": lambda given: transformers_family(given, "chinese_clip", 512),
}
"""By the names of models that one may have heard of."""


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def feature_error(family: Family, names: list[str]) -> float:
    """Relative error of our features of hand-made prompts."""
    prompts = template_prompts(family.backbone, names, "a photo of a {}.")
    with torch.no_grad():
        theirs = family.own(padded_ids(prompts, family.backbone.text.context_length))
        return relative(TextEncoder(family.backbone, prompts)(), theirs)


def measure(family: Family, names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Errors and seconds of one family."""
    backbone, generator = family.backbone, torch.Generator().manual_seed(1)
    prompts = context_prompts(backbone, names, arguments.n_ctx)
    start = backbone.text.embed(torch.tensor(backbone.tokenizer.encode("a photo of a"))).detach()[: arguments.n_ctx]
    start = torch.cat([start, start.new_zeros(arguments.n_ctx - len(start), start.shape[1])])
    images = normalize(torch.randn(BATCH, backbone.embed_dim, generator=generator), dim=-1)
    labels = torch.arange(BATCH) % len(names)
    reference = TextEncoder(backbone, prompts, path="reference", memory="1T", batch=BATCH)
    ours = TextEncoder(backbone, prompts, batch=BATCH)

    def step(encoder: TextEncoder) -> Tensor:
        context = start.clone().requires_grad_()
        logits = backbone.logit_scale * images @ normalize(encoder(context), dim=-1).T
        cross_entropy(logits, labels).backward()
        assert context.grad is not None
        return context.grad

    gradient_error = relative(step(ours), step(reference))  # and memory is allocated, and kernels are chosen
    times: dict[str, list[float]] = {"reference": [], "ours": []}
    for _ in range(arguments.repeats):
        times["reference"].append(seconds(lambda: step(reference)))
        with kept_heap():
            times["ours"] += [seconds(lambda: step(ours)) for _ in range(3)]
    fastest = {name: min(taken) for name, taken in times.items()}
    return {
        "package": family.package,
        "path": ours.path,
        "length": backbone.text.context_length,
        "tokens": float(prompts.lengths.float().mean()),
        "feature_error": feature_error(family, names[:100]),
        "gradient_error": gradient_error,
        "reference_s": fastest["reference"],
        "ours_s": fastest["ours"],
        "ratio": fastest["reference"] / fastest["ours"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--classes", type=int, default=500)
    parser.add_argument("--width", type=int, default=64, help="of the text towers")
    parser.add_argument("--layers", type=int, default=3, help="of the text towers")
    parser.add_argument("--n-ctx", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="measured steps of the reference way")
    parser.add_argument("--threads", type=int, default=1, help="small models gain nothing from more")
    parser.add_argument("--only", default=",".join(FAMILIES), help="families, with commas between them")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ClassNameWarning)  # ImageNet has a few names twice
    torch.set_num_threads(arguments.threads)
    names, rows = imagenet_names(arguments.classes), {}
    for name in arguments.only.split(","):
        rows[name] = row = measure(FAMILIES[name](arguments), names, arguments)
        say(f"{name}: {row['reference_s']:.3f} s, {row['path']} {row['ours_s']:.3f} s, errors "
            f"{row['feature_error']:.0e} and {row['gradient_error']:.0e}")  # fmt: skip
    sizes = {key: getattr(arguments, key) for key in ("classes", "width", "layers", "n_ctx")}
    result = {**sizes, "threads": torch.get_num_threads(), "families": rows}
    report(result, on_screen(sections.backbones(result)), arguments)
    return 1 if inexact(rows) else 0


def inexact(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Families whose features or gradients differ by more than they may."""
    return [
        name
        for name, row in rows.items()
        if not (row["feature_error"] <= MOST_FEATURE_ERROR and row["gradient_error"] <= MOST_GRADIENT_ERROR)
    ]


if __name__ == "__main__":
    sys.exit(main())
