"""Pixels to class names, in one module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from coopt import ZeroShot
from coopt.backbones import Backbone
from coopt.errors import DataError
from coopt.inference.classifier import FrozenClassifier
from coopt.inference.heads import CosineHead
from tests.models import small_open_clip

NAMES = ["cat", "dog", "red bird"]


@pytest.fixture(scope="module", params=["openai", "open_clip"])
def model(request: pytest.FixtureRequest, backbone: Backbone) -> Backbone:
    return backbone if request.param == "openai" else small_open_clip()


def classifier_of(backbone: Backbone, link: Any = "softmax") -> FrozenClassifier:
    generator = torch.Generator().manual_seed(1)
    text = normalize(torch.randn(len(NAMES), backbone.embed_dim, generator=generator), dim=-1)
    head = CosineHead(text, backbone.score_head)
    assert backbone.image is not None
    return FrozenClassifier(backbone.image, head, NAMES, backbone.preprocessing, link)


def pictures(count: int = 5) -> list[Image.Image]:
    draw = np.random.RandomState(0)
    return [Image.fromarray(draw.randint(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(count)]


def test_scores_are_those_of_tower_and_head(model: Backbone) -> None:
    classifier = classifier_of(model)
    pixels = torch.stack([model.preprocessing.test(one) for one in pictures()])
    with torch.no_grad():
        assert torch.equal(classifier(pixels), classifier.head(model.encode_image(pixels)))


def test_predictions(model: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, images = classifier_of(model), pictures()
    pixels = torch.stack([model.preprocessing.test(one) for one in images])
    with torch.no_grad():
        scores = classifier(pixels)
    expected = [NAMES[best] for best in scores.argmax(1)]
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    for given in (images, paths, [np.asarray(one) for one in images], pixels):
        assert classifier.predict(given) == expected
    torch.testing.assert_close(classifier.predict_proba(images), scores.softmax(1))
    torch.testing.assert_close(classifier_of(model, "sigmoid").predict_proba(images), scores.sigmoid())
    monkeypatch.setattr("coopt.inference.classifier.IMAGES_TOGETHER", 2)
    assert classifier.predict(paths) == expected
    assert classifier.predict([]) == [] and classifier.predict_proba([]).shape == (0, len(NAMES))


def test_what_is_no_list_of_images_is_refused(model: Backbone) -> None:
    with pytest.raises(DataError, match=r"Expected a list of images. Got a single Image; write \[image\]"):
        classifier_of(model).predict(pictures(1)[0])
    with pytest.raises(DataError, match="must know the names of its classes"):
        FrozenClassifier(torch.nn.Identity(), torch.nn.Identity(), [], model.preprocessing)


def test_exported(model: Backbone) -> None:
    classifier = classifier_of(model)
    pixels = torch.randn(3, 3, *model.preprocessing.size, generator=torch.Generator().manual_seed(2))
    images = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(classifier, (pixels[:2],), dynamic_shapes={"pixels": {0: images}})
    with torch.no_grad():
        torch.testing.assert_close(program.module()(pixels), classifier(pixels), atol=1e-3, rtol=1e-4)


def test_agrees_with_a_method(backbone: Backbone) -> None:
    method = ZeroShot(backbone).fit_classes(NAMES)
    assert backbone.image is not None
    head = CosineHead(method.text_features_, backbone.score_head)
    classifier = FrozenClassifier(backbone.image, head, method.class_names_, backbone.preprocessing)
    assert classifier.predict(pictures()) == list(method.predict(pictures()))
