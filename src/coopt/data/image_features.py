"""Image features as a step of a scikit-learn pipeline: whatever model one likes stands on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from torch.nn.functional import normalize

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import resolved
from coopt.data.cache import FeatureCache
from coopt.data.features import extract_features
from coopt.events import tracked
from coopt.progress import progress_shown
from coopt.runtime import Runtime

if TYPE_CHECKING:
    from typing_extensions import Self


class ImageFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns images into features of a frozen model, each image once: they are kept in the feature cache.

        pipeline = make_pipeline(coopt.ImageFeatures("openclip:ViT-B-16/openai"), SVC())
        pipeline.fit(paths, labels).predict(others)

    Args:
        backbone: the model, or its name.
        normalised: features have length 1, so that products of two are their cosines; otherwise they are as the tower gives them.
        runtime: how the machine is used; see `coopt.Runtime`.
    """

    def __init__(
        self, backbone: str | Backbone = "bundled", normalised: bool = True, runtime: Runtime | None = None
    ) -> None:
        self.backbone, self.normalised, self.runtime = backbone, normalised, runtime

    def fit(self, images: Any, labels: Any = None) -> Self:
        """Loads the model; nothing is learned.

        Args:
            images: not looked at.
            labels: not looked at.

        Raises:
            BackboneError: the backbone is unknown, unsupported or not on this machine.
        """
        machine = self.runtime or Runtime()
        self.backbone_ = load_backbone(self.backbone, machine.device)
        return self

    def transform(self, images: Any) -> Float[np.ndarray, "n dim"]:
        """Features of images, one row for each.

        Args:
            images: paths, PIL images or arrays, or preprocessed pixels, as for `coopt.CoOp.fit`.

        Raises:
            BadImagesError: images cannot be read.
            DataError: there are none.
        """
        machine = self.runtime or Runtime()
        if not hasattr(self, "backbone_"):  # it learns nothing, so it needs no fit
            self.fit(images)
        cache = FeatureCache() if machine.cache is True else (machine.cache or None)
        with progress_shown(machine.verbose), machine.computing(), tracked("image features", len(images)) as progress:
            features = extract_features(
                self.backbone_,
                images,
                cache=cache,
                precision=resolved(machine.precision or "fp32", self.backbone_.device),
                progress=lambda done, total: progress.update(done),
            ).features[0]
        return (normalize(features.float(), dim=1) if self.normalised else features.float()).cpu().numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns: "clip0", "clip1", ..."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "backbone_")
        return np.array([f"clip{i}" for i in range(self.backbone_.embed_dim)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Images are no table of numbers, and need no fit."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.requires_fit = False
        return tags
