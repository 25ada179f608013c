from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.golden import small_clip
from coopt.backbones import Backbone
from coopt.data import FeatureCache, FeatureKey, as_features, extract_features
from coopt.data import encoding as encoding_module
from coopt.data import extraction as extraction_module
from coopt.data import features as features_module
from coopt.data import sources as sources_module
from coopt.data.images import open_image
from coopt.data.sources import ordered_map, view_seed
from coopt.errors import BadImageError, BadImagesError, CooptWarning, DataError, ParameterError, SkippedImageWarning

from .conftest import GOLDEN, TinyBackbone, make_folder, picture, save_picture


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return sorted(make_folder(tmp_path / "images", {"a": 7, "b": 6}).rglob("*.png"))


@pytest.fixture(scope="module")
def clip() -> Backbone:
    """The small CLIP of the golden numbers (the backbone of this folder's tests is simpler still)."""
    return small_clip(GOLDEN / "clip_small.json")


def _expected(images: Sequence[Path | Image.Image]) -> torch.Tensor:
    backbone = TinyBackbone()
    return torch.stack([backbone.alone(open_image(image)) for image in images])


def test_features_are_the_backbones(backbone: TinyBackbone, paths: list[Path]) -> None:
    result = extract_features(backbone, paths, batch_size=4)
    assert result.features.shape == (1, 13, 6)
    torch.testing.assert_close(result.features[0], _expected(paths))
    assert result.kept == tuple(range(13))
    assert result.skipped == ()
    assert backbone.batches == [4, 4, 4, 2]  # one image is never alone


def test_paths_strings_and_pil_images_mix(backbone: TinyBackbone, paths: list[Path]) -> None:
    images: list[Any] = [str(paths[0]), picture(5, mode="P"), paths[1], picture(6, mode="CMYK")]
    torch.testing.assert_close(extract_features(backbone, images).features[0], _expected(images))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_nothing_depends_on_the_number_of_workers(paths: list[Path], batch_size: int) -> None:
    results, batches = [], []
    for workers in (0, 1, 2, 7):
        backbone = TinyBackbone()
        images = [*paths, paths[3], *paths[:2]]
        views: list[str | int] = ["test", 1, 2]
        results.append(extract_features(backbone, images, views=views, batch_size=batch_size, workers=workers).features)
        batches.append(backbone.batches)
    assert all(torch.equal(result, results[0]) for result in results)
    assert all(one == batches[0] for one in batches)


