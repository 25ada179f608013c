"""Runtime: the machine's settings in one object."""

from __future__ import annotations

import copy
import pickle

import pytest
from sklearn.base import clone

from coopt.errors import ParameterError
from coopt.runtime import Runtime

FEW = {"lr": 0.02, "epochs": 2}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "fp16"}, "The 'precision' parameter of Runtime must be one of auto, fp32, bf16. Got 'fp16' instead."),
        ({"text_path": "slow"}, "must be one of auto, fast, reference. Got 'slow'"),
        ({"verbose": 1}, "must be True or False. Got 1"),
        ({"device": None}, "must be text. Got None"),
        ({"threads": 0}, "must be an int >= 1, 'auto' or None. Got 0"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_at_once(given: dict, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Runtime(**given)
    assert message in str(caught.value)
    with pytest.raises(ParameterError) as caught:
        Runtime().set_params(**given)
    assert message in str(caught.value)


def test_equal_settings_are_equal() -> None:
    runtime = Runtime(device="cpu", threads=2)
    assert runtime == Runtime(threads=2, device="cpu") != Runtime() and repr(Runtime()) == "Runtime()"
    changed = runtime.changed(device="auto", cache=False)
    assert (changed.device, changed.cache, changed.threads, runtime.device) == ("auto", False, 2, "cpu")
    with pytest.raises(ParameterError, match="Runtime has no parameter 'devise'"):
        runtime.changed(devise="cpu")


def test_copies_within_a_context_know_nothing_of_it() -> None:
    with Runtime(threads=1) as runtime:
        for other in (copy.deepcopy(runtime), pickle.loads(pickle.dumps(runtime)), clone(runtime)):
            assert other == runtime and other is not runtime and other._before == []
