"""TCP: textual-based class-aware prompt tuning; with `divergence` DeKg.

Yao, Zhang, Xu: "TCP: Textual-based Class-aware Prompt Tuning for Visual-Language Model", CVPR 2024, arXiv:2311.18231.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 84.13 / 75.36 / 79.51; mean over 11 data sets at
1 / 2 / 4 / 8 / 16 shots: 70.63 / 73.59 / 76.07 / 78.39 / 80.98.

A small network makes M tokens of each class's feature under hand-made prompts,

    tokens_c = Linear(QuickGELU(Linear(t_c))),   D -> D / 4 -> M W,

which at the input of a block inside the text tower replace the context vectors that came so far. What holds for all classes is
in the context vectors, what is special to one is in its tokens; both are learned. The loss is

    cross-entropy + guide_weight (1 - mean_c cos(w_c, t_c)),   w_c the learned feature of class c.

DeKg ("Divergence-enhanced Knowledge-guided Context Optimization for Visual-Language Prompt Tuning", ICLR 2025) adds `divergence`
times the Hilbert-Schmidt independence criterion of the two, with linear kernels, so that what is learned need not repeat what is
known: tr(H K H L) of K = W W^T and L = T T^T, W and T the learned and the hand-made features (C, D) over their Frobenius norms and
H = I - 1 1^T / C the centring matrix. As H H = H, it is |W^T H T|^2, which is what is computed.

Notation: C classes, M context vectors of width W, D dimension of the shared embedding space, H hidden units of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from coopt.backbones import Backbone
from coopt.errors import ParameterError, UnsupportedBackboneError
from coopt.methods.forward import Batch, Forward
from coopt.methods.networks import two_layers
from coopt.methods.shared_parameters import INIT, N_CTX
from coopt.methods.sites import TextBlocks, TextTokens
from coopt.methods.templated import TemplatedMethod
from coopt.parameters import fitted, parameter
from coopt.prompts.context import initial_context
from coopt.prompts.words import NearestWord, nearest_words
from coopt.training.batches import generator_for
from coopt.training.recipe import FAST, Recipe
from coopt.wording import subject

REDUCTION = 4
"""D / H."""


class TCP(TemplatedMethod):
    """Learns context vectors, and a network that makes each class tokens of its own from its hand-made prompt.

    The tokens stand at the input of block 8 of 12, as in the paper, and two thirds up in towers of other depths. The prefix that
    all classes share runs once up to there. New classes are served: their tokens are computed from their hand-made prompts.

    The recipe "fast" is CoOp's (chosen among learning rates of 0.002 to 0.05 and 16 to 100 epochs on the validation parts of the
    bundled data sets); "paper" is Adam at 0.002 with batches of 32 on fresh augmented views, for 50 epochs (25 on ImageNet and SUN397:
    `recipe={"name": "paper", "epochs": 25}`), the first at 0.00001.

    Attributes:
        context_: the learned vectors, (M, W).
        network_: the network's tensors: "linear1.weight" (H, D), "linear1.bias" (H,), "linear2.weight" (M W, H),
            "linear2.bias" (M W,).
        template_features_: normalised text features of the hand-made prompts, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "tcp"
    title: ClassVar[str] = "learned prompt (TCP)"
    paper: ClassVar[str] = (
        "Yao, Zhang, Xu: TCP: Textual-based Class-aware Prompt Tuning for Visual-Language Model, CVPR 2024, arXiv:2311.18231; "
        "divergence: Divergence-enhanced Knowledge-guided Context Optimization, ICLR 2025"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 84.13,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 75.36,
    }
    recipes: ClassVar[dict[str, Recipe]] = {
        "fast": FAST,
        "paper": Recipe(
            name="paper", lr=0.002, warmup_lr=1e-5, batch_size=32, epochs=50, steps_per_epoch=None, views=0
        ),
    }

    n_ctx: int | None = N_CTX
    init: str | None = INIT
    guide_weight: float = parameter(default=8.0, low=0, help="How strongly hand-made prompts attract.")
    divergence: float = parameter(
        default=0.0,
        low=0,
        help="DeKg's mu: how strongly what is learned is kept independent of hand-made prompts; 0 is TCP.",
    )
    block: int | None = parameter(
        default=None,
        low=1,
        help="The block of the text tower, counted from 0, at whose input the tokens stand; none: two thirds up, 8 of 12.",
    )

    context_: Float[Tensor, "n_ctx width"] = fitted()
    network_: dict[str, Tensor] = fitted()

    @property
    def full_title(self) -> str:
        """What tables of results call it: DeKg where that is added."""
        return "learned prompt (DeKg)" if self.divergence else self.title

    def sites(self) -> tuple[TextTokens, TextBlocks]:
        """See `LearnedMethod.sites`: context vectors before the class names, and each class's tokens in their places."""
        return TextTokens("context"), TextBlocks(self._block, "tokens", per_class=True)

    @property
    def _block(self) -> int:
        depth = self.backbone_.text.depth
        if depth == 1:
            raise UnsupportedBackboneError(
                f"{self.backbone_.name}: its text tower has a single block, so there is none inside it at which the tokens of "
                f"{type(self).__name__} could stand. Use another method, such as KgCoOp."
            )
        if self.block is None or not depth:  # towers whose blocks are not known are refused where they are asked for
            return max(1, round(depth * 2 / 3))
        if self.block >= depth:
            raise ParameterError(
                f"{subject('block', type(self).__name__)} must be at most {depth - 1} for {self.backbone_.name}, whose text "
                f"tower has {depth} blocks, counted from 0. Got {self.block} instead."
            )
        return self.block

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        context = initial_context(self.backbone_, self.class_names_, self.n_ctx, False, self.init, self.seed)
        return {"context": context, **initial_network(self.backbone_, len(context), self.seed)}

    def put_in(self, learned: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `LearnedMethod.put_in`: the tokens are computed from hand-made prompts, of whatever classes there are."""
        return {"context": learned["context"], "tokens": class_tokens(learned, self.template_features_)}

    def units(self) -> dict[str, float]:
        """See `LearnedMethod.units`: the tokens stand inside the tower, where numbers do not depend on the embeddings'."""
        return {"context": self._embedding_unit()}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        text, known = forward.text(), forward.unchanged_text()
        loss = super().loss(forward, batch) + self.guide_weight * (1 - (text * known).sum(dim=1).mean())
        return loss + self.divergence * dependence(text, known) if self.divergence else loss

    def _take_state(self, state: dict[str, Tensor]) -> None:
        super()._take_state(state)
        learned = {name.removeprefix("network."): tensor for name, tensor in self.learned_.items()}
        self.context_ = learned.pop("context")
        self.network_ = learned

    def nearest_words(self, top_k: int = 5) -> list[list[NearestWord]]:
        """The vocabulary entries nearest to each context vector, as it enters the tower; see `CoOp.nearest_words`."""
        return nearest_words(self.backbone_, self.context_, top_k)


def initial_network(backbone: Backbone, n_ctx: int, seed: int) -> dict[str, Tensor]:
    """The network's tensors by name as training begins: uniform within 1 / sqrt(inputs), as torch's `nn.Linear`."""
    dim, width = backbone.embed_dim, backbone.text.width
    return two_layers("network", (dim, max(1, dim // REDUCTION), n_ctx * width), generator_for(seed, 4))


def class_tokens(
    learned: Mapping[str, Tensor], known: Float[Tensor, "classes dim"]
) -> Float[Tensor, "classes n_ctx width"]:
    """The tokens of each class.

    Args:
        learned: "context" and the tensors of `initial_network`.
        known: normalised text features of hand-made prompts.
    """

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, learned[f"network.{name}.weight"], learned[f"network.{name}.bias"])

    hidden = layer("linear1", known)
    made = layer("linear2", hidden * torch.sigmoid(1.702 * hidden))
    return made.view(len(known), *learned["context"].shape)


def dependence(learned: Float[Tensor, "classes dim"], known: Float[Tensor, "classes dim"]) -> Float[Tensor, ""]:
    """The Hilbert-Schmidt independence criterion of two sets of features, with linear kernels; see the head of this file."""
    w, t = learned / learned.norm(), known / known.norm()
    return (w.T @ (t - t.mean(dim=0))).square().sum()
