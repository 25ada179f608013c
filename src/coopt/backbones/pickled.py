"""Backbones in pickles: by name, without their weights.

A pickle says what the backbone is called, on what device it was asked for, how it prepares images, and its fingerprint.
Whoever unpickles it has the same weights on the same or another machine, and they are looked for by that name. A model that
no name loads, since it was made from weights at hand, has nothing but its weights: they go along.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coopt.backbones.preprocessing import Preprocessing
from coopt.errors import BackboneError, BackboneMismatchError

# Whoever unpickles in the process that holds the backbone is given that one; workers hold one for all their tasks.
_alive: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class PickledBackbone:
    """What stands for a backbone in a pickle.

    Attributes:
        name, fingerprint, preprocessing: the backbone's.
        device: where it was.
        load: loads it again by its name; None: no name does.
        weights: where no name does, a pickle of (function, arguments) that makes it; otherwise None.
    """

    name: str
    fingerprint: str
    preprocessing: Preprocessing
    device: str
    load: Callable[[], Any] | None
    weights: bytes | None

    @classmethod
    def of(cls, backbone: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> PickledBackbone:
        """Of a backbone that `make(*arguments)` would make once more."""
        load = backbone.load_again
        weights = None if load is not None else pickle.dumps((make, arguments))
        made = cls(backbone.name, backbone.fingerprint, backbone.preprocessing, str(backbone.device), load, weights)
        _alive[made.key] = backbone
        return made

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for backbones that give equal answers."""
        return self.name, self.fingerprint, self.preprocessing, self.device

    def backbone(self) -> Any:
        """The backbone: one that this process holds already, or else loaded, or made of the weights that came along.

        Raises:
            BackboneError: it is not on this machine.
            BackboneMismatchError: its name stands for other weights here.
        """
        alive = _alive.get(self.key)
        if alive is None or alive.preprocessing != self.preprocessing:
            alive = _alive[self.key] = self._loaded()
        return alive

    def _loaded(self) -> Any:
        if self.load is None:
            assert self.weights is not None
            make, arguments = pickle.loads(self.weights)
            return make(*arguments)
        try:
            backbone = self.load()
        except BackboneError as error:
            raise type(error)(
                f"The pickle names the backbone {self.name!r}, which cannot be loaded. {error}"
            ) from error
        if backbone.fingerprint != self.fingerprint:
            raise BackboneMismatchError(
                f"The pickle names the backbone {self.name!r} with fingerprint {self.fingerprint[:12]}, but what is loaded "
                f"by that name has fingerprint {backbone.fingerprint[:12]}: other weights, to which what was learned means "
                "nothing. Put the original weights where that name finds them."
            )
        same = backbone.preprocessing == self.preprocessing
        return backbone if same else backbone.with_preprocessing(self.preprocessing)


def unpickled(pickled: PickledBackbone) -> Any:
    """What a pickle calls to have its backbone."""
    return pickled.backbone()
