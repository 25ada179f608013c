"""Linear probe: logistic regression on image features.

As Radford et al. (ICML 2021) and CoOp's figures use it: features are not normalised; C is searched on validation
images. Published, ImageNet, 16 shots: 55.87 (RN50), 59.75 (RN101), 59.58 (ViT-B/32), 65.85 (ViT-B/16).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.backbones.protocol import Link
from coopt.inference.heads import LinearHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.shared_parameters import SEED
from coopt.methods.validation import ValidatedMethod
from coopt.parameters import fitted, parameter
from coopt.threads import threads_for

if TYPE_CHECKING:  # scikit-learn takes a second to import, and predicting needs none of it
    from sklearn.linear_model import LogisticRegression

SEARCH = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
BISECTIONS = 8


class LinearProbe(ValidatedMethod):
    """Logistic regression on frozen image features.

    Attributes:
        C_: the C that was used.
        weight_, bias_: (C, D) and (C,).
    """

    method: ClassVar[str] = "linear_probe"
    title: ClassVar[str] = "linear probe"
    paper: ClassVar[str] = "Radford et al., ICML 2021, arXiv:2103.00020; as a baseline in CoOp's figures"
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 55.87,
        "ImageNet, 16 shots, RN101": 59.75,
        "ImageNet, 16 shots, ViT-B/32": 59.58,
        "ImageNet, 16 shots, ViT-B/16": 65.85,
    }
    needs_every_class: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(new_classes=False, text=False)

    C: float | None = parameter(
        default=None,
        above=0,
        said="None or a number > 0",
        help="Inverse strength of the L2 penalty; none: searched.",
        doc="Inverse strength of the L2 penalty; None: searched on the validation images given to `fit`, or else by "
        "cross-validation on the training images, or (where a class has a single image) 1.",
    )
    seed: int = SEED

    C_: float = fitted()
    weight_: Tensor = fitted()
    bias_: Tensor = fitted()

    def _fit(self, features: Float[Tensor, "n dim"], targets: Int[Tensor, " n"]) -> None:
        x, y = features.cpu().numpy(), targets.cpu().numpy()
        with threads_for(2 * x.size * len(self.class_names_)):
            self._fit_arrays(x, y)

    def _fit_arrays(self, x: Float[np.ndarray, "n dim"], y: Int[np.ndarray, " n"]) -> None:
        if self.C is not None:
            self.C_ = float(self.C)
        elif (given := self._validation()) is not None:
            self.C_ = search_c(x, y, *(one.cpu().numpy() for one in given))
        else:
            self.C_ = self._cross_validated(x, y)
        fitted = logistic_regression(self.C_, x, y)
        weight, bias = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
        if len(self.class_names_) == 2:  # scikit-learn keeps one row then: that of the second class
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        self._set_state({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

    def _cross_validated(self, x: Float[np.ndarray, "n dim"], y: Int[np.ndarray, " n"]) -> float:
        from sklearn.model_selection import StratifiedKFold, cross_val_score

        folds = min(4, int(np.bincount(y).min()))
        if folds < 2:
            return 1.0
        splits = StratifiedKFold(folds, shuffle=True, random_state=self.seed)

        def accuracy(c: float) -> float:
            with _unconverged():
                return float(cross_val_score(_regression(c), x, y, cv=splits).mean())

        return _search(accuracy)

    def head(self) -> LinearHead:
        """See `ClipClassifier.head`."""
        device = self.backbone_.device
        return LinearHead(self.weight_.to(device), self.bias_.to(device))

    @property
    def links(self) -> tuple[Link, ...]:
        """A regression's own, whatever the backbone was trained with."""
        return ("softmax",)

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        n_classes = len(self.class_names_)
        return {"weight": (n_classes, self.backbone_.embed_dim), "bias": (n_classes,)}

    def _state(self) -> dict[str, Tensor]:
        return {"weight": self.weight_, "bias": self.bias_}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.weight_, self.bias_ = state["weight"].float(), state["bias"].float()


def search_c(
    x: Float[np.ndarray, "n dim"],
    y: Int[np.ndarray, " n"],
    val_x: Float[np.ndarray, "m dim"],
    val_y: Int[np.ndarray, " m"],
) -> float:
    """The reference's search for C by accuracy on validation features: a coarse grid, then bisection in log10."""
    return _search(lambda c: float(np.mean(logistic_regression(c, x, y).predict(val_x) == val_y)))


def _search(accuracy: Callable[[float], float]) -> float:
    coarse = [accuracy(c) for c in SEARCH]
    peak = SEARCH[int(np.argmax(coarse))]
    left, right = 0.1 * peak, 10 * peak
    winner = left
    for _ in range(BISECTIONS):
        middle = (np.log10(left) + np.log10(right)) / 2
        if accuracy(left) < accuracy(right):  # the right end wins only when strictly better
            winner, left = right, float(10**middle)
        else:
            winner, right = left, float(10**middle)
    return float(winner)


def _regression(c: float) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="lbfgs", max_iter=1000, C=c)


def logistic_regression(c: float, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    """scikit-learn's logistic regression as the protocol wants it, fitted."""
    with _unconverged():
        return _regression(c).fit(x, y)


@contextmanager
def _unconverged() -> Iterator[None]:
    """Within this context nothing is said of regressions that stop early: the protocol stops after 1000 iterations."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
