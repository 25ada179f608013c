"""Image processors of the package transformers and the `Preprocessing` that is read from their settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coopt.backbones.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from coopt.backbones.sources.transformers_config import Config
from coopt.backbones.sources.transformers_images import find_settings, image_settings

from .small_transformers import image_processor

transformers = pytest.importorskip("transformers")


def prepared(settings: dict[str, Any], kind: str = "clip") -> Preprocessing:
    config = Config(Path("config.json"), kind, {}, {}, 512)
    return Preprocessing(**image_settings(Path("preprocessor_config.json"), settings, config))


def photograph(width: int, height: int) -> Image.Image:
    """Smooth, with edges: what resizing rounds differently shows, and nothing else."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    waves = [127 + 120 * np.sin(x * (i + 1)) * np.cos(y + i) for i in range(3)]
    pixels = np.stack(waves, axis=-1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 10, 120)
    return Image.fromarray(pixels.astype(np.uint8))


def processor(name: str, **settings: Any) -> Any:
    """Transformers' own, of PIL and numpy; in transformers 4 those of that name are."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


CASES = {
    "clip": ("CLIPImageProcessor", image_processor("clip")),
    "clip, resized to more": ("CLIPImageProcessor", {**image_processor("clip"), "size": {"shortest_edge": 40}}),
    "clip, as a square": ("CLIPImageProcessor", {**image_processor("clip"), "size": {"height": 32, "width": 32}}),
    "clip, not normalised": ("CLIPImageProcessor", {**image_processor("clip"), "do_normalize": False}),
    "clip, not rescaled": ("CLIPImageProcessor", {**image_processor("clip"), "do_rescale": False}),
    "siglip": ("SiglipImageProcessor", image_processor("siglip")),
    "siglip2": ("SiglipImageProcessor", image_processor("siglip2")),
    "align": ("EfficientNetImageProcessor", image_processor("align")),
    "align, normalised twice": (
        "EfficientNetImageProcessor",
        {**image_processor("align"), "do_normalize": True, "include_top": True, "image_std": [0.4, 0.5, 0.6]},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(64, 64), (90, 60), (50, 120), (32, 32)], ids=str)
def test_pixels_are_those_of_transformers(case: str, shape: tuple[int, int]) -> None:
    name, settings = CASES[case]
    kind = case.partition(",")[0].replace("siglip2", "siglip")
    ours = prepared(settings, kind)
    given = {key: value for key, value in settings.items() if not key.endswith("_type")}
    theirs = processor(name)(**given)(photograph(*shape), return_tensors="pt")["pixel_values"][0]
    pixels = ours.test(photograph(*shape))
    level = 1 / 255 / torch.tensor(ours.std)[:, None, None]
    assert theirs.shape == pixels.shape
    assert float(((pixels - theirs) / level).abs().max()) <= 2


def test_published_settings_are_those_of_open_clip() -> None:
    """The same model in two formats prepares images alike, so that cached features are shared."""
    clip = {**image_processor("clip"), "size": 224, "crop_size": 224, "rescale_factor": 0.00392156862745098}
    assert prepared(clip) == Preprocessing((224, 224), CLIP_MEAN, CLIP_STD)
    assert prepared({**clip, "crop_size": {"height": 224, "width": 224}}).id == Preprocessing().id
    siglip = {**image_processor("siglip"), "size": {"height": 224, "width": 224}}
    half = (0.5, 0.5, 0.5)
    assert prepared(siglip, "siglip") == Preprocessing((224, 224), half, half, resize_mode="squash")
    align = {**image_processor("align"), "size": {"height": 346, "width": 346}, "crop_size": 289}
    read = prepared(align, "align")
    assert (read.size, read.resize_to, read.resize_mode, read.interpolation) == (
        (289, 289),
        (346, 346),
        "squash",
        "bilinear",
    )
    assert read.mean == pytest.approx(half) and read.std == pytest.approx(half)


def test_what_a_file_does_not_say_is_as_usual_for_its_kind() -> None:
    assert prepared({}) == Preprocessing()
    assert prepared({}, "siglip").resize_mode == "squash" and prepared({}, "siglip").mean == (0.5, 0.5, 0.5)
    assert prepared({"image_processor_type": "ViTImageProcessor", "size": 32}).interpolation == "bilinear"
    assert prepared({"image_processor_type": "CLIPImageProcessorFast", "size": [40, 50], "do_center_crop": False}) == (
        Preprocessing((40, 50), resize_mode="squash")
    )


def test_saved_by_transformers(tmp_path: Path) -> None:
    """What the installed version writes is read again."""
    transformers.SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    path, settings = find_settings(tmp_path)
    assert json.loads(path.read_text()) == settings
    assert prepared(settings, "siglip").size == (64, 64)
