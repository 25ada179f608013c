"""GDA: Gaussian discriminant analysis of the image features beside the zero-shot classifier.

Wang, Liang, Sheng, He, Wang, Tan: "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024,
arXiv:2402.04087.
Published, ViT-B/16, mean over eleven data sets: 69.39 / 73.09 / 76.24 / 79.71 / 81.70 at 1 / 2 / 4 / 8 / 16 shots; base to new
at 16 shots: 83.96 / 74.53 / 78.97 (base, new, harmonic mean).

With classes' means mu and one covariance Sigma of all classes, Gaussian classes are told apart by the linear scores f W + b:

    W = mu Sigma^-1,   b = -1/2 mu^T Sigma^-1 mu,   Sigma^-1 = D ((N-1) Sigma + tr(Sigma) I)^-1

The term with the trace keeps the inverse well behaved with any number of images: its condition is at most N. The scores of an
image are scale * f.t + alpha (f W + b). The paper's -log C is left out, which is the same for all classes.

Notation: f image feature, t text features, n images, N training images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.backbones.tensors import settled
from coopt.data import as_class_names
from coopt.errors import SavedFileError
from coopt.inference.heads import UnitLinearHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.feature_adapter import SearchingAdapter, directions, in_double
from coopt.parameters import fitted, parameter
from coopt.threads import threads_for

if TYPE_CHECKING:
    from typing_extensions import Self

NEIGHBOURS, COPIES = 64, 16
"""A class without images takes the mean of so many training features nearest to its text feature, and so many copies of that."""

WEIGHTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
"""What is tried for alpha, in units in which both scores differ equally much among the classes that an image is not of.

The paper tries 1e-4, 1e-3, ... 1e2 on validation images. Scores of Gaussians grow with the number of images, so that the best
alpha lies elsewhere for other numbers of images; in these units it does not.
"""


class Gaussians(NamedTuple):
    """Linear scores of Gaussian classes: features (n, D) to f W + b.

    Attributes:
        weight: W, (C, D).
        bias: b, (C,).
    """

    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, " classes"]

    def scores(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Of normalised image features."""
        return x @ self.weight.T + self.bias