class TestViews:
    def test_views_are_seeded_by_content(self, backbone: TinyBackbone, paths: list[Path]) -> None:
        result = extract_features(backbone, paths, views=[1, "test", 2], batch_size=4).features
        assert result.shape == (3, 13, 6)
        torch.testing.assert_close(result[1], _expected(paths))
        assert not torch.allclose(result[0], result[2])
        alone = extract_features(TinyBackbone(), [paths[5]], views=[2]).features
        torch.testing.assert_close(alone[0, 0], result[2, 5])  # whatever stands around it
        assert view_seed("a" * 64, 1) != view_seed("b" * 64, 1)

    def test_an_image_is_decoded_once(self, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        decoded: list[str] = []
        real = sources_module.decode_image
        monkeypatch.setattr(
            sources_module, "decode_image", lambda data, name, *more: decoded.append(name) or real(data, name, *more)
        )
        extract_features(TinyBackbone(), paths, views=["test", 1, 2, 3])
        assert sorted(decoded) == sorted(map(str, paths))


class TestDuplicates:
    def test_equal_content_is_encoded_once(self, backbone: TinyBackbone, paths: list[Path]) -> None:
        copy = paths[0].with_name("copy.png")
        shutil.copy(paths[0], copy)
        image = picture(3)
        images: list[Any] = [paths[0], image, copy, paths[0], image, picture(3), paths[1]]
        result = extract_features(backbone, images).features[0]
        assert backbone.encoded == 3
        torch.testing.assert_close(result, _expected(images))

    def test_a_lazily_opened_image_given_twice(self, backbone: TinyBackbone, paths: list[Path]) -> None:
        with Image.open(paths[0]) as lazy:
            result = extract_features(backbone, [lazy] * 8, workers=4).features[0]
        assert torch.equal(result, result[:1].expand(8, -1))


class TestCache:
    def test_the_second_time_nothing_is_encoded(self, tmp_path: Path, paths: list[Path]) -> None:
        cache = FeatureCache(tmp_path / "cache")
        first = extract_features(TinyBackbone(), paths, views=["test", 1], cache=cache)
        again = TinyBackbone()
        moved = tmp_path / "moved"
        shutil.move(tmp_path / "images", moved)
        second = extract_features(
            again, [moved / path.relative_to(tmp_path / "images") for path in paths], views=["test", 1], cache=cache
        )
        assert again.batches == []
        assert torch.equal(first.features, second.features)
        size = cache.size()
        assert size.entries == 26
        assert [one.name for one in size.per_backbone.values()] == ["tiny"]

    def test_only_what_is_missing_is_encoded(self, tmp_path: Path, paths: list[Path]) -> None:
        cache = FeatureCache(tmp_path / "cache")
        extract_features(TinyBackbone(), paths[:5], cache=cache)
        backbone = TinyBackbone()
        result = extract_features(backbone, paths, views=["test", 1], cache=cache)
        assert backbone.encoded == 2 * 13 - 5
        torch.testing.assert_close(result.features[0], _expected(paths))

    def test_another_backbone_or_preprocessing_is_another_feature(self, tmp_path: Path, paths: list[Path]) -> None:
        cache = FeatureCache(tmp_path / "cache")
        extract_features(TinyBackbone(), paths, cache=cache)
        other = TinyBackbone("0" * 64)
        varied = TinyBackbone()
        varied.preprocessing = varied.preprocessing.variant("reference-2021-09")
        for backbone in (other, varied):
            extract_features(backbone, paths, cache=cache)
            assert backbone.encoded == 13

    def test_a_cached_feature_of_another_size_is_not_taken(self, tmp_path: Path, paths: list[Path]) -> None:
        cache = FeatureCache(tmp_path / "cache")
        extract_features(TinyBackbone(dim=4), paths, cache=cache)
        assert extract_features(TinyBackbone(dim=6), paths, cache=cache).features.shape == (1, 13, 6)

    @pytest.mark.parametrize("workers", [0, 3])
    def test_ctrl_c_keeps_what_was_done(self, tmp_path: Path, paths: list[Path], workers: int) -> None:
        class Interrupted(TinyBackbone):
            def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
                if len(self.batches) == 2:
                    raise KeyboardInterrupt
                return super().encode_image(pixels)

        cache = FeatureCache(tmp_path / "cache")
        with pytest.raises(KeyboardInterrupt):
            extract_features(Interrupted(), paths, views=["test", 1], cache=cache, batch_size=3, workers=workers)
        assert cache.size().entries == 6
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("coopt-decode")]
        resumed = extract_features(TinyBackbone(), paths, views=["test", 1], cache=cache, batch_size=3)
        undisturbed = extract_features(TinyBackbone(), paths, views=["test", 1], batch_size=3)
        assert torch.equal(resumed.features, undisturbed.features)  # to the bit: batches fall where they fell before


