"""Sources of backbones in other packages: the one of docs/backbones.md, and broken ones."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from coopt.backbones import BackboneInfo, Source, check_backbone_name, list_backbones, load_backbone, local_backbones
from coopt.backbones.names import SOURCES
from coopt.errors import BackboneError, CooptWarning, UnsupportedBackboneError, WeightsNotFoundError
from tests.cli.conftest import make_photos, run, run_json
from tests.test_docs import blocks

PAGE = "docs/backbones.md"
FIT = ("--shots", 2, "--set", "recipe.epochs=2", "--set", "recipe.views=1", "--no-cache")


def install(folder: Path, package: str, announced: str, modules: dict[str, str]) -> Path:
    """A package in a folder of its own, as pip would leave it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[coopt.backbones]\n{announced}\n")
    for name, code in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    return folder


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the page describes."""
    page = [block for block in blocks(PAGE) if block.language in ("python", "toml")]
    head, announced = next(block.text for block in page if block.language == "toml").splitlines()
    assert head == '[project.entry-points."coopt.backbones"]'
    files = {block.text.split("\n")[0].removeprefix("# "): block.text for block in page if block.language == "python"}
    assert set(files) == {"my_backbones/source.py", "my_backbones/model.py", "test_my_backbones.py"}
    return install(tmp_path_factory.mktemp("documented"), "my-backbones", announced.replace('"', ""), files)


@pytest.fixture
def mine(documented: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(documented))


def outside(folder: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess:
    """A process of its own, that finds the package by its path alone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


def message_of(name: str, kind: type[BackboneError] = BackboneError) -> str:
    """What is said about a name; the same by the check and by loading."""
    with pytest.raises(kind) as checked:
        check_backbone_name(name)
    with pytest.raises(kind) as loaded:
        load_backbone(name, device="cpu")
    assert str(checked.value) == str(loaded.value)
    return str(checked.value)


