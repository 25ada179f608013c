"""An ensemble of learned prompts: several contexts that begin apart, averaged.

Averages of class features are what CLIP's authors take of hand-made prompts (Radford et al.: "Learning Transferable Visual Models
From Natural Language Supervision", ICML 2021, arXiv:2103.00020, section 3.1.4); here of learned ones. Averages of what was learned
from one start are those of "Model soups" (Wortsman et al., ICML 2022, arXiv:2203.05482). Neither paper learns prompts, so no number
is published for this.

Notation: K members, C classes, M context vectors of width W, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.methods.forward import Batch, Forward, run_text
from coopt.methods.learned import LearnedMethod
from coopt.methods.shared_parameters import INIT, N_CTX
from coopt.methods.sites import TextTokens
from coopt.parameters import fitted, parameter
from coopt.prompts.context import initial_context
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder
from coopt.training.batches import generator_for

AVERAGES = ("features", "contexts")


class PromptEnsemble(LearnedMethod):
    """Learns several contexts side by side, as `coopt.CoOp` learns one, and averages them.

    Each member has a cross-entropy of its own, and its own gradient; they share the images of a step. Random members begin
    with the seeds `seed`, `seed + 1` and so on. Of those that begin as words the first begins there, and the others near by:
    without `spread` all would learn the same.

    "features" averages the normalised class features, as of hand-made prompts. "contexts" averages the vectors themselves, to one
    prompt; that counts on members that end near each other, as those do which begin near each other. Learning costs K text passes a
    step either way, predicting no more than with one prompt.

    What it gains is small: on the validation parts of the bundled data sets three members are within half a point of one, at 1, 4
    and 16 shots and on new classes, whatever is averaged (one seed).

    Attributes:
        contexts_: the learned vectors of all members, (K, M, W).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`; losses are sums over the members.
    """

    method: ClassVar[str] = "prompt_ensemble"
    title: ClassVar[str] = "ensemble of learned prompts"
    paper: ClassVar[str] = (
        "averages as in Radford et al., ICML 2021, arXiv:2103.00020 (features), and Wortsman et al., ICML 2022, arXiv:2203.05482 "
        "(what was learned)"
    )

    members: int = parameter(default=3, low=1, help="How many contexts are learned.")
    average: Literal["features", "contexts"] = parameter(
        default="features",
        choices=AVERAGES,
        help="What is averaged: class features, or the learned vectors.",
    )
    spread: float = parameter(
        default=0.5,
        low=0,
        help="How far from the words the members behind the first begin, by the size of word embeddings; for random ones of no "
        "meaning.",
    )
    n_ctx: int | None = N_CTX
    init: str | None = INIT

    contexts_: Float[Tensor, "members n_ctx width"] = fitted()

    def sites(self) -> tuple[TextTokens]:
        """See `LearnedMethod.sites`: context vectors before the class names."""
        return (TextTokens("contexts"),)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        return {"contexts": torch.stack([self._start(i) for i in range(self.members)])}

    def _start(self, member: int) -> Float[Tensor, "n_ctx width"]:
        seed = int(self.seed) + member
        start = initial_context(self.backbone_, self.class_names_, self.n_ctx, False, self.init, seed)
        if member == 0 or (self.init is None and self.n_ctx is not None):
            return start
        away = torch.randn(start.shape, generator=generator_for(seed, 5))
        return start + self.spread * start.square().mean().sqrt() * away

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`: the sum of the members' cross-entropies, so that each learns at the recipe's rate."""
        losses = [batch.cross_entropy(forward.scores(text)) for text in forward.text()]
        return torch.stack(losses).sum()

    def _groups(self, encode: TextEncoder) -> int:
        return self.members

    def operations(self, learned: Mapping[str, Tensor], encode: TextEncoder | None) -> int:
        """See `LearnedMethod.operations`."""
        return self.members * super().operations(learned, encode)

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        super()._fit(features, targets)
        self.text_passes_ *= self.members

    def _take_state(self, state: dict[str, Tensor]) -> None:
        super()._take_state(state)
        self.contexts_ = self.learned_["contexts"]

    def _text_features(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        contexts = learned["contexts"]
        averaged = contexts.mean(dim=0, keepdim=True) if self.average == "contexts" else contexts
        with torch.no_grad():
            of_members = run_text(self._shared(learned, 0), learned, averaged)
        directions = [self._directions(text) for text in of_members]
        return self._directions(torch.stack(directions).mean(dim=0))

    def _directions(self, text: Float[Tensor, "classes dim"]) -> Float[Tensor, "classes dim"]:
        return text_directions(text, self.backbone_, self.class_names_, self.precision_)