class TestBadImages:
    @pytest.fixture
    def images(self, paths: list[Path]) -> list[Any]:
        (paths[0].parent / "broken.png").write_bytes(paths[0].read_bytes()[:70])
        (paths[0].parent / "empty.png").touch()
        broken, empty = paths[0].parent / "broken.png", paths[0].parent / "empty.png"
        return [paths[0], broken, paths[1], empty, Path("gone.png"), broken, paths[2]]

    def test_fail_names_the_first_and_keeps_the_ones_before(
        self, tmp_path: Path, backbone: TinyBackbone, images: list[Any]
    ) -> None:
        cache = FeatureCache(tmp_path / "cache")
        with pytest.raises(BadImageError, match=r"broken\.png' is truncated or damaged"):
            extract_features(backbone, images, cache=cache)
        assert cache.size().entries == 1

    def test_all_bad_images_are_named_at_once(self, images: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        backbone = TinyBackbone()
        with pytest.raises(BadImagesError) as caught:
            extract_features(backbone, images)
        message = str(caught.value).splitlines()
        assert message[0] == "4 of 7 images cannot be read:"
        assert [line.split("'")[1].rpartition("/")[2] for line in message[1:]] == [
            "broken.png", "empty.png", "gone.png", "broken.png"
        ]  # fmt: skip
        assert backbone.batches == [2]  # the one before it (twice, as lone images are); nothing after it
        with pytest.raises(BadImagesError, match=r"15 of 16 images cannot be read:(\n  '[^\n]*){10}\n  and 5 more\.$"):
            extract_features(backbone, [images[0], *(Path(f"gone{i}.png") for i in range(15))])
        monkeypatch.setattr(extraction_module, "CHECKED_AFTER_BAD", 3)  # among millions nobody waits for all
        with pytest.raises(BadImagesError, match=r"2 of the first 4 images"):
            extract_features(backbone, images)

    def test_bad_images_of_two_parts_are_named_together(self, images: list[Any]) -> None:
        with (
            pytest.raises(BadImagesError, match=r"(?s)5 of 10 images cannot be read:.*broken.*gone\.png.*other\.png"),
            features_module.named_together_with([images[0], Path("other.png"), images[2]]),
        ):
            extract_features(TinyBackbone(), images)

    @pytest.mark.parametrize("workers", [0, 3])
    def test_skip_names_them_and_keeps_the_rest(self, images: list[Any], workers: int) -> None:
        with pytest.warns(SkippedImageWarning, match=r"Left out 4 of 7 images .*broken\.png.*empty\.png.*gone\.png"):
            result = extract_features(TinyBackbone(), images, on_bad_image="skip", workers=workers)
        assert result.kept == (0, 2, 6)
        assert [Path(name).name for name, _ in result.skipped] == ["broken.png", "empty.png", "gone.png", "broken.png"]
        assert "is empty (0 bytes)" in result.skipped[1][1]
        torch.testing.assert_close(result.features[0], _expected([images[i] for i in result.kept]))

    def test_equal_bad_files_are_named_each(self, tmp_path: Path, paths: list[Path]) -> None:
        junk = [tmp_path / "one.png", tmp_path / "two.png"]
        for path in junk:
            path.write_bytes(b"junk")
        with pytest.warns(SkippedImageWarning):
            result = extract_features(TinyBackbone(), [*junk, paths[0], junk[1]], on_bad_image="skip")
        assert [Path(name).name for name, _ in result.skipped] == ["one.png", "two.png", "two.png"]
        assert all(f"'{name}' is not an image" in reason for name, reason in result.skipped)

    def test_nothing_left(self, images: list[Any]) -> None:
        with pytest.raises(DataError, match=r"None of the 2 images could be read\. The first: .*broken\.png"):
            extract_features(TinyBackbone(), [images[1], images[3]], on_bad_image="skip")

    def test_odd_images_are_encoded(self, tmp_path: Path, backbone: TinyBackbone) -> None:
        images = [save_picture(tmp_path / "wide.png")]
        Image.new("L", (1, 1), 7).save(tmp_path / "dot.png")
        Image.new("RGB", (900, 2), "red").save(tmp_path / "strip.png")
        picture(mode="CMYK").save(tmp_path / "print.jpg")
        Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).save(tmp_path / "deep.png")
        bad_name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
        images += [tmp_path / name for name in ("dot.png", "strip.png", "print.jpg", "deep.png")]
        with contextlib.suppress(OSError):  # some file systems take UTF-8 names only
            images.append(save_picture(bad_name, 8))
        result = extract_features(backbone, images, views=["test", 1, 2], workers=2)
        assert result.features.shape == (3, len(images), 6)
        assert bool(torch.isfinite(result.features).all())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "is not finite"),
        (float("inf"), "is not finite"),
        (0.0, "is zero"),
        (1e30, "is too large for float32"),
    ],
)
def test_a_feature_without_a_direction_names_the_image(
    tmp_path: Path, paths: list[Path], value: float, said: str
) -> None:
    class Overflowing(TinyBackbone):
        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            features = super().encode_image(pixels)
            if len(self.batches) == 2:
                features[1] = value
            return features

    cache = FeatureCache(tmp_path / "cache")
    with pytest.raises(DataError, match=rf"{paths[5].name}' {said}.*; its pixels are finite; leave the image out\.$"):
        extract_features(Overflowing(), paths, batch_size=4, cache=cache)
    assert cache.size().entries == 4  # nothing of the bad batch


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_named(value: float) -> None:
    pixels = torch.ones(2, 3, 16, 16)
    pixels[1, 0, 0, 0] = value
    with pytest.raises(DataError, match=r"'image 1' is not finite .*its pixels are not finite either"):
        extract_features(TinyBackbone(), pixels)


