"""The few-shot protocol: its numbers are those of the estimators alone, nothing is done twice, means are means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coopt
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split, few_shot, linear_probe_indices, load_dataset
from coopt.errors import DataError, ParameterError, SavedFileError
from coopt.evaluation.contenders import Contender
from coopt.evaluation.few_shot import (
    AVERAGE,
    RunResult,
    count_runs,
    few_shot_runs,
    paper_contenders,
    summarise,
)
from coopt.evaluation.protocols import few_shot_problem
from coopt.evaluation.results import ResultFile
from coopt.evaluation.runs import Bench, Score, Setting
from coopt.prompts.templates import ENSEMBLE

TEMPLATE = "a {} picture."
RECIPE = {"epochs": 5, "views": 2, "lr": 0.05}
NAMES = ["naive prompt", "hand-made prompt", "prompt ensemble", "linear probe", "CoOp"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.RandomState(0)
    for part, count in (("train", 4), ("val", 3), ("test", 6)):
        for name, colour in (("red", (190, 60, 60)), ("blue", (60, 60, 190)), ("grey", (120, 120, 120))):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                noise = rng.normal(0, 60, (8, 8, 3)) + colour
                pixels = noise.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return load_dataset(root)


def runs(dataset: ImageDataset, backbone: Backbone, **options: Any) -> list[RunResult]:
    options = {"shots": (1, 2), "seeds": (1, 2)} | options
    contenders = paper_contenders(TEMPLATE, RECIPE, options.pop("n_ctx", (2,)))
    return list(few_shot_runs(dataset, contenders, backbone, **options))


def test_order_and_kinds(dataset: ImageDataset, backbone: Backbone) -> None:
    found = runs(dataset, backbone)
    assert [(r.method, r.shots, r.seed) for r in found] == [
        *((name, 0, None) for name in NAMES[:3]),
        *((name, k, seed) for k in (1, 2) for seed in (1, 2) for name in NAMES[3:]),
    ]
    assert len(found) == count_runs(paper_contenders(TEMPLATE), (1, 2), (1, 2))
    assert {r.n_train for r in found if r.shots == 2} == {6}
    assert {r.n_test for r in found} == {18}
    assert len({r.run for r in found}) == len(found)


def test_numbers_are_those_of_the_estimators_alone(dataset: ImageDataset, backbone: Backbone) -> None:
    found = {(r.method, r.shots, r.seed): r.accuracy for r in runs(dataset, backbone)}
    assert dataset.test is not None and dataset.val is not None
    names, test = list(dataset.class_names), (list(dataset.test.paths), list(dataset.test.labels))

    for method, templates in zip(NAMES, ("a photo of a {}.", TEMPLATE, (*ENSEMBLE, TEMPLATE)), strict=False):
        alone = coopt.ZeroShot(backbone, templates=templates).fit_classes(names)
        assert found[method, 0, None] == pytest.approx(100 * alone.score(*test))

    for shots, seed in ((1, 1), (2, 1), (2, 2)):
        sample = few_shot(dataset, shots, seed).train
        learned = coopt.CoOp(backbone, n_ctx=2, recipe=RECIPE, seed=seed, class_names=names)
        learned.fit(list(sample.paths), list(sample.labels))
        assert found["CoOp", shots, seed] == pytest.approx(100 * learned.score(*test))

        labels = [[names.index(label) for label in part.labels] for part in (dataset.train, dataset.val)]
        chosen, chosen_val = linear_probe_indices(labels[0], labels[1], shots, seed)
        train, val = dataset.train.take(chosen), dataset.val.take(chosen_val)
        probe = coopt.LinearProbe(backbone, class_names=names)
        probe.fit(list(train.paths), list(train.labels), list(val.paths), list(val.labels))
        assert found["linear probe", shots, seed] == pytest.approx(100 * probe.score(*test))


def test_template_of_the_ensemble_is_not_counted_twice() -> None:
    ensemble = paper_contenders(ENSEMBLE[0])[2]
    assert ensemble.parameters["templates"] == list(ENSEMBLE)
    assert paper_contenders("a {}.")[2].parameters["templates"] == [*ENSEMBLE, "a {}."]


def test_a_curve_for_each_context_length(dataset: ImageDataset, backbone: Backbone) -> None:
    found = runs(dataset, backbone, n_ctx=(2, 4), shots=(1,), seeds=(1,))
    learned = [r for r in found if r.method.startswith("CoOp")]
    assert [(r.method, r.setting.parameters["n_ctx"]) for r in learned] == [("CoOp (M=2)", 2), ("CoOp (M=4)", 4)]
    assert [r.estimator.context_.shape[0] for r in learned if isinstance(r.estimator, coopt.CoOp)] == [2, 4]


class CountingCache(FeatureCache):
    """A cache that knows how often it was asked to keep an image."""

    kept: list[str]

    def put_many(self, features: Any, backbone_name: str | None = None) -> None:
        self.kept = [*getattr(self, "kept", []), *(key.digest.hex() for key in features)]
        super().put_many(features, backbone_name)


def test_nothing_is_encoded_twice(dataset: ImageDataset, backbone: Backbone, tmp_path: Path) -> None:
    cache = CountingCache(tmp_path)
    runs(dataset, backbone, cache=cache)
    assert len(cache.kept) == len(set(cache.kept)) > 18


def test_a_contender_in_bf16_leaves_the_others_in_fp32(
    dataset: ImageDataset, backbone: Backbone, arithmetics: set[str]
) -> None:
    bench = Bench(few_shot_problem(dataset), backbone)
    exact, rough = (
        Contender(precision, coopt.CoOp(n_ctx=2, recipe=RECIPE, precision=precision)) for precision in ("fp32", "bf16")
    )
    alone = bench.run(exact, 1, 1).scores
    assert arithmetics == {"cpu"}
    assert bench.run(Contender("probe", coopt.LinearProbe(C=1.0)), 1, 1).scores and arithmetics == {"cpu"}
    found = bench.run(rough, 1, 1)
    assert arithmetics == {"cpu", "cpu+bf16"}
    assert dataset.test is not None and found.estimator is not None
    test = (list(dataset.test.paths), list(dataset.test.labels))
    assert found.accuracy == pytest.approx(100 * found.estimator.score(*test))
    features = {precision: bench._features["test", precision] for precision in ("fp32", "bf16")}
    assert (features["bf16"] == found.estimator.image_features(test[0]).features[0]).all()
    assert bench.run(exact, 1, 1).scores == alone and (features["fp32"] != features["bf16"]).any()


def test_goes_on_where_it_stopped(
    dataset: ImageDataset, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs(dataset, backbone)
    file = ResultFile(tmp_path / "results.json")
    file.begin({"seeds": [1, 2]})
    for result in whole[:6]:
        file.add(result)
    file.save()

    again = ResultFile(file.path)
    assert again.earlier == whole[:6]
    assert all(result.estimator is None for result in again.earlier)
    done: list[tuple[str, int, int | None]] = []
    original = Bench.run

    def counted(bench: Bench, contender: Any, shots: int, seed: int | None, *rest: Any) -> RunResult:
        done.append((contender.name, shots, seed))
        return original(bench, contender, shots, seed, *rest)

    monkeypatch.setattr(Bench, "run", counted)
    resumed = runs(dataset, backbone, done=again.earlier)
    assert done == [(r.method, r.shots, r.seed) for r in whole[6:]]
    assert [r.accuracy for r in resumed] == [r.accuracy for r in whole]


@pytest.mark.parametrize("change", ["recipe", "template", "data"])
def test_other_runs_are_not_taken_for_the_same(dataset: ImageDataset, backbone: Backbone, change: str) -> None:
    earlier = runs(dataset, backbone, shots=(1,), seeds=(1,))
    template, recipe = TEMPLATE, dict(RECIPE)
    if change == "recipe":
        recipe["lr"] = 0.01
    if change == "template":
        template = "the {}."
    if change == "data":
        train = dataset.train.take(range(len(dataset.train) - 1, -1, -1))
        dataset = ImageDataset(dataset.name, dataset.root, dataset.class_names, train, dataset.val, dataset.test)
    contenders = paper_contenders(template, recipe, (2,))
    now = {r.method: r.run for r in few_shot_runs(dataset, contenders, backbone, shots=(1,), seeds=(1,))}
    changed = [r.method for r in earlier if now[r.method] != r.run]
    expected = {"recipe": ["CoOp"], "template": ["hand-made prompt", "prompt ensemble"], "data": NAMES}
    assert changed == expected[change]


def result(method: str, dataset: str, shots: int, seed: int | None, accuracy: float) -> RunResult:
    setting = Setting("few-shot", method, "coop", {}, "few-shot", "f", "p", dataset, "d", {"test": "d"}, shots, seed)
    return RunResult(setting, {"test": Score(accuracy, accuracy, accuracy, 1)}, 1, 0.1)


def test_summary_is_mean_and_spread() -> None:
    results = [result("CoOp", "a", 1, seed, value) for seed, value in ((1, 60.0), (2, 70.0), (3, 65.0))]
    (one,) = summarise(results)
    assert (one.dataset, one.mean, one.n) == ("a", 65.0, 3)
    assert one.std == pytest.approx(np.std([60, 70, 65]))
    assert one.interval == pytest.approx(1.96 * one.std / 3**0.5)


def test_average_is_over_data_sets_first() -> None:
    values = {("a", 1): 10.0, ("a", 2): 20.0, ("b", 1): 50.0, ("b", 2): 20.0}
    results = [result("CoOp", name, 1, seed, value) for (name, seed), value in values.items()]
    results += [result("naive prompt", "a", 0, None, 30.0), result("naive prompt", "b", 0, None, 40.0)]
    results += [result("CoOp", "a", 2, 1, 99.0)]  # the other data set has no such row yet
    found = {(one.dataset, one.method, one.shots): one for one in summarise(results)}
    assert found[AVERAGE, "CoOp", 1].mean == 25.0
    assert found[AVERAGE, "CoOp", 1].std == 5.0  # of 30 and 20, not of the four values
    assert found[AVERAGE, "naive prompt", 0].mean == 35.0
    assert (AVERAGE, "CoOp", 2) not in found
    assert found["a", "CoOp", 2].mean == 99.0
    assert next(iter(found))[0] == AVERAGE


def test_result_survives_json() -> None:
    one = result("CoOp", "a", 1, 2, 61.25)
    assert RunResult.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(SavedFileError, match="it has no 'n_train'"):
        RunResult.from_dict({k: v for k, v in one.to_dict().items() if k != "n_train"})
    with pytest.raises(SavedFileError, match="accuracy on test is 'high'"):
        RunResult.from_dict(one.to_dict() | {"scores": {"test": {"accuracy": "high"}}})
    with pytest.raises(SavedFileError, match="fields do not agree"):
        RunResult.from_dict(one.to_dict() | {"shots": 2})


def test_file_keeps_what_was_not_reached_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = ResultFile(path)
    first.begin({})
    results = [result("CoOp", "a", 1, seed, 50.0) for seed in (1, 2, 3)]
    for one in results:
        first.add(one)
    first.save()

    second = ResultFile(path)
    second.begin({"setup": "new"})
    second.add(results[0])
    second.save()
    assert [r["seed"] for r in json.loads(path.read_text())["results"]] == [1, 2, 3]
    second.finish({"seconds": 1.0})
    document = json.loads(path.read_text())
    assert ([r["seed"] for r in document["results"]], document["seconds"]) == ([1], 1.0)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "fit", "format": 1, "results": []}', "null"])
def test_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(SavedFileError, match="is not a file of results that this coopt can go on from"):
        ResultFile(path)
    assert path.read_text() == text


@pytest.mark.parametrize(("shots", "seeds"), [((), (1,)), ((0,), (1,)), ((1, 1), (1,)), ((1,), (-1,)), ((True,), (1,))])
def test_grid_out_of_range(
    dataset: ImageDataset, backbone: Backbone, shots: Sequence[int], seeds: Sequence[int]
) -> None:
    with pytest.raises(ParameterError, match="of the few-shot protocol must be different ints >= "):
        runs(dataset, backbone, shots=shots, seeds=seeds)


def test_needs_a_test_part_but_no_validation_part(dataset: ImageDataset, backbone: Backbone) -> None:
    parts: dict[str, Split | None] = {"train": dataset.train, "val": None, "test": dataset.test}
    found = runs(ImageDataset("x", dataset.root, dataset.class_names, **parts), backbone, shots=(2,), seeds=(1,))  # type: ignore[arg-type]
    assert len(found) == 5
    parts["test"] = None
    with pytest.raises(DataError, match="'x' has no test part"):
        runs(ImageDataset("x", dataset.root, dataset.class_names, **parts), backbone)  # type: ignore[arg-type]
