"""Tables: means, spreads and differences against numbers worked out by hand; what is missing is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coopt.evaluation.run_files import Record
from coopt.evaluation.runs import RunResult, Score, Setting
from coopt.report.suite_tables import grid, markdown
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import Grid, TimeEstimate, estimated_time, grid_of
from coopt.suites.known import find_suite
from coopt.suites.scores import Cell, Scores
from coopt.suites.suite import AVERAGE, Suite
from coopt.suites.tables import Section, table_of
from coopt.suites.words import word_tables


def whole(suite: Suite) -> Grid:
    return grid_of(suite, datasets_of(suite))


def record(
    suite: Suite,
    method: str,
    scores: Mapping[str, float | None],
    shots: int = 16,
    seed: int | None = 1,
    dataset: str = "imagenet",
    backbone: str = "vit_b16",
    words: dict[str, Any] | None = None,
    seconds: float = 1.0,
) -> Record:
    """A run of a suite that was not run."""
    entry = next(one for one in suite.entries if one.name == method)
    parameters = next(one for one in datasets_of(suite) if one.name == dataset).distinguishing(entry)
    setting = Setting(
        suite.protocol,
        method,
        entry.method,
        parameters,
        entry.sampling,
        "fingerprint",
        "preprocessing",
        dataset,
        "hash",
        dict.fromkeys(scores, "hash"),
        shots,
        seed,
    )
    made = {name: None if value is None else Score(value, value, value, 10) for name, value in scores.items()}
    return Record(suite.name, backbone, RunResult(setting, made, 10, seconds), words)


def cell(sections: tuple[Section, ...], title: str, method: str, column: int) -> Cell:
    section = next(one for one in sections if one.title == title)
    return next(row for row in section.rows if row.method == method).cells[column]


def test_mean_spread_and_difference() -> None:
    suite = find_suite("coop-domain")
    targets = ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    values = {1: (72.0, 64.0, 46.0, 48.0, 74.0), 2: (71.0, 65.0, 47.0, 49.0, 75.0), 3: (73.0, 63.0, 48.0, 50.0, 76.0)}
    records = [
        record(suite, "CoOp (M=16)", dict(zip(targets, row, strict=True)), seed=seed) for seed, row in values.items()
    ]
    records.append(record(suite, "hand-made prompt", dict.fromkeys(targets, 66.0), shots=0, seed=None))
    table = table_of(Scores(whole(suite), records))
    assert table.columns == (*targets, "mean of the others")
    source = cell(table.sections, "ViT-B/16", "CoOp (M=16)", 0)
    assert source.ours is not None and source.difference is not None
    assert (source.ours.mean, source.ours.n, source.published) == (72.0, 3, 71.92)
    assert source.ours.std == pytest.approx(math.sqrt(2 / 3))
    assert source.ours.interval == pytest.approx(1.96 * math.sqrt(2 / 3) / math.sqrt(3))
    assert source.difference == pytest.approx(0.08)
    others = cell(table.sections, "ViT-B/16", "CoOp (M=16)", 5)
    per_seed = [np.mean(row[1:]) for row in values.values()]
    assert others.ours is not None
    assert others.ours.mean == pytest.approx(np.mean(per_seed))
    assert others.ours.std == pytest.approx(np.std(per_seed))
    assert cell(table.sections, "ViT-B/16", "CoOp (M=4)", 1) == Cell("missing", None, 64.56, 3)
    assert cell(table.sections, "RN50", "hand-made prompt", 2) == Cell("missing", None, 33.32, 1)
    assert (table.measured, table.planned) == (4, 4 * 10)
    _, rows = grid(table, next(one for one in table.sections if one.title == "ViT-B/16"))
    by_name = {row[0]: i for i, row in enumerate(rows)}
    assert rows[by_name["CoOp (M=16)"]][1] == "72.00 ±0.82 [0.92; t 2.48]"
    assert rows[by_name["CoOp (M=16)"] + 1][:2] == ["  published", "71.92"]
    assert rows[by_name["CoOp (M=16)"] + 2][:2] == ["  difference", "+0.08"]
    assert rows[by_name["CoOp (M=4)"]][1:] == ["missing"] * 6
    assert rows[by_name["hand-made prompt"]][1] == "66.00"


def test_harmonic_mean_is_that_of_the_means() -> None:
    suite = replace(find_suite("cocoop-base-to-new"), datasets=("dtd", "eurosat"))
    values = {
        ("dtd", 1): (80.0, 60.0),
        ("dtd", 2): (84.0, 50.0),
        ("eurosat", 1): (90.0, 70.0),
        ("eurosat", 2): (92.0, 40.0),
    }
    records = [
        record(suite, "CoOp", {"base": base, "new": new}, seed=seed, dataset=dataset)
        for (dataset, seed), (base, new) in values.items()
    ]
    table = table_of(Scores(whole(suite), records))
    mean = [cell(table.sections, "mean of 2 data sets, ViT-B/16", "CoOp", i) for i in range(3)]
    assert [one.ours.mean for one in mean if one.ours] == pytest.approx([86.5, 55.0, 2 * 86.5 * 55 / (86.5 + 55)])
    per_seed = [2 * 85 * 65 / (85 + 65), 2 * 88 * 45 / (88 + 45)]
    assert mean[2].ours is not None and mean[2].ours.std == pytest.approx(np.std(per_seed))
    assert [one.published for one in mean] == [82.69, 63.22, 71.66]
    one = cell(table.sections, "DescribableTextures, ViT-B/16", "CoOp", 2)
    assert one.ours is not None and one.ours.mean == pytest.approx(2 * 82 * 55 / (82 + 55)) and one.ours.n == 2
    assert "(2/3 seeds)" in markdown(suite, table)


def test_a_mean_needs_all_data_sets_and_the_same_seeds() -> None:
    suite = replace(find_suite("coop-few-shot"), datasets=("dtd", "eurosat"))
    name = "CoOp (M=16, end)"
    values = [("dtd", 1, 1, 60.0), ("dtd", 1, 2, 64.0), ("eurosat", 1, 2, 80.0), ("dtd", 2, 1, 70.0)]
    records = [record(suite, name, {"test": v}, k, seed, dataset) for dataset, k, seed, v in values]
    table = table_of(Scores(whole(suite), records))
    mean = next(one for one in table.sections if one.at == {"backbone": "vit_b16", "dataset": AVERAGE})
    cells = next(row for row in mean.rows if row.method == name).cells
    assert table.keys == (0, 1, 2, 4, 8, 16)
    assert cells[0].state == "none"  # a learned method has no number at 0 shots
    assert cells[1].ours is not None and (cells[1].ours.mean, cells[1].ours.n) == (72.0, 1)  # seed 2 alone
    assert cells[2].state == "missing" and cells[2].published == 70.6
    hand_made = next(row for row in mean.rows if row.method == "hand-made prompt").cells
    assert [one.state for one in hand_made] == ["missing", *["none"] * 5]


def test_more_shots_and_seeds_than_planned_are_shown() -> None:
    suite = replace(find_suite("coop-few-shot"), datasets=("dtd",))
    name = "CoOp (M=16, end)"
    records = [record(suite, name, {"test": 50.0 + seed}, 32, seed, "dtd") for seed in range(5)]
    table = table_of(Scores(whole(suite), records))
    found = cell(table.sections, "ViT-B/16", name, table.keys.index(32))
    assert found.ours is not None and (found.ours.n, found.planned) == (5, 5)


def test_what_cannot_be_is_not_missing() -> None:
    suite = find_suite("mini-domain")
    suite = replace(suite, protocol="base-to-new", derived="harmonic")
    dataset = datasets_of(suite)[0].name
    scores = {"base": 80.0, "new": None}
    table = table_of(Scores(whole(suite), [record(suite, "linear probe", scores, 16, 1, dataset, "bundled")]))
    states = [cell(table.sections, dataset, "linear probe", i).state for i in range(3)]
    assert states == ["measured", "none", "none"]
    assert cell(table.sections, dataset, "CoCoOp", 1).state == "missing"


def test_backbones_side_by_side() -> None:
    suite = find_suite("coop-ensembles")
    records = [record(suite, "prompt ensembling", {"test": 61.0}, 0, None, backbone=key) for key in ("rn50", "vit_b32")]
    table = table_of(Scores(whole(suite), records))
    assert table.columns == ("RN50", "RN101", "ViT-B/32", "ViT-B/16")
    (section,) = table.sections
    cells = {row.method: row.cells for row in section.rows}["prompt ensembling"]
    assert [one.difference for one in cells] == pytest.approx([0.59, None, -2.71, None])


def test_results_of_two_models_in_one_table_are_pointed_out() -> None:
    suite = find_suite("coop-ensembles")
    first = record(suite, "prompt ensembling", {"test": 61.0}, 0, None)
    other = record(suite, "CoOp", {"test": 70.0})
    result = replace(other.result, setting=replace(other.result.setting, backbone="other weights"))
    notes = table_of(Scores(whole(suite), [first, replace(other, result=result)])).notes
    assert any("backbone vit_b16 are of 2 different ones" in note for note in notes)


def test_words_beside_the_published_ones() -> None:
    suite = find_suite("coop-words")
    near = [[{"word": f"word{i}", "token_id": i, "distance": 1.0 + i}] for i in range(16)]
    words = {"vectors": near, "scale": {"random_to_word": 0.5, "word_to_word": 0.4}}
    one = record(suite, "CoOp", {"test": 70.0}, dataset="dtd", backbone="rn50", words=words)
    classes = {"vectors": {"banded": near, "blotchy": near}, "scale": words["scale"]}
    other = record(suite, "CoOp (CSC)", {"test": 70.0}, dataset="dtd", backbone="rn50", words=classes)
    scores = Scores(whole(suite), [one, other])
    unified, specific = word_tables(scores)
    ours = unified.columns.index("DescribableTextures")
    assert unified.columns[ours + 1] == "DescribableTextures, published"
    assert unified.rows[0][ours : ours + 2] == ("word0 (1.0000)", "boxed (0.9433)")
    assert unified.scale == {"random_to_word": 0.5, "word_to_word": 0.4, "learned_to_word": pytest.approx(8.5)}
    assert specific.columns == ("DescribableTextures (banded)",)
    said = markdown(suite, table_of(scores), (unified, specific))
    assert "| 1 | potd (1.7136) |" in said and "from the next one" in said


def test_estimates_come_from_the_runs_most_alike() -> None:
    suite = replace(find_suite("coop-few-shot"), datasets=("dtd", "eurosat"))
    name = "CoOp (M=16, end)"
    records = [
        record(suite, name, {"test": 1.0}, 1, 1, "dtd", seconds=10.0),
        record(suite, name, {"test": 1.0}, 1, 2, "dtd", seconds=20.0),
        record(suite, name, {"test": 1.0}, 2, 1, "dtd", seconds=90.0),
    ]
    datasets = datasets_of(suite)

    def jobs(*only: str, shots: tuple[int, ...]) -> list[Any]:
        return grid_of(suite, datasets, ["vit_b16", *only], shots, [3]).jobs()

    assert estimated_time(jobs("dtd", name, shots=(1,)), records) == TimeEstimate(15.0, 0)
    assert estimated_time(jobs("eurosat", name, shots=(1,)), records) == TimeEstimate(15.0, 0)
    assert estimated_time(jobs("dtd", name, shots=(16,)), records) == TimeEstimate(40.0, 0)
    assert estimated_time(jobs("dtd", "linear probe", shots=(1, 2)), records) == TimeEstimate(0.0, 2)
