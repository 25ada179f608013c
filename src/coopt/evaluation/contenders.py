"""Contenders: the methods of a comparison, and those of CoOp's few-shot figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coopt.methods.base import ClipClassifier
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import DEFAULT_TEMPLATE, ENSEMBLE
from coopt.training.recipe import Recipe

NAIVE, HAND_MADE, ENSEMBLED, PROBE = "naive prompt", "hand-made prompt", "prompt ensemble", "linear probe"
"""The paper's baselines, as tables and figures call them."""

Sampling = Literal["none", "few-shot", "linear-probe"]


@dataclass(frozen=True)
class Contender:
    """One method of a comparison.

    Attributes:
        name: in results, tables and figures.
        estimator: with its parameters; it is cloned, and told backbone, classes, seed and cache.
        sampling: "none" (a `ZeroShot`: it sees no image and runs once, at 0 shots), "few-shot" (`coopt.data.few_shot`),
            or "linear-probe" (that baseline's own draw, with validation images for C).
    """

    name: str
    estimator: ClipClassifier
    sampling: Sampling = "few-shot"

    @property
    def parameters(self) -> dict[str, Any]:
        """What distinguishes it, ready for JSON."""
        found = {k: v for k, v in self.estimator.parameters.items() if k != "seed"}  # the protocol sets that
        return json.loads(json.dumps(found))  # tuples become lists, as they are when read back


def paper_contenders(
    template: str, recipe: str | dict[str, Any] | Recipe = "fast", n_ctx: Sequence[int] = ()
) -> tuple[Contender, ...]:
    """The methods of the paper's few-shot figure.

    Args:
        template: the data set's hand-made prompt; it also joins the seven templates of the ensemble.
        recipe: how CoOp is trained.
        n_ctx: lengths of contexts that begin at random, a curve each; none: one curve, of "a photo of a".
    """
    several = len(n_ctx) > 1
    return (
        Contender(NAIVE, ZeroShot(templates=DEFAULT_TEMPLATE), "none"),
        Contender(HAND_MADE, ZeroShot(templates=template), "none"),
        Contender(ENSEMBLED, ZeroShot(templates=ensemble_with(template)), "none"),
        Contender(PROBE, LinearProbe(), "linear-probe"),
        *(
            Contender(f"CoOp (M={m})" if m and several else "CoOp", CoOp(n_ctx=m, recipe=recipe))
            for m in n_ctx or (None,)
        ),
    )


def ensemble_with(template: str) -> tuple[str, ...]:
    """The seven selected templates, and the data set's own as the eighth."""
    return ENSEMBLE if template in ENSEMBLE else (*ENSEMBLE, template)
