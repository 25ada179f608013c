"""Forward: the frozen model with what a method learns put in at its sites, for one step of training or for prediction.

Notation: n images, C classes, M context vectors of width W, D width of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.methods.image_pass import ImageChanges, ImagePass, changed_features
from coopt.methods.sites import (
    ImageBlocks,
    ImageReadOut,
    Site,
    TextBlocks,
    deep_vectors,
    text_inserted,
    text_tokens,
    weights_in,
)
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts, inserted_prompts, template_prompts

Weights = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Given a tower ("text" or "image") and what was learned: the weights that stand for the tower's own."""

PutIn = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Given what was learned: what stands at the sites, by the names that they have for it."""


class Batch(NamedTuple):
    """The images of a step: features of the frozen tower, or pixels where a site is in the image tower; and their classes.

    Attributes:
        images, targets: n of them.
        class_weights: what an image of each class counts; None: all count 1.
        moment: the epoch, and the step of it: what a loss draws at random depends on these and the seed, so that a run that was
            stopped goes on with the same bits.
    """

    images: Tensor
    targets: Int[Tensor, " n"]
    class_weights: Float[Tensor, " classes"] | None = None
    moment: tuple[int, int] = (0, 0)

    def cross_entropy(self, scores: Float[Tensor, "n classes"], where: slice | None = None) -> Float[Tensor, ""]:
        """The mean over the images of the cross-entropy of their scores, each image weighed as its class is.

        Args:
            scores: of the images; of those `where` says, then their part of the mean.
            where: some of the images; None: all.
        """
        targets = self.targets if where is None else self.targets[where]
        if self.class_weights is None and where is None:
            return cross_entropy(scores, targets)
        # Not torch's weighted mean, which divides by the weights of the batch: parts would no longer add up.
        return cross_entropy(scores, targets, self.class_weights, reduction="sum") / len(self.targets)


@dataclass(frozen=True)
class Sites:
    """What all steps of one training share.

    Attributes:
        backbone: the frozen model.
        sites: where what is learned is put in.
        put_in: see `PutIn`.
        weights: see `Weights`.
        encode: the text pass; None where no site is in the text.
        unchanged_text: normalised text features of the classes under hand-made prompts.
        images: the image pass; None where no site is in the image tower.
    """

    backbone: Backbone
    sites: Sequence[Site]
    put_in: PutIn
    weights: Weights
    encode: TextEncoder | None
    unchanged_text: Callable[[], Float[Tensor, "classes dim"]]
    images: ImagePass | None


class Forward:
    """One step's way through the model; what is asked for twice is computed once.

    Args:
        shared: with other steps.
        parameters: what is learned, by name.
        batch: the step's images.
        text: normalised features of the classes, where they are known.
    """

    def __init__(
        self, shared: Sites, parameters: Mapping[str, Tensor], batch: Batch, text: Tensor | None = None
    ) -> None:
        self._shared, self.parameters, self._batch = shared, parameters, batch
        self._images: tuple[Tensor, ...] | None = None
        self._unchanged: Tensor | None = None
        self._text = text

    def under(self, parameters: Mapping[str, Tensor]) -> Forward:
        """The same step with other values in the place of what is learned, such as these with some of them dropped."""
        return Forward(self._shared, parameters, self._batch)

    def images(self) -> Float[Tensor, "n dim"]:
        """Normalised features of the batch's images: those of the frozen tower, unless a site is in it."""
        return self.image_features()[0]

    def image_features(self) -> tuple[Float[Tensor, "n dim"], ...]:
        """Normalised features of the batch's images, and of the tokens that were added where these are read out."""
        if self._images is None:
            features = self._batch.images
            if self._shared.images is not None:
                features = run_images(self._shared, self.parameters, features)
            parts = 2 if any(isinstance(one, ImageReadOut) for one in self._shared.sites) else 1
            self._images = tuple(normalize(one, dim=-1) for one in features.chunk(parts, dim=-1))
        return self._images

    def text(self, contexts: Tensor | None = None) -> Float[Tensor, "*n classes dim"]:
        """Normalised features of the classes.

        Args:
            contexts: other context vectors than were learned: one set for each of some images, (n, M, W).
        """
        if contexts is not None:
            return normalize(run_text(self._shared, self.parameters, contexts), dim=-1)
        if self._text is None and self._shared.encode is not None:
            self._text = normalize(run_text(self._shared, self.parameters), dim=-1)
        return self._shared.unchanged_text() if self._text is None else self._text

    def unchanged_images(self) -> Float[Tensor, "n dim"]:
        """Normalised features of the batch's images by the frozen tower, for which no gradient is asked."""
        if self._shared.images is None:
            return self.images()
        if self._unchanged is None:
            with torch.no_grad():
                self._unchanged = normalize(self._shared.images.tower(self._batch.images), dim=-1)
        return self._unchanged

    def unchanged_text(self) -> Float[Tensor, "classes dim"]:
        """Normalised features of the classes under the method's hand-made prompts, which are computed once."""
        return self._shared.unchanged_text()

    def scores(self, text: Float[Tensor, "*n classes dim"], images: Tensor | None = None) -> Float[Tensor, "n classes"]:
        """The backbone's scores of the images (or of others) against text features, all normalised."""
        return self._shared.backbone.score_head(self.images() if images is None else images, text)

    def logits(self) -> Float[Tensor, "n classes"]:
        """Scores of the images against the classes."""
        return self.scores(self.text())

    @property
    def groups_at_once(self) -> int:
        """How many images with contexts of their own fit into the memory together."""
        assert self._shared.encode is not None
        return self._shared.encode.groups_at_once


