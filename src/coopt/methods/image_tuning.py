"""Fine-tuning of the whole image encoder, the baseline that overfits, against which CoOp is compared.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134, table 5.
Published: ImageNet, 16 shots, RN50: 18.28 (zero-shot 58.18, CoOp 62.95).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.precision import UsedPrecision
from coopt.data import FeatureCache, Features
from coopt.data.sources import (
    BadContent,
    View,
    as_sources,
    decode_views,
    default_workers,
    ordered_map,
    read_content,
)
from coopt.errors import DataError, SavedFileError
from coopt.methods.capabilities import Capabilities
from coopt.methods.inputs import is_features
from coopt.methods.learned import Objective
from coopt.methods.templated import TemplatedMethod
from coopt.parameters import fitted
from coopt.training.batches import batch_order, generator_for
from coopt.training.recipe import PAPER, Recipe

_FAST = Recipe(lr=3e-5, warmup_lr=1e-6, batch_size=32, epochs=20, steps_per_epoch=None)


class ImageEncoderTuning(TemplatedMethod):
    """Trains every weight of a copy of the image encoder, against the fixed text features of hand-made prompts.

    It needs images: features that the frozen backbone made before mean nothing to an encoder that has changed, so they
    are refused, and its own are never kept in the feature cache. The statistics of batch normalisation stay those of
    pre-training. Images are decoded anew for every step, because the pixels of all seldom fit in memory.

    The recipe "fast" means 20 epochs of Adam at 0.00003 here, in batches of 32; "paper" is CoOp's, at whose learning rate the
    encoder forgets. The runtime's precision is of the text tower alone: the image encoder learns and predicts in fp32.

    A saved file holds the whole tuned image encoder: 345 MB for ViT-B/16.

    Attributes:
        tower_: the tuned image encoder: pixels (n, 3, h, w) to features (n, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "image_tuning"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134, table 5"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 18.28,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)
    recipes: ClassVar[dict[str, Recipe]] = {"fast": _FAST, "paper": PAPER}

    tower_: nn.Module = fitted()

    def _training_features(self, images: Any) -> tuple[TrainingPixels, Sequence[int]]:
        self.tower_ = self.backbone_.image_tower()
        # The features that the tower starts from name the bad images, and the data for checkpoints.
        _, kept = super()._training_features(images)
        sources = as_sources(images)
        readable = sources if isinstance(sources, Tensor) else [sources[i] for i in kept]
        return TrainingPixels(readable, self.backbone_.preprocessing, self.recipe_, self.seed), kept

    def _batches(
        self, features: TrainingPixels, targets: Int[Tensor, " n"], epochs: int
    ) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for index, pixels in features.steps(epoch):
                yield pixels.to(targets.device), targets[index.to(targets.device)]

        return batches

    def _initial(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.tower_.named_parameters()}

    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        tower, text, scale = self.tower_, self.template_features_, self.backbone_.logit_scale

        def loss_of(pixels: Tensor, targets: Tensor) -> Tensor:
            features = functional_call(tower, learned, (pixels,))
            return cross_entropy(scale * normalize(features, dim=-1) @ text.T, targets)

        size = sum(tensor.numel() for tensor in learned.values())
        return Objective(loss_of, 6 * size * self.recipe_.batch_size)  # at least: most weights meet many positions

    @property
    def image_precision(self) -> UsedPrecision:
        """Always "fp32": the encoder predicts as it learned."""
        return "fp32"

    def _image_encoder(self) -> tuple[Backbone, FeatureCache | None]:
        return self.backbone_.with_image_tower(self.tower_), None

    def _features(self, images: Any, views: Sequence[View], on_bad_image: str | None = None) -> Features:
        if is_features(images):
            raise DataError(
                f"Got a table of features, but {type(self).__name__} changes the image encoder, to which features made "
                "before mean nothing. Give images: paths, PIL images or preprocessed pixels."
            )
        return super()._features(images, views, on_bad_image)

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        return self.backbone_.logit_scale * normalize(features, dim=-1) @ self.template_features_.T

    def _state(self) -> dict[str, Tensor]:
        return self._initial()

    def _check_state(self, state: dict[str, Tensor]) -> None:
        expected = {name: tuple(tensor.shape) for name, tensor in self.backbone_.image_tower().named_parameters()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != expected:
            wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise SavedFileError(
                f"The saved image encoder does not fit {self.backbone_.name}: {wrong[0]!r} has shape "
                f"{found.get(wrong[0])}; expected {expected.get(wrong[0])} ({len(wrong)} such tensors)."
            )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.tower_ = self.backbone_.image_tower()
        self.tower_.load_state_dict(state, strict=False)  # buffers are the backbone's

    def with_classes(self, class_names: Sequence[str]) -> ImageEncoderTuning:
        """The same image encoder for other class names: a new fitted estimator; this one is unchanged.

        Raises:
            DataError: fewer than two names, or blank ones.
        """
        other = self._copy_with(class_names)
        assert isinstance(other, ImageEncoderTuning)
        return other


@dataclass(frozen=True)
class TrainingPixels:
    """The pixels of training images, step by step.

    Attributes:
        images: paths and PIL images, or pixels that are preprocessed already.
        preprocessing: the backbone's.
        recipe: its `views` say how images are looked at; see `coopt.Recipe`.
        seed: of views and order.
    """

    images: Sequence[Any] | Float[Tensor, "n 3 height width"]
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int

    def steps(self, epoch: int) -> Iterator[tuple[Int[Tensor, " batch"], Float[Tensor, "batch 3 height width"]]]:
        """Which images each step of an epoch takes, and their pixels."""
        order = batch_order(len(self.images), epoch, self.recipe, self.seed)
        if isinstance(self.images, Tensor):
            yield from ((index, self.images[index].float()) for index in order)
            return
        views, workers = self.views(epoch), default_workers()
        with ThreadPoolExecutor(workers, thread_name_prefix="coopt-decode") as pool:
            for index in order:
                items = [(i, views[i]) for i in index.tolist()]
                yield index, torch.stack(list(ordered_map(pool, self._pixels, items, window=2 * workers)))

    def views(self, epoch: int) -> list[View]:
        """How every image is looked at in an epoch: drawn as for the methods that learn from features."""
        n = len(self.images)
        if self.recipe.views == 0:
            return [int(torch.randint(2**31, (), generator=generator_for(self.seed, epoch, 2)))] * n
        drawn = torch.randint(self.recipe.views, (n,), generator=generator_for(self.seed, epoch, 1))
        return ["test" if view == 0 else view for view in drawn.tolist()]

    def _pixels(self, item: tuple[int, View]) -> Float[Tensor, "3 height width"]:
        position, view = item
        content = read_content((position, self.images[position]), self.preprocessing.value_range)
        decoded = content if isinstance(content, BadContent) else decode_views(content, self.preprocessing, [view])
        if isinstance(decoded, BadContent):
            raise decoded.error
        return decoded[0][0]
