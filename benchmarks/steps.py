"""One training step of a method, taken in different ways from the same start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone, Preprocessing
from coopt.methods.cocoop import CoCoOp, initial_meta_net
from coopt.runtime import Precision, Runtime
from coopt.text.encode import TextEncoder, TextPath
from coopt.text.layout import context_prompts
from coopt.text.memory import Memory, StepMemory

PATH_AND_PRECISION: dict[str, tuple[TextPath, Precision]] = {
    "reference": ("reference", "fp32"),
    "fp32": ("fast", "fp32"),
    "bf16": ("fast", "bf16"),
}
"""The ways to take a step."""

UNBOUNDED = "1T"
"""Memory of the reference way: the published implementation keeps all activations, and computes none twice."""


def random_backbone(model: str, text: Mapping[str, int] | None = None) -> Backbone:
    """An open_clip architecture with random weights; `text` changes its text tower ("width", "layers")."""
    import logging

    import open_clip

    from coopt.backbones.clip_model import ClipBackbone
    from coopt.backbones.tokenizers import clip_tokenizer

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    changed: dict[str, Any] = {}
    if text:
        config = {**open_clip.get_model_config(model)["text_cfg"], **text}
        changed["text_cfg"] = {**config, "heads": max(1, config["width"] // 64)}
    clip = open_clip.create_model(model, force_quick_gelu=True, **changed)
    logging.disable(logging.NOTSET)
    size = clip.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    return ClipBackbone(clip, f"random:{model}", clip_tokenizer(), Preprocessing(size=size), device())


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class Step:
    """One training step; the same images, labels and context for every way of taking it."""

    def __init__(self, backbone: Backbone, names: list[str], n_ctx: int, batch: int) -> None:
        generator = torch.Generator().manual_seed(1)
        where = backbone.device
        self.backbone = backbone
        self.names = names
        self.prompts = context_prompts(backbone, names, n_ctx)
        self.pixels = torch.randn(batch, 3, *backbone.preprocessing.size, generator=generator).to(where)
        self.labels = (torch.arange(batch) % len(names)).to(where)
        self.estimate: StepMemory | None = None  # of the way that was asked for last
        self.start = (0.02 * torch.randn(n_ctx, backbone.text.width, generator=generator)).to(where)

    def take(self, encoder: TextEncoder, features: Callable[[], Tensor]) -> Tensor:
        """Loss, gradient and update; returns the gradient."""
        context = self.start.clone().requires_grad_()
        optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9)
        logits = self.backbone.logit_scale * normalize(features(), dim=-1) @ normalize(encoder(context), dim=-1).T
        cross_entropy(logits, self.labels).backward()
        optimizer.step()
        assert context.grad is not None
        return context.grad

    def way(self, name: str, memory: Memory = "auto") -> Callable[[], Tensor]:
        """The step as a function: "reference" (which encodes the images anew), "fp32" or "bf16" (on cached features)."""
        if name == "reference":
            return self.step(name, lambda: self.backbone.encode_image(self.pixels), UNBOUNDED)
        drawn = torch.randn(len(self.pixels), self.backbone.embed_dim, generator=torch.Generator().manual_seed(2))
        cached = drawn.to(self.backbone.device)
        return self.step(name, lambda: cached, memory)

    def step(self, name: str, features: Callable[[], Tensor], memory: Memory = "auto") -> Callable[[], Tensor]:
        """The same on given image features; it returns the gradient."""
        path, precision = PATH_AND_PRECISION[name]
        encoder = TextEncoder(
            self.backbone, self.prompts, path=path, precision=precision, memory=memory, batch=len(self.pixels)
        )
        self.estimate = encoder.estimate()
        return lambda: self.take(encoder, features)


class ConditionalStep(Step):
    """The same of CoCoOp, whose images each have class features of their own."""

    def step(self, name: str, features: Callable[[], Tensor], memory: Memory = "auto") -> Callable[[], Tensor]:
        """See `Step.step`; the gradients of all tensors in a row."""
        path, precision = PATH_AND_PRECISION[name]
        model = CoCoOp(
            self.backbone,
            runtime=Runtime(text_path=path, precision=precision, memory=memory),
            recipe={"batch_size": len(self.pixels)},
        )
        model.check_parameters()
        model._set_classes(self.backbone, self.names, named=True)
        start = {"context": self.start, **initial_meta_net(self.backbone, 1)}
        learned = {key: tensor.to(self.backbone.device).clone().requires_grad_() for key, tensor in start.items()}
        loss_of = model._objective(learned).loss_of
        encoder = model._encoder(len(self.start), len(self.pixels))
        self.estimate = encoder.estimate(min(encoder.groups_at_once, len(self.pixels)))
        optimizer = torch.optim.SGD(learned.values(), lr=0.0, momentum=0.9)  # the step is repeated from the same start

        def run() -> Tensor:
            optimizer.zero_grad()
            loss_of(features(), self.labels).backward()
            optimizer.step()
            return torch.cat([leaf.grad.flatten() for leaf in learned.values() if leaf.grad is not None])

        return run
