"""Texts about classes: averaged into hand-made prompts, behind the names in learned ones, read from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import coopt
from coopt.backbones import Backbone
from coopt.data.descriptions import read_descriptions
from coopt.errors import ClassNameWarning, DataError, ParameterError, PromptTooLongError
from coopt.prompts.descriptions import described
from coopt.prompts.templates import template_features
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts, template_prompts

NAMES = ["red_car", "dog", "blue sky"]
TEXTS = {"red car": ["A red vehicle.", "automobile"], "dog": ["An animal, that barks."]}
TEMPLATES = ("a photo of a {}.", "art of a {}.")


def feature(backbone: Backbone, text: str) -> torch.Tensor:
    with torch.no_grad():
        return normalize(TextEncoder(backbone, template_prompts(backbone, [text], "{}"))(), dim=-1)[0]


def test_all_texts_of_a_class_count_alike(backbone: Backbone) -> None:
    ours = template_features(backbone, NAMES, TEMPLATES, TEXTS)
    expected = [
        [
            "a photo of a red car.",
            "art of a red car.",
            "A red vehicle.",
            "a photo of a automobile.",
            "art of a automobile.",
        ],
        ["a photo of a dog.", "art of a dog.", "An animal, that barks."],
        ["a photo of a blue sky.", "art of a blue sky."],
    ]
    for one, texts in zip(ours, expected, strict=True):
        mean = normalize(torch.stack([feature(backbone, text) for text in texts]).mean(dim=0), dim=-1)
        assert torch.allclose(one, mean, atol=1e-6)


def test_a_sentence_that_is_too_long_is_cut_where_it_may_be(backbone: Backbone) -> None:
    first, second = "It has a tail. " * 9, "and, as one may see, many legs " * 6
    with pytest.warns(ClassNameWarning, match=r"1 description longer than the \d+ tokens .* the first of class 'dog'"):
        ours = template_features(backbone, ["dog"], ("a {}.",), {"dog": [f"{first}{second}."]})
    assert torch.isfinite(ours).all()
    with pytest.raises(PromptTooLongError, match="aaaa"):
        template_features(backbone, ["dog"], ("a {}.",), {"dog": ["a" * 3000 + "."]})


def test_another_name_that_is_too_long_is_named(backbone: Backbone) -> None:
    with pytest.raises(PromptTooLongError, match="very very"):
        template_features(backbone, ["dog"], ("a {}.",), {"dog": ["very " * 90 + "long name"]})


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("cls", [coopt.CoOp, coopt.CoCoOp])
def test_the_first_text_stands_behind_the_name(cls: Any, position: str, backbone: Backbone, features: Any) -> None:
    if cls is coopt.CoCoOp and position != "end":
        return
    parameters = {"position": position} if cls is coopt.CoOp else {}
    labels = np.array(NAMES)[np.arange(24) % 3]
    model = cls(backbone, n_ctx=2, descriptions=TEXTS, recipe={"epochs": 2, "views": 1}, **parameters)
    model.fit(features, labels)
    names = [described(name, TEXTS) for name in model.class_names_]
    assert names == ["blue sky", "dog, An animal, that barks", "red_car, A red vehicle"]
    ours, same = model._encoder(2, 1).prompts, context_prompts(backbone, names, 2, position)  # type: ignore[arg-type]
    assert torch.equal(ours.token_ids.sort(0).values, same.token_ids.sort(0).values)
    assert not np.array_equal(model.logits(features), clone_without(model).fit(features, labels).logits(features))
    assert model.with_classes(["cat", "dog"]).class_names_ == ("cat", "dog")


def clone_without(model: Any) -> Any:
    from sklearn.base import clone

    return clone(model).set_params(descriptions=None)


def test_kgcoop_is_held_near_them(backbone: Backbone, features: Any) -> None:
    model = coopt.KgCoOp(backbone, descriptions=TEXTS, recipe={"epochs": 2, "views": 1})
    model.fit(features, np.array(NAMES)[np.arange(24) % 3])
    expected = template_features(backbone, model.class_names_, ("a photo of a {}.",), TEXTS)
    assert torch.equal(model.unchanged_text(), expected) and model.prompt_names() == model.class_names_


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["A dog."], "Got list instead"),
        ({"dog": "A dog."}, "Got 'A dog.' for 'dog'"),
        ({"dog": [3]}, "Got 3 among the texts of 'dog'"),
        ({"dog": [" "]}, "Got ' ' among the texts of 'dog'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_said(wrong: Any, message: str, backbone: Backbone) -> None:
    with pytest.raises(ParameterError, match=message):
        coopt.ZeroShot(backbone, descriptions=wrong).fit_classes(["dog"])


FILES = {
    "a.json": json.dumps({"red car": ["A red vehicle.", "automobile"], "DOG": "An animal, that barks."}),
    "a.csv": 'class,text\nred_car,A red vehicle.,automobile\ndog,"An animal, that barks."\n',
    "b.csv": 'red_car,A red vehicle.\ndog,"An animal, that barks."\nred_car,automobile\n',
    "a.tsv": "red car\tA red vehicle.\nred car\tautomobile\ndog\tAn animal, that barks.\n",
    "a.txt": "\ufeffred car: A red  vehicle.\n\nred car: automobile\ndog: An animal, that barks.\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="utf-8")
    with pytest.warns(ClassNameWarning, match=r"says nothing of 1 of 3 classes \('blue sky'\)"):
        read = read_descriptions(file, NAMES)
    assert read == {"red_car": TEXTS["red car"], "dog": TEXTS["dog"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "are not JSON"),
        ("a.json", '["dog"]', "holds list. Expected an object"),
        ("a.json", '{"dog": [1]}', r"must hold texts for each class. Got \[1\] for 'dog'"),
        ("a.csv", "dog\n", "a row of one cell: 'dog'"),
        ("a.txt", "dog is an animal\n", "has the line 'dog is an animal'"),
        ("a.txt", "cat: An animal.\n", "describes none of the 3 classes .* it speaks of 'cat'"),
        ("a.txt", "", "it speaks of none"),
    ],
)
def test_files_that_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_descriptions(tmp_path / name, NAMES)
    with pytest.raises(DataError, match="cannot be read"):
        read_descriptions(tmp_path / "none.json", NAMES)


def test_a_class_that_is_misspelt_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog: An animal.\nredcar: A vehicle.\n")
    with pytest.warns(ClassNameWarning, match="Is 'redcar' meant for 'red_car'"):
        read_descriptions(tmp_path / "a.txt", NAMES)
