"""CoCoOp: Conditional Context Optimization.

Zhou, Yang, Loy, Liu: "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv:2203.05557.
Published: mean over 11 data sets, ViT-B/16, 16 shots, learned on half of the classes: 80.47 on these, 71.69 on the other
half (CoOp 82.69 / 63.22, zero-shot 69.34 / 74.22).

Notation: n images, C classes, M context vectors of width W, D dimension of the shared embedding space, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, normalize, relu

from coopt.backbones import Backbone
from coopt.errors import SavedFileError
from coopt.methods.learned import LearnedMethod, Objective
from coopt.methods.shared_parameters import INIT, N_CTX
from coopt.parameters import fitted
from coopt.prompts.context import initial_context
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.encode import TextEncoder
from coopt.text.grouped import sum_over_groups
from coopt.text.layout import context_prompts
from coopt.training.batches import generator_for
from coopt.training.recipe import COCOOP_RECIPES, Recipe

REDUCTION = 16
"""D / H."""


class CoCoOp(LearnedMethod):
    """Learns M context vectors and a small network that shifts them by what is in the image.

    The *meta-net* is Linear(D, D // 16) - ReLU - Linear(D // 16, W) on the normalised image feature; its output is added to
    every context vector. Every image has its own class features, so an image costs a text pass over all classes, in
    training and in prediction. The recipe "fast" means batches of 8 images here, and "paper" one image at a time, 10 epochs.

    Attributes:
        context_: the learned vectors before they are shifted, (M, W).
        meta_net_: the network's tensors: "linear1.weight" (H, D), "linear1.bias" (H,), "linear2.weight" (W, H),
            "linear2.bias" (W,).
        classes_, class_names_: labels as given, and their names.
        losses_, recipe_: see `LearnedMethod`.
    """

    method: ClassVar[str] = "cocoop"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Conditional Prompt Learning for Vision-Language Models, CVPR 2022, arXiv:2203.05557"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 80.47,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 71.69,
    }
    recipes: ClassVar[dict[str, Recipe]] = COCOOP_RECIPES

    n_ctx: int | None = N_CTX
    init: str | None = INIT

    context_: Float[Tensor, "n_ctx width"] = fitted()
    meta_net_: dict[str, Tensor] = fitted()

    def _initial(self) -> dict[str, Tensor]:
        context = initial_context(self.backbone_, self.class_names_, self.n_ctx, False, self.init, self.seed)
        return {"context": context, **initial_meta_net(self.backbone_, self.seed)}

    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        encode = self._encoder(len(learned["context"]))

        def loss_of(features: Tensor, targets: Tensor) -> Tensor:
            images = normalize(features, dim=-1)

            def summed(contexts: Tensor, where: slice) -> Tensor:
                return cross_entropy(self._scores(encode, contexts, images[where]), targets[where], reduction="sum")

            return sum_over_groups(summed, image_contexts(learned, images), encode.groups_at_once) / len(targets)

        batch = self.recipe_.batch_size
        return Objective(loss_of, batch * encode.operations, lambda: encode.shrink(min(batch, encode.groups_at_once)))

    def step_bytes(self, backbone: Backbone, class_names: Sequence[str]) -> int:
        """See `LearnedMethod.step_bytes`."""
        other = self._before_fit(backbone, class_names)
        assert isinstance(other, CoCoOp)
        encode = other._encoder(len(other._initial()["context"]))
        return encode.estimate(min(other.recipe_.batch_size, encode.groups_at_once)).total

    def _encoder(self, n_ctx: int, learning: bool = True) -> TextEncoder:
        prompts = context_prompts(self.backbone_, self.class_names_, n_ctx)
        return TextEncoder(self.backbone_, prompts, **self._text_options, learning=learning)

    def _scores(
        self, encode: TextEncoder, contexts: Float[Tensor, "n n_ctx width"], images: Float[Tensor, "n dim"]
    ) -> Float[Tensor, "n classes"]:
        """Logits of normalised images, each against its own class features."""
        return self.backbone_.logit_scale * torch.einsum("ncd,nd->nc", normalize(encode(contexts), dim=-1), images)

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        images = normalize(features, dim=-1)
        state = {name: tensor.to(images.device) for name, tensor in self._state().items()}
        encode = self._encoder(len(self.context_), learning=False)
        chunks = images.split(encode.groups_at_once)
        return torch.cat([self._scores(encode, image_contexts(state, chunk), chunk) for chunk in chunks])

    def _state(self) -> dict[str, Tensor]:
        return {"context": self.context_, **{f"meta_net.{name}": tensor for name, tensor in self.meta_net_.items()}}

    def _check_state(self, state: dict[str, Tensor]) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in initial_meta_net(self.backbone_, 0).items()}
        shapes["context"] = (state["context"].shape[0], self.backbone_.text.width)
        for name, expected in shapes.items():
            if tuple(state[name].shape) != expected:
                raise SavedFileError(
                    f"The saved tensor {name!r} has shape {tuple(state[name].shape)}; expected {expected} for "
                    f"{self.backbone_.name}."
                )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        kept = {name.removeprefix("meta_net."): tensor.float().cpu() for name, tensor in state.items()}
        self.context_ = kept.pop("context")
        self.meta_net_ = kept

    def with_classes(self, class_names: Sequence[str]) -> CoCoOp:
        """The same learned context and meta-net for other class names: a new fitted estimator; this one is unchanged.

        Raises:
            DataError: fewer than two names, or blank ones.
        """
        other = self._copy_with(class_names)
        other._set_state(self._state())
        assert isinstance(other, CoCoOp)
        return other

    def nearest_words(self, top_k: int = 5) -> list[list[NearestWord]]:
        """The vocabulary entries nearest to each context vector before images shift it; see `CoOp.nearest_words`."""
        return nearest_words(self.backbone_, self.context_, top_k)


def initial_meta_net(backbone: Backbone, seed: int) -> dict[str, Tensor]:
    """The meta-net's tensors by name as training begins: uniform within 1 / sqrt(inputs), as torch's `nn.Linear`."""
    dim, width = backbone.embed_dim, backbone.text.width
    hidden = max(1, dim // REDUCTION)
    generator = generator_for(seed, 3)
    tensors = {}
    for layer, inputs, outputs in (("linear1", dim, hidden), ("linear2", hidden, width)):
        for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            drawn = torch.rand(shape, generator=generator)
            tensors[f"meta_net.{layer}.{name}"] = (2 * drawn - 1) * inputs**-0.5
    return tensors


def image_contexts(learned: dict[str, Tensor], images: Float[Tensor, "n dim"]) -> Float[Tensor, "n n_ctx width"]:
    """The context of every image (normalised feature): the shared vectors plus the meta-net's output.

    Args:
        learned: "context" and the tensors of `initial_meta_net`.
        images: normalised image features.
    """

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, learned[f"meta_net.{name}.weight"], learned[f"meta_net.{name}.bias"])

    shift = layer("linear2", relu(layer("linear1", images)))
    return learned["context"] + shift[:, None]
