"""Running a suite: killed and started again, by two processes at once, with damaged files, with methods that fail."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from coopt.errors import CooptWarning
from coopt.evaluation import executors
from coopt.evaluation.claims import Claims, Owner
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import SerialExecutor, states_of
from coopt.evaluation.job import Job
from coopt.evaluation.packed import packed_file
from coopt.evaluation.packing import pack
from coopt.evaluation.run_files import Record, read_record, read_records
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import grid_of
from coopt.suites.scores import Scores
from coopt.suites.tables import table_of

from .conftest import run_tiny, store_in
from .tiny import TINY, TOTAL, start, tiny_grid


def table(out: Path) -> dict[str, Any]:
    """The table but for how long runs took."""
    records = [one for one in read_records(out / "tiny") if isinstance(one, Record)]
    document = table_of(Scores(tiny_grid(), records)).to_dict()
    del document["made"]
    return document


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "tiny").iterdir())


def test_all_runs_are_there(undisturbed: Path) -> None:
    assert names(undisturbed) == sorted(f"{job.name}.json" for job in tiny_grid().jobs())
    assert len(names(undisturbed)) == TOTAL
    assert table(undisturbed)["measured"] == TOTAL


def test_numbers_are_those_of_the_estimators_alone(undisturbed: Path) -> None:
    import coopt
    from coopt.data import few_shot

    first = datasets_of(TINY)[0]
    dataset = first.reference.load()
    assert dataset.test is not None
    test = (list(dataset.test.paths), list(dataset.test.labels))
    sample = few_shot(dataset, 2, 1).train
    learned = coopt.CoOp(n_ctx=2, recipe={"epochs": 3}, seed=1, class_names=dataset.class_names)
    learned.fit(list(sample.paths), list(sample.labels))
    record = read_record(undisturbed / "tiny" / f"bundled.{first.name}.coop.2-shots.seed-1.json")
    assert record.result.accuracy == pytest.approx(100 * learned.score(*test))
    hand = coopt.ZeroShot(templates=first.template).fit_classes(dataset.class_names)
    record = read_record(undisturbed / "tiny" / f"bundled.{first.name}.hand-made-prompt.json")
    assert record.result.accuracy == pytest.approx(100 * hand.score(*test))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_and_started_again_ends_in_the_same_table(undisturbed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = start(tmp_path / "out", log, killed_at=8)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = names(tmp_path / "out")
    assert len([name for name in left if name.endswith(".json")]) == 7
    assert len([name for name in left if name.endswith(".claim")]) == 1
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "tiny").glob("*.json")}

    outcome = run_tiny(tmp_path / "out")
    assert (len(outcome.done), len(outcome.complete), outcome.failed) == (TOTAL - 7, 7, {})
    assert names(tmp_path / "out") == names(undisturbed)
    assert all((tmp_path / "out" / "tiny" / name).stat().st_mtime_ns == time for name, time in times.items())
    assert table(tmp_path / "out") == table(undisturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_processes_share_the_work(undisturbed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start(tmp_path / "out", log, pause=0.1) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = log.read_text().splitlines()
    assert len(done) == len(set(done)) == TOTAL
    documents = [json.loads(stdout) for stdout, _ in said]
    assert sum(len(one["done"]) for one in documents) == TOTAL
    assert all(len(one["done"]) + len(one["complete"]) == TOTAL for one in documents)
    assert names(tmp_path / "out") == names(undisturbed)
    assert table(tmp_path / "out") == table(undisturbed)


def test_files_of_several_machines_are_merged_by_copying(undisturbed: Path, tmp_path: Path) -> None:
    files = sorted((undisturbed / "tiny").glob("*.json"), reverse=True)
    for folder, some in (("a", files[::2]), ("b", files[1::2])):
        (tmp_path / folder).mkdir()
        for file in some:
            shutil.copy(file, tmp_path / folder)
    shutil.copytree(tmp_path / "a", tmp_path / "out" / "tiny")
    shutil.copytree(tmp_path / "b", tmp_path / "out" / "tiny", dirs_exist_ok=True)
    assert table(tmp_path / "out") == table(undisturbed)
    assert len(run_tiny(tmp_path / "out").complete) == TOTAL


@pytest.fixture
def out(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the results."""
    shutil.copytree(undisturbed, tmp_path / "out")
    return tmp_path / "out"


