"""What methods are tested on: a method, a few images of four classes, and how it is said what does not hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from coopt.backbones import Backbone
from coopt.runtime import Runtime

CLASS_NAMES = ["forest_road", "cat", "o'clock", "3d printer"]


@dataclass
class Problem:
    """A method, and a few images of four classes."""

    cls: Any
    parameters: dict[str, Any]
    backbone: Backbone

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        centres = np.kron(random.normal(size=(4, 3, 4, 4)), np.ones((8, 8)))
        noise = random.normal(size=(24, 3, 32, 32))
        self.pixels = (np.tile(centres, (6, 1, 1, 1)) + 0.1 * noise).astype(np.float32)
        self.features = self.backbone.encode_image(torch.from_numpy(self.pixels)).numpy()
        self.numbers = np.tile(np.arange(4), 6)
        self.labels = np.array(CLASS_NAMES)[self.numbers]
        self.images = self.features if self.cls.capabilities.features_only else self.pixels

    def estimator(self, **more: Any) -> Any:
        """One that is not fitted yet."""
        given = {"runtime": Runtime(cache=False), **self.parameters, **more}
        return self.cls(self.backbone, **given)

    def fitted(self, **more: Any) -> Any:
        """One that is."""
        return self.estimator(**more).fit(self.images, self.labels)

    @functools.cached_property
    def reference(self) -> Any:
        """A fitted one for whoever changes nothing of it."""
        return self.fitted()

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """What it says of the images."""
        return self.reference.logits(self.images)

    def hold(self, condition: Any, expected: str) -> None:
        """Says what was expected where it does not hold."""
        if not condition:
            raise AssertionError(f"{self.cls.__name__}: {expected}")

    def refused(self, errors: type[Exception], call: Callable[[], Any], what: str, mentions: str = "") -> None:
        """Sees to it that something is refused, by an error that says what it is about."""
        expected = f"{what} must be refused with {errors.__name__}"
        try:
            call()
        except errors as error:
            self.hold(mentions in str(error), f"{expected} that mentions {mentions!r}. It says: {error}")
        except Exception as error:
            raise AssertionError(f"{self.cls.__name__}: {expected}. Got {type(error).__name__}: {error}") from error
        else:
            self.hold(False, f"{expected}, and was taken.")
