"""Protocols: every number against the estimators alone, worked out step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import coopt
from coopt.backbones import Backbone
from coopt.data import ImageDataset, Split, few_shot, load_dataset
from coopt.errors import DataError
from coopt.evaluation import harmonic_mean
from coopt.evaluation.execution import execute, setting_of
from coopt.evaluation.protocols import (
    base_to_new_problem,
    domain_problem,
    few_shot_problem,
    transfer_problem,
)
from coopt.evaluation.runs import RunResult

from .jobs import at_hand, job_of, result_of

RECIPE = {"epochs": 5, "views": 2, "lr": 0.05}
COLOURS = {
    "red": (190, 60, 60),
    "blue": (60, 60, 190),
    "grey": (120, 120, 120),
    "green": (60, 190, 60),
    "white": (230, 230, 230),
}


def paint(root: Path, seed: int, **counts: int) -> ImageDataset:
    rng = np.random.RandomState(seed)
    for part, count in counts.items():
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = (rng.normal(0, 60, (8, 8, 3)) + colour).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return load_dataset(root)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return paint(tmp_path_factory.mktemp("colours"), 0, train=4, val=2, test=5)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Other images of two of the classes, in another order."""
    whole = paint(tmp_path_factory.mktemp("shifted"), 1, train=1, test=6)
    assert whole.test is not None
    names = ("white", "blue")
    chosen = [i for i, label in enumerate(whole.test.labels) if label in names]
    return replace(whole, class_names=names, train=Split((), ()), test=whole.test.take(chosen))


def coop(backbone: Backbone, **parameters: object) -> coopt.CoOp:
    return coopt.CoOp(backbone, n_ctx=2, recipe=RECIPE, seed=2, **parameters)  # type: ignore[arg-type]


COOP: dict[str, object] = {"n_ctx": 2, "recipe": RECIPE}


def share(said: np.ndarray, labels: tuple[str, ...]) -> float:
    return 100 * sum(a == b for a, b in zip(said, labels, strict=True)) / len(labels)


def only(split: Split, names: list[str]) -> Split:
    return split.take([i for i, label in enumerate(split.labels) if label in names])


def test_base_to_new_by_hand(dataset: ImageDataset, backbone: Backbone) -> None:
    result = result_of(job_of("CoOp", "coop", COOP, 2, 2), base_to_new_problem(dataset), backbone)

    names = list(dataset.class_names)
    base, new = names[: math.ceil(len(names) / 2)], names[math.ceil(len(names) / 2) :]
    assert (len(base), len(new)) == (3, 2)
    sample = only(few_shot(dataset, 2, 2).train, base)  # drawn among all classes, and cut then
    learned = coop(backbone, class_names=base).fit(list(sample.paths), list(sample.labels))
    assert dataset.test is not None
    expected = {}
    for half, classes in (("base", base), ("new", new)):
        test = only(dataset.test, classes)
        expected[half] = share(learned.with_classes(classes).predict(list(test.paths)), test.labels)
    assert {name: score.accuracy for name, score in result.scores.items() if score} == pytest.approx(expected)
    assert [score.n for score in result.scores.values() if score] == [15, 10]
    assert result.n_train == len(sample) == 6
    assert result.accuracy == result.source_score.accuracy == pytest.approx(expected["base"])


def test_base_to_new_of_zero_shot_and_of_methods_that_belong_to_their_classes(
    dataset: ImageDataset, backbone: Backbone
) -> None:
    resources = at_hand(base_to_new_problem(dataset), backbone)
    assert dataset.test is not None
    result = execute(job_of("hand-made", "zero_shot", sampling="none"), resources).result
    names = list(dataset.class_names)
    for half, classes in (("base", names[:3]), ("new", names[3:])):
        test = only(dataset.test, classes)
        alone = coopt.ZeroShot(backbone).fit_classes(classes)
        score = result.scores[half]
        assert score is not None and score.accuracy == pytest.approx(share(alone.predict([*test.paths]), test.labels))
    for job in (
        job_of("probe", "linear_probe", {}, 1, 1, "linear-probe"),
        job_of("CSC", "coop", {**COOP, "csc": True}, 1, 1),
    ):
        result = execute(job, resources).result
        assert result.scores["base"] is not None and result.scores["new"] is None
        assert RunResult.from_dict(result.to_dict()) == result