class TestPixels:
    def test_pixels_go_in_as_they_are(self, backbone: TinyBackbone, tmp_path: Path) -> None:
        pixels = torch.randn(5, 3, 16, 16)
        cache = FeatureCache(tmp_path)
        result = extract_features(backbone, pixels, cache=cache, batch_size=2)
        torch.testing.assert_close(result.features[0], TinyBackbone().encode_image(pixels))
        again = TinyBackbone()
        assert torch.equal(extract_features(again, pixels.numpy(), cache=cache).features, result.features)
        assert again.batches == []

    def test_they_cannot_be_augmented(self, backbone: TinyBackbone) -> None:
        with pytest.raises(ParameterError, match=r"'views' of preprocessed pixels must be \('test',\).* Got \(1,\)"):
            extract_features(backbone, torch.zeros(2, 3, 16, 16), views=[1])

    def test_wrong_shapes_are_explained(self, backbone: TinyBackbone) -> None:
        for wrong in (torch.zeros(3, 16, 16), torch.zeros(2, 16, 16, 3), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)):
            with pytest.raises(DataError, match=r"Pixels must be a float tensor \(N, 3, height, width\).* Got torch"):
                extract_features(backbone, wrong)
        with pytest.raises(DataError, match=r"Pixels are 8x8, but the backbone 'tiny' takes 16x16"):
            extract_features(backbone, torch.zeros(2, 3, 8, 8))


