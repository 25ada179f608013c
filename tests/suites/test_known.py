"""The suites that coopt knows: each can be planned, its published numbers stand in its table, its figures are drawn."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from coopt.errors import ParameterError
from coopt.evaluation.estimators import estimator_of
from coopt.evaluation.job import Job
from coopt.report.figures import save_figure
from coopt.report.suite_plots import bars_figure, gain_figure, suite_figures
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import grid_of
from coopt.suites.known import ALIASES, PAPERS, SUITES, find_suite
from coopt.suites.scores import Scores
from coopt.suites.tables import table_of

from .test_tables import record


@pytest.mark.parametrize("name", SUITES.names())
def test_every_suite_can_be_planned(name: str) -> None:
    suite = find_suite(name)
    grid = grid_of(suite, datasets_of(suite))
    jobs = grid.jobs()
    assert len(jobs) == len({job.name for job in jobs}) > 0
    for job in (*jobs[:10], jobs[-1]):
        assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    for entry in suite.entries:  # every method is there, with these parameters
        estimator_of(entry.method, grid.datasets[0].given(entry)).check_parameters()
        assert (entry.sampling == "none") == (entry.method == "zero_shot")
    assert suite.cost and suite.paper


@pytest.mark.parametrize("name", PAPERS)
def test_every_published_number_is_shown(name: str) -> None:
    suite = find_suite(name)
    table = table_of(Scores(grid_of(suite, datasets_of(suite)), []))
    shown = [cell.published for section in table.sections for row in section.rows for cell in row.cells]
    assert sorted(v for v in shown if v is not None) == sorted(one.value for one in suite.published)


def test_only_what_was_asked_for() -> None:
    suite = find_suite("coop-few-shot")
    datasets = datasets_of(suite)
    jobs = grid_of(suite, datasets, ["ViT-B/16", "eurosat", "oxford pets", "coop"], [1], [7]).jobs()
    assert {job.backbone_key for job in jobs} == {"vit_b16"}
    assert list(dict.fromkeys(job.dataset.name for job in jobs)) == ["oxford_pets", "eurosat"]
    assert len(jobs) == 2 * 4 and {job.seed for job in jobs} == {7}  # all four CoOps
    one = grid_of(suite, datasets, ["vit_b16", "dtd", "CoOp (M=16, end)", "hand-made prompt"], [1, 2], [1]).jobs()
    assert [job.name for job in one] == [
        "vit_b16.dtd.hand-made-prompt",
        "vit_b16.dtd.coop-m=16-end.1-shot.seed-1",
        "vit_b16.dtd.coop-m=16-end.2-shots.seed-1",
    ]
    with pytest.raises(ParameterError, match="has nothing called 'mnist'. It has: backbones rn50, vit_b16; data sets"):
        grid_of(suite, datasets, ["mnist"])
    with pytest.raises(ParameterError, match="must be different ints >= 1"):
        grid_of(suite, datasets, shots=[0])


def test_prompts_of_a_data_set_are_put_in() -> None:
    suite = find_suite("mini-few-shot")
    dataset = datasets_of(suite)[0]
    entries = {entry.name: dataset.distinguishing(entry) for entry in suite.entries}
    assert entries["hand-made prompt"]["templates"] == dataset.template
    assert entries["prompt ensemble"]["templates"][-1] == dataset.template
    imagenet = datasets_of(find_suite("coop-ensembles"))[0]
    assert len(imagenet.ensemble) == 7  # ImageNet's own prompt is no eighth


def test_hard_problems_have_a_suite_of_their_own_and_are_in_no_mean_over_the_others() -> None:
    names = [dataset.name for dataset in datasets_of(find_suite("mini-hard"))]
    assert names == ["mixed", "fleet"]
    assert {dataset.targets(find_suite("mini-hard")) for dataset in datasets_of(find_suite("mini-hard"))} == {
        ("twemoji", "emojione", "emojione-mono")
    }
    few_shot = datasets_of(find_suite("mini-few-shot"))
    assert len(few_shot) == 19 and not set(names) & {dataset.name for dataset in few_shot}
    transfer = datasets_of(find_suite("mini-transfer"))
    assert not set(names) & {other.name for dataset in transfer for other in dataset.others}


def test_most_shots_of_the_hard_suite_are_all_images() -> None:
    suite = find_suite("mini-hard")
    for dataset in datasets_of(suite):
        counts = dataset.reference.load().train.counts
        assert max(counts.values()) <= max(suite.shots)


def test_imagenet_has_its_own_number_of_epochs() -> None:
    suite = find_suite("cocoop-base-to-new")
    datasets = {dataset.name: dataset for dataset in datasets_of(suite)}
    epochs = {
        (name, entry.name): datasets[name].distinguishing(entry)["recipe"]["epochs"]
        for name in ("imagenet", "dtd")
        for entry in suite.entries
        if entry.sampling != "none"
    }
    assert epochs["imagenet", "CoOp"] == 50 and epochs["dtd", "CoOp"] is None  # by the number of shots
    assert epochs["imagenet", "CoCoOp"] == epochs["dtd", "CoCoOp"] == 10


def test_tables_by_their_numbers_in_the_paper() -> None:
    for alias, name in ALIASES.items():
        number = alias.replace("table", "table ").replace("figure", "figure ")
        assert find_suite(alias).name == name and number in find_suite(alias).paper


def test_unknown_suite() -> None:
    with pytest.raises(ParameterError, match="There is no suite 'mini_fewshot'. Did you mean mini-few-shot"):
        find_suite("mini_fewshot")


def opened(figure: Figure, folder: object) -> tuple[int, int]:
    png, svg = save_figure(figure, folder / "figure")  # type: ignore[operator]
    assert "</svg>" in svg.read_text()
    with Image.open(png) as image:
        image.load()
        return image.size


def test_figures_of_curves_and_gains(tmp_path: object) -> None:
    suite = find_suite("mini-few-shot")
    names = [dataset.name for dataset in datasets_of(suite)][:2]
    grid = grid_of(suite, datasets_of(suite), names)
    records = []
    for d, name in enumerate(names):
        records.append(record(suite, "hand-made prompt", {"test": 50.0 + d}, 0, None, name, "bundled"))
        for shots in suite.shots:
            value = 50.0 + shots - 20 * d
            records.append(record(suite, "CoOp", {"test": value}, shots, 1, name, "bundled"))
    figures = suite_figures(suite, table_of(Scores(grid, records)))
    assert list(figures) == ["bundled-accuracy", "bundled-gain-coop"]
    (axes,) = figures["bundled-gain-coop"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [names[1], names[0]]
    assert [bar.get_width() for bar in axes.patches] == [pytest.approx(-5.0), pytest.approx(16.0)]  # type: ignore[attr-defined]
    assert len(figures["bundled-accuracy"].axes) == 3
    for figure in figures.values():
        assert min(opened(figure, tmp_path)) > 100


def test_figures_of_bars(tmp_path: object) -> None:
    suite = find_suite("cocoop-domain")
    targets = ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    records = [
        record(suite, method, {name: 50.0 + i + seed for i, name in enumerate(targets)}, 16, seed)
        for method in ("CoOp", "CoCoOp")
        for seed in (1, 2)
    ]
    table = table_of(Scores(grid_of(suite, datasets_of(suite)), records))
    figures = suite_figures(suite, table)
    assert list(figures) == ["vit_b16-targets"]
    (axes,) = figures["vit_b16-targets"].axes
    assert [bar.get_height() for bar in axes.patches][:5] == pytest.approx([51.5, 52.5, 53.5, 54.5, 55.5])  # type: ignore[attr-defined]
    opened(figures["vit_b16-targets"], tmp_path)
    assert suite_figures(suite, table_of(Scores(grid_of(suite, datasets_of(suite)), []))) == {}
    opened(gain_figure({"one": 1.0, "two": -0.5}, "gain"), tmp_path)
    opened(bars_figure(table.columns, table.sections[0]), tmp_path)


@pytest.mark.parametrize(("method", "mean"), [("CoOp", 63.88), ("CoCoOp", 65.74)])
def test_the_published_transfer_is_whole(method: str, mean: float) -> None:
    suite = find_suite("cocoop-transfer")
    cells = {one.target: one.value for one in suite.published if one.method == method}
    assert list(cells) == ["imagenet", *(suite.targets or ()), "shifted"]
    assert cells["shifted"] == mean == round(sum(cells[name] for name in suite.targets or ()) / 10, 2)
