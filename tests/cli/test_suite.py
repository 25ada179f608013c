"""`coopt suite`: what is listed, run, shown and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coopt.evaluation import executors
from coopt.evaluation.job import Job
from coopt.evaluation.run_files import Record
from coopt.suites.known import SUITES, known_suites
from tests.suites.tiny import TINY, TOTAL

from .conftest import run, run_json

HALF = ("--shots", "1")


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    SUITES.register("tiny", TINY)
    yield
    del SUITES._registered["tiny"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Results of one seed, and what was said."""
    out = tmp_path_factory.mktemp("results")
    result = run("suite", "run", "tiny", "--out", out, "--seeds", "1", "--no-cache")
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


def test_list() -> None:
    listed = run_json("suite", "list")["suites"]
    assert [one["name"] for one in listed] == list(SUITES)
    assert {one["name"] for one in listed if one["offline"]} == {one.name for one in known_suites() if one.bundled}
    assert all(name in run("suite", "list").stdout for name in SUITES)


def test_run_says_what_was_done(ran: tuple[Path, str]) -> None:
    out, said = ran
    assert said.startswith(f"tiny: Tiny. 10 runs; their files are in '{out / 'tiny'}'.\n10 runs done in ")
    assert said.rstrip().endswith(f"coopt suite show tiny --out {out}")
    document = run_json("suite", "run", "tiny", "--out", out, "--seeds", "1")
    assert (document["done"], len(document["complete"]), document["failed"]) == ([], 10, {})
    record = json.loads(next((out / "tiny").glob("*.coop.*.json")).read_text())
    assert record["made"]["versions"]["torch"] and record["made"]["backbone_name"] == "bundled"
    assert record["made"]["machine"]["platform"] and "host" not in json.dumps(record["made"])
    assert record["parameters"]["recipe"]["epochs"] == 3
    assert (record["text_passes"], record["stopped"]) == (3, "all epochs of the recipe were done")
    probe = json.loads(next((out / "tiny").glob("*.linear*.json")).read_text())
    assert "text_passes" not in probe and "stopped" not in probe
    assert set(record["scores"]["test"]) == {"accuracy", "macro_f1", "mean_class_accuracy", "n"}


def test_dry_run_names_what_is_left_and_how_long_it_takes(ran: tuple[Path, str]) -> None:
    out, _ = ran
    before = sorted((out / "tiny").iterdir())
    result = run("suite", "run", "tiny", "--out", out, "--dry-run")
    assert result.exit_code == 0
    assert f"{TOTAL} runs: 10 complete, 8 to do." in result.stdout
    assert "Time for 8 runs: about" in result.stdout and ".coop.2-shots.seed-2" in result.stdout
    assert sorted((out / "tiny").iterdir()) == before
    document = run_json("suite", "run", "tiny", "--out", out / "new", "--dry-run", *HALF)
    assert (len(document["to_do"]), document["complete"], document["of_unknown_time"]) == (10, [], 10)
    assert not (out / "new").exists()


