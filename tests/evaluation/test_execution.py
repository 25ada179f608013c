"""Executing jobs: the numbers are those of the estimators alone, and nothing is encoded twice; jobs and results as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coopt
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split, few_shot, linear_probe_indices, load_dataset
from coopt.errors import BackboneError, DataError, ParameterError, SavedFileError
from coopt.evaluation.execution import Resources, execute, setting_of
from coopt.evaluation.job import DatasetReference, Job
from coopt.evaluation.protocols import few_shot_problem
from coopt.evaluation.runs import RunResult, Score, Setting
from coopt.prompts.templates import ENSEMBLE
from coopt.suites.datasets import ensemble_with
from coopt.training.recipe import Recipe

from .jobs import at_hand, job_of

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


def jobs(shots: tuple[int, ...] = (1, 2), seeds: tuple[int, ...] = (1, 2)) -> list[Job]:
    """The methods of the paper's few-shot figure."""
    naive, hand, ensemble, probe, learned = NAMES
    return [
        job_of(naive, "zero_shot", sampling="none"),
        job_of(hand, "zero_shot", {"templates": TEMPLATE}, sampling="none"),
        job_of(ensemble, "zero_shot", {"templates": ensemble_with(TEMPLATE)}, sampling="none"),
        *(
            job
            for k in shots
            for seed in seeds
            for job in (
                job_of(probe, "linear_probe", shots=k, seed=seed, sampling="linear-probe"),
                job_of(learned, "coop", {"n_ctx": 2, "recipe": RECIPE}, k, seed),
            )
        ),
    ]


def runs(dataset: ImageDataset, backbone: Backbone, cache: bool | FeatureCache = True, **grid: Any) -> list[RunResult]:
    resources = at_hand(few_shot_problem(dataset), backbone, cache)
    return [execute(job, resources).result for job in jobs(**grid)]


def test_what_a_record_says(dataset: ImageDataset, backbone: Backbone) -> None:
    results = runs(dataset, backbone)
    assert {r.n_train for r in results if r.shots == 2} == {6}
    assert {r.n_test for r in results} == {18}
    assert len({r.run for r in results}) == len(results)
    resources = at_hand(few_shot_problem(dataset), backbone)
    job = job_of("CoOp", "coop", {"n_ctx": 2, "recipe": RECIPE}, 1, 1, words=2)
    record = execute(job, resources)
    assert record.result.setting == setting_of(job, resources)
    assert (record.suite, record.backbone, record.name) == ("", "small", f"small.{dataset.name}.coop.1-shot.seed-1")
    assert record.words is not None and [len(row) for row in record.words["vectors"]] == [2, 2]
    assert record.made == {"backbone_name": backbone.name, "device": "cpu"}


def test_numbers_are_those_of_the_estimators_alone(dataset: ImageDataset, backbone: Backbone) -> None:
    accuracies = {(r.method, r.shots, r.seed): r.accuracy for r in runs(dataset, backbone)}
    assert dataset.test is not None and dataset.val is not None
    names, test = list(dataset.class_names), (list(dataset.test.paths), list(dataset.test.labels))

    for method, templates in zip(NAMES, ("a photo of a {}.", TEMPLATE, (*ENSEMBLE, TEMPLATE)), strict=False):
        alone = coopt.ZeroShot(backbone, templates=templates).fit_classes(names)
        assert accuracies[method, 0, None] == pytest.approx(100 * alone.score(*test))

    for shots, seed in ((1, 1), (2, 1), (2, 2)):
        sample = few_shot(dataset, shots, seed).train
        learned = coopt.CoOp(backbone, n_ctx=2, recipe=RECIPE, seed=seed, class_names=names)
        learned.fit(list(sample.paths), list(sample.labels))
        assert accuracies["CoOp", shots, seed] == pytest.approx(100 * learned.score(*test))

        labels = [[names.index(label) for label in part.labels] for part in (dataset.train, dataset.val)]
        chosen, chosen_val = linear_probe_indices(labels[0], labels[1], shots, seed)
        train, val = dataset.train.take(chosen), dataset.val.take(chosen_val)
        probe = coopt.LinearProbe(backbone, class_names=names)
        probe.fit(list(train.paths), list(train.labels), list(val.paths), list(val.labels))
        assert accuracies["linear probe", shots, seed] == pytest.approx(100 * probe.score(*test))


