"""LP++: a linear probe whose weights are blended with the text features.

Huang, Shakeri, Dolz, Boudiaf, Bahig, Ben Ayed: "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024,
arXiv:2404.02285.
Published, ViT-B/16, mean over eleven data sets (as ProKeR's paper reports it): 70.35 / 72.93 / 75.77 / 77.94 / 80.32 at
1 / 2 / 4 / 8 / 16 shots.

Scores are f.(w_c + alpha_c t_c) + b_c. Their cross-entropy over all images is minimised in two blocks by gradient steps of the
lengths that bounds on its curvature allow:

    w and b at every step by 4 N / lambda_max(F^T F),   alpha at every tenth by N / (4 max_c sum_i (f_i.t_c)^2).

Nothing is chosen on validation images: where it begins comes from the data too.

Notation: f image feature, F those of the training images, t text features, N training images, K images of a class, C classes,
D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from coopt.events import tracked
from coopt.inference.heads import UnitLinearHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.feature_adapter import FeatureAdapter, in_double
from coopt.parameters import fitted, parameter
from coopt.threads import threads_for

EVERY = 10
"""Steps of w for one of alpha."""


class LPPlusPlus(FeatureAdapter):
    """A linear probe on the image features whose weights are w + alpha t for each class: image and text, blended.

    w begins as K times the mean feature of the class's images (for uneven classes K is the mean number of images of those that
    have any; without images, w begins as 0), and alpha as one number for all classes.

    Attributes:
        weight_, bias_: w + alpha t and b, on normalised features, (C, D) and (C,).
        alpha_: how much of its text feature each class took, (C,).
        losses_: the cross-entropy before every step.
        template_features_: normalised text features of the hand-made prompts, (C, D).
        classes_, class_names_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "lp_plus_plus"
    title: ClassVar[str] = "LP++"
    paper: ClassVar[str] = (
        "Huang et al.: LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024, arXiv:2404.02285"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean over eleven data sets, 1 shot, ViT-B/16": 70.35,
        "mean over eleven data sets, 2 shots, ViT-B/16": 72.93,
        "mean over eleven data sets, 4 shots, ViT-B/16": 75.77,
        "mean over eleven data sets, 8 shots, ViT-B/16": 77.94,
        "mean over eleven data sets, 16 shots, ViT-B/16": 80.32,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(new_classes=False)

    steps: int = parameter(default=300, low=0, help="Gradient steps on all images.")
    momentum: float = parameter(
        default=0.0,
        low=0,
        below=1,
        help="Of the steps of w and b; 0.9 in the published experiments.",
        doc="Of the steps of w and b. The published experiments take 0.9, and so do ten times as much of the same; without it "
        "fewer images are learned by heart, which is 5 points on the validation parts of the bundled data sets.",
    )
    start: Literal["zero-shot", "paper"] = parameter(
        default="zero-shot",
        choices=("zero-shot", "paper"),
        help="Where alpha begins: at the backbone's logit scale, or at 250 times the mean cosine of images and their class.",
        doc='Where alpha begins: "zero-shot" at the backbone\'s logit scale, so that the text counts what it does in zero-shot '
        'scores; "paper" at 250 times the mean cosine of images and their own class, which is 60 to 75 for CLIP.',
    )

    weight_: Float[Tensor, "classes dim"] = fitted()
    bias_: Float[Tensor, " classes"] = fitted()
    alpha_: Float[Tensor, " classes"] = fitted()
    losses_: list[float] = fitted()

    def _fit(self, features: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> None:
        x, text = normalize(features, dim=-1), self.template_features_
        with threads_for(4 * x.numel() * len(text)):
            cosines = x @ text.T
            own = float(cosines.gather(1, targets[:, None]).double().mean())
            first = self.backbone_.logit_scale if self.start == "zero-shot" else 250 * own
            weight, bias, alpha = self._learned(x, targets, cosines, first)
        self._set_state({"weight": weight + alpha[:, None] * text, "bias": bias, "alpha": alpha})

    def _learned(
        self, x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"], cosines: Float[Tensor, "n classes"], first: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """w, b and alpha after all steps.

        Args:
            x: normalised image features.
            targets: their classes.
            cosines: with the text features.
            first: where alpha begins.
        """
        wanted = one_hot(targets, cosines.shape[1]).to(x.dtype)
        of_weight, of_alpha = step_lengths(x, cosines)
        weight, bias = class_sums(x, wanted), torch.zeros_like(cosines[0])
        alpha = torch.full_like(bias, first)
        along_weight, along_bias = torch.zeros_like(weight), torch.zeros_like(bias)

        def scores() -> Tensor:
            return x @ weight.T + alpha * cosines + bias

        self.losses_ = []
        with tracked("steps", self.steps) as progress:
            for step in range(self.steps):
                now = scores()
                self.losses_.append(float(cross_entropy(now, targets)))
                away = (now.softmax(dim=1) - wanted) / len(x)
                along_weight = self.momentum * along_weight + away.T @ x
                along_bias = self.momentum * along_bias + away.sum(dim=0)
                weight = weight - of_weight * along_weight
                bias = bias - of_weight * along_bias
                if step % EVERY == EVERY - 1:
                    away = (scores().softmax(dim=1) - wanted) / len(x)
                    alpha = alpha - of_alpha * (away * cosines).sum(dim=0)
                progress.update(step + 1)
        return weight, bias, alpha

    def head(self) -> UnitLinearHead:
        """See `ClipClassifier.head`."""
        return UnitLinearHead(self.weight_, self.bias_)

    def _state(self) -> dict[str, Tensor]:
        return {"weight": self.weight_, "bias": self.bias_, "alpha": self.alpha_}

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        n_classes = len(self.class_names_)
        return {"weight": (n_classes, self.backbone_.embed_dim), "bias": (n_classes,), "alpha": (n_classes,)}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        device = self.backbone_.device
        self.weight_, self.bias_, self.alpha_ = (
            state[name].to(device, torch.float32) for name in ("weight", "bias", "alpha")
        )


def step_lengths(x: Float[Tensor, "n dim"], cosines: Float[Tensor, "n classes"]) -> tuple[float, float]:
    """Those of w and b, and of alpha, from the bounds on the curvature of the mean cross-entropy.

    Args:
        x: normalised image features.
        cosines: with the text features.
    """
    wide = in_double(x)
    largest = float(torch.linalg.eigvalsh(wide.T @ wide)[-1])
    return 4 * len(x) / largest, len(x) / (4 * float(in_double(cosines).square().sum(dim=0).max()))


def class_sums(x: Float[Tensor, "n dim"], wanted: Float[Tensor, "n classes"]) -> Float[Tensor, "classes dim"]:
    """Sums of each class's image features, as if all classes that have images had equally many.

    Args:
        x: normalised image features.
        wanted: their classes, one-hot.
    """
    counts = wanted.sum(dim=0)
    mean_count = counts.sum() / (counts > 0).sum()
    return mean_count * (wanted.T @ x) / counts.clamp_min(1)[:, None]
