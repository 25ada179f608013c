"""Whatever goes wrong ends in one message and an exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from coopt.errors import CooptWarning, LeakageWarning

from .conftest import COLOURS, run, run_json, save_image


@pytest.fixture(params=[False, True])
def as_json(request: pytest.FixtureRequest) -> bool:
    return request.param


def refused(as_json: bool, *arguments: object, code: int = 1) -> tuple[str, str]:
    """The one message of a command that fails, and the kind of its error (in JSON)."""
    result = run(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if not as_json:
        assert "Error" not in result.stdout
        return result.stderr, ""
    error = json.loads(result.stdout)["error"]
    assert error["message"] in result.stderr
    return result.stderr, error["type"]


def test_bad_data(as_json: bool, clip: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_image(tmp_path / "one" / "red car" / "0.png", COLOURS["red car"], 0)
    save_image(tmp_path / "flat" / "0.png", COLOURS["red car"], 0)
    (tmp_path / "labels.csv").write_text("path,label\ngone.png,cat\nlost.png,dog\n")
    for data, expected in (
        ("lost", "does not exist. Expected a folder with one sub-folder of images per class"),
        ("empty", "is empty (or holds hidden files only)"),
        ("one", "has only one class: 'red car'"),
        ("flat", "has 1 image ('0.png') but no sub-folder"),
        ("labels.csv", "names 2 of 2 images that do not exist: line 2 ('gone.png')"),
    ):
        message, kind = refused(as_json, "fit", tmp_path / data, "--backbone", clip)
        assert message.startswith("Error: ") and len(message.splitlines()) == 1
        assert expected in message
        assert kind in ("", "DataError")


def test_bad_backbones(as_json: bool, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for name, expected in (
        ("vit", "There is no backbone 'vit'."),
        (f"openai:{tmp_path}/gone.pt", "does not exist"),
        (f"openai:{tmp_path}/junk.pt", "junk.pt"),
        ("openclip:ViT-B-61/openai", "Did you mean 'openclip:ViT-B-16/openai'"),
        ("openclip:ViT-B-16/openai", "are not on this machine. Looked for"),
    ):
        message, kind = refused(as_json, "fit", photos, "--backbone", name, "--out", tmp_path / "out")
        assert expected in message and len(message.splitlines()) == 1
        assert kind == "" or kind.endswith("Error")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "nowhere"),
        ("zero-shot", "nowhere"),
        ("eval", "nothing", "nowhere"),
        ("predict", "nothing", "no.png"),
        ("words", "nothing"),
    ],
)
def test_a_wrong_backbone_or_device_is_refused_before_anything_is_looked_at(command: tuple[str, ...]) -> None:
    assert (
        "There is no backbone 'bundle'. Did you mean 'bundled'?" in refused(False, *command, "--backbone", "bundle")[0]
    )
    assert "The device 'gpu' is not on this machine." in refused(False, *command, "--device", "gpu")[0]


def test_wrong_usage(as_json: bool, photos: Path) -> None:
    for arguments, expected in (
        (("fit",), "Missing argument 'DATA'."),
        (("fit", photos, "--n-ctx", "many"), "'many' is not a valid integer"),
        (("fit", photos, "--shots", 0), "0 is not in the range x>=1"),
        (("fit", photos, "--position", "left"), "'left' is not one of 'end', 'middle', 'front'."),
        (("fit", photos, "--recipe", "slow"), "must be one of fast, paper. Got 'slow' instead."),
        (("fit", photos, "--colour"), "No such option"),
        (("fit", photos, "--test-fraction", 1.5), "1.5 is not in the range"),
    ):
        message, kind = refused(as_json, *arguments, code=2)
        assert expected in message and "--help" in message
        assert kind in ("", "UsageError")


def test_a_full_disk(as_json: bool, photos: Path, short: Path, clip: str, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coopt.files.tempfile.mkstemp", full)
    message, kind = refused(
        as_json, "fit", photos, "--backbone", clip, "--config", short, "--no-cache", "--out", tmp_path / "out"
    )
    assert "No space left on device. Nothing was changed there; free space or choose another place." in message
    assert kind in ("", "SavedFileError")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EIO, "Input/output error", "/dev/x"), "The system refused: Input/output error (/dev/x)."),
        (MemoryError(), "Out of memory. Close other programs, choose a smaller --backbone"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Out of memory."),
        (ValueError("odd\n  thing"), "did not expect: ValueError: odd thing. Add --debug to see where"),
    ],
)
def test_what_libraries_raise(error: Exception, expected: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("coopt.app.loading.load_dataset", fail)
    result = run("fit", photos)
    assert result.exit_code == 1
    assert expected in result.stderr and len(result.stderr.splitlines()) == 1
    for result in (run("fit", photos, "--debug"), _with_variable(monkeypatch, photos)):
        assert result.exit_code == 1
        assert "Traceback (most recent call last)" in result.stderr and expected in result.stderr


def _with_variable(monkeypatch: pytest.MonkeyPatch, photos: Path):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COOPT_DEBUG", "1")
    return run("fit", photos)


def test_warnings_come_once_and_libraries_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object) -> list[object]:
        for _i in range(2):
            warnings.warn("twice the same", LeakageWarning, stacklevel=1)
        warnings.warn("another", CooptWarning, stacklevel=1)
        warnings.warn("of no use", UserWarning, stacklevel=1)
        return []

    monkeypatch.setattr("coopt.cli.backbones.list_backbones", warn)
    assert run("backbones").stderr == "Warning: twice the same\nWarning: another\n"
    assert run_json("backbones")["warnings"] == [
        {"type": "LeakageWarning", "message": "twice the same"},
        {"type": "CooptWarning", "message": "another"},
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_has_seen_enough() -> None:
    done = subprocess.run(
        f"{sys.executable} -m coopt.cli backbones --all | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="locales")
def test_a_terminal_that_knows_ascii_only() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coopt.cli", "backbones", "--filter", "RN50"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
        timeout=60,
    )
    assert done.returncode == 0 and b"RN50" in done.stdout and done.stderr == b""
