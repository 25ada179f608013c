"""`--config`: YAML that gives options, and what it refuses."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import coopt
from coopt.app.configuration import config_of
from coopt.cli import main
from coopt.cli.config import defaults_from

from .conftest import run


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `coopt fit` was going to do."""
    seen: dict[str, Any] = {}

    def noted(request: coopt.app.FitRequest, command: str) -> None:
        seen.clear()
        seen.update({**vars(request), **request.parameters})
        raise click.exceptions.Exit(0)

    monkeypatch.setattr("coopt.app.fit", noted)
    return seen


def test_the_file_gives_and_the_command_line_wins(settings: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(
        "data: from-file\nn_ctx: 4\nposition: front\nno-cache: true\ncsc: true\nshots: null\ntest-fraction: 0.5\n"
        "recipe: {name: paper, lr: 0.01}\ninit: 'no'\n"
    )
    assert run("fit", "--config", file, "--position", "end", "--seed", 3).exit_code == 0
    assert (settings["data"], settings["n_ctx"], settings["position"], settings["seed"]) == (
        Path("from-file"),
        4,
        "end",
        3,
    )
    assert (settings["csc"], settings["cache"], settings["shots"], settings["test_fraction"]) == (
        True,
        False,
        None,
        0.5,
    )
    assert settings["init"] == "no"
    assert settings["recipe"] == {"name": "paper", "lr": 0.01}
    assert run("fit", "typed", "--config", file, "--no-csc", "--cache", "--recipe", "fast").exit_code == 0
    assert (settings["data"], settings["csc"], settings["cache"]) == (Path("typed"), False, True)
    assert settings["recipe"] == "fast"


def test_what_is_saved_is_read_back(settings: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    odd = tmp_path / "na\udcefve"
    arguments = [str(odd), "--out", str(tmp_path / "o"), "--init", "null", "--shots", "4", "--no-cache", "--csc"]
    CliRunner().invoke(main, ["fit", *arguments])
    first = dict(settings)
    file = tmp_path / "config.yaml"
    request = coopt.app.FitRequest(**{one.name: first[one.name] for one in fields(coopt.app.FitRequest)})
    file.write_text(yaml.safe_dump(config_of(request, tmp_path / "o")))
    assert run("fit", "--config", file).exit_code == 0
    assert settings == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_ctxx: 3", "has an entry 'n_ctxx', which `coopt fit` does not know. Did you mean 'n-ctx'?"),
        ("zzz: 3", "The options are "),
        ("config: other.yaml", "has an entry 'config'"),
        ("init: no", "The entry 'init' in '{file}' must be text. Got False instead; put quotes around it."),
        ("n-ctx: 4.7", "'4.7' is not a valid integer"),
        ("n-ctx: true", "The entry 'n-ctx' in '{file}' must be a number. Got True instead."),
        ("budget: 5 min", "'5 min' is not a time above zero such as 60s, 5m or 1h, or a number of seconds."),
        ("budget: 0", "'0' is not a time above zero"),
        ("budget: true", "The entry 'budget' in '{file}' must be a number. Got True instead."),
        ("csc: 1", "The entry 'csc' in '{file}' must be true or false. Got 1 instead."),
        ("recipe: {lrr: 1}", "A recipe has no field 'lrr'."),
        ("recipe: {lr: -1.0}", "--lr must be a number >= 0. Got -1.0 instead."),
        ("recipe: {name: papr}", "changed must be one of fast, paper. Got 'papr' instead"),
        ("recipe: slow", "--recipe must be one of fast, paper. Got 'slow' instead."),
        ("- a\n- b", "holds a list. Expected lines such as `n-ctx: 4`."),
        ("a: [", "is not YAML: "),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML: "),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    result = run("fit", "photos", "--config", file)
    assert result.exit_code in (1, 2)
    assert message.replace("{file}", str(file)) in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("60", 60), ("0.5", 0.5)])
def test_times(text: str, seconds: float, settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(f"budget: {text}\n")
    for arguments in (("--config", tmp_path / "fit.yaml"), ("--budget", text)):
        assert run("fit", "photos", *arguments).exit_code == 0
        assert settings["recipe"] == {"name": "fast", "seconds": seconds}


def test_missing_file(tmp_path: Path) -> None:
    result = run("fit", "photos", "--config", tmp_path / "nothing.yaml")
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory." in result.stderr


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert defaults_from(tmp_path / "empty.yaml", click.Command("fit"), "fit") == ({}, None)
