"""Heads: what stands behind a frozen image tower, as modules without gradients that can be exported.

Every head takes image features as the tower gives them (n, D), not normalised, and gives scores (n, C).

Notation: n images, C classes, N keys, M context vectors of width W, D width of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, one_hot, relu

from coopt.backbones.protocol import ScoreHead

ROWS_TOGETHER = 1024
"""Images whose affinities to all keys of a cache exist at once."""

META_NET = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
"""The tensors of CoCoOp's meta-net: Linear - ReLU - Linear."""


class CosineHead(nn.Module):
    """Each class has one feature, and images are compared with it as the backbone was trained to.

    Args:
        text_features: of the classes, normalised.
        score_head: the backbone's.
    """

    def __init__(self, text_features: Float[Tensor, "classes dim"], score_head: ScoreHead) -> None:
        super().__init__()
        self.register_buffer("text_features", text_features.detach())
        self.score_head = score_head

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        return self.score_head(normalize(features, dim=-1), self.get_buffer("text_features"))


class ProjectedHead(CosineHead):
    """Features of an image tower before its projection, projected by another matrix, and compared as by `CosineHead`.

    Args:
        projection: the matrix.
        bias: what the tower adds behind it; None: nothing.
        text_features: of the classes, normalised.
        score_head: the backbone's.
    """

    def __init__(
        self,
        projection: Float[Tensor, "width dim"],
        bias: Float[Tensor, " dim"] | None,
        text_features: Float[Tensor, "classes dim"],
        score_head: ScoreHead,
    ) -> None:
        super().__init__(text_features, score_head)
        self.register_buffer("projection", projection.detach())
        self.register_buffer("bias", projection.new_zeros(projection.shape[1]) if bias is None else bias.detach())

    def forward(self, features: Float[Tensor, "n width"]) -> Float[Tensor, "n classes"]:
        """Scores of image features before the projection."""
        return super().forward(features @ self.get_buffer("projection") + self.get_buffer("bias"))


