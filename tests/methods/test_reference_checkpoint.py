"""Checkpoints of the reference implementation as they lie on people's disks, and those of its relatives."""

from __future__ import annotations

import argparse
import math
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coopt.errors import ParameterError, SavedFileError, SavedFileWarning
from coopt.methods.reference_checkpoint import (
    checkpoint_file,
    is_reference_checkpoint,
    load_reference_checkpoint,
    read_state,
)
from coopt.wording import spoken
from tests.checkpoints import save_checkpoint

CONTEXT = torch.arange(8.0).reshape(2, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Epochs 5 and 10; `checkpoint` names the tenth."""
    save_checkpoint(tmp_path, {"ctx": CONTEXT})
    learner = tmp_path / "prompt_learner"
    shutil.copy(learner / "model.pth.tar-10", learner / "model.pth.tar-5")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "epoch", "fault"),
    [
        (b"model.pth.tar-5\n", 5, None),
        (b"\xef\xbb\xbfmodel.pth.tar-5\r\n", 5, None),
        (b"output/seed1/prompt_learner/model.pth.tar-5", 5, None),
        (b"D:\\output\\prompt_learner\\model.pth.tar-5\r\n", 5, None),
        ("model.pth.tar-5\n".encode("utf-16"), 5, "is written in UTF-16"),
        ("\ufeffmodel.pth.tar-5\r\n".encode("utf-16-be"), 5, "is written in UTF-16"),
        (b"", 10, "names no checkpoint"),
        (b"\n\n", 10, "names no checkpoint"),
        (b"\0\0\0\0", 10, "names no checkpoint"),
        (b"\x80\x02}q\x00.", 10, "names no checkpoint"),
        (b"model.pth.tar-50\n", 10, r"names 'model.pth.tar-50', which is not there"),
    ],
    ids=str,
)
def test_pointers(folder: Path, content: bytes, epoch: int, fault: str | None) -> None:
    (folder / "prompt_learner" / "checkpoint").write_bytes(content)
    for path in (folder, folder / "prompt_learner"):
        if fault is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = checkpoint_file(path)
        else:
            message = rf"prompt_learner.checkpoint ({fault})\. model.pth.tar-{epoch} is used\."
            with pytest.warns(SavedFileWarning, match=message):
                found = checkpoint_file(path)
        assert found.name == f"model.pth.tar-{epoch}"


def test_without_a_pointer_the_last_epoch_is_read(folder: Path) -> None:
    (folder / "prompt_learner" / "checkpoint").unlink()
    assert checkpoint_file(folder).name == "model.pth.tar-10"


def test_an_empty_folder_of_the_usual_name(tmp_path: Path) -> None:
    """Files that were moved one level up are found."""
    save_checkpoint(tmp_path, {"ctx": CONTEXT})
    shutil.move(tmp_path / "prompt_learner" / "model.pth.tar-10", tmp_path)
    assert is_reference_checkpoint(tmp_path) and checkpoint_file(tmp_path) == tmp_path / "model.pth.tar-10"
    with pytest.raises(SavedFileError, match="holds no checkpoint of the reference implementation"):
        checkpoint_file(tmp_path / "prompt_learner")


@pytest.mark.parametrize("prefix", ["", "module.", "prompt_learner.", "module.prompt_learner."])
def test_prefixes(tmp_path: Path, prefix: str) -> None:
    save_checkpoint(tmp_path, {"ctx": CONTEXT})
    file = tmp_path / "prompt_learner" / "model.pth.tar-10"
    content = {"state_dict": {f"{prefix}ctx": CONTEXT, f"{prefix}token_prefix": torch.zeros(4, 1, 4)}}
    torch.save({**content, "args": argparse.Namespace(lr=0.1)}, file)
    assert torch.equal(read_state(tmp_path)["ctx"], CONTEXT)
    torch.save(content["state_dict"], file)  # without anything around it
    assert torch.equal(read_state(tmp_path)["ctx"], CONTEXT)


MAPLE = {"prompt_learner.ctx": CONTEXT, "prompt_learner.compound_prompts_text.0": CONTEXT}
SHALLOW = {"prompt_learner.ctx": CONTEXT, "image_encoder.VPT": CONTEXT}


@pytest.mark.parametrize(
    ("name", "learned", "method"),
    [
        ("MultiModalPromptLearner", MAPLE, "MaPLe"),
        ("MultiModalPromptLearner", {"ctx": CONTEXT}, "MaPLe"),
        ("VLPromptLearner", SHALLOW, "PromptSRC or IVLP"),
        ("VLPromptLearner", {"prompt_learner.ctx": CONTEXT}, "PromptSRC or IVLP"),
        ("prompt_learner", {"ctx": CONTEXT, "compound_prompt_projections.0.weight": CONTEXT}, "MaPLe"),
        ("prompt_learner", SHALLOW, "PromptSRC or IVLP"),
        ("prompt_learner", {"ctx": torch.ones(3, 2, 4), "token_prefix": torch.ones(12, 1, 4)}, r".*\(PLOT\)"),
    ],
)
def test_other_methods_are_named(tmp_path: Path, name: str, learned: dict[str, Tensor], method: str) -> None:
    (tmp_path / name).mkdir()
    file = tmp_path / name / "model.pth.tar-10"
    torch.save({"state_dict": learned}, file)
    for path in (tmp_path, tmp_path / name, file):
        assert is_reference_checkpoint(path)
        with pytest.raises(
            SavedFileError, match=rf"tar-10 is a checkpoint of {method}, not of CoOp or CoCoOp.*It has "
        ):
            read_state(path)
        with pytest.raises(SavedFileError, match="not of CoOp or CoCoOp"):  # before its classes are asked for
            load_reference_checkpoint(path, None, None)


def test_tensors_of_an_unknown_method_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"ctx": CONTEXT, "adapter.weight": CONTEXT})
    with pytest.warns(
        SavedFileWarning, match=r"holds more than CoOp and CoCoOp learn: adapter.weight. That is left out"
    ):
        assert torch.equal(read_state(tmp_path)["ctx"], CONTEXT)


def test_no_context(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"ctx": CONTEXT})
    torch.save({"state_dict": {"fc.weight": CONTEXT}}, tmp_path / "prompt_learner" / "model.pth.tar-10")
    with pytest.raises(SavedFileError, match=r"expected a tensor 'ctx' .* It has fc.weight."):
        read_state(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["ctx", "meta_net.linear1.weight"])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    learned = {"ctx": CONTEXT.clone(), "meta_net.linear1.weight": CONTEXT.clone()}
    learned[name][0, 0] = value
    save_checkpoint(tmp_path, learned)
    message = rf"tar-10 is not usable: 1 of the 8 values of '{name}' are not finite. The training diverged"
    with pytest.raises(SavedFileError, match=message):
        read_state(tmp_path)


def test_what_is_no_torch_file(folder: Path) -> None:
    file = folder / "prompt_learner" / "model.pth.tar-10"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SavedFileError, match=r"The checkpoint \S+tar-10 is a pointer of git-lfs.*`git lfs pull`"):
        read_state(folder)
    file.write_bytes(b"")
    with pytest.raises(SavedFileError, match=r"The checkpoint \S+tar-10 is empty"):
        read_state(folder)


def test_what_is_missing_is_asked_for_in_the_readers_words(folder: Path) -> None:
    with pytest.raises(ParameterError, match=r"Give both: backbone='openai:RN50.pt' and class_names=\[\.\.\.\]\.$"):
        load_reference_checkpoint(folder, None, None)
    with spoken({"backbone": "--backbone"}), pytest.raises(ParameterError, match="Give both: --backbone and --classes"):
        load_reference_checkpoint(folder, None, None)
