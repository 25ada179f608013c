"""KgCoOp: Knowledge-guided Context Optimization.

Yao, Zhang, Xu: "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023, arXiv:2303.13283.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 80.73 / 73.6 / 77.0 (CoOp 82.63 / 67.99 /
74.60 there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.protocol import Precision
from coopt.data import FeatureCache
from coopt.methods.coop import CoOp
from coopt.prompts.templates import DEFAULT_TEMPLATE, template_features, template_list
from coopt.text.encode import TextPath
from coopt.text.layout import Position
from coopt.text.memory import Memory
from coopt.training.recipe import Recipe


class KgCoOp(CoOp):
    """CoOp whose prompts are held near hand-made ones, for the sake of classes that are not learned from.

    To CoOp's loss it adds `guide_weight` times the squared distance between the normalised text features of a class's
    learned and hand-made prompts, averaged over the classes.

    Args:
        guide_weight: the paper's lambda; 0 is CoOp.
        templates: the hand-made prompt or prompts, as in `coopt.ZeroShot`.
        backbone, n_ctx, csc, position, init: see `coopt.CoOp`.
        recipe, seed, class_names, text_path, precision, memory, device, cache, on_bad_image, checkpoint, verbose: see
            `coopt.CoOp`.

    Attributes:
        context_, classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "kgcoop"

    def __init__(
        self,
        backbone: str | Backbone = "bundled",
        *,
        guide_weight: float = 8.0,
        templates: str | Sequence[str] = DEFAULT_TEMPLATE,
        n_ctx: int | None = None,
        csc: bool = False,
        position: Position = "end",
        init: str | None = None,
        recipe: str | dict[str, Any] | Recipe = "fast",
        seed: int = 1,
        class_names: Sequence[str] | None = None,
        text_path: TextPath = "auto",
        precision: Precision = "fp32",
        memory: Memory = "auto",
        device: str = "auto",
        cache: bool | FeatureCache = True,
        on_bad_image: Literal["fail", "skip"] = "fail",
        checkpoint: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            n_ctx=n_ctx,
            csc=csc,
            position=position,
            init=init,
            recipe=recipe,
            seed=seed,
            class_names=class_names,
            text_path=text_path,
            precision=precision,
            memory=memory,
            device=device,
            cache=cache,
            on_bad_image=on_bad_image,
            checkpoint=checkpoint,
            verbose=verbose,
        )
        self.guide_weight = guide_weight
        self.templates = templates

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._require_number("guide_weight", 0.0)
        template_list(self.templates)

    def _penalty(self) -> Callable[[Float[Tensor, "classes dim"]], Tensor | float]:
        templates = template_list(self.templates)
        guide = template_features(self.backbone_, self.class_names_, templates, **self._text_options)
        return lambda text: self.guide_weight * (text - guide).square().sum(dim=1).mean()