def test_template_of_the_ensemble_is_not_counted_twice() -> None:
    assert ensemble_with(ENSEMBLE[0]) == ENSEMBLE
    assert ensemble_with("a {}.") == (*ENSEMBLE, "a {}.")


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


def test_a_method_in_bf16_leaves_the_others_in_fp32(
    dataset: ImageDataset, backbone: Backbone, arithmetics: set[str]
) -> None:
    resources = at_hand(few_shot_problem(dataset), backbone)
    exact, rough = (
        job_of(precision, "coop", {"n_ctx": 2, "recipe": RECIPE, "precision": precision}, 1, 1)
        for precision in ("fp32", "bf16")
    )
    alone = execute(exact, resources).result.scores
    assert arithmetics == {"cpu"}
    probe = job_of("probe", "linear_probe", {"C": 1.0}, 1, 1)
    assert execute(probe, resources).result.scores and arithmetics == {"cpu"}
    result = execute(rough, resources).result
    assert arithmetics == {"cpu", "cpu+bf16"}
    assert dataset.test is not None and result.estimator is not None
    test = (list(dataset.test.paths), list(dataset.test.labels))
    assert result.accuracy == pytest.approx(100 * result.estimator.score(*test))
    features = {precision: resources._features["test", precision] for precision in ("fp32", "bf16")}
    assert (features["bf16"] == result.estimator.image_features(test[0]).features[0]).all()
    assert execute(exact, resources).result.scores == alone and (features["fp32"] != features["bf16"]).any()


@pytest.mark.parametrize("change", ["recipe", "template", "data"])
def test_other_runs_are_not_taken_for_the_same(dataset: ImageDataset, backbone: Backbone, change: str) -> None:
    before = at_hand(few_shot_problem(dataset), backbone)
    same = jobs((1,), (1,))
    now = [
        replace(
            job,
            parameters={
                name: {**value, "lr": 0.01}
                if change == "recipe" and name == "recipe"
                else "the {}."
                if change == "template" and name == "templates" and isinstance(value, str)
                else value
                for name, value in job.parameters.items()
            },
        )
        for job in same
    ]
    if change == "data":
        train = dataset.train.take(range(len(dataset.train) - 1, -1, -1))
        dataset = ImageDataset(dataset.name, dataset.root, dataset.class_names, train, dataset.val, dataset.test)
    after = at_hand(few_shot_problem(dataset), backbone)
    changed = [
        a.method for a, b in zip(same, now, strict=True) if setting_of(a, before).run != setting_of(b, after).run
    ]
    assert changed == {"recipe": ["CoOp"], "template": ["hand-made prompt"], "data": NAMES}[change]


def test_jobs_are_done_from_what_they_say_alone(dataset: ImageDataset) -> None:
    """Written as JSON, read again and executed with nothing at hand."""
    reference = DatasetReference("colours", str(dataset.root))
    job = replace(job_of("hand-made", "zero_shot", {"templates": (TEMPLATE,)}, sampling="none"), backbone="bundled")
    job = replace(job, dataset=reference)
    again = Job.from_dict(json.loads(json.dumps(job.to_dict())))
    assert again.to_dict() == job.to_dict() and again.name == job.name
    record = execute(again)
    assert dataset.test is not None
    alone = coopt.ZeroShot(templates=TEMPLATE).fit_classes(list(dataset.class_names))
    score = alone.score(list(dataset.test.paths), list(dataset.test.labels))
    assert record.result.accuracy == pytest.approx(100 * score)
    assert record.result.setting.parameters["templates"] == [TEMPLATE]


