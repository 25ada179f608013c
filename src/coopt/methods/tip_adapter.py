"""Tip-Adapter: a cache of the training images beside the zero-shot classifier.

Zhang, Zhang, Fang, Gao, Li, Dai, Qiao, Li: "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification",
ECCV 2022, arXiv:2207.09519.
Published: ImageNet, 16 shots, RN50: 62.01; with fine-tuned keys (Tip-Adapter-F) 65.51 (zero-shot there 60.33).

Notation: n images, N training images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from coopt.backbones.protocol import Link
from coopt.errors import SavedFileError
from coopt.inference.heads import CacheHead, key_votes
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, Forward
from coopt.methods.templated import TemplatedMethod
from coopt.methods.validation import ValidatedMethod
from coopt.parameters import fitted, parameter
from coopt.text.encode import TextEncoder
from coopt.training.batches import Views
from coopt.training.recipe import Recipe

VIEWS_PER_KEY = 10
"""A key is the mean of so many drawn views of its image, where a recipe has more than the test view."""

ALPHAS = tuple(0.25 * i for i in range(1, 25))
BETAS = tuple(0.5 * i for i in range(1, 25))
"""What a search on validation images tries, besides the values given."""

_FAST = Recipe(lr=0.001, warmup_lr=0.001, weight_decay=0.01, batch_size=256, epochs=20, steps_per_epoch=None)


class TipAdapter(ValidatedMethod, TemplatedMethod):
    """Zero-shot logits plus votes of the training images: alpha * exp(-beta * (1 - cosine)) to the class of each.

    Nothing is trained, unless `finetune` asks for it; then the images' features (the *keys*) are. The recipe says how keys are
    made and learned: "fast" means 20 epochs of AdamW at 0.001 on the test view of every image, "paper" the same on fresh
    augmented views.

    A saved file holds every key: it grows with the number of training images (4 D bytes each).

    Attributes:
        alpha_, beta_: what is used: the values given, or those that validation images chose.
        keys_: (N, D); the mean features of the training images, normalised, or what was learned from there.
        labels_: the class index of every key, (N,).
        classes_, class_names_, recipe_: see `coopt.CoOp`.
        losses_: mean loss of every epoch; none without `finetune`.
    """

    method: ClassVar[str] = "tip_adapter"
    title: ClassVar[str] = "Tip-Adapter"
    paper: ClassVar[str] = (
        "Zhang et al.: Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022, arXiv:2207.09519"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 62.01,
        "ImageNet, 16 shots, RN50, fine-tuned keys": 65.51,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(new_classes=False)
    recipes: ClassVar[dict[str, Recipe]] = {"fast": _FAST, "paper": replace(_FAST, name="paper", views=0)}

    alpha: float = parameter(default=1.0, low=0, help="Weight of the votes.")
    beta: float = parameter(default=5.5, low=0, help="How fast a vote falls with distance.")
    finetune: bool = parameter(default=False, help="Learn the keys by gradient descent (Tip-Adapter-F).")

    keys_: Float[Tensor, "keys dim"] = fitted()
    labels_: Int[Tensor, " keys"] = fitted()

    @property
    def links(self) -> tuple[Link, ...]:
        """Votes are added to the backbone's scores, to which its bias means nothing then."""
        return ("softmax",)

    @property
    def full_title(self) -> str:
        """What tables of results call it: Tip-Adapter-F where the keys are learned."""
        return f"{self.title}-F" if self.finetune else self.title

    def _fit(self, features: Callable[[int], Views], targets: Int[Tensor, " n"]) -> None:
        views = 1 if self.recipe_.views == 1 else VIEWS_PER_KEY
        draw = features(views)
        keys = normalize(torch.stack([draw(i) for i in range(views)]).mean(dim=0), dim=-1)
        self._set_state({"keys": keys, "labels": targets, **_as_tensors(alpha=self.alpha, beta=self.beta)})
        self.losses_, self.text_passes_, self.stopped_, self.agreements_ = [], 0.0, "keys are kept, not learned", []
        if self.finetune:
            super()._fit(features, targets)
        vars(self).pop("_cached_views", None)  # the keys hold what there is to know of them
        if (given := self._validation()) is not None:
            self.alpha_, self.beta_ = self._searched(*given)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: the keys as they are before they are fine-tuned."""
        return {"keys": self.keys_}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        votes = key_votes(forward.images() @ forward.parameters["keys"].T, self.beta_, self._one_hot)
        return batch.cross_entropy(forward.logits() + self.alpha_ * votes)

    def operations(self, learned: Mapping[str, Tensor], encode: TextEncoder | None) -> int:
        """See `LearnedMethod.operations`."""
        n_keys, dim = self.keys_.shape
        return 6 * min(n_keys, self.recipe_.batch_size) * n_keys * (dim + len(self.class_names_))

    def head(self) -> CacheHead:
        """See `ClipClassifier.head`."""
        score_head = self.backbone_.score_head
        return CacheHead(self.template_features_, self.keys_, self.labels_, self.alpha_, self.beta_, score_head)

    def _searched(self, features: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> tuple[float, float]:
        """The alpha and beta with the highest accuracy on these images; of equals the first, which is what was given."""
        features = normalize(features, dim=-1)
        zero_shot = self.backbone_.score_head(features, self.template_features_)
        cosines = features @ self.keys_.T
        best, chosen = -1, (self.alpha_, self.beta_)
        for beta in (self.beta_, *BETAS):
            votes = key_votes(cosines, beta, self._one_hot)
            for alpha in (self.alpha_, *ALPHAS):
                hits = int(((zero_shot + alpha * votes).argmax(dim=1) == targets).sum())
                if hits > best:
                    best, chosen = hits, (alpha, beta)
        return chosen

    def _state(self) -> dict[str, Tensor]:
        return {"keys": self.keys_, "labels": self.labels_, **_as_tensors(alpha=self.alpha_, beta=self.beta_)}

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {"keys": (None, self.backbone_.embed_dim), "labels": (None,), "alpha": (), "beta": ()}

    def _check_state(self, state: dict[str, Tensor]) -> None:
        super()._check_state(state)
        keys, labels, n_classes = state["keys"], state["labels"], len(self.class_names_)
        known = labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < n_classes)).all())
        if labels.shape != keys.shape[:1] or not known:
            raise SavedFileError(
                f"The saved labels of {len(keys)} keys are {tuple(labels.shape)} ({labels.dtype}); expected class indices "
                f"below {n_classes}, one for each key."
            )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.keys_ = state["keys"].to(self.backbone_.device, torch.float32)
        if "labels" in state:  # learning changes the keys alone
            self.labels_ = state["labels"].to(self.backbone_.device)
            self._one_hot = one_hot(self.labels_, len(self.class_names_)).float()
            self.alpha_, self.beta_ = float(state["alpha"]), float(state["beta"])


def _as_tensors(**numbers: float) -> dict[str, Tensor]:
    return {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
