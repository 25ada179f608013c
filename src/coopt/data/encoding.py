"""The image tower in batches: their size, their arithmetic, and what is done when a GPU's memory is full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.backbones.precision import resolved
from coopt.runtime import Precision

SMALL_MODEL = 1 << 24
"""Parameters up to which a batch that is not full costs next to nothing to fill up."""

_BF16_TOWERS: WeakKeyDictionary[Backbone, nn.Module] = WeakKeyDictionary()


class ImageEncoder:
    """Pixels to features in batches of at most `batch_size`.

    Matrix products of few rows round otherwise than those of many (other kernels are chosen), so that a feature's last
    bits would tell how many images shared its batch. On a CPU, a batch of a small model is therefore filled up to its
    full size: a feature depends on its image alone (on one machine, with one number of threads and one batch size).
    For larger models that would cost too much, and a lone image is encoded twice instead: from two images on, ViT-B/32
    gives the same bits. On a GPU nothing is filled up, and last bits may differ.

    Args:
        backbone: whose image tower is used.
        precision: "fp32", or "bf16" for the tower's matrix products and convolutions; "auto": the faster.
        batch_size: images at a time; None: 32 on a CPU, 128 on a GPU. It does not follow from the memory that happens
            to be free, which would let features differ in their last bits from day to day; where a GPU's memory does
            not suffice, it is halved until it does.
    """

    def __init__(self, backbone: Backbone, precision: Precision = "fp32", batch_size: int | None = None) -> None:
        self.backbone = backbone
        self.precision = resolved(precision, backbone.device)
        self.batch_size = batch_size or (32 if backbone.device.type == "cpu" else 128)
        model = getattr(backbone, "model", None)
        self._small = model is not None and sum(one.numel() for one in model.parameters()) <= SMALL_MODEL

    def __call__(self, pixels: Sequence[Float[Tensor, "3 height width"]]) -> Float[Tensor, "n dim"]:
        """Features in float32 on the CPU, not normalised.

        Raises:
            torch.OutOfMemoryError: the memory does not suffice for a single image.
        """
        parts: list[Tensor] = []
        start = 0
        while start < len(pixels):
            some = pixels[start : start + self.batch_size]
            part = self._unless_memory_is_full(some)
            if part is None:
                self.batch_size = len(some) // 2
                torch.cuda.empty_cache()  # what smaller blocks hold is of no use to the next, smaller batch
                continue
            parts.append(part)
            start += len(some)
        return torch.cat(parts)

    def _unless_memory_is_full(self, pixels: Sequence[Tensor]) -> Tensor | None:
        try:
            return self._encode(pixels)
        except torch.cuda.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            return None  # and not here, where the error's traceback still holds the tensors of the attempt

    @torch.no_grad()
    def _encode(self, pixels: Sequence[Tensor]) -> Tensor:
        batch = torch.stack(list(pixels) + [pixels[-1]] * (self._least() - len(pixels)))
        if self.backbone.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.backbone.device, non_blocking=True)
        if self.precision == "fp32":
            features = self.backbone.encode_image(batch)
        else:
            with torch.autocast(self.backbone.device.type, torch.bfloat16):
                features = _bf16_tower(self.backbone)(batch)
        return features[: len(pixels)].detach().to("cpu", torch.float32)

    def _least(self) -> int:
        """Images that a batch is filled up to."""
        if self.backbone.device.type != "cpu":
            return 1
        return self.batch_size if self._small else min(2, self.batch_size)

    @property
    def arithmetic(self) -> str:
        """How the tower computes here and now: features made differently are not mixed in the cache."""
        device = self.backbone.device.type
        parts = [device]
        if device == "cuda" and torch.backends.cuda.matmul.allow_tf32:
            parts.append("tf32")
        if self.precision == "bf16":
            parts.append("bf16")
        elif torch.is_autocast_enabled(device):
            parts.append(f"autocast-{torch.get_autocast_dtype(device)}".replace("torch.", ""))
        return "+".join(parts)


def _bf16_tower(backbone: Backbone) -> nn.Module:
    """A copy of the image tower with weights of matrix products in bfloat16, to be run under autocast.

    Autocast alone would convert the frozen weights anew for every batch, which on a CPU takes longer than the batch.
    """
    if backbone not in _BF16_TOWERS:
        _BF16_TOWERS[backbone] = _with_bf16_weights(backbone)
    return _BF16_TOWERS[backbone]


def _with_bf16_weights(backbone: Backbone) -> nn.Module:
    tower = backbone.image_tower().requires_grad_(False)
    for module in tower.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.to(torch.bfloat16).register_forward_pre_hook(_as_bf16)
        elif isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
        elif isinstance(module, nn.Conv2d):
            # What follows, above all the residual stream of a transformer, keeps the precision of float32.
            module.to(torch.bfloat16).register_forward_hook(lambda _module, _inputs, output: output.float())
    return tower


def _as_bf16(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Query, key and value as the weights are, and one tensor where they were one: what torch's fused kernel asks for.

    Without it, attention takes a path under autocast that copies its weights once per token.
    """
    converted = {id(one): one.to(torch.bfloat16) if isinstance(one, Tensor) else one for one in inputs}
    return tuple(converted[id(one)] for one in inputs)
