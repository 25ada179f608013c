"""What all methods share: parameters, labels, image features, predictions. Estimators in scikit-learn's sense.

Notation: N images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import UsedPrecision, is_slow, resolved, warn_of_slow_bf16
from coopt.backbones.protocol import Link, probabilities_of
from coopt.backbones.tensors import settled
from coopt.data import (
    FeatureCache,
    Features,
    as_class_names,
    as_features,
    as_labels,
    encode_labels,
    extract_features,
)
from coopt.data.sources import View
from coopt.errors import DataError, FewShotsWarning, ParameterError, SavedFileError
from coopt.events import tracked
from coopt.inference.classifier import FrozenClassifier
from coopt.methods.configured import Configured
from coopt.methods.estimator import check_fitted
from coopt.methods.finite import check_learned, check_logit_scale, check_scores
from coopt.methods.forward import frozen_images
from coopt.methods.inputs import as_images, is_features, is_pixels
from coopt.methods.saving import save
from coopt.parameters import fitted
from coopt.progress import progress_shown
from coopt.text.layout import check_class_names
from coopt.wording import counted, subject

if TYPE_CHECKING:
    from typing_extensions import Self

SCORES_TOGETHER = 1 << 26
"""Scores (images times classes) that prediction holds at once; bytes are four times as many."""


class ClipClassifier(Configured, ABC):
    """Base of all methods: image features against something learned or written.

    `images` is, everywhere: a list of paths, PIL images or arrays (H, W, 3) of uint8; one array (N, H, W, 3) of uint8;
    a float tensor (N, 3, H, W) of preprocessed pixels; or a table (N, D) of features computed before (array or tensor,
    not normalised), where the method's capabilities allow `features_only`.
    """

    backbone_: Backbone = fitted()
    classes_: np.ndarray = fitted()
    class_names_: tuple[str, ...] = fitted()
    precision_: UsedPrecision = fitted()

    @abstractmethod
    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        """Learns from what `_training_features` returned."""

    @abstractmethod
    def head(self) -> nn.Module:
        """What was learned as a module: image features (n, D), not normalised, to scores (n, C)."""

    @property
    def links(self) -> tuple[Link, ...]:
        """What may make probabilities of scores: a softmax, and a sigmoid where the backbone was trained with one."""
        return ("softmax", "sigmoid") if self.backbone_.score_head.link == "sigmoid" else ("softmax",)

    def classifier(self, kind: Link = "softmax") -> FrozenClassifier:
        """All between pixels and probabilities as one module, which knows nothing of how it was learned.

        Args:
            kind: of its probabilities; see `predict_proba`.

        Raises:
            NotFittedError: nothing was learned yet.
            ParameterError: these scores have no probabilities of this kind.
        """
        check_fitted(self, "class_names_")
        self._check_kind(kind)
        backbone, _ = self._image_encoder()
        return FrozenClassifier(frozen_images(backbone), self.head(), self.class_names_, backbone.preprocessing, kind)

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features (not normalised)."""
        return self.head()(features)

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """What was learned, as named tensors: all that a saved file needs besides the parameters."""

    @abstractmethod
    def _take_state(self, state: dict[str, Tensor]) -> None:
        """Makes the estimator fitted; `backbone_` and the classes are set already."""

    def _set_state(self, state: dict[str, Tensor]) -> None:
        """`_take_state`, with every tensor in one layout: what was learned just now and what was loaded answer alike.

        Raises:
            TrainingError: a tensor is not finite.
        """
        check_learned(state, type(self).__name__)
        self._take_state({name: settled(tensor.detach()) for name, tensor in state.items()})

    def _check_state(self, state: dict[str, Tensor]) -> None:
        """Refuses tensors from a file that do not fit; `backbone_` and the classes are set.

        Raises:
            SavedFileError: a tensor has another shape than expected, or is one too many.
            KeyError: a tensor is missing.
        """
        shapes = self._shapes()
        if more := sorted(state.keys() - shapes.keys()):
            raise SavedFileError(f"There is a saved tensor {more[0]!r}, which {type(self).__name__} does not learn.")
        for name, expected in shapes.items():
            got = tuple(state[name].shape)
            if len(got) != len(expected) or any(e not in (None, g) for g, e in zip(got, expected, strict=True)):
                sizes = ", ".join("any" if size is None else str(size) for size in expected)
                raise SavedFileError(
                    f"The saved tensor {name!r} has shape {got}; expected ({sizes}{',' * (len(expected) == 1)}) for "
                    f"{self.backbone_.name} and {counted(len(self.class_names_), 'class')}."
                )

    @abstractmethod
    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shapes of what `_state` gives; None where any size will do."""

    def fit(self, images: Any, labels: Any) -> ClipClassifier:
        """Learns from labelled images.

        Args:
            images: see the class.
            labels: one per image: class names, or integers (then `class_names` says what they mean).

        Raises:
            ParameterError: a parameter is out of its range.
            DataError: images or labels are not usable.
            BackboneError: the backbone is unknown, unsupported or not on this machine.
        """
        self.check_parameters()
        images, labels = as_images(images), as_labels(labels)
        if len(images) == 0:
            raise DataError("Got no images to learn from. Expected at least one, with its label.")
        targets, names = encode_labels(labels, self.class_names, len(images))
        backbone = load_backbone(self.backbone, self.machine.device)
        with progress_shown(self.machine.verbose), self.machine.computing():
            self._set_classes(backbone, names, named=isinstance(labels[0], str))
            features, kept = self._training_features(images)
            targets = torch.from_numpy(targets[list(kept)]).to(backbone.device)
            self._check_every_class(targets, lost=len(kept) < len(images))
            self._fit(features, targets)
        return self

    needs_every_class: ClassVar[bool] = False
    """Whether fitting is refused when a class has no image."""

    def _check_every_class(self, targets: Int[Tensor, " n"], lost: bool) -> None:
        present = set(targets.tolist())
        missing = [name for i, name in enumerate(self.class_names_) if i not in present]
        if missing and self.needs_every_class:
            raise DataError(
                f"Class {missing[0]!r} has no image to learn from ({len(missing)} such classes). "
                "Add an image, or take the class out of class_names."
            )
        if missing and lost:
            warnings.warn(
                f"Class {missing[0]!r} has no readable image to learn from ({len(missing)} such classes), so the prompt "
                "is learned from the others and will rarely choose it. Replace its images.",
                FewShotsWarning,
                stacklevel=3,
            )

    def _training_features(self, images: Any) -> tuple[Any, Sequence[int]]:
        """What `_fit` learns from, and which of the images it covers."""
        extracted = self._features(images, ("test",))
        return extracted.features[0], extracted.kept

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        """What there is to know before learning, or loading; `precision`: another than the parameter says."""
        names = as_class_names(names)
        check_class_names(backbone, names)
        check_logit_scale(backbone)
        if precision is None and is_slow(self._asked_precision, backbone.device):
            warn_of_slow_bf16(backbone.device)
        self.precision_ = precision or resolved(self._asked_precision, backbone.device)
        self.backbone_ = backbone
        self.class_names_ = names
        self.classes_ = np.array(names) if named else np.arange(len(names))

    def _features(self, images: Any, views: Sequence[View], on_bad_image: str | None = None) -> Features:
        """Image features (V, n, D) on the backbone's device, from images or from features given."""
        backbone, cache = self._image_encoder()
        if is_features(images) and not self.capabilities.features_only:
            raise DataError(
                f"Got a table of features, but {type(self).__name__} changes the image encoder, to which features made "
                "before mean nothing. Give images: paths, PIL images or preprocessed pixels."
            )
        if is_features(images):
            given = as_features(images)
            if given.shape[1] != backbone.embed_dim:
                raise DataError(
                    f"Features have {given.shape[1]} columns, but {backbone.name} makes features of {backbone.embed_dim}. "
                    "Compute them with the same backbone."
                )
            return Features(settled(given)[None].to(backbone.device), tuple(range(len(given))))
        views = ("test",) if is_pixels(images) else views
        with tracked("image features", len(images)) as progress:
            extracted = extract_features(
                backbone,
                images,
                views=views,
                cache=cache,
                on_bad_image=on_bad_image or self.on_bad_image,  # type: ignore[arg-type]
                precision=self.image_precision,
                progress=lambda done, total: progress.update(done),
            )
        return Features(extracted.features.to(backbone.device), extracted.kept, extracted.skipped)

    def _image_encoder(self) -> tuple[Backbone, FeatureCache | None]:
        """Whose image tower makes the features, and where they are kept."""
        cache = self.machine.cache
        return self.backbone_, FeatureCache() if cache is True else (cache or None)

    def image_features(self, images: Any, on_bad_image: Literal["fail", "skip"] = "fail") -> Features:
        """Test-view features of images, as `predict` makes them; to be given to it instead of images, as they are."""
        check_fitted(self, "class_names_")
        with progress_shown(self.machine.verbose), self.machine.computing():
            return self._features(as_images(images), ("test",), on_bad_image)

    def logits(self, images: Any) -> Float[np.ndarray, "n classes"]:
        """Scores before the softmax; a bad image is an error, as every image must have its row."""
        check_fitted(self, "class_names_")
        return np.concatenate([np.zeros((0, len(self.class_names_)), np.float32), *self._logits_in_parts(images)])

    def _logits_in_parts(self, images: Any) -> Iterator[Float[np.ndarray, "part classes"]]:
        """Scores of some images after the other, so that many classes and many images never meet in one table."""
        if not isinstance(images, Features):
            images = as_images(images)
            if len(images) == 0:
                return
            images = self.image_features(images)
        features = settled(images.features[0])
        at_once = max(1, SCORES_TOGETHER // len(self.class_names_))
        with torch.no_grad():
            for i, part in enumerate(features.split(at_once)):
                scores = self._logits(part)
                which = images.kept[i * at_once :]
                check_scores(scores, part, which, self.class_names_, self.backbone_, self.precision_)
                yield scores.float().cpu().numpy()

    def predict_proba(self, images: Any, kind: Link = "softmax") -> Float[np.ndarray, "n classes"]:
        """Probabilities of the classes in the order of `classes_`.

        Args:
            images: see the class.
            kind: "softmax" for one class per image: they add up to 1. "sigmoid", with a backbone that was trained with
                one (SigLIP), for each class by itself, with the model's own bias: an image may show several, or none.

        Raises:
            ParameterError: the backbone or the method gives no probabilities of this kind.
        """
        check_fitted(self, "class_names_")
        self._check_kind(kind)
        return probabilities_of(torch.from_numpy(self.logits(images)), kind).numpy()

    def _check_kind(self, kind: str) -> None:
        if kind not in ("softmax", "sigmoid"):
            raise ParameterError(
                f"{subject('kind', 'predict_proba')} must be 'softmax' or 'sigmoid'. Got {kind!r} instead."
            )
        if kind not in self.links:
            raise ParameterError(
                f"{self.title[:1].upper()}{self.title[1:]} with {self.backbone_.name} has no probabilities of the kind "
                f"{kind!r}: a sigmoid takes scores of a model that was trained with one, as SigLIP was. Use 'softmax'."
            )

    def predict(self, images: Any) -> np.ndarray:
        """The most probable class of each image, in the form that labels had when fitting (names or integers)."""
        check_fitted(self, "class_names_")
        return self.classes_[self._best(images)]

    def _best(self, images: Any) -> Int[np.ndarray, " n"]:
        """The index of the most probable class of each image."""
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *(scores.argmax(axis=1) for scores in self._logits_in_parts(images))])

    def score(self, images: Any, labels: Any, sample_weight: Any = None) -> float:
        """The share of the images that are recognised, from 0 to 1.

        Args:
            images: see the class.
            labels: one per image: class names or integers, whichever was fitted with.
            sample_weight: what each image counts; None: all alike.

        Raises:
            DataError: no images, or another number of labels.
        """
        check_fitted(self, "class_names_")
        values, best = as_labels(labels), self._best(images)
        if len(best) != len(values):
            got = f"{counted(len(values), 'label')} for {counted(len(best), 'image')}"
            raise DataError(f"Got {got}. Expected one label per image.")
        if not values:
            raise DataError("Got no images to score. Expected at least one, with its label.")
        from sklearn.metrics import accuracy_score

        names = np.array(self.class_names_) if isinstance(values[0], str) else np.arange(len(self.class_names_))
        return float(accuracy_score(values, names[best], sample_weight=sample_weight))

    def with_classes(self, class_names: Sequence[str]) -> Self:
        """The same learned prompt for other classes: a new fitted estimator; this one is unchanged.

        Raises:
            ParameterError: what was learned belongs to its classes (class-specific context, a linear probe).
            DataError: fewer than two names, blank or repeated ones, a single text, or a set (which has no order).
        """
        if not self.capabilities.new_classes:
            raise ParameterError(f"A fitted {type(self).__name__} belongs to its classes; fit one for the new classes.")
        other = self._copy_with(class_names)
        other._set_state(self._state())
        return other

    def save(self, path: str | Path) -> Path:
        """Saves what was learned (kilobytes, never the backbone) into the folder `path`; `coopt.load` reads it back."""
        return save(self, Path(path))

    def _copy_with(self, names: Sequence[str]) -> Self:
        """A fitted copy for other class names, with nothing yet computed from them."""
        check_fitted(self, "class_names_")
        other = copy.copy(self)
        other.class_names = list(as_class_names(names))
        other._set_classes(self.backbone_, other.class_names, named=True, precision=self.precision_)
        return other

    @property
    def _text_options(self) -> dict[str, Any]:
        """How prompts are encoded, as `TextEncoder` and `template_features` take it."""
        return {"path": self.machine.text_path, "precision": self.precision_, "memory": self.machine.memory}
