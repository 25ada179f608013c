"""One PIL pipeline for every backbone: image to pixels, at test time and as an augmented training view.

The test transform gives the same bits as open_clip's (and OpenAI's) for the same settings.
Notation: h, w height and width of what the image tower takes.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from coopt.errors import ParameterError
from coopt.wording import subject

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
STANDARD = "standard"
REFERENCE_2021_09 = "reference-2021-09"
VARIANTS = (STANDARD, REFERENCE_2021_09)

# Part of every cache key: raise it when the pipeline's output changes, so that old cached features are not used.
_PIPELINE_VERSION = 1
# A strip of 1 x 100,000 pixels resized by its shorter edge would need gigabytes: past this many pixels crop first.
_MOST_RESIZED_PIXELS = 1 << 25
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_CROP_SCALE = (0.08, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)

ValueRange = tuple[float | int, float | int]
"""The pixel values that are black and white, in images with more than 8 bits per value."""
INTEGER_RANGE: ValueRange = (0, 65535)
FLOAT_RANGE: ValueRange = (0, 1)


@dataclass(frozen=True)
class Preprocessing:
    """How a backbone wants its images.

    Attributes:
        size: (height, width) in pixels.
        mean, std: per channel, of pixel values in 0..1.
        interpolation: of the test transform; training views are always bicubic, as in the paper.
        resize_mode: "shortest" (resize the shorter edge, crop the centre), "squash" (ignore the aspect ratio) or
            "longest" (fit the whole image, pad with `fill_color`).
        resize_to: (height, width) that an image is resized to before its centre of `size` is cut out; None: `size`.
        name: "standard", or "reference-2021-09" for the transforms that CoOp's code used before October 2021,
            with which its released checkpoints reproduce.
        value_range: which values are black and white in images with more than 8 bits per value; None: see `to_rgb`.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash", "longest"] = "shortest"
    fill_color: int = 0
    name: str = STANDARD
    value_range: ValueRange | None = None
    resize_to: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None and not _is_range(self.value_range):
            raise ParameterError(
                f"{subject('value_range', 'a preprocessing')} must be two different finite numbers, the values of black "
                f"and white, such as 0,4095. Got {self.value_range!r} instead."
            )

    @property
    def id(self) -> str:
        """A short string that differs whenever any setting does: the part of a cache key that stands for the pixels."""
        # Those that came later count where they are set only, so that older keys stay as they are.
        later = ("value_range", "resize_to")
        set_now = [field.name for field in fields(self) if field.name not in later or getattr(self, field.name)]
        settings = ";".join(f"{name}={getattr(self, name)!r}" for name in set_now)
        digest = hashlib.sha256(f"v{_PIPELINE_VERSION};{settings}".encode()).hexdigest()
        return f"{self.name}-{self.size[0]}x{self.size[1]}-{digest[:12]}"

    def variant(self, name: str) -> Preprocessing:
        """The same settings under the transforms of this name: "standard" or "reference-2021-09".

        Raises:
            ParameterError: no such name.
        """
        if name not in VARIANTS:
            known = ", ".join(map(repr, VARIANTS))
            raise ParameterError(f"The name of a preprocessing must be one of {known}. Got {name!r} instead.")
        return replace(self, name=name)

    def test(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """The image as the tower sees it at test time: nothing random."""
        image = to_rgb(image, self.value_range)
        how = _FILTERS[self.interpolation]
        height, width = self.resize_to or self.size
        if self.name == REFERENCE_2021_09:
            height, width = self.size
            image = _resize_shorter_edge(image, (_enlarged(height), _enlarged(width)), how)
        elif self.resize_mode == "squash":
            image = image.resize((width, height), how)
        elif self.resize_mode == "longest":
            image = _fit(image, (height, width), how)
        else:
            image = _resize_shorter_edge(image, (height, width), how)
        return self._normalise(_centre_crop(image, self.size, self.fill_color))

    def train_view(self, image: Image.Image, seed: int) -> Float[Tensor, "3 h w"]:
        """An augmented view, drawn from `seed` alone: the same seed gives the same view in any process or order."""
        image = to_rgb(image, self.value_range)
        rng = random.Random(seed)
        if self.name == REFERENCE_2021_09:
            image = self._flipped_translation(image, rng)
        else:
            image = self._random_resized_crop(image, rng)
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self._normalise(image)

    def _random_resized_crop(self, image: Image.Image, rng: random.Random) -> Image.Image:
        height, width = self.size
        left, top, crop_width, crop_height = _random_box(image.width, image.height, rng)
        crop = image.crop((left, top, left + crop_width, top + crop_height))
        return crop.resize((width, height), Image.Resampling.BICUBIC)

    def _flipped_translation(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Squash, flip half of the time, and half of the time enlarge by 1/8 and cut out a random window."""
        height, width = self.size
        how = _FILTERS[self.interpolation]
        image = image.resize((width, height), how)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.5:
            tall, wide = _enlarged(height), _enlarged(width)
            left, top = rng.randint(0, wide - width), rng.randint(0, tall - height)
            # The reference enlarges with bilinear interpolation whatever the first resize used.
            image = image.resize((wide, tall), Image.Resampling.BILINEAR)
            image = image.crop((left, top, left + width, top + height))
        return image

    def _normalise(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        levels = np.asarray(image, dtype=np.uint8)
        pixels = np.empty((3, *levels.shape[:2]), dtype=np.float32)
        for channel, table in enumerate(_normalised_levels(self.mean, self.std)):
            np.take(table, levels[:, :, channel], out=pixels[channel], mode="clip")
        return torch.from_numpy(pixels)


@functools.lru_cache
def _normalised_levels(mean: tuple[float, ...], std: tuple[float, ...]) -> Float[np.ndarray, "3 256"]:
    """What each of the 256 levels becomes in each channel.

    Looked up and not computed per pixel: torch would spread that over threads of its own, and images are prepared in
    several threads already, which then fight for the cores.
    """
    levels = torch.arange(256, dtype=torch.float32).div_(255)
    centre, scale = (torch.tensor(values, dtype=torch.float32).view(3, 1) for values in (mean, std))
    return levels.sub(centre).div_(scale).numpy()


def to_rgb(image: Image.Image, value_range: ValueRange | None = None) -> Image.Image:
    """Any PIL image as 8-bit RGB.

    PIL's own conversion clips images with more than 8 bits per value to white. Here black and white are what
    `value_range` says, or else what the kind of image says: 0 and 65535 of integers, 0 and 1 of floating-point numbers.
    An image's own values decide nothing, so that all images are scaled alike; values outside become black or white.
    """
    if image.mode == "RGB":
        return image
    if is_deep(image):
        return Image.fromarray(_to_8_bits(np.asarray(image), value_range or natural_range(image))).convert("RGB")
    if "transparency" in image.info:
        # PIL warns that it is dropped, which is on purpose; silencing a warning is not safe in threads.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether PIL holds the image with more than 8 bits per value (always grey: of colours it keeps 8 bits)."""
    return image.mode.startswith("I") or image.mode == "F"


def natural_range(image: Image.Image) -> ValueRange:
    """What is black and white in an image with more than 8 bits per value, by its kind alone."""
    return FLOAT_RANGE if image.mode == "F" else INTEGER_RANGE


def _to_8_bits(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Grey values, scaled so that `value_range` becomes 0..255; what is no number becomes black."""
    black, white = value_range
    scaled = (values.astype(np.float64) - black) * (255 / (white - black))
    return np.rint(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)).astype(np.uint8)


def _is_range(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value)
    return numbers and value[0] != value[1]


def _enlarged(size: int) -> int:
    # 224 becomes 252 and 32 becomes 36.
    return round(size * 1.125)


def _resize_shorter_edge(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Resize so that the image covers (height, width), keeping its aspect ratio."""
    height, width = size
    if height == width:
        if image.width <= image.height:
            target = (width, int(height * image.height / image.width))
        else:
            target = (int(width * image.width / image.height), height)
    else:
        # open_clip resizes for targets that are not square with bicubic interpolation, whatever the setting.
        how = Image.Resampling.BICUBIC
        ratio = min(image.height / height, image.width / width)
        target = (round(image.width / ratio), round(image.height / ratio))
    if target[0] * target[1] > _MOST_RESIZED_PIXELS:
        return _resize_centre(image, size, how)
    return image.resize(target, how)


def _resize_centre(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """The centre of (height, width)'s shape, resized to it: a very long strip never exists at full length."""
    height, width = size
    ratio = min(image.height / height, image.width / width)
    half_width, half_height = width * ratio / 2, height * ratio / 2
    left, top = image.width / 2 - half_width, image.height / 2 - half_height
    box = (
        max(0.0, left),
        max(0.0, top),
        min(float(image.width), left + 2 * half_width),
        min(float(image.height), top + 2 * half_height),
    )
    return image.resize((width, height), how, box=box)


def _fit(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Resize so that the whole image fits into (height, width)."""
    ratio = max(image.height / size[0], image.width / size[1])
    return image.resize((max(1, round(image.width / ratio)), max(1, round(image.height / ratio))), how)


def _centre_crop(image: Image.Image, size: tuple[int, int], fill: int = 0) -> Image.Image:
    """The central (height, width) of an image, padded with `fill` where it is smaller."""
    height, width = size
    if image.width < width or image.height < height:
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill, fill, fill))
        padded.paste(image, (max(0, width - image.width) // 2, max(0, height - image.height) // 2))
        image = padded
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _random_box(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random part: area 0.08 to 1 of the image, aspect ratio 3/4 to 4/3.

    Ten draws that do not fit in the image end in the largest central part with an allowed aspect ratio.
    """
    log_ratio = (math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1]))
    for _ in range(10):
        area = width * height * rng.uniform(*_CROP_SCALE)
        ratio = math.exp(rng.uniform(*log_ratio))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return rng.randint(0, width - crop_width), rng.randint(0, height - crop_height), crop_width, crop_height
    ratio = min(max(width / height, _CROP_RATIO[0]), _CROP_RATIO[1])
    crop_width = min(width, max(1, round(height * ratio)))
    crop_height = min(height, max(1, round(width / ratio)))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def preprocessing_from(settings: dict, size: int | tuple[int, int] | list[int]) -> Preprocessing:
    """From the settings of an open_clip weight tag or model folder (unknown entries do not matter here).

    Raises:
        ParameterError: a setting that this pipeline does not know.
    """
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    interpolation = settings.get("interpolation", "bicubic")
    if interpolation == "random":  # chooses at random in open_clip's training only; bicubic at test time
        interpolation = "bicubic"
    resize_mode = settings.get("resize_mode", "shortest")
    if interpolation not in _FILTERS or resize_mode not in ("shortest", "squash", "longest"):
        raise ParameterError(
            f"interpolation must be 'bicubic' or 'bilinear' and resize_mode 'shortest', 'squash' or 'longest'. "
            f"Got {interpolation!r} and {resize_mode!r} instead."
        )
    return Preprocessing(
        size=(height, width),
        mean=_three(settings.get("mean"), CLIP_MEAN),
        std=_three(settings.get("std"), CLIP_STD),
        interpolation=cast(Literal["bicubic", "bilinear"], interpolation),
        resize_mode=cast(Literal["shortest", "squash", "longest"], resize_mode),
        fill_color=int(settings.get("fill_color", 0)),
    )


def _three(values: float | Sequence[float | int] | None, default: tuple[float, ...]) -> tuple[float, ...]:
    if values is None:
        return default
    return (float(values),) * 3 if isinstance(values, (int, float)) else tuple(float(value) for value in values)