def run_text(shared: Sites, parameters: Mapping[str, Tensor], contexts: Tensor | None = None) -> Tensor:
    """Text features under what was learned, not normalised."""
    assert shared.encode is not None
    tokens, placed = text_tokens(shared.sites), shared.put_in(parameters)
    context = placed[tokens.tensor] if contexts is None and tokens is not None else contexts
    deep = {one.block: placed[one.tensor] for one in deep_vectors(shared.sites)}
    weights = dict(shared.weights("text", parameters)) if weights_in(shared.sites, "text") else {}
    return shared.encode(context, deep, weights)


def run_images(shared: Sites, parameters: Mapping[str, Tensor], pixels: Tensor) -> Float[Tensor, "n dim"]:
    """Features of pixels under what was learned, not normalised."""
    assert shared.images is not None
    return shared.images(pixels, image_changes(shared.sites, shared.put_in, shared.weights, parameters))


def frozen_images(backbone: Backbone) -> nn.Module:
    """The backbone's image tower, frozen and shared.

    Raises:
        UnsupportedBackboneError: this kind of backbone does not give it away.
    """
    return backbone.image_tower() if backbone.image is None else backbone.image


def image_changes(
    sites: Sequence[Site], put_in: PutIn, weights: Weights, parameters: Mapping[str, Tensor]
) -> ImageChanges:
    """What is learned for the image tower."""
    placed = put_in(parameters)
    tokens = {one.block: placed[one.tensor] for one in sites if isinstance(one, ImageBlocks)}
    read = next((placed[one.tensor] for one in sites if isinstance(one, ImageReadOut)), None)
    return ImageChanges(dict(weights("image", parameters)) if weights_in(sites, "image") else {}, tokens, read)


def text_encoder(
    backbone: Backbone,
    class_names: Sequence[str],
    sites: Sequence[Site],
    n_ctx: int,
    batch: int,
    options: dict[str, Any],
    beside: int = 0,
    template: str = DEFAULT_TEMPLATE,
) -> TextEncoder:
    """The text pass for given sites.

    Args:
        backbone: the frozen model.
        class_names: C names.
        sites: where what is learned is put in.
        n_ctx: M, context vectors or those that are put in; of no meaning where there are neither.
        batch: images of a step; for none, only features are asked for.
        options: path, precision and memory, as `TextEncoder` takes them.
        beside: bytes that a step holds for other things, within its memory.
        template: of hand-made prompts, where there are no context vectors.
    """
    tokens, inserted = text_tokens(sites), text_inserted(sites)
    if inserted is not None:
        prompts = inserted_prompts(backbone, class_names, template, n_ctx, inserted.block)
    elif tokens is None:
        prompts = template_prompts(backbone, class_names, template)
    else:
        prompts = context_prompts(backbone, class_names, n_ctx, tokens.position, tokens.class_specific)
    deep = deep_vectors(sites)
    return TextEncoder(
        backbone,
        prompts,
        **options,
        batch=1 if tokens is not None and tokens.per_image else batch,
        learning=batch > 0,
        deep=[one.block for one in deep],
        per_class_from=min((one.block for one in deep if isinstance(one, TextBlocks) and one.per_class), default=None),
        weights=weights_in(sites, "text"),
        beside=beside,
    )


class ChangedImages(nn.Module):
    """An image tower with other weights and added tokens, frozen: what `Backbone.with_image_tower` takes.

    Args:
        tower: the frozen one, which is shared and not changed.
        changes: what is put in.
    """

    def __init__(self, tower: nn.Module, changes: ImageChanges) -> None:
        super().__init__()
        self.visual = _Changed(tower, changes)

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Features, not normalised."""
        return self.visual(pixels)


def _named_as_before(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """The frozen tower's weights keep the names that they have in the model, by which messages call them."""
    inside = f"{prefix}tower.visual."
    for name in [name for name in state if name.startswith(inside)]:
        state[prefix + name.removeprefix(inside)] = state.pop(name)


class _Changed(nn.Module):
    read: Tensor | None

    def __init__(self, tower: nn.Module, changes: ImageChanges) -> None:
        super().__init__()
        self.tower, self.blocks, self.names = tower, tuple(changes.tokens), tuple(changes.weights)
        for block, vectors in changes.tokens.items():
            self.register_buffer(f"tokens_{block}", vectors.detach())
        for i, name in enumerate(self.names):
            self.register_buffer(f"weight_{i}", changes.weights[name].detach())
        self.register_buffer("read", None if changes.read is None else changes.read.detach())
        self.register_state_dict_post_hook(_named_as_before)

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        weights = {name: self.get_buffer(f"weight_{i}") for i, name in enumerate(self.names)}
        tokens = {block: self.get_buffer(f"tokens_{block}") for block in self.blocks}
        with torch.no_grad():
            return changed_features(self.tower, pixels, ImageChanges(weights, tokens, self.read))
