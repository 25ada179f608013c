"""One model's tensors come out of whatever people saved them in, and nothing that lies beside them is ever run."""

from __future__ import annotations

import argparse
import datetime
import enum
import functools
import pathlib
import types
import warnings
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from coopt.backbones.weights import read_weights
from coopt.errors import BackboneError, UnsafePickleError, WeightsWarning

from .small_models import small_model

STATE = {
    "visual.conv1.weight": torch.ones(2),
    "ln_final.weight": torch.full((2,), 2.0),
    "transformer.resblocks.0.ln_1.weight": torch.full((2,), 3.0),
    "logit_scale": torch.tensor(4.6),
}
EMA = {name: weight + 1 for name, weight in STATE.items()}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_reads(content: Any, path: Path, expected: dict[str, torch.Tensor] = STATE) -> None:
    """The weights come out, and no warning is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = read_weights(saved(content, path)).state
    assert sorted(state) == sorted(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


# ---- what lies beside the weights


class Colour(enum.Enum):
    RED = "red"


class Options(dict):
    """Stands for the configuration objects of other packages, such as OmegaConf's."""


class Members(set):
    pass


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class Named:
    """An object of somebody's own class."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.method = self.run

    def run(self) -> None: ...


FOREIGN = {
    "NumPy scalar": np.float64(0.5),
    "NumPy array": np.arange(3.0),
    "NumPy generator": np.random.RandomState(1).get_state(),
    "Namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1),
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    "timedelta": datetime.timedelta(1),
    "enum": Colour.RED,
    "path": pathlib.Path("weights"),
    "Windows path": pathlib.PureWindowsPath("C:/weights"),
    "partial": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "function": torch.nn.functional.gelu,
    "built-in function": len,
    "class": Named,
    "own class": Named(3),
    "bound method": Named(3).run,
    "slots": Slots(3),
    "dict of its own kind": Options(a=1),
    "set of its own kind": Members([1]),
    "Counter": Counter("aab"),
    "deque": deque([1, 2]),
    "device": torch.device("cpu"),
    "dtype": torch.int8,
    "module": torch.nn.Linear(1, 1),
    "optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
    "complex": 1 + 2j,
    "bytes": b"abc",
    "range": range(3),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_foreign_objects_beside_the_weights(tmp_path: Path, kind: str, zipped: bool) -> None:
    content = {"state_dict": STATE, "epoch": 3, "extra": FOREIGN[kind], "nested": {"args": [FOREIGN[kind]]}}
    torch.save(content, tmp_path / "run.pt", _use_new_zipfile_serialization=zipped)
    state = read_weights(tmp_path / "run.pt").state
    assert sorted(state) == sorted(STATE) and torch.equal(state["ln_final.weight"], STATE["ln_final.weight"])
    assert_reads({**STATE, "epoch": 3, "args": FOREIGN[kind]}, tmp_path / "flat.pt")


class Canary:
    """Touches a file when it is unpickled by running what the pickle asks for."""

    def __init__(self, *call: Any, state: Any = None) -> None:
        self.call, self.state = call, state

    def __reduce__(self) -> tuple:
        function, *arguments = self.call
        return (function, tuple(arguments)) if self.state is None else (function, tuple(arguments), self.state)


def touch(path: str) -> None:
    Path(path).touch()


def test_nothing_is_run(tmp_path: Path) -> None:
    """Calls of functions that are no known attack become stubs: they are never made."""
    marker = str(tmp_path / "owned")
    calls = [
        Canary(touch, marker),
        Canary(getattr, Path(marker), "touch"),
        Canary(functools.partial, touch, marker),
        Canary(np.save, marker, 1),
        Canary(torch.save, 1, marker),
        Canary(Named, 1, state={"value": Canary(touch, marker)}),
    ]
    for call in calls:
        torch.save({"state_dict": STATE, "args": call}, tmp_path / "run.pt", pickle_protocol=4)
        assert sorted(read_weights(tmp_path / "run.pt").state) == sorted(STATE)
    assert not list(tmp_path.glob("owned*"))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (("os", "system"), "posix.system|nt.system"),
        (("subprocess", "Popen"), "(subprocess|commands).Popen"),
        (("builtins", "eval"), "__builtin__.eval"),
        (("builtins", "exec"), "__builtin__.exec"),
        (("builtins", "open"), "(__builtin__|_?io).open"),
        (("shutil", "rmtree"), "shutil.rmtree"),
        (("importlib", "import_module"), "importlib.import_module"),
    ],
)
def test_attacks_are_refused(tmp_path: Path, call: tuple[str, str], name: str) -> None:
    import importlib

    marker = tmp_path / "owned"
    function = getattr(importlib.import_module(call[0]), call[1])
    torch.save({"state_dict": STATE, "args": Canary(function, str(marker), "w")}, tmp_path / "run.pt")
    with pytest.raises(UnsafePickleError, match=rf"run.pt asks for ({name}), which.*refused and nothing of it was run"):
        read_weights(tmp_path / "run.pt")
    assert not marker.exists()


# ---- names


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "clip.", "clip_model."),
        *("model.clip.", "net.backbone.", "student.", "_fsdp_wrapped_module.", "ema_model."),
    ],
)
def test_a_common_prefix_is_stripped(tmp_path: Path, prefix: str) -> None:
    state = OrderedDict((f"{prefix}{name}", weight) for name, weight in STATE.items())
    assert_reads(state, tmp_path / "run.pt")
    assert_reads({"state_dict": state, "epoch": 1}, tmp_path / "run.pt")


def test_compiled_parts_of_a_model(tmp_path: Path) -> None:
    assert_reads(
        {name.replace("visual.", "visual._orig_mod."): weight for name, weight in STATE.items()}, tmp_path / "x.pt"
    )


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """A Lightning checkpoint, whose module holds CLIP and a head."""
    state = {**{f"clip.{name}": weight for name, weight in STATE.items()}, "head.weight": torch.ones(3)}
    saved({"state_dict": state, "pytorch-lightning_version": "2.0"}, tmp_path / "run.ckpt")
    expected = r"run.ckpt holds more than the model. Left out, because .* begin with 'clip.': 'head.weight'\.$"
    with pytest.warns(WeightsWarning, match=expected):
        assert sorted(read_weights(tmp_path / "run.ckpt").state) == sorted(STATE)


def test_two_models_in_one_state_dict(tmp_path: Path) -> None:
    pair = {f"student.{name}": weight for name, weight in STATE.items()}
    pair |= {f"teacher.{name}": weight for name, weight in EMA.items()}
    with pytest.raises(BackboneError, match=r"run.pt holds several models: 'student.', 'teacher.'. Save the one"):
        read_weights(saved(pair, tmp_path / "run.pt"))
    averaged = {f"model.{name}": weight for name, weight in STATE.items()}
    averaged |= {f"model_ema.{name}": weight for name, weight in EMA.items()}
    with pytest.warns(
        WeightsWarning, match=r"several models: 'model.', 'model_ema.'. 'model.' is used, not its moving"
    ):
        state = read_weights(saved(averaged, tmp_path / "run.pt")).state
    assert torch.equal(state["ln_final.weight"], STATE["ln_final.weight"]) and len(state) == len(STATE)


# ---- wrappers


@pytest.mark.parametrize(
    "key",
    [
        *("state_dict", "model_state_dict", "model", "module", "state_dict_ema", "model_ema", "ema", "weights", "clip"),
    ],
)
def test_one_set_of_weights_under_any_key(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    assert_reads({key: STATE, "optimizer": optimizer, "scaler": {"scale": torch.ones(1)}}, tmp_path / "run.pt")
    assert_reads({"checkpoint": {key: STATE}, "step": torch.tensor(3)}, tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("keys", "used"),
    [
        (("model", "model_ema"), "model"),
        (("ema", "state_dict"), "state_dict"),
        (("module", "model"), "model"),
        (("state_dict_ema", "model_state_dict"), "model_state_dict"),
    ],
)
def test_of_several_sets_the_first_by_rule(tmp_path: Path, keys: tuple[str, str], used: str) -> None:
    content = {key: STATE if key == used else EMA for key in keys}
    with pytest.warns(WeightsWarning, match=rf"holds several sets of weights: .*\. '{used}' is used; for another one"):
        state = read_weights(saved(content, tmp_path / "run.pt")).state
    assert torch.equal(state["ln_final.weight"], STATE["ln_final.weight"])


def test_several_sets_of_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"holds several sets of weights: 'first', 'second'. Save the one to be"):
        read_weights(saved({"first": STATE, "second": EMA}, tmp_path / "run.pt"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_that_was_saved_whole(tmp_path: Path, wrapped: bool) -> None:
    model = small_model()
    content = {"model": model, "epoch": 1} if wrapped else model
    state = read_weights(saved(content, tmp_path / "whole.pt")).state
    expected = model.state_dict()
    assert sorted(state) == sorted(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_run_of_open_clips_training(tmp_path: Path) -> None:
    content = {"epoch": 3, "name": "2024-model_ViT-B-32-lr_0.1", "state_dict": STATE, "optimizer": {}}
    assert read_weights(saved(content, tmp_path / "run.pt")).run == "2024-model_ViT-B-32-lr_0.1"
    assert read_weights(saved(STATE, tmp_path / "plain.pt")).run == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"odd.pt holds no weights: expected a state dict, got list"),
        ({}, r"odd.pt holds no weights: expected a state dict, got dict"),
        ({1: torch.zeros(1)}, r"odd.pt holds no weights"),
        ({"a": "text", "lr": 3}, r"odd.pt is not a state dict: 'a', 'lr' hold no tensors"),
        (np.float64(1), r"odd.pt holds no weights"),
        (argparse.Namespace(a=1), r"odd.pt holds no weights"),
        ({**STATE, "visual.proj": np.ones(2)}, r"'visual.proj' is a numpy\S+_reconstruct. Save model.state_dict"),
        ({**STATE, "visual.proj": [1.0]}, r"odd.pt is not a state dict of tensors: 'visual.proj' is a list"),
    ],
    ids=str,
)
def test_files_without_usable_weights(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        read_weights(saved(content, tmp_path / "odd.pt"))


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    """As integers without their scales they would load, as other numbers."""
    quantized = {**STATE, "visual.conv1.weight": torch.ones(2, dtype=torch.int8)}
    with pytest.raises(BackboneError, match=r"holds quantized weights \('visual.conv1.weight' is torch.int8\)"):
        read_weights(saved(quantized, tmp_path / "int8.pt"))


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pt")
    saved(STATE, tmp_path / "b.safetensors")
    torch.save(STATE, tmp_path / "c.safetensors", _use_new_zipfile_serialization=False)
    # a header of 123 bytes begins with an opening brace, as JSON does
    header = b'{"visual.conv1.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'.ljust(123)
    (tmp_path / "d.pt").write_bytes(len(header).to_bytes(8, "little") + header)
    assert list(read_weights(tmp_path / "d.pt").state) == ["visual.conv1.weight"]
    for name in ("a.pt", "b.safetensors", "c.safetensors"):
        assert sorted(read_weights(tmp_path / name).state) == sorted(STATE)


# ---- transformers' format

TRANSFORMERS = {
    "text_model.embeddings.token_embedding.weight": torch.ones(2),
    "text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(2),
    "vision_model.embeddings.patch_embedding.weight": torch.ones(2),
    "visual_projection.weight": torch.ones(2),
    "text_projection.weight": torch.ones(2),
    "logit_scale": torch.ones(()),
}


@pytest.mark.parametrize("prefix", ["", "clip.", "module."])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_transformers_format_are_named(tmp_path: Path, name: str, prefix: str) -> None:
    folder = tmp_path / "clip-vit-base-patch16"
    folder.mkdir()
    state = {f"{prefix}{key}": value for key, value in TRANSFORMERS.items()}
    save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name)
    with pytest.raises(BackboneError, match=r"is a model in the format of the package transformers.*: write 'tr") as e:
        read_weights(folder / name)
    assert f"'transformers:{folder}'" in str(e.value)
