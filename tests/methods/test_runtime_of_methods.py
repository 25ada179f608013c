"""Every method takes the machine's settings as one `Runtime`, and says so to those who give them otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime, refuse_moved

FEW = {"lr": 0.02, "epochs": 2}


def test_estimators_carry_it_as_scikit_learn_carries_nested_parameters(backbone: Backbone) -> None:
    shared = Runtime(cache=False)
    first, second = coopt.CoOp(backbone, runtime=shared), coopt.CoOp(backbone, runtime=shared)
    assert clone(first).runtime == shared and first.get_params()["runtime__cache"] is False
    first.set_params(runtime__precision="bf16")
    assert first.machine.precision == "bf16" and first.machine.cache is False
    assert second.machine is shared and shared.precision is None  # nobody else's was changed
    bare = coopt.CoOp(backbone).set_params(runtime__device="cpu")
    assert bare.machine == Runtime(device="cpu") and coopt.CoOp(backbone).runtime is None
    with pytest.raises(ParameterError, match="Runtime has no parameter 'devise'"):
        bare.set_params(runtime__devise="cpu")


def test_grid_search_over_it(backbone: Backbone, features: Any, labels: Any) -> None:
    grid = {"runtime__text_path": ["fast", "reference"]}
    search = GridSearchCV(coopt.CoOp(backbone, n_ctx=1, recipe=FEW), grid, cv=2, error_score="raise")
    assert search.fit(features, labels).best_estimator_.machine.text_path in ("fast", "reference")


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("value", [("device", "cpu"), ("memory", "4G"), ("verbose", True)])
def test_what_moved_to_it_says_where(method: str, value: tuple[str, Any]) -> None:
    cls, (name, given) = METHODS.get(method), value
    expected = rf"^The '{name}' parameter of {cls.__name__} belongs to the machine.*write "
    expected += rf"{cls.__name__}\(\.\.\., runtime=coopt\.Runtime\({name}={given!r}\)\)\.$"
    with pytest.raises(ParameterError, match=expected):
        cls(**{name: given})
    with pytest.raises(ParameterError, match=expected):
        cls().set_params(**{name: given})


def test_loading_says_it_too(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"coopt\.load\(\.\.\., runtime=coopt\.Runtime\(device='cpu'\)\)"):
        coopt.load(tmp_path, device="cpu")
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        coopt.load(tmp_path, devise="cpu")
    refuse_moved("n_ctx", 4, "CoOp")  # not a parameter of Runtime


def test_what_is_saved_of_it(backbone: Backbone, features: Any, labels: Any, tmp_path: Path) -> None:
    runtime = Runtime(text_path="reference", cache=False, memory="1G")
    model = coopt.CoOp(backbone, n_ctx=1, recipe=FEW, runtime=runtime).fit(features, labels)
    assert [*model.parameters] == ["csc", "init", "n_ctx", "position", "precision", "recipe", "seed", "text_path"]
    assert (model.parameters["precision"], model.parameters["text_path"]) == ("fp32", "reference")
    loaded = coopt.load(model.save(tmp_path / "prompt"), backbone)
    assert loaded.machine == Runtime(text_path="reference", precision="fp32")
    there = coopt.load(tmp_path / "prompt", backbone, runtime=Runtime(cache=False, text_path="fast"))
    assert there.machine == Runtime(text_path="fast", precision="fp32", cache=False)
    assert [*coopt.LinearProbe(runtime=runtime).parameters] == ["C", "seed"]


def test_fitting_and_predicting_take_its_threads(
    backbone: Backbone, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr("coopt.methods.base.extract_features", _recording(seen))
    paths, labels = pictures
    model = coopt.CoOp(backbone, n_ctx=1, recipe=FEW, runtime=Runtime(threads=before + 2)).fit(paths, labels)
    model.predict(paths)
    with Runtime(threads=before + 1):
        model.set_params(runtime__threads=None).predict(paths)
    assert seen == [before + 2, before + 2, before + 1] and torch.get_num_threads() == before


def _recording(seen: list[int]) -> Any:
    from coopt.data import extract_features

    def recorded(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return extract_features(*arguments, **options)

    return recorded
