"""What version 0.1.0 saved loads, answers as it did there, and is saved again to the same bytes.

The folders beside this file were written by that version on the small fixed CLIP; `fitted_by_the_command` by
`coopt fit bundled:counts --shots 2 --epochs 4` with the bundled model.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone

SAVED = Path(__file__).parent / "saved_by_0_1_0"
ANSWERS = json.loads((SAVED / "answers.json").read_text())
COMMAND = "fitted_by_the_command"


def images_for(name: str) -> torch.Tensor:
    """What the saved answers are to: features, or pixels where the image tower was tuned."""
    if name == "image_tuning":
        return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(ANSWERS["pixels_seed"]))[:5]
    return torch.tensor(ANSWERS["features"])


def description(folder: Path) -> dict:
    return json.loads((folder / "prompt.json").read_text())


def test_every_folder_has_its_answers() -> None:
    folders = {folder.name for folder in SAVED.iterdir() if folder.is_dir()}
    assert folders == {*ANSWERS["logits"], COMMAND}
    methods = {description(folder)["method"] for folder in SAVED.iterdir() if folder.is_dir()}
    assert len(methods) == 9


@pytest.mark.parametrize("name", ANSWERS["logits"])
def test_answers_are_those_of_0_1_0(name: str, backbone: Backbone) -> None:
    loaded = coopt.load(SAVED / name, backbone)
    np.testing.assert_allclose(loaded.logits(images_for(name)), ANSWERS["logits"][name], rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("name", ANSWERS["logits"])
def test_saving_again_gives_the_same_files(name: str, backbone: Backbone, tmp_path: Path) -> None:
    coopt.load(SAVED / name, backbone).save(tmp_path)
    assert (tmp_path / "prompt.safetensors").read_bytes() == (SAVED / name / "prompt.safetensors").read_bytes()
    before, after = description(SAVED / name), description(tmp_path)
    for one in (before, after):
        one.pop("coopt_version")
        one["backbone"].pop("name")  # a test's is called by the path it was read from
    assert after == before
    assert [*after] == [*before] and [*after["parameters"]] == [*before["parameters"]]


def test_a_fit_of_the_command_line_loads_by_the_name_of_its_backbone() -> None:
    loaded = coopt.load(SAVED / COMMAND)
    assert loaded.class_names_ == ("one", "two", "three", "four", "five")
    assert coopt.describe(SAVED / COMMAND)["accuracy"]["learned"] == 82.0
