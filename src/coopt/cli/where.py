"""Where a prompt's backbone is: what the options `--backbone`, `--device`, `--download` and `--precision` say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coopt.backbones.protocol import Precision


@dataclass(frozen=True)
class Where:
    """Where the prompt's backbone is, and how it runs.

    Attributes:
        backbone: another name for it; None: the one it was saved with.
        device: see `coopt.load`.
        download: see `coopt.load`.
        position: of the class name in a reference checkpoint, which does not say it.
        precision: another than the prompt was learned with; None: that one.
        value_range: the same of the values that are black and white in images with more than 8 bits per value.
    """

    backbone: str | None
    device: str
    download: bool
    position: str | None = None
    precision: Precision | None = None
    value_range: tuple[float | int, float | int] | None = None