def test_the_pages_own_test_passes(documented: Path) -> None:
    done = outside(documented, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_backbones.py", cwd=documented)
    assert done.returncode == 0, done.stdout + done.stderr


def test_learning_and_predicting_from_outside(documented: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", count=4)
    fit = ("-m", "coopt.cli", "fit", photos, "--backbone", "mine:tiny", "--out", tmp_path / "prompt", *FIT)
    done = outside(documented, *fit)
    assert done.returncode == 0, done.stderr
    # The prompt names its backbone, and the next process finds it by that name.
    predict = ("-m", "coopt.cli", "predict", tmp_path / "prompt", photos / "red car" / "0.png")
    done = outside(documented, *predict)
    assert done.returncode == 0 and "red car" in done.stdout, done.stderr
    assert '"mine:tiny"' in (tmp_path / "prompt" / "prompt.json").read_text()
    done = subprocess.run([sys.executable, *map(str, predict)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "There is no backbone 'mine:tiny'" in done.stderr


def test_it_is_listed(mine: None) -> None:
    rows = [row for row in list_backbones() if row.scheme == "mine"]
    assert [(row.name, row.context_length, row.text_path) for row in rows] == [
        ("tiny", 40, "reference"),
        ("small", 40, "reference"),
    ]
    assert {row.scheme for row in list_backbones()} == {"openclip", "mine"}
    shown = run("backbones").stdout
    assert re.search(r"^model \(mine:MODEL\) +tokens +text path$", shown, re.MULTILINE)
    assert re.search(r"^tiny +40 +reference$", shown, re.MULTILINE) and "ViT-B-16" in shown
    assert [one["name"] for one in run_json("backbones", "--filter", "mine")["backbones"]] == ["tiny", "small"]


def test_it_is_pickled_by_its_name(mine: None) -> None:
    backbone = load_backbone("mine:tiny", device="cpu")
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 1000 and pickle.loads(pickled) is backbone


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine:tny", "mine has no model 'tny'. Did you mean 'mine:tiny'? It has tiny, small: `coopt backbones` lists"),
        ("mine:zzz", "mine has no model 'zzz'. It has tiny, small: `coopt backbones` lists all."),
        ("mien:tiny", "There is no backbone 'mien:tiny'. Did you mean 'mine:tiny'?"),
        ("tiny", "There is no backbone 'tiny'. Did you mean 'mine:tiny'"),
        ("mine:", "There is no backbone 'mine:'. Write 'bundled', 'openclip:MODEL/TAG'"),
        ("zzz", "or 'openai:/path/ViT-B-16.pt'. Installed packages serve mine:... too."),
        ("ViT-B/16", "Did you mean 'openclip:ViT-B-16/openai'"),
    ],
)
def test_wrong_names(mine: None, name: str, said: str) -> None:
    assert said in message_of(name)


def test_names_are_checked_without_torch(documented: Path) -> None:
    program = (
        "import sys; from coopt.backbones import check_backbone_name, list_backbones\n"
        "check_backbone_name('mine:tiny')\n"
        "for name in ('mine:tny', 'mien:tiny', 'zzz'):\n"
        "    try: check_backbone_name(name)\n"
        "    except Exception as error: assert 'mine' in str(error), error\n"
        "    else: raise SystemExit(name)\n"
        "assert len(list_backbones()) == 146; assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    done = outside(documented, "-c", program)
    assert done.returncode == 0, done.stderr


def test_names_of_coopts_own_sources_ask_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("entry points were read")

    monkeypatch.setattr("coopt.registry._announced", refuse)
    check_backbone_name("bundled")
    for name in ("openai:/no/such.pt", "openclip:ViT-B-16/no"):
        with pytest.raises(BackboneError):
            check_backbone_name(name)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module_at_all", "of the package broken cannot be loaded from 'broken_source:Broken'"),
        ("Broken = 3", "must be a coopt.backbones.Source with the scheme 'broken'. Got 3 instead."),
        ("from coopt.backbones import Source\nclass Broken(Source):\n    scheme = 'broken'", "abstract"),
        (
            "from coopt.backbones import Source\nclass Broken(Source):\n    scheme = 'other'\n    def load(self): pass",
            "must be a coopt.backbones.Source with the scheme 'broken'. Got <broken_source.Broken",
        ),
    ],
)
def test_a_broken_package_is_named_and_disturbs_no_other(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "broken_source", raising=False)
    folder = install(tmp_path, "broken", "broken = broken_source:Broken", {"broken_source.py": code})
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(BackboneError, match=re.escape(said)):
        check_backbone_name("broken:tiny")
    check_backbone_name("bundled")
    with pytest.warns(CooptWarning, match="The backbones of 'broken' are left out"):
        assert len(list_backbones()) == 144
    assert "The backbones of 'broken' are left out" in run("backbones").stderr
    monkeypatch.delitem(sys.modules, "broken_source", raising=False)


class Alone(Source):
    """A source with one model, which its scheme names, and which is none."""

    scheme = "alone"
    alone = True

    def load(self, spec: str, device: torch.device, download: bool = False) -> Any:
        return "something else"


class Tagged(Source):
    scheme = "tagged"
    title = "A zoo"

    def list(self) -> list[BackboneInfo]:
        return [
            BackboneInfo("one", ("a", "b_c")),
            BackboneInfo("odd-model", supported=False, reason="it has no text tower"),
        ]

    def check(self, spec: str, download: bool = False) -> None:
        super().check(spec, download)
        if spec == "one/b_c" and not download:
            raise WeightsNotFoundError("not here")

    def load(self, spec: str, device: torch.device, download: bool = False) -> Any:
        raise AssertionError("refused before")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_registered", {"alone": Alone, "tagged": Tagged()})


def test_sources_of_other_shapes(registered: None) -> None:
    check_backbone_name("alone")
    assert "There is no backbone 'alone:x'. Did you mean 'alone'?" in message_of("alone:x")
    with pytest.raises(BackboneError, match=r"Alone.load\(''\) must give the Backbone 'alone'. Got a str instead."):
        load_backbone("alone", device="cpu")
    check_backbone_name("tagged:one/a")
    check_backbone_name("tagged:one/b_c", download=True)
    assert message_of("tagged:one/b_c", WeightsNotFoundError) == "not here"
    assert "A zoo has no model 'one/b'. Did you mean 'tagged:one/b_c'? It has one/a, one/b_c:" in message_of(
        "tagged:one/b"
    )
    refused = "it has no text tower, so prompts cannot be learned for it."
    assert refused in message_of("tagged:odd-model", UnsupportedBackboneError)
    assert "as to A zoo's model: it has no text tower." in message_of("odd-model", UnsupportedBackboneError)
    shown = run("backbones", "--all", "--filter", "odd-model").stdout
    assert re.search(r"^odd-model +cannot be used: it has no text tower$", shown, re.MULTILINE)
    assert "1 models; 1 that cannot be used" in run("backbones", "--filter", "tagged").stdout


def test_what_is_local_is_asked_of_all(registered: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from coopt.backbones import LocalBackbone

    row = LocalBackbone("tagged:one/a", tmp_path, 12)
    monkeypatch.setattr(Tagged, "local", lambda self: [row])
    assert local_backbones()[-1] == row
    assert "tagged:one/a" in run("backbones", "--local").stdout


def test_nothing_is_said_where_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list_backbones()
