"""CoCoOp: Conditional Context Optimization.

Zhou, Yang, Loy, Liu: "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv:2203.05557.
Published: mean over 11 data sets, ViT-B/16, 16 shots, learned on half of the classes: 80.47 on these, 71.69 on the other
half (CoOp 82.69 / 63.22, zero-shot 69.34 / 74.22).

Notation: n images, C classes, M context vectors of width W, D dimension of the shared embedding space, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, normalize, relu

from coopt.backbones import Backbone
from coopt.backbones.protocol import Precision
from coopt.data import FeatureCache
from coopt.errors import SavedFileError
from coopt.methods.learned import LearnedMethod, Objective
from coopt.prompts.context import initial_context
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.encode import TextEncoder, TextPath
from coopt.text.grouped import sum_over_groups
from coopt.text.layout import context_prompts
from coopt.text.memory import Memory
from coopt.training.batches import generator_for
from coopt.training.recipe import COCOOP_RECIPES, Recipe

REDUCTION = 16
"""D / H."""


class CoCoOp(LearnedMethod):
    """Learns M context vectors and a small network that shifts them by what is in the image.

    The *meta-net* is Linear(D, D // 16) - ReLU - Linear(D // 16, W) on the normalised image feature; its output is added to
    every context vector. Every image has its own class features, so an image costs a text pass over all classes, in
    training and in prediction.

    Args:
        backbone: a name for `coopt.load_backbone`, or a loaded backbone.
        n_ctx: M, the number of context vectors, which begin at random, N(0, 0.02); the class name stands behind them.
        init: words whose token embeddings the context begins with, instead of `n_ctx`; when neither is given:
            "a photo of a", so M = 4.
        recipe: "fast" (here: batches of 8 images), "paper" (here: of one image, 10 epochs), a mapping of changed fields,
            or a `coopt.Recipe`.
        seed: of the initial context and meta-net, the order of images and their augmentation.
        class_names: the classes in order; needed when labels are integers.
        text_path: "auto" (the fast path where it is exact), "fast" or "reference".
        precision: of both towers' matrix products: "fp32", "bf16" or "auto"; see `coopt.CoOp`.
        memory: bytes, or a text such as "4G", that a training step may hold above the model; "auto" bounds what grows with
            the classes, the activations. It decides how many classes run at once, and nothing of what is learned.
        device: "auto", "cpu", "cuda" ...
        cache: keep image features on disk (True), or a `FeatureCache`, or nowhere (False).
        on_bad_image: "fail" at an image that cannot be read when fitting, or "skip" it with a warning.
        checkpoint: a file that keeps the state of training; a killed run fitted again goes on from there.
        verbose: show progress on a terminal.

    Attributes:
        context_: the learned vectors before they are shifted, (M, W).
        meta_net_: the network's tensors: "linear1.weight" (H, D), "linear1.bias" (H,), "linear2.weight" (W, H),
            "linear2.bias" (W,).
        classes_, class_names_: labels as given, and their names.
        losses_, recipe_: see `LearnedMethod`.
    """

    method: ClassVar[str] = "cocoop"
    recipes: ClassVar[dict[str, Recipe]] = COCOOP_RECIPES

    context_: Float[Tensor, "n_ctx width"]
    meta_net_: dict[str, Tensor]

    def __init__(
        self,
        backbone: str | Backbone = "bundled",
        *,
        n_ctx: int | None = None,
        init: str | None = None,
        recipe: str | dict[str, Any] | Recipe = "fast",
        seed: int = 1,
        class_names: Sequence[str] | None = None,
        text_path: TextPath = "auto",
        precision: Precision = "fp32",
        memory: Memory = "auto",
        device: str = "auto",
        cache: bool | FeatureCache = True,
        on_bad_image: Literal["fail", "skip"] = "fail",
        checkpoint: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.n_ctx = n_ctx
        self.init = init
        self.recipe = recipe
        self.seed = seed
        self.class_names = class_names
        self.text_path = text_path
        self.precision = precision
        self.memory = memory
        self.device = device
        self.cache = cache
        self.on_bad_image = on_bad_image
        self.checkpoint = checkpoint
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_context_parameters(self.n_ctx, self.init)
        self._check_text_parameters()

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
