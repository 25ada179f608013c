"""One training step of a method by its paper's recipe, ours against the plain way; a part of `benchmarks/speed.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import seconds
from benchmarks.steps import UNBOUNDED
from coopt.backbones import Backbone
from coopt.methods.forward import run_images, run_text
from coopt.methods.learned import LearnedMethod
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime

WAYS: Mapping[str, Runtime] = {
    "reference": Runtime(text_path="reference", precision="fp32", memory=UNBOUNDED),
    "fp32": Runtime(text_path="auto", precision="fp32"),
    "bf16": Runtime(text_path="auto", precision="bf16"),
}
"""The plain way, which encodes every prompt at full length, and ours; the image tower learns in fp32 in all of them."""


class MethodStep:
    """One training step of a method by its paper's recipe; the same pixels, labels and start for every way of taking it.

    Args:
        method: its name.
        backbone: the frozen model.
        names: of the classes.
        batch: images of a step.
    """

    def __init__(self, method: str, backbone: Backbone, names: list[str], batch: int) -> None:
        generator, where = torch.Generator().manual_seed(1), backbone.device
        self.method, self.backbone, self.names = method, backbone, names
        self.pixels = torch.randn(batch, 3, *backbone.preprocessing.size, generator=generator).to(where)
        self.labels = (torch.arange(batch) % len(names)).to(where)

    def prepared(self, way: str) -> tuple[LearnedMethod, dict[str, Tensor]]:
        """The method before its first step, and the tensors that it learns."""
        recipe = {"name": "paper", "batch_size": len(self.pixels)}
        model = METHODS.get(self.method)(self.backbone, recipe=recipe, runtime=WAYS[way])
        model.check_parameters()
        model._set_classes(self.backbone, self.names, named=True)
        start = {name: one.to(self.backbone.device).clone() for name, one in model.initial().items()}
        # What begins at zero would hide what it is multiplied with from the gradient.
        moved = {name: one if one.any() else torch.full_like(one, 1e-3) for name, one in start.items()}
        return model, {name: one.requires_grad_() for name, one in moved.items()}

    def way(self, name: str) -> Callable[[], Tensor]:
        """The step as a function, which returns the gradient of all that is learned."""
        model, learned = self.prepared(name)
        images = self._images(model, name)
        objective = model._objective(learned)
        optimizer = torch.optim.SGD(learned.values(), lr=0.0, momentum=0.9)  # the step is repeated from the same start

        def run() -> Tensor:
            optimizer.zero_grad()
            objective.loss_of(images(), self.labels).backward()
            optimizer.step()
            return torch.cat([one.grad.flatten() for one in learned.values() if one.grad is not None])

        return run

    def _images(self, model: LearnedMethod, name: str) -> Callable[[], Tensor]:
        """What a step is given: pixels, where the image tower is changed; else features, which the plain way computes every time."""
        if model.capabilities.image_tower:
            return lambda: self.pixels
        with torch.no_grad():
            features = self.backbone.encode_image(self.pixels)
            if name != "reference":
                return lambda: features

        def encoded() -> Tensor:
            with torch.no_grad():
                return self.backbone.encode_image(self.pixels)

        return encoded

    def parts(self, name: str) -> dict[str, Callable[[], Any]]:
        """What a step consists of, each by itself with its gradient: the text pass, and the pass of the images where these are not
        cached."""
        model, learned = self.prepared(name)
        shared = model._shared(learned, len(self.pixels))

        def text() -> None:
            run_text(shared, learned).sum().backward()

        def images() -> None:
            run_images(shared, learned, self.pixels).sum().backward()

        return {"text pass": text, **({"image pass": images} if model.capabilities.image_tower else {})}


def profile(run: Callable[[], Any], most: int = 6) -> dict[str, float]:
    """The operators that take most of a call, with their shares of its time.

    Args:
        run: what is called.
        most: how many operators.
    """
    kind = torch.profiler.ProfilerActivity.CUDA if torch.cuda.is_available() else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiled:
        seconds(run)

    def time_of(event: Any) -> float:
        return event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total

    events = sorted(profiled.key_averages(), key=time_of, reverse=True)
    total = sum(time_of(event) for event in events)
    return {event.key: time_of(event) / total for event in events[:most]}
