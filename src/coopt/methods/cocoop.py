"""CoCoOp: Conditional Context Optimization.

Zhou, Yang, Loy, Liu: "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv:2203.05557.
Published: mean over 11 data sets, ViT-B/16, 16 shots, learned on half of the classes: 80.47 on these, 71.69 on the other
half (CoOp 82.69 / 63.22, zero-shot 69.34 / 74.22).

Notation: n images, C classes, M context vectors of width W, D dimension of the shared embedding space, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.inference.heads import META_NET, ConditionalHead, shifted_contexts
from coopt.methods.forward import Batch, Forward
from coopt.methods.learned import LearnedMethod
from coopt.methods.networks import two_layers
from coopt.methods.shared_parameters import DESCRIPTIONS_BEHIND, INIT, N_CTX
from coopt.methods.sites import TextTokens
from coopt.parameters import fitted
from coopt.prompts.context import initial_context
from coopt.prompts.descriptions import Descriptions
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.grouped import sum_over_groups
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
    title: ClassVar[str] = "learned prompt (CoCoOp)"
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
    descriptions: Descriptions | None = DESCRIPTIONS_BEHIND
    descriptions_behind: ClassVar[bool] = True

    context_: Float[Tensor, "n_ctx width"] = fitted()
    meta_net_: dict[str, Tensor] = fitted()

    def sites(self) -> tuple[TextTokens]:
        """See `LearnedMethod.sites`: context vectors before the class names, shifted by every image."""
        return (TextTokens("context", per_image=True),)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        context = initial_context(self.backbone_, self.class_names_, self.n_ctx, False, self.init, self.seed)
        return {"context": context, **initial_meta_net(self.backbone_, self.seed)}

    def units(self) -> dict[str, float]:
        """See `LearnedMethod.units`: what the meta-net's last layer puts out is added to the context."""
        unit = self._embedding_unit()
        return dict.fromkeys(("context", "meta_net.linear2.weight", "meta_net.linear2.bias"), unit)

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`: cross-entropy, as many images at a time as fit into the memory."""
        images = forward.images()

        def part_of_mean(contexts: Tensor, where: slice) -> Tensor:
            scores = forward.scores(forward.text(contexts), images[where])
            return batch.cross_entropy(scores, where)

        contexts = image_contexts(forward.parameters, images)
        return sum_over_groups(part_of_mean, contexts, forward.groups_at_once)

    def head(self) -> ConditionalHead:
        """See `ClipClassifier.head`."""
        device, encode = self.backbone_.device, self._encoder(len(self.context_), 0)
        meta_net = {name: tensor.to(device) for name, tensor in self.meta_net_.items()}
        return ConditionalHead(self.context_.to(device), meta_net, encode, self.backbone_.score_head)

    def _take_state(self, state: dict[str, Tensor]) -> None:
        super()._take_state(state)
        learned = {name.removeprefix("meta_net."): tensor for name, tensor in self.learned_.items()}
        self.context_ = learned.pop("context")
        self.meta_net_ = learned

    def nearest_words(self, top_k: int = 5) -> list[list[NearestWord]]:
        """The vocabulary entries nearest to each context vector before images shift it; see `CoOp.nearest_words`."""
        return nearest_words(self.backbone_, self.context_, top_k)


def initial_meta_net(backbone: Backbone, seed: int) -> dict[str, Tensor]:
    """The meta-net's tensors by name as training begins: uniform within 1 / sqrt(inputs), as torch's `nn.Linear`."""
    dim, width = backbone.embed_dim, backbone.text.width
    return two_layers("meta_net", (dim, max(1, dim // REDUCTION), width), generator_for(seed, 3))


def image_contexts(learned: Mapping[str, Tensor], images: Float[Tensor, "n dim"]) -> Float[Tensor, "n n_ctx width"]:
    """The context of every image (normalised feature): the shared vectors plus the meta-net's output.

    Args:
        learned: "context" and the tensors of `initial_meta_net`.
        images: normalised image features.
    """
    meta_net = {name: learned[f"meta_net.{name}"] for name in META_NET}
    return shifted_contexts(learned["context"], meta_net, images)
