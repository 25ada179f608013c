"""What all methods share that train a few tensors by gradient descent on frozen image features.

Notation: N images, D dimension of the shared embedding space, V cached views.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones.tensors import fault_of
from coopt.data.sources import as_sources
from coopt.errors import ParameterError
from coopt.inference.heads import CosineHead
from coopt.locks import writing_file
from coopt.methods.forward import Batch, Forward
from coopt.methods.inputs import is_features, is_pixels
from coopt.methods.learning import BF16_SLACK, AllImages, Objective, all_images, class_weights, learn
from coopt.methods.pixels import TrainingPixels
from coopt.methods.shared_parameters import RECIPE, SEED
from coopt.methods.sited import SitedMethod
from coopt.methods.sites import TextBlocks, TextTokens, changes_images, class_specific, text_tokens
from coopt.methods.views import fresh_views
from coopt.methods.whole import WholeLoss
from coopt.parameters import fitted
from coopt.prompts.context import embedding_rms
from coopt.threads import threads_for
from coopt.training.batches import Views, batches_of, cached_views
from coopt.training.loop import Observer
from coopt.training.recipe import RECIPES, Recipe
from coopt.wording import on_command_line

if TYPE_CHECKING:
    from typing_extensions import Self


class LearnedMethod(SitedMethod):
    """Base of the methods that learn by a recipe. A subclass says where what it learns is put into the frozen model
    (`sites`), where training starts (`initial`), what it minimises (`loss`) and what predicts (`head`).

    Attributes:
        losses_: mean loss of every epoch; a step of L-BFGS is one.
        recipe_: the recipe with nothing left open.
        text_passes_: passes of all classes through the text tower and back; forward alone counts a third.
        stopped_: why learning ended, in words.
        agreements_: cosines of the gradients of halves of the images; see `coopt.training.refine`.
    """

    recipes: ClassVar[dict[str, Recipe]] = RECIPES
    """What the names of recipes mean for this method."""

    recipe: str | dict[str, Any] | Recipe = RECIPE
    seed: int = SEED

    losses_: list[float] = fitted()
    text_passes_: float = fitted()
    stopped_: str = fitted()
    agreements_: list[float] = fitted()

    @classmethod
    def runtime_used(cls) -> tuple[str, ...]:
        """See `ClipClassifier.runtime_used`."""
        return (*super().runtime_used(), "checkpoint")

    text_features_: Tensor = fitted()
    _class_weights: Float[Tensor, " classes"] | None = None
    _moment: tuple[int, int] = (0, 0)

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """What is minimised: unless a method says otherwise, the cross-entropy of the classes."""
        return batch.cross_entropy(forward.logits())

    def head(self) -> nn.Module:
        """See `ClipClassifier.head`: unless a method says otherwise, cosines with the text features."""
        return CosineHead(self.text_features_, self.backbone_.score_head)

    def units(self) -> dict[str, float]:
        """How large the numbers of the learned tensors are, by name, beside those that learning rates are meant for: 1
        unless they are vectors among word embeddings, which are larger in one text tower than in another."""
        unit = self._embedding_unit()
        return {one.tensor: unit for one in self.sites() if isinstance(one, TextTokens | TextBlocks)}

    def _embedding_unit(self) -> float:
        return 1.0 if (meant := self.recipe_.embedding_rms) is None else embedding_rms(self.backbone_) / meant

    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        """What is minimised over `learned`, the tensors of `initial` as leaves that ask for gradients."""
        shared = self._shared(learned, self.recipe_.batch_size)
        encode = shared.encode

        def loss_of(images: Tensor, targets: Tensor) -> Tensor:
            batch = Batch(images, targets, self._class_weights, self._moment)
            return self.loss(Forward(shared, learned, batch), batch)

        def shrink() -> bool:
            if shared.images is not None and shared.images.shrink():  # of both, they take more
                return True
            return encode is not None and encode.shrink(self._groups(encode))

        def whole(images: Tensor, targets: Tensor) -> WholeLoss:
            return WholeLoss(shared, learned, self.loss, images, targets, self._class_weights, shrink)

        tokens = text_tokens(self.sites())
        each_its_own = changes_images(self.sites()) or (tokens is not None and tokens.per_image)
        return Objective(loss_of, self.operations(learned, encode), shrink, None if each_its_own else whole)

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

    def _begin(self) -> None:
        """Called before anything is learned: forgets what was learned before."""
        self._forget("learned_", "_cached_views")

    def _forget(self, *names: str) -> None:
        for name in names:
            vars(self).pop(name, None)

    def _training_features(self, images: Any) -> tuple[Any, Sequence[int]]:
        self._begin()
        if not self.capabilities.image_tower:
            return self._training_views(images)
        _, kept = self._training_views(images)  # names the bad images, and the data for checkpoints
        sources = as_sources(images)
        readable = sources if isinstance(sources, Tensor) else [sources[i] for i in kept]
        return TrainingPixels(readable, self.backbone_.preprocessing, self.recipe_, self.seed), kept

    def _training_views(self, images: Any) -> tuple[Callable[[int], Views], Sequence[int]]:
        fixed = is_features(images) or is_pixels(images)  # these cannot be augmented
        if self.recipe_.views > 0 or fixed:
            views = ("test",) if fixed else ("test", *range(1, self.recipe_.views))
            extracted = self._features(images, views)
            self._cached_views = extracted.features
            self._data_hash = _hash_of(extracted.features)
            return lambda epochs: cached_views(extracted.features, self.seed), extracted.kept
        extracted = self._features(images, ("test",))  # names the bad images before anything is trained
        self._data_hash = _hash_of(extracted.features)
        readable = [images[i] for i in extracted.kept]
        frozen = self.backbone_, readable
        return lambda epochs: fresh_views(*frozen, epochs, self.seed, self.image_precision), extracted.kept

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        epochs = self.recipe_.epochs_for(int(torch.bincount(targets).max()), len(targets))
        n_classes, cached = len(self.class_names_), vars(self).get("_cached_views")
        self._class_weights = class_weights(targets, n_classes, self.recipe_.balance)
        try:
            self.learn(
                self.initial(),
                self._batches(features, targets, epochs),
                min(epochs, self.recipe_.steps or epochs),
                run=self._run_hash(targets),
                checkpoint=None if self.machine.checkpoint is None else Path(self.machine.checkpoint),
                all_images=all_images(cached, targets, n_classes, self.recipe_, self.seed, self.sites()),
            )
        finally:
            self._forget("_class_weights", "_cached_views")  # of this sample alone

    def _batches(
        self, features: Any, targets: Int[Tensor, " n"], epochs: int
    ) -> Callable[[int], Iterable[tuple[Tensor, Tensor]]]:
        """Given an epoch, its steps as the objective takes them; `features` is what `_training_features` returned."""
        if not isinstance(features, TrainingPixels):
            return batches_of(features(epochs), targets, self.recipe_, self.seed)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for index, pixels in features.steps(epoch):
                yield pixels.to(targets.device), targets[index.to(targets.device)]

        return batches

    def learn(
        self,
        initial: dict[str, Tensor],
        batches: Callable[[int], Any],
        epochs: int,
        *,
        run: str = "",
        checkpoint: Path | None = None,
        observer: Observer | None = None,
        all_images: AllImages | None = None,
    ) -> None:
        """Trains given tensors on given batches; `fit` prepares both. `backbone_` and the classes must be set.

        Args:
            initial: what to start from, by name.
            batches: given an epoch, its steps as (image features, targets).
            epochs: how many.
            run: see `coopt.training.loop.train`, as for the next two.
            checkpoint: where to keep the state.
            observer: is told of every step and epoch.
            all_images: for the steps after the epochs; None: there are none.
        """
        device = self.backbone_.device
        learned = {k: v.to(device, torch.float32).clone().requires_grad_() for k, v in initial.items()}
        objective = self._objective(learned)
        alone = nullcontext() if checkpoint is None else writing_file(checkpoint, "checkpoint")
        with alone, threads_for(objective.operations):
            came = learn(
                objective,
                learned,
                lambda epoch: self._counted(epoch, batches(epoch)),
                self.recipe_,
                epochs,
                all_images,
                seed=int(self.seed),
                units=dict.fromkeys(learned, 1.0) | self.units(),
                checkpoint=checkpoint,
                run=run,
                observer=observer,
                slack=BF16_SLACK if self.precision_ == "bf16" else 0.0,
                fault=lambda: fault_of(self.backbone_, self.image_precision),
            )
        self.losses_, self.text_passes_, self.stopped_, self.agreements_ = came
        self._forget("_moment")
        self._set_state(learned)

    def _counted(self, epoch: int, steps: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Steps of an epoch, each of which knows its number while it is taken."""
        for i, step in enumerate(steps):
            self._moment = (epoch, i)
            yield step

    def _state(self) -> dict[str, Tensor]:
        return self.learned_

    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.initial().items()}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.learned_ = {name: tensor.float().cpu() for name, tensor in state.items()}
        learned = {name: tensor.to(self.backbone_.device) for name, tensor in self.learned_.items()}
        if (tokens := text_tokens(self.sites())) is None or not tokens.per_image:
            self.text_features_ = self._text_features(learned)

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """See `ClipClassifier.with_classes`."""
        if class_specific(self.sites()) & self._state().keys():  # what is computed from others can be computed anew
            raise ParameterError(
                "A class-specific context belongs to its classes. Fit one for the new classes, or one for all classes "
                f"({'`coopt fit` without --csc' if on_command_line() else 'csc=False'})."
            )
        return super().with_classes(class_names)

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