def test_domains_with_fewer_classes(dataset: ImageDataset, shifted: ImageDataset, backbone: Backbone) -> None:
    resources = at_hand(domain_problem(dataset, {"two": shifted}, "own"), backbone)
    sample = few_shot(dataset, 2, 2).train
    learned = coop(backbone, class_names=list(dataset.class_names)).fit(list(sample.paths), list(sample.labels))
    assert dataset.test is not None and shifted.test is not None
    result = execute(job_of("CoOp", "coop", COOP, 2, 2), resources).result
    own, two = result.scores["own"], result.scores["two"]
    assert own is not None and two is not None
    assert own.accuracy == pytest.approx(share(learned.predict(list(dataset.test.paths)), dataset.test.labels))
    # A prompt does not depend on the other classes: the answers are those of a classifier of these two alone.
    alone = learned.with_classes(shifted.class_names)
    assert two.accuracy == pytest.approx(share(alone.predict(list(shifted.test.paths)), shifted.test.labels))
    assert two.n == 12
    # A probe cannot be made for two classes, but asked about them.
    probe = execute(job_of("probe", "linear_probe", {}, 2, 2, "linear-probe"), resources).result
    assert probe.scores["two"] is not None

    stranger = replace(shifted, class_names=("white", "black"))
    with pytest.raises(DataError, match="'two' has 1 class that '.*' does not have, such as 'black'"):
        domain_problem(dataset, {"two": stranger})


def test_transfer(dataset: ImageDataset, shifted: ImageDataset, backbone: Backbone) -> None:
    assert shifted.test is not None
    renamed = {"white": "snow", "blue": "sky"}
    other = replace(
        shifted,
        class_names=tuple(renamed[name] for name in shifted.class_names),
        test=Split(shifted.test.paths, tuple(renamed[label] for label in shifted.test.labels)),
    )
    assert other.test is not None
    problem = transfer_problem(dataset, {"other": other}, "own")
    result = result_of(job_of("CoOp", "coop", COOP, 2, 2), problem, backbone)
    sample = few_shot(dataset, 2, 2).train
    learned = coop(backbone, class_names=list(dataset.class_names)).fit(list(sample.paths), list(sample.labels))
    score = result.scores["other"]
    said = learned.with_classes(other.class_names).predict(list(other.test.paths))
    assert score is not None and score.accuracy == pytest.approx(share(said, other.test.labels))
    assert list(result.scores) == ["own", "other"]


def test_needs_a_test_part_and_enough_classes(dataset: ImageDataset) -> None:
    with pytest.raises(DataError, match="has no test part"):
        few_shot_problem(replace(dataset, test=None))
    with pytest.raises(DataError, match=r"at least four classes, two in each half\. '.*' has 3"):
        base_to_new_problem(replace(dataset, class_names=dataset.class_names[:3]))


def test_settings_differ_in_whatever_changes_numbers(dataset: ImageDataset, backbone: Backbone) -> None:
    job, few_shot_data = job_of("CoOp", "coop", COOP, 2, 1), at_hand(few_shot_problem(dataset), backbone)
    setting = setting_of(job, few_shot_data)
    others = [
        setting_of(job, at_hand(base_to_new_problem(dataset), backbone)),
        setting_of(replace(job, shots=1), few_shot_data),
        setting_of(replace(job, seed=3), few_shot_data),
        setting_of(replace(job, parameters={**COOP, "csc": True}), few_shot_data),
        replace(setting, backbone="other"),
    ]
    assert len({one.run for one in (setting, *others)}) == 6
    assert setting_of(job, at_hand(few_shot_problem(dataset), backbone)).run == setting.run


def test_harmonic_mean() -> None:
    assert harmonic_mean(82.69, 63.22) == pytest.approx(71.66, abs=0.005)
    assert harmonic_mean(80.47, 71.69) == pytest.approx(75.83, abs=0.005)
    assert harmonic_mean(50.0, 50.0) == 50.0
    assert harmonic_mean(0.0, 80.0) == harmonic_mean(80.0, 0.0) == harmonic_mean(0.0, 0.0) == 0.0