def test_show_compares(ran: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = ran
    document = run_json("suite", "show", "tiny", "--out", out)["suites"][0]
    mean = document["sections"][0]
    assert mean["dataset"] == "average" and document["columns"] == [0, 1, 2]
    cell = next(row for row in mean["rows"] if row["method"] == "CoOp")["cells"][2]
    files = [json.loads(file.read_text()) for file in (out / "tiny").glob("*.coop.2-shots.seed-1.json")]
    assert cell["mean"] == pytest.approx(sum(file["accuracy"] for file in files) / 2)
    assert (cell["n"], cell["published"]) == (1, 50.0)
    assert cell["difference"] == pytest.approx(cell["mean"] - 50)
    said = run("suite", "show", "tiny", "--out", out).stdout
    assert f"10 of {TOTAL} runs are there." in said and f"{cell['mean']:.2f} (1/2 seeds)" in said
    assert "published" in said and "Published: by nobody" in said
    written = run_json("suite", "show", "tiny", "--out", out, "--figures", tmp_path / "figures")["figures"]
    assert {Path(file).suffix for file in written} == {".png", ".svg"}
    for file in written:
        if file.endswith(".png"):
            with Image.open(file) as image:
                image.load()


def test_show_all_as_markdown(ran: tuple[Path, str]) -> None:
    out, _ = ran
    result = run("suite", "show", "--all", "--markdown", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.startswith("# Results\n") and "| CoOp | – | " in result.stdout
    assert result.stdout.count("\n## ") == 1 and "\n## Tiny (`tiny`)\n" in result.stdout
    assert "Made with the backbone bundled (fingerprint" in result.stdout and "Seconds a run took" in result.stdout


def test_packed_runs_are_shown_and_complete_and_unpacked_as_they_were(ran: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(ran[0], tmp_path / "results")
    out, before = tmp_path / "results", {path.name: path.read_bytes() for path in (ran[0] / "tiny").iterdir()}
    shown = run("suite", "show", "tiny", "--out", out).stdout
    said = run("suite", "pack", "tiny", "--out", out)
    assert said.exit_code == 0
    assert said.stdout == f"tiny: 10 runs packed into '{out / 'tiny.jsonl'}', which holds 10.\n"
    assert [path.name for path in out.iterdir()] == ["tiny.jsonl"]
    assert run("suite", "show", "tiny", "--out", out).stdout == shown
    document = run_json("suite", "run", "tiny", "--out", out, "--seeds", "1")
    assert (document["done"], len(document["complete"])) == ([], 10)
    document = run_json("suite", "unpack", "--all", "--out", out)
    assert document["suites"] == [{"suite": "tiny", "file": str(out / "tiny.jsonl"), "unpacked": 10, "left": {}}]
    assert {path.name: path.read_bytes() for path in (out / "tiny").iterdir()} == before
    assert [path.name for path in out.iterdir()] == ["tiny"]


def test_damaged_runs_are_not_packed(ran: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(ran[0], tmp_path / "results")
    damaged = next((tmp_path / "results" / "tiny").glob("*.coop.*.json"))
    damaged.write_text("{")
    result = run("suite", "pack", "--all", "--out", tmp_path / "results")
    assert result.exit_code == 0 and "tiny: 9 runs packed" in result.stdout
    assert f"Warning: Left as it is: '{damaged}' is not a whole run of a suite" in result.stderr
    assert damaged.read_text() == "{"


def test_missing_is_shown_as_missing(ran: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = ran
    (tmp_path / "tiny").mkdir()
    file = next((out / "tiny").glob("*.coop.2-shots.seed-1.json"))
    (tmp_path / "tiny" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tiny" / "bundled.x.coop.1-shot.seed-1.json").write_text("{")
    result = run("suite", "show", "tiny", "--out", tmp_path)
    assert result.exit_code == 0
    assert "1 of 18 runs are there." in result.stdout and "missing" in result.stdout
    assert "is not a whole run of a suite" in result.stderr


def test_failed_runs_are_named_and_the_exit_code_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = executors.execute

    def failing(job: Job, *rest: Any) -> Record:
        if job.method == "linear probe":
            raise MemoryError("too large")
        return original(job, *rest)

    monkeypatch.setattr(executors, "execute", failing)
    arguments = ("suite", "run", "tiny", "--out", tmp_path, "--seeds", 1, "--shots", 1, "--only", "linear probe")
    result = run(*arguments, "--only", "hand-made prompt")
    assert result.exit_code == 1
    assert "Warning: 2 runs failed (" in result.stderr and "MemoryError: too large" in result.stderr
    assert "2 runs done in" in result.stdout
    document = json.loads(run(*arguments, "--json").stdout)
    assert len(document["failed"]) == 2 and document["warnings"]


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = executors.execute, []

    def stopped(job: Job, *rest: Any) -> Record:
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(job, *rest)

    monkeypatch.setattr(executors, "execute", stopped)
    result = run("suite", "run", "tiny", "--out", tmp_path, *HALF)
    assert result.exit_code == 130
    assert f"1 of 10 runs kept in '{tmp_path / 'tiny'}'. Run the same command to go on:" in result.stderr
    assert f"\n  coopt suite run tiny --out {tmp_path} --shots 1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "tiny", "--backbone", "bundled=bundel"], 1, "There is no backbone 'bundel'. Did you mean 'bundled'?"),
        (["run", "tiny", "--device", "gpu"], 1, "The device 'gpu' is not on this machine."),
        (["run", "tinny"], 1, "There is no suite 'tinny'. Did you mean tiny?"),
        (["run", "zzz"], 1, "There is no suite 'zzz'. There are mini-few-shot, mini-domain, "),
        (["show", "zzz"], 1, "There is no suite 'zzz'. There are mini-few-shot, mini-domain, "),
        (["show", "mini-words"], 1, "There are no results of mini-words in 'results'. Run `coopt suite run mini-words"),
        (["show"], 2, "Give the NAME of a suite"),
        (["pack"], 2, "Give the NAME of a suite"),
        (["unpack", "tiny", "--all"], 2, "Give the NAME of a suite"),
        (["pack", "tinny"], 1, "There is no suite 'tinny'. Did you mean tiny?"),
        (
            ["unpack", "tiny"],
            1,
            "There are no results of tiny in 'results'. Run a suite first, or choose another --out.",
        ),
        (["show", "tiny", "--all"], 2, "Give the NAME of a suite"),
        (["show", "--all"], 1, "There are no results in 'results'."),
        (
            ["run", "tiny", "--only", "mnist"],
            1,
            "The suite tiny has nothing called 'mnist'. It has: backbones bundled;",
        ),
        (["run", "coop-domain", "--root", "nowhere"], 1, "The root 'nowhere' is not a folder."),
        (["run", "tiny", "--backbone", "vit=x"], 1, "--backbone takes KEY=NAME with one of the suite's backbones"),
        (["run", "tiny", "--shots", "0"], 2, "expected different whole numbers >= 1"),
        (["runn", "tiny"], 2, "There is no command 'runn'. Did you mean run?"),
    ],
)
def test_one_sentence_for_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("suite", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_data_that_is_not_there(tmp_path: Path) -> None:
    arguments = ("suite", "run", "coop-domain", "--root", tmp_path, "--out", tmp_path / "out", "--only", "rn50")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Warning: 10 runs failed (rn50.imagenet.hand-made-prompt, ...): " in result.stderr
    dry = run(*arguments, "--dry-run")
    assert dry.exit_code == 0 and "10 that cannot be done here" in dry.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom coopt.cli import main\n"
        "try:\n    main(['suite', 'run', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'sklearn', 'matplotlib', 'open_clip', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout and "coopt suite run mini-base-to-new" in done.stdout
