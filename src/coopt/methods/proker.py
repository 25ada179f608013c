"""ProKeR: kernel ridge regression of what the zero-shot classifier leaves over.

Bendou, Ouasfi, Gripon, Boukhayma: "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language Models",
CVPR 2025, arXiv:2501.11175.
Published, ViT-B/16, mean over eleven data sets: 71.32 / 73.74 / 76.23 / 79.84 / 82.01 at 1 / 2 / 4 / 8 / 16 shots.

The scores of an image are those of the hand-made prompts and a function g of the image feature,

    scale * f.t + g(f),   g(f) = k(f, F) (K + lambda I)^-1 (L Y - scale * F.t),   k(f, F) = exp(-beta |f - F|^2),

the g that minimises the squared distance of the training images' scores to L times their one-hot labels Y, plus lambda times
its squared norm in the kernel's space. The paper's formula has L = 1.

Notation: f image feature, F those of the training images, t text features, n images, N training images, C classes, D dimension
of the shared embedding space, K = k(F, F).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from coopt.errors import DataError, SavedFileError
from coopt.inference.heads import KernelHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.feature_adapter import SearchingAdapter, directions
from coopt.parameters import fitted, parameter
from coopt.text.memory import free_memory, text_of
from coopt.threads import threads_for

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BETAS = (0.25, 0.5, 1.0, 2.0)
"""What is tried for lambda and beta."""

USUAL_RIDGE, USUAL_BETA = 1.0, 0.5
"""Where nothing can be held out."""

SEARCHED = 1024
"""Images from which lambda and beta are chosen, at most: whole classes, since every pair is tried and costs N^3."""


class ProKeR(SearchingAdapter):
    """Zero-shot logits plus a kernel regression of what they miss on the training images: a closed form, nothing is trained.

    Fitting N images solves a system of N equations in float64: two tables of 8 N^2 bytes and N^3 / 3 operations (16,000 images:
    4.1 GB, and a minute on two cores). A saved file holds the feature of every training image, and what it adds to each class: 4 N (D + C) bytes.

    Attributes:
        ridge_, beta_: what was used: the values given, or what was chosen.
        chosen_: how, in words.
        keys_: features of the training images, normalised, (N, D).
        coefficients_: what each adds to the scores of images near it, (N, C).
        template_features_: normalised text features of the hand-made prompts, (C, D).
        classes_, class_names_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "proker"
    title: ClassVar[str] = "ProKeR"
    paper: ClassVar[str] = (
        "Bendou et al.: ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language Models, CVPR 2025, "
        "arXiv:2501.11175"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean over eleven data sets, 1 shot, ViT-B/16": 71.32,
        "mean over eleven data sets, 2 shots, ViT-B/16": 73.74,
        "mean over eleven data sets, 4 shots, ViT-B/16": 76.23,
        "mean over eleven data sets, 8 shots, ViT-B/16": 79.84,
        "mean over eleven data sets, 16 shots, ViT-B/16": 82.01,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(new_classes=False)

    ridge: float | None = parameter(
        default=None,
        above=0,
        help="The paper's lambda: how strongly the zero-shot scores are kept; none: chosen.",
        doc="The paper's lambda, how strongly the zero-shot scores are kept; None: chosen with beta, by accuracy and then by "
        "cross-entropy, on the validation images given to `fit`, or else on training images that are held out; or (where "
        "every class has a single image) 1.",
    )
    beta: float | None = parameter(
        default=None,
        above=0,
        help="How fast the influence of a training image falls with distance; none: chosen.",
        doc="How fast the influence of a training image falls with distance; None: chosen with lambda; or (where every class "
        "has a single image) 0.5.",
    )
    label_scale: float = parameter(
        default=5.0,
        above=0,
        help="L, what the score of the right class should be above that of others.",
        doc="L, what the score of the right class should be above that of others. The paper's formula has 1; 5 does better "
        "on the validation parts of the bundled data sets, by 2 points on the mean.",
    )

    ridge_: float = fitted()
    beta_: float = fitted()
    keys_: Float[Tensor, "keys dim"] = fitted()
    coefficients_: Float[Tensor, "keys classes"] = fitted()

    def _fit(self, features: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> None:
        x = directions(features)
        targets = targets.to(x.device)
        self._check_memory(x)
        n, n_classes = len(x), len(self.class_names_)
        with threads_for(n * n * (n + x.shape[1] + n_classes)):
            ridge, beta = self._chosen(x, targets)
            coefficients = ridge_regression(x, self._missed(x, targets), ridge, beta)
        numbers = {"ridge": torch.tensor(ridge, dtype=x.dtype), "beta": torch.tensor(beta, dtype=x.dtype)}
        self._set_state({"keys": x.float(), "coefficients": coefficients.float(), **numbers})

    def _check_memory(self, x: Float[Tensor, "n dim"]) -> None:
        needed, free = 16 * len(x) ** 2, free_memory(x.device)
        if free is not None and needed > free:
            raise DataError(
                f"ProKeR solves for all {len(x)} images at once, which takes {text_of(needed)}B of memory; {text_of(free)}B "
                "are free. Learn from fewer images of each class, or use GDA, whose memory grows with the images alone."
            )

    def _missed(self, x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """What is to be added to the zero-shot scores of training images."""
        text = self._text()
        return self.label_scale * one_hot(targets, len(text)).to(x.dtype) - self.backbone_.logit_scale * x @ text.T

    def _chosen(self, x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> tuple[float, float]:
        """Lambda and beta."""
        ridges = RIDGES if self.ridge is None else (float(self.ridge),)
        betas = BETAS if self.beta is None else (float(self.beta),)
        settings = [(ridge, beta) for beta in betas for ridge in ridges]
        if len(settings) == 1:
            self.chosen_ = "given"
            return settings[0]
        text, scale = self._text(), self.backbone_.logit_scale

        def scores(x: Tensor, targets: Tensor, others: Tensor) -> Iterator[Tensor]:
            missed, zero_shot = self._missed(x, targets), scale * others @ text.T
            for beta in betas:
                eigenvalues, vectors = torch.linalg.eigh(kernel(x, x, beta))
                left, right = kernel(others, x, beta) @ vectors, vectors.T @ missed
                for ridge in ridges:
                    yield zero_shot + left @ (right / (eigenvalues + ridge)[:, None])

        some = self._some(targets)
        trial = self._trial(x[some], targets[some], scores)
        if trial is None:
            self.chosen_ = "the usual values: no class has two images"
            return self.ridge or USUAL_RIDGE, self.beta or USUAL_BETA
        self.chosen_ = f"by accuracy on {trial.on}"
        equal = trial.hits == trial.hits.max()
        return settings[int(trial.losses.masked_fill(~equal, torch.inf).argmin())]

    def _some(self, targets: Int[Tensor, " n"]) -> Tensor:
        """Which images are enough to choose by, (N,): of all classes, or of as many whole ones as there is time for.

        Classes are taken in the order of their text features along one direction, whatever order they are given in.
        """
        text = self._text().to(targets.device)
        order = text.sum(dim=1).argsort().tolist()
        counts, chosen, total = torch.bincount(targets, minlength=len(text)).tolist(), [], 0
        for one in order:
            if total + counts[one] <= SEARCHED or not chosen:
                chosen.append(one)
                total += counts[one]
        return torch.isin(targets, torch.tensor(chosen, device=targets.device))

    def head(self) -> KernelHead:
        """See `ClipClassifier.head`."""
        # |f - F|^2 of normalised features is 2 (1 - cosine).
        score_head = self.backbone_.score_head
        return KernelHead(self.template_features_, self.keys_, self.coefficients_, 2 * self.beta_, score_head)

    def _state(self) -> dict[str, Tensor]:
        numbers = {"ridge": self.ridge_, "beta": self.beta_}
        as_tensors = {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
        return {"keys": self.keys_, "coefficients": self.coefficients_, **as_tensors}

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {
            "keys": (None, self.backbone_.embed_dim),
            "coefficients": (None, len(self.class_names_)),
            "ridge": (),
            "beta": (),
        }

    def _check_state(self, state: dict[str, Tensor]) -> None:
        super()._check_state(state)
        keys, coefficients = state["keys"], state["coefficients"]
        if len(keys) != len(coefficients):
            raise SavedFileError(
                f"The saved coefficients are of {len(coefficients)} images; expected one row for each of {len(keys)} keys."
            )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        device = self.backbone_.device
        self.keys_ = state["keys"].to(device, torch.float32)
        self.coefficients_ = state["coefficients"].to(device, torch.float32)
        self.ridge_, self.beta_ = float(state["ridge"]), float(state["beta"])


def kernel(a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"], beta: float) -> Float[Tensor, "n m"]:
    """exp(-beta |a - b|^2) of normalised features; one table is held, which is changed in place."""
    cosines = a @ b.T
    return cosines.sub_(1).mul_(2 * beta).exp_()


def ridge_regression(
    x: Float[Tensor, "n dim"], missed: Float[Tensor, "n classes"], ridge: float, beta: float
) -> Float[Tensor, "n classes"]:
    """(K + lambda I)^-1 times what the zero-shot scores of the training images miss, in float64.

    Args:
        x: normalised features.
        missed: what is to be added to their scores.
        ridge: lambda.
        beta: of the kernel.
    """
    table = kernel(x, x, beta)
    table.diagonal().add_(ridge)
    table = torch.linalg.cholesky(table)  # under one name, or a third table would be held while it is solved
    return torch.cholesky_solve(missed, table)
