"""The small CLIP, folders of images and the learned prompt of the command line's tests."""

from tests.cli.conftest import clip, learned, other_clip, photos, short

__all__ = ["clip", "learned", "other_clip", "photos", "short"]
