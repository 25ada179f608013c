"""What a method can do, as facts that are known before it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """Facts about a method, for whoever chooses one or runs it.

    Attributes:
        new_classes: what it learns serves classes that it did not learn from (unless a parameter makes it class-specific).
        features_only: image features that the frozen backbone made before may stand for images.
        image_tower: it changes the image tower, so images are encoded by what it learned.
        text: prompts go through the text tower, so the runtime's precision, text path and memory matter.
        images: it learns from labelled images; otherwise from class names alone.
    """

    new_classes: bool = True
    features_only: bool = True
    image_tower: bool = False
    text: bool = True
    images: bool = True
