"""scikit-learn's conventions hold although it is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import coopt
from coopt.errors import ParameterError
from coopt.methods.estimator import Estimator, check_fitted
from coopt.parameters import parameter


class Nearest(Estimator):
    k: int = parameter(default=1, kw_only=False)
    words: str | None = parameter(default=None)


class Theirs(ClassifierMixin, BaseEstimator):
    def __init__(self, k: int = 1, *, words: str | None = None) -> None:
        self.k = k
        self.words = words


def test_parameters_are_as_scikit_learn_keeps_them() -> None:
    ours, theirs = Nearest(2, words="a"), Theirs(2, words="a")
    assert ours.get_params() == theirs.get_params() == {"k": 2, "words": "a"}
    assert ours.set_params(k=5) is ours and ours.k == 5
    with pytest.raises(ParameterError, match=r"Nearest has no parameter 'n'. Its parameters are k, words"):
        ours.set_params(n=1)
    assert clone(ours).get_params() == {"k": 5, "words": "a"}


def test_tags() -> None:
    ours, theirs = Nearest(), Theirs()
    assert is_classifier(ours) and is_classifier(make_pipeline(ours))
    assert ours.__sklearn_tags__() == theirs.__sklearn_tags__()


def test_what_it_prints() -> None:
    assert repr(Nearest()) == "Nearest()"
    assert repr(Nearest(3, words="x")) == "Nearest(k=3, words='x')"
    assert repr(coopt.CoOp(n_ctx=4)) == "CoOp(n_ctx=4)"


def test_not_fitted() -> None:
    with pytest.raises(NotFittedError, match=r"This Nearest is not fitted yet. Call fit"):
        check_fitted(Nearest(), "classes_")


def test_methods_do_not_import_what_predicting_does_not_need() -> None:
    code = "import sys, coopt.methods.loading; print([m for m in ('sklearn', 'scipy', 'open_clip', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
