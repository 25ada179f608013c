"""The method of docs/methods.md, from a package outside of coopt that announces it through an entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.evaluation.estimators import estimator_of
from coopt.methods.registry import METHODS
from tests.test_docs import blocks

PAGE = "docs/methods.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = {block.language: block.text for block in blocks(PAGE)}
    head, announced = page["toml"].splitlines()
    assert head == '[project.entry-points."coopt.methods"]'
    info = tmp_path / "my_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[coopt.methods]\n{announced.replace(chr(34), '')}\n")
    (tmp_path / "my_methods.py").write_text(page["python"])
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_it_is_found_learns_saves_and_loads(backbone: Backbone, features: Any, labels: Any, tmp_path: Path) -> None:
    assert "deep_prompt" in METHODS and METHODS.origin("deep_prompt") == "my-methods"
    recipe = {"lr": 0.02, "epochs": 6}
    model: Any = estimator_of("deep_prompt", {"n_ctx": 2, "decay": 0.01, "recipe": recipe})
    model.set_params(backbone=backbone, runtime__cache=False).fit(features, labels)
    assert model.losses_[-1] < model.losses_[0] and model.learned_["deep"].abs().max() > 1e-3
    folder = model.save(tmp_path / "prompt")
    assert json.loads((folder / "prompt.json").read_text())["method"] == "deep_prompt"
    assert (coopt.load(folder, backbone).logits(features) == model.logits(features)).all()
    with pytest.raises(ParameterError, match=r"The 'decay' parameter of DeepPrompt must be a number >= 0\. Got -1"):
        model.set_params(decay=-1).fit(features, labels)


def test_it_is_forty_lines() -> None:
    (code,) = (block.text for block in blocks(PAGE) if block.language == "python")
    assert len(code.splitlines()) <= 40
