"""`coopt.testing.check_method`: it sees each kind of broken promise. That coopt's methods pass: tests/methods/test_contract.py."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
from torch import Tensor, nn

import coopt
from coopt.methods.registry import METHODS
from coopt.parameters import parameter
from coopt.testing import check_method, small_backbone
from coopt.testing import methods as checks

TABLE = np.random.default_rng(0)


class KeepsMore(coopt.ZeroShot):
    def __init_post__(self) -> None:
        self.seen = 0


class SaysNothing(coopt.ZeroShot):
    beta: float = parameter(default=1.0)


class ChecksNothing(coopt.ZeroShot):
    beta: float = parameter(default=1.0, low=0, help="A factor.")

    def check_parameters(self) -> None:
        pass


class Throws(coopt.ZeroShot):
    def _logits(self, features: Tensor) -> Tensor:
        return super()._logits(features) + float(TABLE.normal())


class CountsFits(coopt.ZeroShot):
    def fit(self, images: Any, labels: Any) -> CountsFits:
        before = getattr(self, "fits_", 0)
        super().fit(images, labels)
        self.fits_ = before + 1
        return self

    def _logits(self, features: Tensor) -> Tensor:
        return super()._logits(features) + self.fits_


class SortsNothing(coopt.ZeroShot):
    def predict(self, images: Any) -> np.ndarray:
        return super().predict(images)[::-1]


class OrderMatters(coopt.ZeroShot):
    def _logits(self, features: Tensor) -> Tensor:
        scores = super()._logits(features)
        scores[:, 0] = scores.max() + 1
        return scores


class IsChanged(coopt.ZeroShot):
    def with_classes(self, class_names: Any) -> Any:
        self.class_names_, self.classes_ = tuple(class_names), np.array(class_names)
        self._set_state({})
        return self


class TakesAnything(coopt.ZeroShot):
    def _features(self, images: Any, *arguments: Any) -> Any:
        if isinstance(images, np.ndarray) and images.ndim == 2:
            images = np.nan_to_num(np.resize(images, (len(images), self.backbone_.embed_dim)))
        return super()._features(images, *arguments)


class HeadOfAnother(coopt.ZeroShot):
    def _logits(self, features: Tensor) -> Tensor:
        return super()._logits(features) * 2


class NotAnnounced(coopt.ZeroShot):
    method: ClassVar[str] = "not_announced"


class Mine(coopt.ZeroShot):
    """Registered by the test, so that it can be loaded."""

    method: ClassVar[str] = "mine"


class Shift(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return scores + 1


class SavesLess(Mine):
    def head(self) -> nn.Module:
        return nn.Sequential(super().head(), Shift()) if hasattr(self, "more") else super().head()

    def fit(self, images: Any, labels: Any) -> SavesLess:
        self.more = 1.0
        super().fit(images, labels)
        return self


class Carries(Mine):
    def fit(self, images: Any, labels: Any) -> Carries:
        super().fit(images, labels)
        self.model_ = self.backbone_.model
        return self


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is what its name stands for."""
    monkeypatch.setattr(METHODS, "_registered", {})


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (KeepsMore, "KeepsMore: the constructor must keep its arguments and nothing else. It keeps .*'seen': 0"),
        (SaysNothing, "the parameter 'beta' must be described"),
        (ChecksNothing, "beta='much' must be refused with ParameterError, and was taken"),
        (Throws, "the best score|must give the class of the best score|fitting twice must give the same bits"),
        (CountsFits, "fitting a fitted one again must give the same bits"),
        (SortsNothing, "predict must give the class of the best score"),
        (OrderMatters, "another order of the classes must give the same answers"),
        (IsChanged, "with_classes must leave the estimator as it is"),
        (TakesAnything, "features of another width must be refused with DataError"),
        (HeadOfAnother, "must give the scores that logits gives"),
        (NotAnnounced, "saved_and_loaded_is_identical: unexpected .*not_announced"),
        (SavesLess, "a loaded one must give the same bits"),
        (Carries, r"a pickle \(fitted\) must name its backbone, not carry it"),
    ],
)
def test_a_broken_promise_is_seen(cls: Any, message: str) -> None:
    if cls.method == "mine":
        METHODS.register("mine", cls)
    with pytest.raises(AssertionError, match=message):
        check_method(cls)


@pytest.mark.usefixtures("registered")
def test_a_method_of_another_package_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    METHODS.register("mine", Mine)
    monkeypatch.setattr(checks, "CHECKS", checks.CHECKS[:-1])  # other processes have no such method
    check_method(Mine, templates="a sketch of a {}.")


def test_the_small_model_is_the_same_everywhere() -> None:
    code = "from coopt.testing import small_backbone; print(small_backbone().fingerprint)"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert there == small_backbone().fingerprint != small_backbone(1).fingerprint
