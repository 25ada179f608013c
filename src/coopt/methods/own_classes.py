"""What those methods share that answer otherwise for the classes they learned from than for new ones.

Notation: B classes that were learned from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from coopt.methods.learned import LearnedMethod
from coopt.parameters import fitted


class KnowsItsClasses(LearnedMethod):
    """Base of the methods that remember which classes they learned from, also when they are saved for others.

    Attributes:
        learned_from_: a number for each of those classes, made of its name, (B,).
    """

    learned_from_: Tensor = fitted()

    def learned_rows(self) -> list[int | None]:
        """For each class: which of those that were learned from it is; None for a new one."""
        rows = {code: row for row, code in enumerate(self.learned_from_.tolist())}
        return [rows.get(code) for code in codes_of(self.class_names_).tolist()]

    def _state(self) -> dict[str, Tensor]:
        return {**self.learned_, "learned_from": self.learned_from_}

    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {**super()._shapes(), "learned_from": (None,)}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        """Of what was learned just now it is the classes at hand; of what was saved, or given to other classes, those it names."""
        learned = {name: tensor for name, tensor in state.items() if name != "learned_from"}
        self.learned_from_ = state["learned_from"].cpu() if "learned_from" in state else codes_of(self.class_names_)
        super()._take_state(learned)


def codes_of(names: Sequence[str]) -> Int[Tensor, " classes"]:
    """The first eight bytes of the SHA-256 of each name."""
    digests = [hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names]
    return torch.tensor([int.from_bytes(one[:8], "little", signed=True) for one in digests])
