"""What all methods share that train a few tensors by gradient descent on frozen image features.

Notation: N images, D dimension of the shared embedding space, V cached views.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.tensors import fault_of
from coopt.data import extract_features
from coopt.locks import writing_file
from coopt.methods.base import ClipClassifier
from coopt.methods.inputs import is_features, is_pixels
from coopt.methods.shared_parameters import RECIPE, SEED
from coopt.parameters import fitted
from coopt.threads import threads_for
from coopt.training.batches import Views, batches_of, cached_views, generator_for
from coopt.training.loop import Observer, train
from coopt.training.recipe import RECIPES, Recipe

FRESH_VIEWS_TOGETHER = 512
"""Freshly augmented views that are encoded in one go."""


@dataclass(frozen=True)
class Objective:
    """What a method minimises.

    Attributes:
        loss_of: the loss of a step's (image features (n, D), targets (n,)).
        operations: floating-point operations of one step, roughly: small work is kept on one thread.
        shrink: makes the steps that follow hold less memory; False where that cannot be.
    """

    loss_of: Callable[[Tensor, Tensor], Tensor]
    operations: int
    shrink: Callable[[], bool] = lambda: False


class LearnedMethod(ClipClassifier):
    """Base of the methods that learn by a recipe. A subclass says where training starts, and what it minimises.

    Attributes:
        losses_: mean loss of every epoch.
        recipe_: the recipe with nothing left open.
    """

    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    """What the names of recipes mean for this method."""

    recipe: str | dict[str, Any] | Recipe = RECIPE
    seed: int = SEED

    recipe_: Recipe = fitted()
    losses_: list[float] = fitted()

    @classmethod
    def runtime_used(cls) -> tuple[str, ...]:
        """See `ClipClassifier.runtime_used`."""
        return (*super().runtime_used(), "checkpoint")

    @abstractmethod
    def _initial(self) -> dict[str, Tensor]:
        """The tensors to train, by name, as they begin; `backbone_` and the classes are set."""

    @abstractmethod
    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        """What is minimised over `learned`, the tensors of `_initial` as leaves that ask for gradients."""

    def step_bytes(self, backbone: Backbone, class_names: Sequence[str]) -> int:
        """Bytes that a training step's text pass will hold above the model, at most; 0 for a method without one.

        Raises:
            CooptError: see `fit`.
        """
        return 0

    def _before_fit(self, backbone: Backbone, class_names: Sequence[str]) -> LearnedMethod:
        """A copy that knows its classes; this one is unchanged."""
        other = copy.copy(self)
        other.check_parameters()
        other._set_classes(backbone, class_names, named=True)
        return other

    def check_parameters(self) -> None:
        """See `Declared.check_parameters`."""
        super().check_parameters()
        self.recipe_ = self.full_recipe

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that decide what is learned, ready for JSON; the recipe with all its fields."""
        return {**super().parameters, "recipe": self.full_recipe.to_dict()}

    @property
    def full_recipe(self) -> Recipe:
        """The recipe, with the fields that its name stands for.

        Raises:
            ParameterError: see `Recipe.of`.
        """
        return Recipe.of(self.recipe, self.recipes)

    def _training_features(self, images: Any) -> tuple[Callable[[int], Views], Sequence[int]]:
        fixed = is_features(images) or is_pixels(images)  # these cannot be augmented
        if self.recipe_.views > 0 or fixed:
            views = ("test",) if fixed else ("test", *range(1, self.recipe_.views))
            found = self._features(images, views)
            self._data_hash = _hash_of(found.features)
            return lambda epochs: cached_views(found.features, self.seed), found.kept
        found = self._features(images, ("test",))  # names the bad images before anything is trained
        self._data_hash = _hash_of(found.features)
        readable = [images[i] for i in found.kept]
        return lambda epochs: self._fresh_views(readable, epochs), found.kept

    def _fresh_views(self, images: Sequence[Any], epochs: int) -> Views:
        """A new augmented view of every image in every epoch.

        Several epochs are encoded together: images are decoded once for them, and a few images alone would leave the
        image tower idle. Which epochs go together depends on nothing else, so a resumed run sees the same bits.
        """
        together = max(1, FRESH_VIEWS_TOGETHER // len(images))
        known: dict[int, Tensor] = {}

        def fresh(epoch: int) -> Float[Tensor, "n dim"]:
            if epoch not in known:
                known.clear()
                first = epoch - epoch % together
                block = range(first, min(first + together, epochs))
                seeds = [int(torch.randint(2**31, (), generator=generator_for(self.seed, e, 2))) for e in block]
                found = extract_features(self.backbone_, images, views=seeds, precision=self.image_precision)
                known.update(zip(block, found.features.to(self.backbone_.device), strict=True))
            return known[epoch]

        return fresh

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        epochs = self.recipe_.epochs_for(int(torch.bincount(targets).max()))
        self.learn(
            self._initial(),
            self._batches(features, targets, epochs),
            epochs,
            run=self._run_hash(targets),
            checkpoint=None if self.machine.checkpoint is None else Path(self.machine.checkpoint),
        )

    def _batches(
        self, features: Any, targets: Int[Tensor, " n"], epochs: int
    ) -> Callable[[int], Iterable[tuple[Tensor, Tensor]]]:
        """Given an epoch, its steps as the objective takes them; `features` is what `_training_features` returned."""
        return batches_of(features(epochs), targets, self.recipe_, self.seed)

    def learn(
        self,
        initial: dict[str, Tensor],
        batches: Callable[[int], Any],
        epochs: int,
        *,
        run: str = "",
        checkpoint: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Trains given tensors on given batches; `fit` prepares both. `backbone_` and the classes must be set.

        Args:
            initial: what to start from, by name.
            batches: given an epoch, its steps as (image features, targets).
            epochs: how many.
            run: see `coopt.training.loop.train`, as for the next two.
            checkpoint: where to keep the state.
            observer: is told of every step and epoch.
        """
        device = self.backbone_.device
        learned = {k: v.to(device, torch.float32).clone().requires_grad_() for k, v in initial.items()}
        objective = self._objective(learned)
        alone = nullcontext() if checkpoint is None else writing_file(checkpoint, "checkpoint")
        with alone, threads_for(objective.operations):
            self.losses_ = train(
                learned,
                objective.loss_of,
                batches,
                self.recipe_,
                epochs,
                checkpoint=checkpoint,
                run=run,
                observer=observer,
                shrink=objective.shrink,
                fault=lambda: fault_of(self.backbone_, self.image_precision),
            )
        self._set_state(learned)

    def _run_hash(self, targets: Tensor) -> str:
        """Identifies a run: its parameters, data, backbone and classes."""
        what = {
            "method": self.method,
            "parameters": self.parameters,
            "classes": self.class_names_,
            "backbone": self.backbone_.fingerprint,
            "images": self._data_hash,
            "targets": targets.tolist(),
        }
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _hash_of(features: Tensor) -> str:
    return hashlib.sha256(features.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
