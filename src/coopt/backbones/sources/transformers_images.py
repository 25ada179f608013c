"""How images are prepared, from the settings of an image processor of the package transformers; read without torch.

What such a processor does (resize, cut out the centre, scale, normalise) is what `Preprocessing` does. A setting that
changes images in a way that it does not know is refused, one of which nothing is known here is warned about.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from coopt.backbones.sources.transformers_config import Config, read_object
from coopt.errors import UnsupportedBackboneError, WeightsNotFoundError, WeightsWarning

FILES = ("preprocessor_config.json", "processor_config.json")

_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_HALF = [0.5, 0.5, 0.5]
_SQUARE = {"height": 224, "width": 224}
_CROPPING = {
    "size": {"shortest_edge": 224},
    "crop_size": _SQUARE,
    "do_center_crop": True,
    "resample": 3,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
_SQUASHING = {"size": _SQUARE, "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF}
_USUAL = {
    "CLIP": _CROPPING,
    "ChineseCLIP": _CROPPING,
    "Siglip": {**_SQUASHING, "resample": 3},
    "ViT": {**_SQUASHING, "resample": 2},
    "EfficientNet": {
        **_SQUASHING,
        "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289},
        "resample": 0,
        "include_top": True,
    },
}
"""What the settings of a kind of image processor are where the file does not say."""
_EVERYWHERE = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "rescale_offset": False,
    "include_top": False,
    "do_normalize": True,
}
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
# What says nothing of the pixels: how the processor is called and what it gives back.
_NO_MATTER = {
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "default_to_square",
    "data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "auto_map",
    "_valid_processor_keys", "use_square_size",
}  # fmt: skip


def find_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """(the file, its settings) of a model folder's image processor.

    Raises:
        WeightsNotFoundError: there is none.
        BackboneError: the file is not JSON.
    """
    for name in FILES:
        path = folder / name
        if path.is_file():
            content = read_object(path, "settings of the image processor")
            settings = content if name == FILES[0] else content.get("image_processor")
            if isinstance(settings, dict):
                return path, settings
    raise WeightsNotFoundError(
        f"The model folder {folder} does not say how images are prepared: expected {FILES[0]}, or {FILES[1]} with an "
        "image_processor. It belongs to the model: fetch it from where the weights are from."
    )


def image_settings(path: Path, given: dict[str, Any], config: Config) -> dict[str, Any]:
    """The arguments of the `Preprocessing` that does what an image processor of these settings does.

    Args:
        path: of the settings, for messages.
        given: the settings.
        config: of the model.

    Raises:
        UnsupportedBackboneError: the processor is of a kind, or has a setting, that coopt does not know.
    """
    kind = _kind(path, given, config)
    settings = {**_EVERYWHERE, **_USUAL[kind], **{key: value for key, value in given.items() if value is not None}}
    others = {
        key: value
        for key, value in settings.items()
        if key not in {*_EVERYWHERE, *_CROPPING, *_NO_MATTER} and value not in (None, False)
    }
    if others.pop("do_pad", False):
        raise _refused(path, "do_pad", True, "images that are not padded")
    if others:
        listed = ", ".join(f"{key} = {value!r}" for key, value in others.items())
        warnings.warn(
            f"{path} has settings that coopt does not know and leaves out: {listed}. If they change the pixels, so do "
            "they the features.",
            WeightsWarning,
            stacklevel=2,
        )
    try:
        return {**_geometry(path, settings, kind), **_values(path, settings)}
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise UnsupportedBackboneError(
            f"{path} has settings that coopt does not understand ({type(error).__name__}: {error})."
        ) from error


def _kind(path: Path, given: dict[str, Any], config: Config) -> str:
    named = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    if not named:
        return {"siglip": "Siglip", "align": "EfficientNet"}.get(config.kind, "CLIP")
    kind = named
    for end in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(end)
    if kind not in _USUAL:
        known = ", ".join(f"{one}ImageProcessor" for one in _USUAL)
        raise UnsupportedBackboneError(
            f"{path} names the image processor {named!r}, and coopt knows what these do: {known}."
        )
    return kind


def _geometry(path: Path, settings: dict[str, Any], kind: str) -> dict[str, Any]:
    """Size, and how an image comes to it."""
    cropped = _height_width(settings["crop_size"]) if settings["do_center_crop"] else None
    if not settings["do_resize"]:
        raise _refused(path, "do_resize", False, "images that are resized")
    if settings["resample"] not in _INTERPOLATION:
        raise _refused(path, "resample", settings["resample"], "bilinear (2) or bicubic (3) interpolation")
    wanted = settings["size"]
    shortest = wanted.get("shortest_edge") if isinstance(wanted, dict) else None
    if isinstance(wanted, int) and kind in ("CLIP", "ChineseCLIP"):
        shortest = wanted
    if shortest is not None and set(wanted if isinstance(wanted, dict) else ()) > {"shortest_edge"}:
        raise _refused(path, "size", wanted, "the size of the shortest edge, or height and width")
    resized = (int(shortest), int(shortest)) if shortest is not None else _height_width(wanted)
    if shortest is not None and cropped is None:
        raise _refused(
            path, "do_center_crop", False, "images of one size: resized by their shortest edge, then cropped"
        )
    size = cropped or resized
    return {
        "size": size,
        "resize_to": None if resized == size else resized,
        "resize_mode": "squash" if shortest is None else "shortest",
        "interpolation": _INTERPOLATION[settings["resample"]],
    }


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (int(size), int(size))


def _values(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Mean and std such that (level / 255 - mean) / std is what the processor makes of a level in 0..255."""
    factor = float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0
    mean, std = _three(settings["image_mean"]), _three(settings["image_std"])
    if not settings["do_normalize"]:
        mean, std = (0.0,) * 3, (1.0,) * 3
    if math.isclose(factor, 1 / 255, rel_tol=1e-6) and not settings["rescale_offset"] and not settings["include_top"]:
        return {"mean": mean, "std": std}
    shift = 1.0 if settings["rescale_offset"] and settings["do_rescale"] else 0.0
    again = _three(settings["image_std"]) if settings["include_top"] else (1.0,) * 3
    # ((level factor - shift) - mean) / (std again), as one scale and one shift of level / 255.
    return {
        "mean": tuple((one + shift) / (255 * factor) for one in mean),
        "std": tuple(a * b / (255 * factor) for a, b in zip(std, again, strict=True)),
    }


def _three(values: Any) -> tuple[float, ...]:
    numbers = (float(values),) * 3 if isinstance(values, int | float) else tuple(float(one) for one in values)
    if len(numbers) != 3 or not all(math.isfinite(one) for one in numbers):
        raise ValueError(f"expected three finite numbers, got {values!r}")
    return numbers


def _refused(path: Path, setting: str, value: Any, expected: str) -> UnsupportedBackboneError:
    return UnsupportedBackboneError(f"{path}: {setting} is {value!r}, and coopt prepares {expected} alone.")
