"""CoOp: Context Optimization.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134.
Published: ImageNet, 16 shots, M = 16, class at the end, unified: 62.95 (RN50), 66.60 (RN101), 66.85 (ViT-B/32),
71.92 (ViT-B/16); zero-shot 58.18 / 61.62 / 62.05 / 66.73.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.data import FeatureCache, extract_features
from coopt.errors import ParameterError
from coopt.methods.base import ClipClassifier, is_features, is_pixels
from coopt.prompts.context import initial_context
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.encode import Path as TextPath
from coopt.text.encode import Precision, TextEncoder
from coopt.text.layout import POSITIONS, Position, context_prompts
from coopt.training.batches import Views, batches_of, cached_views, generator_for
from coopt.training.loop import Observer, train
from coopt.training.recipe import Recipe
from coopt.training.threads import threads_for


class CoOp(ClipClassifier):
    """Learns M context vectors around the class names by cross-entropy through the frozen text tower.

    Args:
        backbone: a name for `coopt.load_backbone`, or a loaded backbone.
        n_ctx: M, the number of context vectors.
        csc: class-specific context: every class learns vectors of its own (needs more images; no new classes).
        position: where the class name stands: "end", "middle" or "front".
        init: words whose token embeddings the context begins with, e.g. "a photo of a"; replaces `n_ctx` by their
            number of tokens. None: random, N(0, 0.02).
        recipe: "fast", "paper", a mapping of changed fields, or a `coopt.Recipe`.
        seed: of the initial context, the order of images and their augmentation.
        class_names: the classes in order; needed when labels are integers.
        text_path: "auto" (the fast path where it is exact), "fast" or "reference".
        precision: of the text tower's matrix products while learning: "fp32" or "bf16".
        device: "auto", "cpu", "cuda" ...
        cache: keep image features on disk (True), or a `FeatureCache`, or nowhere (False).
        on_bad_image: "fail" at an image that cannot be read when fitting, or "skip" it with a warning.
        checkpoint: a file that keeps the state of training; a killed run fitted again goes on from there.
        verbose: show progress on a terminal.

    Attributes:
        context_: the learned vectors, (M, W), or (C, M, W) with `csc`.
        classes_, class_names_: labels as given, and their names.
        losses_: mean loss of every epoch.
        recipe_: the recipe with nothing left open.
    """

    method: ClassVar[str] = "coop"
    position: Position
    text_path: TextPath
    precision: Precision

    def __init__(
        self,
        backbone: str | Backbone = "bundled",
        *,
        n_ctx: int = 16,
        csc: bool = False,
        position: Position = "end",
        init: str | None = None,
        recipe: str | dict[str, Any] | Recipe = "fast",
        seed: int = 1,
        class_names: Sequence[str] | None = None,
        text_path: TextPath = "auto",
        precision: Precision = "fp32",
        device: str = "auto",
        cache: bool | FeatureCache = True,
        on_bad_image: Literal["fail", "skip"] = "fail",
        checkpoint: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.n_ctx = n_ctx
        self.csc = csc
        self.position = position
        self.init = init
        self.recipe = recipe
        self.seed = seed
        self.class_names = class_names
        self.text_path = text_path
        self.precision = precision
        self.device = device
        self.cache = cache
        self.on_bad_image = on_bad_image
        self.checkpoint = checkpoint
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._require_int("n_ctx", 1)
        self._require_int("seed", 0)
        self._require("csc", isinstance(self.csc, bool), "True or False")
        self._require("position", self.position in POSITIONS, f"one of {', '.join(POSITIONS)}")
        self._require("init", self.init is None or isinstance(self.init, str), "None or words such as 'a photo of a'")
        self._check_text_parameters(self.text_path, self.precision)
        self.recipe_ = Recipe.of(self.recipe)

    def _training_features(self, images: Any) -> tuple[Views, Sequence[int]]:
        fixed = is_features(images) or is_pixels(images)  # these cannot be augmented
        if self.recipe_.views > 0 or fixed:
            views = ("test",) if fixed else ("test", *range(1, self.recipe_.views))
            found = self._features(images, views)
            self._data_hash = _hash_of(found.features)
            return cached_views(found.features, self.seed), found.kept
        found = self._features(images, ("test",))  # names the bad images before anything is trained
        self._data_hash = _hash_of(found.features)
        readable = [images[i] for i in found.kept]

        def fresh(epoch: int) -> Float[Tensor, "n dim"]:
            drawn = int(torch.randint(2**31, (), generator=generator_for(self.seed, epoch, 2)))
            return extract_features(self.backbone_, readable, views=(drawn,)).features[0].to(self.backbone_.device)

        return fresh, found.kept

    def _fit(self, features: Views, targets: Int[Tensor, " n"]) -> None:
        context = initial_context(self.backbone_, self.class_names_, self.n_ctx, self.csc, self.init, self.seed)
        shots = int(torch.bincount(targets).max())
        epochs = self.recipe_.epochs_for(shots)
        self.fit_context(
            context,
            batches_of(features, targets, self.recipe_, self.seed),
            epochs,
            run=self._run_hash(targets),
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
        )

    def fit_context(
        self,
        context: Float[Tensor, "*classes n_ctx width"],
        batches: Callable[[int], Any],
        epochs: int,
        *,
        run: str = "",
        checkpoint: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Trains a given context on given batches; `fit` prepares both. `backbone_` and the classes must be set.

        Args:
            context: what to start from.
            batches: given an epoch, its steps as (image features, targets).
            epochs: how many.
            run: see `coopt.training.loop.train`, as for the next two.
            checkpoint: where to keep the state.
            observer: is told of every step and epoch.
        """
        encode = self._encoder(context.shape[-2])
        scale = self.backbone_.logit_scale
        learned = context.to(self.backbone_.device, torch.float32).clone().requires_grad_()

        def loss_of(features: Tensor, targets: Tensor) -> Tensor:
            logits = scale * normalize(features, dim=-1) @ normalize(encode(learned), dim=-1).T
            return cross_entropy(logits, targets)

        with threads_for(encode.operations):
            self.losses_ = train(
                {"context": learned},
                loss_of,
                batches,
                self.recipe_,
                epochs,
                checkpoint=checkpoint,
                run=run,
                observer=observer,
            )
        self._set_state({"context": learned.detach()})

    def _encoder(self, n_ctx: int) -> TextEncoder:
        prompts = context_prompts(self.backbone_, self.class_names_, n_ctx, self.position, self.csc)
        return TextEncoder(self.backbone_, prompts, path=self.text_path, precision=self.precision)

    def _run_hash(self, targets: Tensor) -> str:
        """Identifies a run: its parameters, data, backbone and classes."""
        what = {
            "parameters": [self.n_ctx, self.csc, self.position, self.init, self.seed, self.text_path, self.precision],
            "recipe": self.recipe_.to_dict(),
            "classes": self.class_names_,
            "backbone": self.backbone_.fingerprint,
            "images": self._data_hash,
            "targets": targets.tolist(),
        }
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        return self.backbone_.logit_scale * normalize(features, dim=-1) @ self.text_features_.T

    def _state(self) -> dict[str, Tensor]:
        return {"context": self.context_}

    def _set_state(self, state: dict[str, Tensor]) -> None:
        self.context_ = state["context"].detach().float().cpu()
        with torch.no_grad():
            encoded = self._encoder(self.context_.shape[-2])(self.context_.to(self.backbone_.device))
        self.text_features_ = normalize(encoded, dim=-1)

    def with_classes(self, class_names: Sequence[str]) -> CoOp:
        """The same learned context for other class names: a new fitted estimator; this one is unchanged.

        Raises:
            ParameterError: the context is class-specific.
            DataError: fewer than two names, or blank ones.
        """
        if self.csc:
            raise ParameterError(
                "A class-specific context (csc=True) belongs to its classes. Fit one for the new classes, or use csc=False."
            )
        other = self._copy_with(class_names)
        other._set_state({"context": self.context_})
        assert isinstance(other, CoOp)
        return other

    def nearest_words(self, top_k: int = 5) -> list[list[NearestWord]] | dict[str, list[list[NearestWord]]]:
        """The vocabulary entries nearest to each context vector, nearest first; with `csc` for each class.

        They are not the meaning of the prompt: compare the distances with `coopt.prompts.distance_scale`.
        """
        if self.context_.ndim == 2:
            return nearest_words(self.backbone_, self.context_, top_k)
        return {
            name: nearest_words(self.backbone_, context, top_k)
            for name, context in zip(self.class_names_, self.context_, strict=True)
        }


def _hash_of(features: Tensor) -> str:
    return hashlib.sha256(features.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