def test_bundled_data_sets_and_their_styles() -> None:
    from coopt.data.bundled import bundled_datasets

    one = next(one for one in bundled_datasets() if one.shifted)
    own = DatasetReference(one.name, f"bundled:{one.name}").load()
    other = DatasetReference("x", f"bundled:{one.name}", one.shifted[0]).load()
    assert own.hash == one.load().hash and other.hash == one.load(one.shifted[0]).hash != own.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": None}, "Not a job: it has no|unexpected|missing"),
        ({"dataset": {"name": "x"}}, "is not a reference to a data set"),
        ({"dataset": {"name": "x", "source": "y", "place": "z"}}, "is not a reference to a data set"),
        ({"parameters": [1]}, "'parameters' is not a mapping"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_documents_that_are_no_jobs(change: dict[str, Any], message: str) -> None:
    document = {**job_of("CoOp", "coop", {"n_ctx": 2}, 1, 1).to_dict(), **change}
    if change == {"shots": None}:
        del document["shots"]
    with pytest.raises(ParameterError, match="Not a job") as error:
        Job.from_dict(document)
    assert re.search(message, str(error.value))


def test_parameters_that_json_cannot_hold() -> None:
    with pytest.raises(ParameterError, match="Parameters of a job must be what JSON can hold"):
        job_of("CoOp", "coop", {"n_ctx": object()}).to_dict()
    recipe = job_of("CoOp", "coop", {"recipe": Recipe(name="fast", lr=0.5)}).to_dict()["parameters"]["recipe"]
    assert recipe == Recipe(name="fast", lr=0.5).to_dict()


def test_what_keeps_data_or_a_backbone_away_is_looked_for_once() -> None:
    asked: list[str] = []

    def read(job: Job) -> Any:
        asked.append("data")
        raise DataError("no such data")

    def load(name: str) -> Any:
        asked.append(name)
        raise BackboneError("no such weights")

    resources = Resources(load=load, read=read)
    for job in jobs():
        with pytest.raises(DataError, match="no such data"):
            setting_of(job, resources)
        with pytest.raises(BackboneError, match="no such weights"):
            resources.backbone(job)
    assert asked == ["data", "small"]


def result(method: str, dataset: str, shots: int, seed: int | None, accuracy: float) -> RunResult:
    setting = Setting("few-shot", method, "coop", {}, "few-shot", "f", "p", dataset, "d", {"test": "d"}, shots, seed)
    return RunResult(setting, {"test": Score(accuracy, accuracy, accuracy, 1)}, 1, 0.1)


def test_result_survives_json() -> None:
    one = result("CoOp", "a", 1, 2, 61.25)
    assert RunResult.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(SavedFileError, match="it has no 'n_train'"):
        RunResult.from_dict({k: v for k, v in one.to_dict().items() if k != "n_train"})
    with pytest.raises(SavedFileError, match="accuracy on test is 'high'"):
        RunResult.from_dict(one.to_dict() | {"scores": {"test": {"accuracy": "high"}}})
    with pytest.raises(SavedFileError, match="fields do not agree"):
        RunResult.from_dict(one.to_dict() | {"shots": 2})


def test_needs_a_test_part_but_no_validation_part(dataset: ImageDataset, backbone: Backbone) -> None:
    parts: dict[str, Split | None] = {"train": dataset.train, "val": None, "test": dataset.test}
    without = ImageDataset("x", dataset.root, dataset.class_names, **parts)  # type: ignore[arg-type]
    assert len(runs(without, backbone, shots=(2,), seeds=(1,))) == 5
    parts["test"] = None
    with pytest.raises(DataError, match="'x' has no test part"):
        runs(ImageDataset("x", dataset.root, dataset.class_names, **parts), backbone)  # type: ignore[arg-type]
