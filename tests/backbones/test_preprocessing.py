from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coopt.backbones.preprocessing import (
    CLIP_STD,
    REFERENCE_2021_09,
    Preprocessing,
    _random_box,
    preprocessing_from,
    to_rgb,
)
from coopt.errors import ParameterError

GOLDEN = Path(__file__).parents[1] / "golden"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blurred noise: it shows every misplaced pixel, and its resized values are not all alike."""
    small = np.random.RandomState(seed).randint(0, 256, (max(1, height // 3), max(1, width // 3), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def test_golden_transform() -> None:
    expected = np.load(GOLDEN / "test_transform.npz")
    preprocessing = Preprocessing()
    for path in sorted(GOLDEN.glob("image_*.png")):
        pixels = preprocessing.test(Image.open(path))
        assert pixels.shape == (3, 224, 224) and pixels.dtype == torch.float32
        wanted = torch.from_numpy(expected[path.stem].astype(np.float32))
        # The recording is in half precision; a step of one pixel value is 1/255 before the division by std.
        steps = (pixels - wanted).abs() * torch.tensor(CLIP_STD).view(3, 1, 1) * 255
        assert steps.max() < 0.25


@pytest.mark.parametrize("shape", [(64, 64), (301, 200), (199, 420), (33, 31), (1, 1), (224, 225), (7, 90)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize(
    ("size", "interpolation"), [((64, 64), "bicubic"), ((64, 64), "bilinear"), ((48, 80), "bicubic")]
)
def test_same_bits_as_open_clip(shape: tuple, mode: str, size: tuple, interpolation: str) -> None:
    from open_clip.transform import image_transform

    image = noise(*shape)
    theirs = image_transform(size, is_train=False, resize_mode=mode, interpolation=interpolation, fill_color=7)
    settings = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 7}
    assert torch.equal(preprocessing_from(settings, size).test(image), theirs(image))


def test_a_long_strip_needs_no_gigabytes() -> None:
    strip = Image.linear_gradient("L").resize((60_000, 2))
    pixels = Preprocessing(size=(64, 64)).test(strip)
    assert pixels.shape == (3, 64, 64) and torch.isfinite(pixels).all()


def test_train_view_is_drawn_from_its_seed_alone() -> None:
    preprocessing, image = Preprocessing(size=(32, 32)), noise(90, 60)
    first = [preprocessing.train_view(image, seed) for seed in range(6)]
    torch.manual_seed(1)
    np.random.seed(1)
    again = [preprocessing.train_view(image, seed) for seed in reversed(range(6))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({view.sum().item() for view in first}) == 6


@pytest.mark.parametrize("shape", [(200, 150), (100, 400), (64, 64)])
def test_crops_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    from torchvision.transforms import RandomResizedCrop

    width, height = shape
    torch.manual_seed(0)
    pixels = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(pixels, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    rng = random.Random(0)
    ours = [_random_box(width, height, rng) for _ in range(3000)]
    expected = torch.tensor([(left, top, w, h) for top, left, h, w in theirs], dtype=torch.float32)
    drawn = torch.tensor(ours, dtype=torch.float32)
    size = torch.tensor([width, height, width, height])
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    gap = (drawn / size).quantile(levels, dim=0) - (expected / size).quantile(levels, dim=0)
    assert gap.abs().max() < 0.03


def test_train_view_flips_half_of_the_time() -> None:
    width, height = 200, 150
    ramp = np.tile(np.linspace(0, 255, width), (height, 1)).astype(np.uint8)
    image = Image.fromarray(ramp).convert("RGB")
    preprocessing = Preprocessing(size=(16, 16), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    views = torch.stack([preprocessing.train_view(image, seed) for seed in range(400)])
    left, right = views[:, 0, :, 0].mean(-1), views[:, 0, :, -1].mean(-1)
    flipped = (right < left).float().mean()
    assert 0.43 < flipped < 0.57


def test_train_view_of_extreme_shapes() -> None:
    preprocessing = Preprocessing(size=(16, 16))
    for shape in [(1, 1), (500, 1), (1, 500), (3, 200)]:
        assert preprocessing.train_view(noise(*shape), 3).shape == (3, 16, 16)


def test_reference_of_september_2021() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    old = Preprocessing().variant(REFERENCE_2021_09)
    assert old == Preprocessing().variant("reference-2021-09") and old.name == "reference-2021-09"
    image = noise(300, 260)
    steps = [Resize(252, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize(old.mean, old.std)]
    assert torch.equal(old.test(image), Compose(steps)(image))
    views = [old.train_view(image, seed) for seed in range(40)]
    squashed = Compose([Resize((224, 224), InterpolationMode.BICUBIC), *steps[2:]])(image)
    plain = [view for view in views if torch.equal(view, squashed)]
    mirrored = [view for view in views if torch.equal(view, squashed.flip(-1))]
    # One view in four is neither flipped nor moved, one in four only flipped.
    assert 3 <= len(plain) <= 17 and 3 <= len(mirrored) <= 17
    assert torch.equal(old.train_view(image, 5), views[5])


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_resized_to_more_than_is_cut_out(mode: str) -> None:
    image, settings = noise(300, 260), Preprocessing(resize_mode=mode, resize_to=(256, 256))  # type: ignore[arg-type]
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    resize = Resize(256 if mode == "shortest" else (256, 256), InterpolationMode.BICUBIC)
    steps = [resize, CenterCrop(224), ToTensor(), Normalize(settings.mean, settings.std)]
    assert torch.equal(settings.test(image), Compose(steps)(image))
    assert settings.variant(REFERENCE_2021_09).test(image).shape == (3, 224, 224)


def test_unknown_variant() -> None:
    with pytest.raises(ParameterError, match=r"must be one of 'standard', 'reference-2021-09'. Got 'old' instead"):
        Preprocessing().variant("old")


def test_id_differs_with_every_setting() -> None:
    changes = {
        "size": (224, 448),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "fill_color": 1,
        "name": "reference-2021-09",
        "value_range": (0, 4095),
        "resize_to": (256, 256),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Preprocessing)}
    plain = Preprocessing()
    ids = {plain.id} | {dataclasses.replace(plain, **{key: value}).id for key, value in changes.items()}
    assert len(ids) == len(changes) + 1
    assert plain.id == Preprocessing().id
    assert plain.id.startswith("standard-224x224-")


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(to_rgb(Image.fromarray(ramp)))
    assert (grey[..., 0].reshape(-1) == np.arange(256)).all()
    as_int = Image.fromarray(ramp.astype(np.int32))
    assert as_int.mode == "I" and (np.asarray(to_rgb(as_int)) == grey).all()


def test_the_id_of_ordinary_settings_stays() -> None:
    assert (
        Preprocessing().id == "standard-224x224-f59314473286"
    )  # else everything that was ever cached is encoded again


def test_floating_point_images() -> None:
    def grey(values: object, value_range: tuple[float, float] | None = None) -> list[int]:
        return np.asarray(to_rgb(Image.fromarray(np.array([values], dtype=np.float32)), value_range))[0, :, 0].tolist()

    assert grey(np.linspace(0, 1, 256)) == list(range(256))
    assert grey(np.arange(256), (0, 255)) == list(range(256))
    assert grey(np.linspace(0, 1000, 256), (0, 1000)) == list(range(256))
    assert grey([-5, 0, 5], (-5, 5)) == [0, 128, 255]
    assert grey([-5, 0, 0.5, 5]) == [0, 0, 128, 255]
    assert grey([np.nan, 1, np.inf, -np.inf]) == [0, 255, 255, 0]
    assert grey([0, 1], (1, 0)) == [255, 0]  # white is zero


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_data_of_fewer_bits_look_as_in_8_bits(bits: int) -> None:
    shown = np.arange(256).reshape(16, 16)
    deep = np.rint(shown / 255 * (2**bits - 1))
    for kind in (np.uint16, np.int32, np.float32):
        rgb = to_rgb(Image.fromarray(deep.astype(kind)), (0, 2**bits - 1))
        assert np.array_equal(np.asarray(rgb)[..., 0], shown)


@given(st.integers(0, 65534), st.sampled_from([np.uint16, np.int32, np.float32]))
def test_there_is_no_cliff(value: int, kind: type) -> None:
    """Of two images that differ by one in their greatest value, all other values look the same."""
    low, high = ([0, value // 2, top] for top in (value, value + 1))
    one, other = (
        np.asarray(to_rgb(Image.fromarray(np.array([v], dtype=kind))), np.int64)[0, :, 0] for v in (low, high)
    )
    assert one[1] == other[1]
    assert kind is np.float32 or abs(one[2] - other[2]) <= 1


@pytest.mark.parametrize("wrong", [(1, 1), (0, float("inf")), (0,), "0,1", (False, True)])
def test_what_is_no_range_is_refused(wrong: object, unchecked: None) -> None:
    with pytest.raises(ParameterError, match=r"'value_range' parameter .* two different finite numbers"):
        Preprocessing(value_range=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_modes_go_pils_way(mode: str) -> None:
    image = noise(20, 10)
    image = image.convert("L").convert(mode) if mode in ("1", "LA", "PA") else image.convert(mode)
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and np.array_equal(np.asarray(rgb), np.asarray(image.convert("RGB")))
    assert torch.isfinite(Preprocessing(size=(8, 8)).test(image)).all()


def test_palette_is_resized_as_colours() -> None:
    image = noise(50, 40).quantize(16)
    preprocessing = Preprocessing(size=(16, 16))
    assert torch.equal(preprocessing.test(image), preprocessing.test(image.convert("RGB")))


def test_settings_of_open_clip() -> None:
    made = preprocessing_from({"mean": 0.5, "std": [1, 1, 1], "interpolation": "random", "mode": "RGB"}, 32)
    assert made == Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
    assert preprocessing_from({}, [48, 64]).size == (48, 64)
    with pytest.raises(ParameterError, match=r"Got 'nearest' and 'shortest' instead"):
        preprocessing_from({"interpolation": "nearest"}, 32)