class TestArrays:
    def test_arrays_are_the_images_of_the_same_pixels(self, tmp_path: Path) -> None:
        images = [picture(seed, mode=mode) for seed, mode in enumerate(("RGB", "L", "RGBA"))]
        cache = FeatureCache(tmp_path)
        expected = extract_features(TinyBackbone(), images, cache=cache, views=["test", 1]).features
        again = TinyBackbone()
        arrays = [np.asarray(image) for image in images]
        arrays[1] = arrays[1][:, :, None]
        found = extract_features(again, arrays, cache=cache, views=["test", 1]).features
        assert torch.equal(found, expected)
        assert again.batches == []  # the hash of their content is the same

    @pytest.mark.parametrize("shape", [(4, 9, 8), (4, 9, 8, 3), (4, 9, 8, 4)])
    def test_one_array_for_all(self, backbone: TinyBackbone, shape: tuple[int, ...]) -> None:
        array = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
        result = extract_features(backbone, array).features[0]
        torch.testing.assert_close(result, _expected([Image.fromarray(one) for one in array]))

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([np.zeros((9, 8, 3))], r"Image 0 is an array of float64 .*make \(255 \* array\)\.round\(\)\.astype"),
            (
                [np.zeros((9, 8), np.uint16)],
                r"uint16 of shape \(9, 8\)\. Expected uint8 .*Scale its values to 0\.\.255",
            ),
            ([np.zeros((3, 9, 8), np.uint8)], r"Put the colours last: array\.transpose\(1, 2, 0\)"),
            ([np.zeros((9, 8, 2), np.uint8)], r"of shape \(9, 8, 2\)\. Expected uint8"),
            (np.zeros((9, 8, 3), np.uint8), r"Expected a list of images\. Got a single ndarray; write \[image\]"),
            (np.zeros((2, 9, 8, 3), np.float32), r"of values from 0 to 1, make it with \(255 \* images\)"),
            ([np.zeros((0, 8, 3), np.uint8)], r"Image 0 has no pixels"),
        ],
    )
    def test_other_arrays_are_explained(self, backbone: TinyBackbone, images: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            extract_features(backbone, images)


class TestDeepImages:
    """Images with more than 8 bits per value."""

    @pytest.fixture
    def dark(self, tmp_path: Path) -> Path:
        """12-bit data in a 16-bit file."""
        path = tmp_path / "dark.png"
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 16).save(path)
        return path

    def test_what_looks_wrong_is_said_every_time(self, tmp_path: Path, dark: Path, paths: list[Path]) -> None:
        cache = FeatureCache(tmp_path / "cache")
        for encoded in (14, 2):  # not kept in the cache, from which it would come without a word
            backbone = TinyBackbone()
            with pytest.warns(CooptWarning, match=r"1 of 14 images .*\(0 to 65535\).*dark\.png' \(0 to 4080\)") as said:
                extract_features(backbone, [*paths, dark], cache=cache)
            assert "value_range=(0, 4095) of load_backbone" in str(said[0].message)
            assert backbone.encoded == encoded

    def test_a_range_is_obeyed_and_part_of_the_key(self, tmp_path: Path, dark: Path) -> None:
        cache = FeatureCache(tmp_path / "cache")
        shown = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
        backbone = TinyBackbone().with_value_range((0, 4080))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = extract_features(backbone, [dark, Image.open(dark)], cache=cache).features[0]
        torch.testing.assert_close(result, _expected([shown, shown]))
        other = extract_features(TinyBackbone().with_value_range((0, 8160)), [dark], cache=cache).features[0]
        assert not torch.allclose(other, result[:1])

    def test_only_their_keys_have_changed(self, tmp_path: Path, paths: list[Path]) -> None:
        whole = tmp_path / "whole.png"
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).save(whole)
        for path, deep in ((paths[0], False), (whole, True)):
            cache = FeatureCache(tmp_path / f"cache{deep}")
            extract_features(TinyBackbone(), [path], cache=cache)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            key = FeatureKey(digest, "f" * 64, TinyBackbone().preprocessing.id, "test", "cpu")
            assert bool(cache.get_many([key])) is not deep


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.png", r"Expected a list of images\. Got a single str; write \[image\]"),
        (Path("a.png"), r"Got a single PosixPath"),
        (["a.png", 3], r"Image 1 is a int\. Expected paths, PIL images or arrays"),
        ([], r"Got no images"),
    ],
)
def test_other_things_are_no_images(backbone: TinyBackbone, images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extract_features(backbone, images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "fail", None, None, "fp32"), r"'views' .* must be a sequence of 'test' and int seeds .* Got \[\]"),
        ((["train"], "fail", None, None, "fp32"), r"Got \['train'\]"),
        (("test", "fail", None, None, "fp32"), r"Got 'test'"),
        ((["test"], "ignore", None, None, "fp32"), r"'on_bad_image' .* must be 'fail' or 'skip'\. Got 'ignore'"),
        ((["test"], "fail", 0, None, "fp32"), r"'batch_size' .* must be None or an int >= 1\. Got 0"),
        ((["test"], "fail", None, -1, "fp32"), r"'workers' .* must be None or an int >= 0\. Got -1"),
        ((["test"], "fail", None, None, "fp16"), r"'precision' .* must be 'auto', 'fp32' or 'bf16'\. Got 'fp16'"),
    ],
)
def test_parameters_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        features_module._check_parameters(*arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_progress_counts_up_to_all(tmp_path: Path, paths: list[Path], workers: int) -> None:
    cache = FeatureCache(tmp_path / "cache")

    def run() -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        images = [*paths, paths[0]]
        extract_features(
            TinyBackbone(), images, batch_size=4, cache=cache, workers=workers, progress=lambda *at: seen.append(at)
        )
        return seen

    for seen in (run(), run()):  # the second time all comes from the cache
        done = [at for at, _ in seen]
        assert {total for _, total in seen} == {14}
        assert done == sorted(set(done))
        assert done[-1] == 14
        assert len(done) >= 4


def test_only_a_window_of_work_exists(paths: list[Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    begun: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda i: begun.append(i) or i * i, range(100), window=5)
        assert next(results) == 0
        assert len(begun) <= 5
        assert list(results) == [i * i for i in range(1, 100)]


class TestAsFeatures:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floats_become_float32(self, dtype: type) -> None:
        array = np.arange(6, dtype=dtype).reshape(2, 3)
        features = as_features(array)
        assert features.dtype == torch.float32
        assert torch.equal(features, as_features(torch.from_numpy(array)))
        assert torch.equal(features, as_features(array.tolist()))

    def test_a_caller_keeps_its_array(self) -> None:
        array = np.ones((2, 3), dtype=np.float32)
        as_features(array)[0, 0] = 7
        assert array[0, 0] == 1

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.zeros(3), r"two-dimensional \(N images, D features\) and not empty\. Got shape \(3,\)"),
            (np.zeros((0, 3)), r"Got shape \(0, 3\)"),
            (np.zeros((2, 3), dtype=int), r"floating-point numbers\. Got torch\.int64; are these labels or pixels"),
            ([["a", "b"]], r"Features must be numbers in a table"),
            ([[1.0], [1.0, 2.0]], r"Features must be numbers in a table"),
            (
                np.where(np.arange(12).reshape(6, 2) % 3 == 0, np.nan, 1.0),
                r"finite and not zero\. 4 of 6 rows are not: 0, 1, 3, 4\. The first is not .* compute their features again\.$",
            ),
            (np.full((2, 3), np.inf, np.float16), r"2 of 2 rows .* infinite\)\. .* again in float32\.$"),
            (np.full((2, 3), 1e30), r"2 of 2 rows are not: 0, 1\. The first is too large for float32"),
            (np.zeros((2, 3)), r"2 of 2 rows are not: 0, 1\. The first is zero"),
        ],
    )
    def test_bad_features_are_explained(self, features: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            as_features(features)


def test_a_damaged_cache_does_not_stop_the_work(tmp_path: Path, paths: list[Path]) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="going on without it"):
        result = extract_features(TinyBackbone(), paths, cache=FeatureCache(tmp_path / "file"))
    torch.testing.assert_close(result.features[0], _expected(paths))


