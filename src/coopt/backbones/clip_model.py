"""A model of two towers behind coopt's protocol, wherever its weights came from."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones.image_tower import ImageTower
from coopt.backbones.openclip_hf_text import HuggingFaceText, is_hugging_face
from coopt.backbones.openclip_text import OpenClipText
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Backbone, ScoreHead, Tokenizer, fingerprint_of, frozen
from coopt.backbones.text_tower import TextTower
from coopt.errors import ParameterError


class ClipBackbone(Backbone):
    """A frozen open_clip CLIP, CustomTextCLIP or CoCa, or a model of coopt's own parts.

    Args:
        model: open_clip's, or one whose `visual` takes pixels, whose `text` is a TextTower with a `dim`, and that has a
            `logit_scale`; frozen here: evaluation mode, float32, no gradients. The part of a CoCa that writes captions is
            left out: no feature depends on it.
        name: as the user writes it.
        tokenizer: the one its text tower was trained with.
        preprocessing: the one its image tower was trained with.
        device: where it lives.

    Raises:
        UnsupportedBackboneError: its text tower is of a kind that prompts cannot be trained for.
        BackboneError: the tokenizer has more tokens than the tower.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        if hasattr(model, "text_decoder"):
            model = _with_parts(model, text_decoder=None)
        self.model = frozen(model.to(device=self.device, dtype=torch.float32))
        # Convolutions of many layers run up to half as fast again with the channels last; a ViT's one does not care.
        convolutions = sum(isinstance(module, nn.Conv2d) for module in model.visual.modules())
        self._memory_format = torch.channels_last if convolutions > 1 else torch.contiguous_format
        model.visual.to(memory_format=self._memory_format)
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.text: Any = _text_tower(self.model, tokenizer, name)
        self.image = ImageTower(self.model.visual)
        self.score_head = _score_head(model)
        self.embed_dim = self.text.dim

    @functools.cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 of architecture and weights, computed when first asked for (a second or two for a large model)."""
        facts = getattr(self.text, "facts", "")
        return fingerprint_of(self.model, architecture_of(self.model, self.text.pooling, self.text.causal) + facts)

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Preprocessed pixels, on any device, to features in float32 on the backbone's device, not normalised.

        Raises:
            ParameterError: the pixels are not of the size the image tower takes.
        """
        if tuple(pixels.shape[-2:]) != self.preprocessing.size:
            raise ParameterError(
                f"{self.name} takes pixels of height and width {self.preprocessing.size}. "
                f"Got {tuple(pixels.shape[-2:])} instead: use its preprocessing.test(image)."
            )
        pixels = pixels.to(self.device, torch.float32, memory_format=self._memory_format)
        assert self.image is not None
        return self.image(pixels)

    def with_image_tower(self, tower: nn.Module) -> Backbone:
        model = _with_parts(self.model, visual=tower.get_submodule("visual"))
        return ClipBackbone(model, self.name, self.tokenizer, self.preprocessing, self.device)

    def _made_by(self) -> tuple[Callable[..., Backbone], tuple[Any, ...]]:
        # The opened tower, which holds functions, is made again around the same model.
        return type(self), (self.model, self.name, self.tokenizer, self.preprocessing, self.device)


def _with_parts(model: nn.Module, **parts: nn.Module | None) -> nn.Module:
    """The model with other parts, or without them where they are None; all else is shared, but for the table of parts."""
    other = copy.copy(model)
    other._modules = {name: part for name, part in {**model._modules, **parts}.items() if part is not None}
    return other


def _text_tower(model: Any, tokenizer: Tokenizer, name: str) -> TextTower:
    """The model's own where it is one already."""
    own: Any = getattr(model, "text", None)
    if isinstance(own, TextTower):
        return own
    return HuggingFaceText(model, tokenizer, name) if is_hugging_face(model) else OpenClipText(model, tokenizer, name)


def _score_head(model: Any) -> ScoreHead:
    """Models with a bias on their scores were trained with a sigmoid of each, as SigLIP; all others with a softmax."""
    scale, bias = float(model.logit_scale.detach().exp().reshape(-1)[0]), getattr(model, "logit_bias", None)
    if bias is None:
        return ScoreHead(scale)
    return ScoreHead(scale, float(bias.detach().reshape(-1)[0]), "sigmoid")


def architecture_of(model: nn.Module, pooling: str, causal: bool) -> str:
    """What the weights' names and shapes do not tell: heads, activations, epsilons, strides, masks, pooling.

    Built from plain attributes and not from repr(model), so that it does not change with the library's version.
    """
    lines = [f"pooling={pooling} causal={causal}"]
    for name, module in model.named_modules():
        facts = [
            f"{key}={getattr(module, key)}"
            for key in ("num_heads", "eps", "stride", "padding", "dilation", "groups", "pool_type", "approximate")
            if isinstance(getattr(module, key, None), (int, float, str, tuple))
        ]
        is_activation = not facts and not list(module.children()) and not list(module.parameters(recurse=False))
        if is_activation and not isinstance(module, (nn.Identity, nn.Dropout)):
            facts.append(type(module).__name__)
        if facts:
            lines.append(f"{name} {' '.join(facts)}")
    return "\n".join(lines)
