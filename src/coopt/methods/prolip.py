"""ProLIP: the projection at the end of the image tower, fine-tuned.

Fahes, Vu, Bursuc, Perez, de Charette: "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", 2024, arXiv:2410.05270.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16: 83.90 / 74.78 / 79.08.

An image tower ends with a linear map W from its own width P into the shared embedding space. W alone is learned, by

    cross-entropy + lambda |W - W0|^2 (Frobenius),   lambda = 1 / shots,

with W0 the map as it was. All before it stays frozen, so that images go through the tower once: features before the projection
are kept in the feature cache, beside those behind it.

Notation: n images, C classes, P width of the image tower before its projection, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.backbones.image_tower import ImageTower, Projection
from coopt.data import FeatureCache
from coopt.errors import UnsupportedBackboneError
from coopt.inference.heads import ProjectedHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, ChangedImages, Forward
from coopt.methods.image_pass import ImageChanges
from coopt.methods.templated import TemplatedMethod
from coopt.parameters import parameter
from coopt.training.recipe import Recipe


class ProLIP(TemplatedMethod):
    """Learns the projection at the end of the image tower, held near what it was, against hand-made prompts.

    It needs images: in features that were computed before the projection is done already. Towers that do not end with a linear
    map, such as SigLIP's, are refused. `classifier()` and new classes are as with any method.

    The recipe "paper" is 300 steps of Adam at 0.00001 on all images, in one of 300 augmented views of each in every step, which
    are encoded once; "fast" takes 100 steps at 0.0001 on the test view alone. On the validation parts of the bundled data sets
    0.00001 is too little for 100 steps, and on six of them more than 0.0001, up to 0.003, changes nothing: the penalty decides.

    Attributes:
        learned_: {"projection": (P, D)}, applied as features @ projection.
        template_features_: normalised text features of the hand-made prompts, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "prolip"
    title: ClassVar[str] = "ProLIP"
    paper: ClassVar[str] = (
        "Fahes et al.: CLIP's Visual Embedding Projector is a Few-shot Cornucopia, 2024, arXiv:2410.05270"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, base": 83.9,
        "mean of 11 data sets, ViT-B/16, new": 74.78,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False)
    recipes: ClassVar[dict[str, Recipe]] = {
        "fast": Recipe(lr=1e-4, eps=1e-4, weight_decay=0.0, epochs=100),
        "paper": Recipe(
            name="paper",
            lr=1e-5,
            eps=1e-4,
            weight_decay=0.0,
            batch_size=1 << 16,
            epochs=300,
            steps_per_epoch=None,
            views=300,
        ),
    }

    penalty: float | None = parameter(
        default=None,
        low=0,
        help="The paper's lambda; none: 1 / shots, of the classes that have images on the mean.",
    )

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: the projection as it is.

        Raises:
            UnsupportedBackboneError: the image tower does not end with one.
        """
        return {"projection": projection_of(self.backbone_).matrix.cpu().contiguous()}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        frozen, learned = projection_of(self.backbone_), forward.parameters["projection"]
        images = batch.images @ learned
        images = images if frozen.bias is None else images + frozen.bias
        scores = forward.scores(forward.unchanged_text(), normalize(images, dim=-1))
        return batch.cross_entropy(scores) + self._pull * (learned - frozen.matrix).square().sum()

    def head(self) -> ProjectedHead:
        """See `ClipClassifier.head`: of features before the projection."""
        projection = self.learned_["projection"].to(self.backbone_.device)
        bias = projection_of(self.backbone_).bias
        return ProjectedHead(projection, bias, self.template_features_, self.backbone_.score_head)

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        classes = len(targets.unique())
        self._pull = classes / len(targets) if self.penalty is None else self.penalty
        try:
            super()._fit(features, targets)
        finally:
            self._forget("_pull")  # of these images alone

    def _image_encoder(self) -> tuple[Backbone, FeatureCache | None]:
        backbone, cache = super()._image_encoder()
        return unprojected(backbone), cache


class FrozenProjection(NamedTuple):
    """The linear map that an image tower ends with, without gradients.

    Attributes:
        matrix: applied as features @ matrix.
        bias: what is added; None: nothing.
    """

    matrix: Float[Tensor, "width dim"]
    bias: Float[Tensor, " dim"] | None


def projection_of(backbone: Backbone) -> FrozenProjection:
    """The linear map that the backbone's image tower ends with.

    Raises:
        UnsupportedBackboneError: it ends otherwise, or is not given away.
    """
    tower, known = _linear_end(backbone)
    weights = dict(tower.named_parameters())
    matrix = weights[known.weight].detach()
    bias = None if known.bias is None else weights[known.bias].detach()
    return FrozenProjection(matrix.T if known.transposed else matrix, bias)


def _linear_end(backbone: Backbone) -> tuple[ImageTower, Projection]:
    tower = backbone.image
    if tower is None or (known := tower.projection) is None:
        raise UnsupportedBackboneError(
            f"{backbone.name}: its image tower does not end with a linear projection into the space that images and texts share, "
            "which is what ProLIP learns. Use another method, or one of CLIP's models."
        )
    return tower, known


_UNPROJECTED: WeakKeyDictionary[Backbone, Backbone] = WeakKeyDictionary()


def unprojected(backbone: Backbone) -> Backbone:
    """The same model with features before the projection: its image tower with the identity in the projection's place.

    It has a fingerprint of its own, so the feature cache keeps the two apart.

    Raises:
        UnsupportedBackboneError: see `projection_of`.
    """
    if backbone not in _UNPROJECTED:
        tower, known = _linear_end(backbone)
        width = len(projection_of(backbone).matrix)
        weights = {known.weight: torch.eye(width, device=backbone.device)}
        if known.bias is not None:
            weights[known.bias] = torch.zeros(width, device=backbone.device)
        other = backbone.with_image_tower(ChangedImages(tower, ImageChanges(weights, {})))
        other.embed_dim = width
        _UNPROJECTED[backbone] = other
    return _UNPROJECTED[backbone]