class TwoFeaturesHead(CosineHead):
    """Two features of each image, (n, 2 D), each compared as by `CosineHead`, and a weighted mean of their scores.

    Args:
        text_features: of the classes, normalised.
        score_head: the backbone's.
        share: what the scores of the first feature count, from 0 to 1.
    """

    def __init__(self, text_features: Float[Tensor, "classes dim"], score_head: ScoreHead, share: float) -> None:
        super().__init__(text_features, score_head)
        self.share = share

    def forward(self, features: Float[Tensor, "n two_features"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        first, second = (super(TwoFeaturesHead, self).forward(one) for one in features.chunk(2, dim=-1))
        return self.share * first + (1 - self.share) * second


class LinearHead(nn.Module):
    """A linear layer on the features as they are.

    Args:
        weight: one row for each class.
        bias: one number for each class.
    """

    def __init__(self, weight: Float[Tensor, "classes dim"], bias: Float[Tensor, " classes"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.detach())

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        return features @ self.get_buffer("weight").T + self.get_buffer("bias")


class UnitLinearHead(LinearHead):
    """A linear layer on the normalised features."""

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        return super().forward(normalize(features, dim=-1))


class KernelHead(nn.Module):
    """Scores of hand-made prompts, and what each training image adds to images near it (ProKeR, Bendou et al., CVPR 2025).

    Args:
        text_features: of the classes, normalised.
        keys: the training images' features, normalised.
        values: what each key adds to the score of each class where it is met.
        beta: how fast that falls with distance: exp(-beta (1 - cosine)).
        score_head: the backbone's.
        alpha: weight of what is added.
    """

    def __init__(
        self,
        text_features: Float[Tensor, "classes dim"],
        keys: Float[Tensor, "keys dim"],
        values: Float[Tensor, "keys classes"],
        beta: float,
        score_head: ScoreHead,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("text_features", text_features.detach())
        self.register_buffer("keys", keys.detach())
        self.register_buffer("values", values.detach())
        self.alpha, self.beta = alpha, beta
        self.score_head = score_head

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        images = normalize(features, dim=-1)
        if torch.compiler.is_compiling():  # an exported graph has no loop over as many parts as there may be
            return self._scores(images)
        return torch.cat([self._scores(part) for part in images.split(ROWS_TOGETHER)])

    def _scores(self, images: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        cosines = images @ self.get_buffer("keys").T
        votes = key_votes(cosines, self.beta, self.get_buffer("values"))
        return self.score_head(images, self.get_buffer("text_features")) + self.alpha * votes


class CacheHead(KernelHead):
    """Scores of hand-made prompts, and votes of training images for their classes (Tip-Adapter, Zhang et al., ECCV 2022).

    Args:
        text_features: of the classes, normalised.
        keys: the training images' features, normalised.
        labels: the class of each key.
        alpha: weight of the votes.
        beta: how fast a vote falls with distance.
        score_head: the backbone's.
    """

    def __init__(
        self,
        text_features: Float[Tensor, "classes dim"],
        keys: Float[Tensor, "keys dim"],
        labels: Int[Tensor, " keys"],
        alpha: float,
        beta: float,
        score_head: ScoreHead,
    ) -> None:
        votes_of = one_hot(labels, len(text_features)).float()
        super().__init__(text_features, keys, votes_of, beta, score_head, alpha)


def key_votes(
    cosines: Float[Tensor, "n keys"], beta: float, votes_of: Float[Tensor, "keys classes"]
) -> Float[Tensor, "n classes"]:
    """What the keys of a cache say of images, given how near they are: exp(-beta (1 - cosine)) times what each has to say.

    Args:
        cosines: of images with keys.
        beta: how fast a vote falls with distance.
        votes_of: what each key has to say of the classes; in Tip-Adapter its class, one-hot.
    """
    return torch.exp(-beta * (1 - cosines)) @ votes_of


class ConditionalHead(nn.Module):
    """Every image shifts the context of the prompts, so it meets class features of its own (CoCoOp, Zhou et al., CVPR
    2022).

    Args:
        context: the shared vectors.
        meta_net: the tensors of `META_NET`, of the network from a normalised image feature to what is added to every
            context vector.
        text: the text pass, contexts (n, M, W) to class features (n, C, D): a `PlainText`, or a `TextEncoder`, which is
            faster and cannot be exported.
        score_head: the backbone's.
    """

    def __init__(
        self,
        context: Float[Tensor, "n_ctx width"],
        meta_net: Mapping[str, Tensor],
        text: Callable[[Tensor], Tensor],
        score_head: ScoreHead,
    ) -> None:
        super().__init__()
        self.register_buffer("context", context.detach())
        for name in META_NET:
            self.register_buffer(name.replace(".", "_"), meta_net[name].detach())
        self.text = text
        self.score_head = score_head

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Scores of image features."""
        images = normalize(features, dim=-1)
        if torch.compiler.is_compiling():
            return self._scores(images)
        at_once = getattr(self.text, "groups_at_once", ROWS_TOGETHER)
        return torch.cat([self._scores(part) for part in images.split(at_once)])

    def _scores(self, images: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        return self.score_head(images, normalize(self.text(self.contexts(images)), dim=-1))

    def contexts(self, images: Float[Tensor, "n dim"]) -> Float[Tensor, "n n_ctx width"]:
        """The context of every image, given its normalised feature."""
        meta_net = {name: self.get_buffer(name.replace(".", "_")) for name in META_NET}
        return shifted_contexts(self.get_buffer("context"), meta_net, images)


def shifted_contexts(
    context: Float[Tensor, "n_ctx width"], meta_net: Mapping[str, Tensor], images: Float[Tensor, "n dim"]
) -> Float[Tensor, "n n_ctx width"]:
    """The context of every image: the shared vectors plus what the meta-net makes of its normalised feature.

    Args:
        context: the shared vectors.
        meta_net: the tensors of `META_NET`.
        images: normalised image features.
    """

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, meta_net[f"{name}.weight"], meta_net[f"{name}.bias"])

    shift = layer("linear2", relu(layer("linear1", images)))
    return context + shift[:, None]