def test_packed_runs_are_complete_and_those_of_another_setting_are_done_again(undisturbed: Path, out: Path) -> None:
    stale = next(iter(sorted((out / "tiny").glob("*coop.2-shots*.json"))))
    pack(out / "tiny")
    assert table(out) == table(undisturbed)
    outcome = run_tiny(out)
    assert (outcome.done, len(outcome.complete)) == ([], TOTAL)
    assert not (out / "tiny").exists()

    packed = packed_file(out / "tiny")
    packed.write_text(packed.read_text().replace('"seconds":', '"seconds":1'))  # every line changed
    packed.write_text("".join(line for line in packed.read_text().splitlines(True) if stale.stem in line))
    with pytest.warns(CooptWarning, match=rf"{stale.stem} in .*tiny\.jsonl' is not a whole run .* It is done again"):
        outcome = run_tiny(out)
    assert len(outcome.done) == TOTAL and run_tiny(out).done == []
    assert table(out) == table(undisturbed)


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "other"])
def test_damaged_file_is_done_again_with_a_warning(undisturbed: Path, out: Path, damage: str) -> None:
    file = next(iter(sorted((out / "tiny").glob("*coop*.json"))))
    text = file.read_text()
    document = json.loads(text)
    document["seconds"] += 1
    damaged = {"cut": text[: len(text) // 2], "edited": json.dumps(document), "empty": "", "other": '{"kind": "fit"}'}
    file.write_text(damaged[damage])
    with pytest.warns(CooptWarning, match="is not a whole run of a suite .* It is done again"):
        outcome = run_tiny(out)
    assert (outcome.done, len(outcome.complete)) == ([file.stem], TOTAL - 1)
    assert table(out) == table(undisturbed)


def test_other_parameters_are_done_again(out: Path) -> None:
    from dataclasses import replace

    entries = tuple(replace(one, parameters={**one.parameters, "n_ctx": 3}) for one in TINY.entries[2:])
    changed = replace(TINY, entries=(*TINY.entries[:2], *entries))
    records = [one for one in read_records(out / "tiny") if isinstance(one, Record)]
    scores = Scores(grid_of(changed, datasets_of(changed)), records)
    assert scores.outdated == 8
    assert any(note.startswith("Left out: 8 results of methods") for note in table_of(scores).notes)
    some = grid_of(changed, datasets_of(changed), ["coop"], [1], [1])
    outcome = SerialExecutor(Resources()).run(some.jobs(), store_in(out))
    assert (len(outcome.done), outcome.replaced) == (2, 2)


def test_a_failing_method_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = executors.execute

    def failing(job: Job, *rest: Any) -> Record:
        if job.method == "CoOp" and job.shots == 2:
            raise RuntimeError("no such luck")
        return original(job, *rest)

    monkeypatch.setattr(executors, "execute", failing)
    outcome = run_tiny(tmp_path)
    assert len(outcome.failed) == 4 and set(outcome.failed.values()) == {"RuntimeError: no such luck"}
    assert len(outcome.done) == TOTAL - 4
    assert not list((tmp_path / "tiny").glob("*.claim*"))


def test_ctrl_c_lets_go_of_the_run_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Record:
        raise KeyboardInterrupt

    monkeypatch.setattr(executors, "execute", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path)
    assert not list((tmp_path / "tiny").iterdir())


def test_stopped_in_the_middle_of_training_goes_on_from_there(
    undisturbed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coopt.training import loop

    original, epochs = loop._epoch, []

    def stopped(*arguments: Any) -> Any:
        epochs.append(arguments[-1])
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    file = next(iter(sorted((out / "tiny").glob("*coop*.json"))))
    file.unlink()
    monkeypatch.setattr(loop, "_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(out)
    assert len(list((out / "tiny").glob(f"{file.stem}.*.checkpoint"))) == 1
    assert run_tiny(out).done == [file.stem]
    assert epochs == [0, 1, 2, 2]
    assert table(out) == table(undisturbed)
    assert names(out) == names(undisturbed)


def test_runs_of_another_machine_are_left_to_it(undisturbed: Path, out: Path) -> None:
    file = next(iter(sorted((out / "tiny").glob("*coop*.json"))))
    file.unlink()
    claims = Claims(out / "tiny")
    claims.owner = Owner(1, 1, "elsewhere")
    claims.take(file.stem)
    outcome = run_tiny(out)
    assert outcome.elsewhere == [file.stem] and not outcome.done
    after = SerialExecutor(Resources()).run(tiny_grid().jobs(), store_in(out, expire=0.0))
    assert after.done == [file.stem]
    assert names(out) == names(undisturbed)


def test_states_without_doing_anything(out: Path) -> None:
    files = sorted((out / "tiny").glob("*coop*.json"))
    files[0].unlink()
    files[1].write_text("{")
    before = names(out)
    states = {job.name: state for job, state in states_of(tiny_grid().jobs(), store_in(out), Resources())}
    assert states[files[0].stem] == "missing" and states[files[1].stem] == "damaged"
    assert list(states.values()).count("complete") == TOTAL - 2
    assert names(out) == before