def test_nothing_is_warned_when_all_is_well(tmp_path: Path, paths: list[Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract_features(TinyBackbone(), paths, cache=FeatureCache(tmp_path / "cache"), views=["test", 1])


class TestBatches:
    """An image's feature does not depend on what is encoded beside it, nor on what was known before."""

    def test_small_models_fill_every_batch_up(self, tmp_path: Path, paths: list[Path], clip: Backbone) -> None:
        together = extract_features(clip, paths).features[0]
        alone = torch.cat([extract_features(clip, [path]).features[0] for path in paths])
        assert torch.equal(alone, together)
        cache = FeatureCache(tmp_path / "cache")
        extract_features(clip, paths[::3], cache=cache)
        assert torch.equal(extract_features(clip, paths, cache=cache).features[0], together)

    def test_a_lone_image_is_not_a_batch_of_one(self, paths: list[Path]) -> None:
        tiny = TinyBackbone()
        result = extract_features(tiny, paths[:1])
        assert tiny.batches == [2]
        torch.testing.assert_close(result.features[0], _expected(paths[:1]))

    def test_a_batch_that_does_not_fit_is_halved(self, tmp_path: Path, paths: list[Path]) -> None:
        class Full(TinyBackbone):
            def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
                if len(pixels) > 3:
                    self.refused.append(len(pixels))
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
                return super().encode_image(pixels)

        full = Full()
        full.refused = []
        cache = FeatureCache(tmp_path / "cache")
        result = extract_features(full, paths, batch_size=8, cache=cache)
        torch.testing.assert_close(result.features[0], _expected(paths))
        assert full.refused == [8, 4]  # what was learned holds for the batches that follow
        assert full.batches == [2] * 6 + [2]
        assert cache.size().entries == len(paths)

    def test_memory_that_does_not_suffice_for_one_image_is_an_error(self, paths: list[Path]) -> None:
        class Full(TinyBackbone):
            def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

        with pytest.raises(torch.cuda.OutOfMemoryError):
            extract_features(Full(), paths)


class TestBfloat16:
    def test_features_are_close_and_kept_apart(self, tmp_path: Path, paths: list[Path], clip: Backbone) -> None:
        cache = FeatureCache(tmp_path / "cache")
        exact = extract_features(clip, paths, cache=cache).features[0]
        rough = extract_features(clip, paths, cache=cache, precision="bf16").features[0]
        assert rough.dtype == torch.float32
        assert 0 < (rough - exact).norm() / exact.norm() < 0.02
        assert cache.size().entries == 2 * len(paths)
        again = extract_features(clip, paths, cache=cache, precision="bf16").features[0]
        assert torch.equal(again, rough)
        assert torch.equal(extract_features(clip, paths).features[0], exact)  # the model is as it was

    def test_the_tower_is_converted_once(self, paths: list[Path], clip: Backbone) -> None:
        extract_features(clip, paths, precision="bf16")
        tower = encoding_module._bf16_tower(clip)
        assert encoding_module._bf16_tower(clip) is tower
        weights = {name: one.dtype for name, one in tower.named_parameters()}
        assert {dtype for name, dtype in weights.items() if "ln_" in name} == {torch.float32}
        assert {dtype for name, dtype in weights.items() if "c_fc" in name or "attn" in name} == {torch.bfloat16}


def test_decoded_images_wait_in_a_bounded_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = sorted(make_folder(tmp_path / "many", {"a": 60}).rglob("*.png"))
    lock, alive, peak = threading.Lock(), 0, 0
    decode = extraction_module.decode_views

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def counted(*arguments: Any) -> Any:
        nonlocal alive, peak
        pixels, doubt = decode(*arguments)
        for one in pixels:
            weakref.finalize(one, gone)
        with lock:
            alive += len(pixels)
            peak = max(peak, alive)
        return pixels, doubt

    monkeypatch.setattr(extraction_module, "decode_views", counted)
    extract_features(TinyBackbone(), many, views=["test", 1], batch_size=8, workers=2)
    # A batch in the tower, a batch waiting for it, and what the two threads have in hand.
    assert peak <= 2 * 8 + 2 * (2 + 1)


def test_pixels_are_the_formula_to_the_bit() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    preprocessing = TinyBackbone().preprocessing
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (preprocessing.mean, preprocessing.std))
    expected = (torch.from_numpy(levels).permute(2, 0, 1).float() / 255 - mean) / std
    assert torch.equal(preprocessing.test(Image.fromarray(levels)), expected)