class GDA(SearchingAdapter):
    """Zero-shot logits plus those of Gaussian classes with one covariance: a closed form, nothing is trained.

    New classes, and classes without images, get a mean as in the paper: of the 64 training features nearest to the class's text
    feature, and of that text feature 16 times. With the covariance that was learned, this is all they need; classes that were
    learned from keep the means of their images.

    A saved file holds the features of all training images, from which the rest is computed again (4 D bytes each).

    Attributes:
        alpha_: what was used: `alpha`, or what was chosen.
        chosen_: how, in words.
        keys_: features of the training images, normalised, (N, D).
        labels_: the class of each when they were learned from, (N,).
        groups_: for each class the label of its images; -1 for a class without any, (C,).
        weight_, bias_: the linear scores of Gaussian classes, (C, D) and (C,).
        template_features_: normalised text features of the hand-made prompts, (C, D).
        classes_, class_names_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "gda"
    title: ClassVar[str] = "GDA"
    paper: ClassVar[str] = (
        "Wang et al.: A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, ICLR 2024, arXiv:2402.04087"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean over eleven data sets, 1 shot, ViT-B/16": 69.39,
        "mean over eleven data sets, 2 shots, ViT-B/16": 73.09,
        "mean over eleven data sets, 4 shots, ViT-B/16": 76.24,
        "mean over eleven data sets, 8 shots, ViT-B/16": 79.71,
        "mean over eleven data sets, 16 shots, ViT-B/16": 81.70,
        "base classes, 16 shots, ViT-B/16": 83.96,
        "new classes, 16 shots, ViT-B/16": 74.53,
    }
    capabilities: ClassVar[Capabilities] = Capabilities()

    alpha: float | None = parameter(
        default=None,
        low=0,
        help="Weight of the Gaussian scores; none: chosen.",
        doc="Weight of the Gaussian scores; None: chosen by accuracy on the validation images given to `fit`, or else on "
        "training images that are held out, the smallest of equally good ones; or (where every class has a single image) "
        "the smallest of those that would be tried.",
    )

    alpha_: float = fitted()
    keys_: Float[Tensor, "keys dim"] = fitted()
    labels_: Int[Tensor, " keys"] = fitted()
    groups_: Int[Tensor, " classes"] = fitted()
    weight_: Float[Tensor, "classes dim"] = fitted()
    bias_: Float[Tensor, " classes"] = fitted()

    def _fit(self, features: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> None:
        keys, n_classes = directions(features).float(), len(self.class_names_)
        x, targets = in_double(keys), targets.to(in_double(keys).device)
        with threads_for(4 * x.numel() * (x.shape[1] + n_classes)):
            alpha = self._chosen_alpha(x, targets) if self.alpha is None else float(self.alpha)
            if self.alpha is not None:
                self.chosen_ = "given"
            state = {"keys": keys, "labels": targets, "groups": _groups(targets, n_classes)}
            self._set_state({**state, "alpha": torch.tensor(alpha, dtype=torch.float64)})

    def _chosen_alpha(self, x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> float:
        text, scale = self._text(), self.backbone_.logit_scale

        def unit(x: Tensor, targets: Tensor, gaussians: Gaussians) -> float:
            return relative_spread(scale * x @ text.T, gaussians.scores(x), targets)

        def scores(x: Tensor, targets: Tensor, others: Tensor) -> Iterator[Tensor]:
            gaussians = gaussian_classes(x, targets, _groups(targets, len(text)), text)
            zero_shot, added = scale * others @ text.T, gaussians.scores(others)
            one = unit(x, targets, gaussians)
            for weight in WEIGHTS:
                yield zero_shot + weight * one * added

        trial = self._trial(x, targets, scores)
        weight = WEIGHTS[0] if trial is None else WEIGHTS[int(trial.hits.argmax())]
        self.chosen_ = "the smallest weight: no class has two images" if trial is None else f"by accuracy on {trial.on}"
        return weight * unit(x, targets, gaussian_classes(x, targets, _groups(targets, len(text)), text))

    def head(self) -> UnitLinearHead:
        """See `ClipClassifier.head`."""
        zero_shot = self.backbone_.logit_scale * self.template_features_
        return UnitLinearHead(zero_shot + self.alpha_ * self.weight_, self.alpha_ * self.bias_)

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """See `ClipClassifier.with_classes`; classes that were learned from keep the means of their images."""
        known = dict(zip(self.class_names_, self.groups_.tolist(), strict=True)) if "groups_" in vars(self) else {}
        other = self._copy_with(class_names)
        groups = torch.tensor([known.get(name, -1) for name in as_class_names(class_names)])
        other._set_state({**self._state(), "groups": groups})
        return other

    def _state(self) -> dict[str, Tensor]:
        alpha = torch.tensor(self.alpha_, dtype=torch.float64)
        return {"keys": self.keys_, "labels": self.labels_, "groups": self.groups_, "alpha": alpha}

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {
            "keys": (None, self.backbone_.embed_dim),
            "labels": (None,),
            "groups": (len(self.class_names_),),
            "alpha": (),
        }

    def _check_state(self, state: dict[str, Tensor]) -> None:
        super()._check_state(state)
        keys, labels, groups = state["keys"], state["labels"], state["groups"]
        whole = labels.dtype == groups.dtype == torch.int64 and labels.shape == keys.shape[:1] and len(keys) > 0
        if not whole or bool((labels < 0).any()) or not bool(torch.isin(groups[groups != -1], labels).all()):
            raise SavedFileError(
                f"The saved labels of {len(keys)} images and the groups of {len(groups)} classes do not fit together. "
                "Expected integers: a label for each image, and for each class one of these labels, or -1. Get the "
                "prompt again from where it came."
            )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        device = self.backbone_.device
        self.alpha_ = float(state["alpha"])
        self.keys_ = state["keys"].to(device, torch.float32)
        self.labels_, self.groups_ = state["labels"].to(device), state["groups"].to(device)
        x, text = in_double(self.keys_), self._text()
        gaussians = gaussian_classes(x, self.labels_.to(x.device), self.groups_.to(x.device), text)
        self.weight_, self.bias_ = (settled(one.to(device, torch.float32)) for one in gaussians)


def _groups(targets: Int[Tensor, " n"], n_classes: int) -> Int[Tensor, " classes"]:
    """For each class its own index, or -1 where it has no image."""
    classes = torch.arange(n_classes, device=targets.device)
    return torch.where(torch.isin(classes, targets), classes, -1)


def gaussian_classes(
    x: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    groups: Int[Tensor, " classes"],
    text: Float[Tensor, "classes dim"],
) -> Gaussians:
    """The linear scores of Gaussian classes with one covariance, in float64.

    Where no two images are of one class, the covariance is that of all images about their common mean.

    Args:
        x: normalised features of the training images.
        labels: their classes.
        groups: for each class that is to be told apart the label of its images; -1 for one without any.
        text: normalised text features of these classes.
    """
    counts = torch.bincount(labels).clamp_min(1)
    of_labels = torch.zeros(len(counts), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, labels, x)
    of_labels /= counts[:, None]
    scatter = _scatter(x - of_labels[labels])
    if scatter is None:
        scatter = _scatter(x - x.mean(dim=0))
    regularised = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    if scatter is not None:  # there is more than a single image, or the same one again and again
        regularised = scatter + scatter.trace() / (len(x) - 1) * regularised
    new = groups < 0
    means = of_labels[groups.clamp_min(0)]
    means[new] = means_of_new(x, text[new])
    factor = torch.linalg.cholesky(regularised)
    weight = x.shape[1] * torch.cholesky_solve(means.T, factor).T
    return Gaussians(weight, -0.5 * (weight * means).sum(dim=1))


def _scatter(deviations: Float[Tensor, "n dim"]) -> Float[Tensor, "dim dim"] | None:
    """Their sum of outer products; None where they are zero but for rounding."""
    product = deviations.T @ deviations
    return product if float(product.trace()) > 1e-9 * len(deviations) else None


def means_of_new(x: Float[Tensor, "n dim"], text: Float[Tensor, "new dim"]) -> Float[Tensor, "new dim"]:
    """Means of classes without images.

    Args:
        x: normalised features of the images of other classes.
        text: normalised text features of the new classes.
    """
    nearest = (text @ x.T).topk(min(NEIGHBOURS, len(x)), dim=1).indices
    total = torch.stack([x[rows].sum(dim=0) for rows in nearest]) if len(nearest) else torch.zeros_like(text)
    return (total + COPIES * text) / (nearest.shape[1] + COPIES)


def relative_spread(
    reference: Float[Tensor, "n classes"], added: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]
) -> float:
    """How much more scores differ among classes than others do: the ratio of their standard deviations, on the mean.

    The class of an image itself is left out, which it was learned from; of two classes none is. 0 where the others are all equal.

    Args:
        reference: scores of images.
        added: others of the same images.
        targets: the classes of these.
    """
    above, below = (_deviation(scores, targets) for scores in (reference, added))
    return above / below if below > 0 else 0.0


def _deviation(scores: Float[Tensor, "n classes"], targets: Int[Tensor, " n"]) -> float:
    """The standard deviation of an image's scores, on the mean over the images."""
    n_classes = scores.shape[1]
    centred = scores - scores.mean(dim=1, keepdim=True)
    own = centred.gather(1, targets[:, None])[:, 0] if n_classes > 2 else torch.zeros_like(centred[:, 0])
    rest = n_classes - (n_classes > 2)
    # The sums over the other classes are those over all, of which the first is 0, without the own one.
    variance = (centred.square().sum(dim=1) - own**2) / rest - (own / rest) ** 2
    return float(variance.clamp_min(0).sqrt().mean())
