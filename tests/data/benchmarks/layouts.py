"""Miniatures of the papers' data sets, laid out as people have them on disk: odd names, lists and all."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from coopt.data import ImageDataset, load_dataset
from coopt.errors import CooptWarning

_NUMBERS = itertools.count()


def _jpeg(colour: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * colour % 256, 90 * colour % 256, 255 - 30 * colour % 256)).save(stream, "JPEG")
    return stream.getvalue()


_PICTURES = [_jpeg(colour) for colour in range(8)]


def picture(file: Path, colour: int = 0) -> None:
    """A tiny JPEG; no two have the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_PICTURES[colour % 8] + next(_NUMBERS).to_bytes(8, "big"))


def text(file: Path, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def class_folders(folder: Path, names: Iterable[str], count: int, pattern: str = "image_{:04}.jpg") -> None:
    for colour, name in enumerate(names):
        for i in range(count):
            picture(folder / name / pattern.format(i + 1, name=name), colour)


def caltech101(root: Path) -> None:
    names = ["BACKGROUND_Google", "Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes", "car_side"]
    class_folders(root / "caltech-101/101_ObjectCategories", names, 10)
    picture(root / "caltech-101/101_ObjectCategories/accordion/.hidden.jpg")
    text(root / "caltech-101/101_ObjectCategories/accordion/notes.txt", ["no image"])


def oxford_pets(root: Path) -> None:
    folder = root / "oxford_pets"
    breeds = ["Abyssinian", "american_bulldog", "Bengal"]
    for part, numbers in (("trainval", range(1, 11)), ("test", range(100, 105))):
        rows = [f"{breed}_{i} {k + 1} 1 1" for k, breed in enumerate(breeds) for i in numbers]
        text(folder / f"annotations/{part}.txt", rows)
        for k, breed in enumerate(breeds):
            for i in numbers:
                picture(folder / f"images/{breed}_{i}.jpg", k)
    picture(folder / "images/Egyptian_Mau_14.jpg")  # in no list
    (folder / "images/Abyssinian_100.mat").write_bytes(b"left over")


def stanford_cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    for file, images, count in (
        ("devkit/cars_train_annos.mat", "cars_train", 10),
        ("cars_test_annos_withlabels.mat", "cars_test", 4),
    ):
        rows = []
        for i in range(3 * count):
            label = (i * 2 + 1) % 3 + 1  # not in order
            picture(folder / images / f"{i + 1:05}.jpg", label - 1)
            rows.append((10, 20, 30, 40, label, f"{i + 1:05}.jpg"))
        kinds = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        savemat(folder / file, {"annotations": np.array(rows, dtype=kinds)})


def oxford_flowers(root: Path) -> None:
    folder = root / "oxford_flowers"
    for i in range(30):
        picture(folder / f"jpg/image_{i + 1:05}.jpg", i % 3)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[3 - i % 3 for i in range(30)]], dtype=np.uint8)})
    names = {"2": "hard-leaved pocket orchid", "3": "canterbury bells", "1": "pink primrose"}
    (folder / "cat_to_name.json").write_text(json.dumps(names))


def food101(root: Path) -> None:
    class_folders(root / "food-101/images", ["waffles", "apple_pie", "hot_and_sour_soup"], 10, "10{:04}.jpg")


def fgvc_aircraft(root: Path) -> None:
    folder = root / "fgvc_aircraft"
    variants = ["F/A-18", "707-320", "Cessna 172"]  # an order of its own
    text(folder / "variants.txt", variants)
    number = itertools.count(34309)
    for part, count in (("train", 5), ("val", 4), ("test", 3)):
        rows = [f"{next(number):07} {variant}" for _ in range(count) for variant in reversed(variants)]
        text(folder / f"images_variant_{part}.txt", rows)
        for row in rows:
            picture(folder / f"images/{row.split()[0]}.jpg", len(row))


def sun397(root: Path) -> None:
    folder = root / "sun397"
    scenes = ["/a/abbey", "/a/apse/indoor", "/b/ball_pit", "/s/ski_slope"]
    text(folder / "ClassName.txt", scenes)
    for part, numbers in (("Training", range(10)), ("Testing", range(10, 14))):
        rows = [f"{scene}/sun_{i:04}abc.jpg" for scene in scenes for i in numbers]
        text(folder / f"{part}_01.txt", rows)
        for row in rows:
            picture(folder / "SUN397" / row[1:], len(row))
    picture(folder / "SUN397/a/abbey/sun_unused.jpg")


def dtd(root: Path) -> None:
    class_folders(root / "dtd/images", ["zigzagged", "banded", "polka-dotted"], 10, "{name}_{:04}.jpg")


def eurosat(root: Path) -> None:
    names = ["SeaLake", "AnnualCrop", "Forest", "Highway"]
    class_folders(root / "eurosat/2750", names, 10, "{name}_{}.jpg")


def ucf101(root: Path) -> None:
    folder = root / "ucf101"
    actions = {"ApplyEyeMakeup": "ApplyEyeMakeup", "HandstandPushups": "HandStandPushups", "YoYo": "YoYo"}
    frames = ["Apply_Eye_Makeup", "Handstand_Pushups", "Yo_Yo"]
    text(folder / "ucfTrainTestlist/classInd.txt", [f"{i + 1} {name}" for i, name in enumerate(actions)])
    for part, groups in (("train", range(8, 18)), ("test", range(1, 5))):
        rows = []
        for k, (action, video) in enumerate(actions.items()):
            for g in groups:
                rows.append(f"{action}/v_{video}_g{g:02}_c01.avi" + (f" {k + 1}" if part == "train" else ""))
                picture(folder / "UCF-101-midframes" / frames[k] / f"v_{video}_g{g:02}_c01.jpg", k)
        text(folder / f"ucfTrainTestlist/{part}list01.txt", rows)


WORDNET = {"n01440764": "tench", "n02112137": "chow chow", "n03773504": "missile", "n04008634": "missile"}


def _names(folder: Path) -> None:
    text(folder / "classnames.txt", [f"{wnid} {name}" for wnid, name in WORDNET.items()])


def imagenet(root: Path) -> None:
    _names(root / "imagenet")
    for part, count in (("train", 6), ("val", 3)):
        class_folders(root / "imagenet/images" / part, reversed(WORDNET), count, "ILSVRC2012_{:08}.JPEG")


def imagenetv2(root: Path) -> None:
    _names(root / "imagenetv2")
    folder = root / "imagenetv2/imagenetv2-matched-frequency-format-val"
    class_folders(folder, [str(i) for i in range(4)], 2, "{:03}.jpeg")


def imagenet_sketch(root: Path) -> None:
    _names(root / "imagenet-sketch")
    class_folders(root / "imagenet-sketch/images", WORDNET, 2, "sketch_{}.JPEG")


def imagenet_a(root: Path) -> None:
    """Two of the four classes; the names are those of ImageNet beside it."""
    _names(root / "imagenet")
    folder = root / "imagenet-adversarial/imagenet-a"
    class_folders(folder, ["n04008634", "n02112137"], 2, "0.00{}_dog _ cat_0.9.jpg")
    text(folder / "README.txt", ["hello"])


def imagenet_r(root: Path) -> None:
    _names(root / "imagenet-rendition")
    folder = root / "imagenet-rendition/imagenet-r"
    class_folders(folder, ["n01440764", "n04008634"], 3, "art_{}.jpg")
    text(folder / "README.txt", ["hello"])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        *(imagenet, caltech101, oxford_pets, stanford_cars, oxford_flowers, food101, fgvc_aircraft, sun397, dtd),
        *(eurosat, ucf101, imagenetv2, imagenet_sketch, imagenet_a, imagenet_r),
    )
}


def write_split(file: Path, items: dict[str, list[tuple[str, int, str]]]) -> None:
    """A split file with images for it beside."""
    content: dict[str, Any] = {part: [list(item) for item in items.get(part, [])] for part in ("train", "val", "test")}
    file.write_text(json.dumps(content))


def load(name: str, root: Path, **options: Any) -> ImageDataset:
    """A miniature, without the warnings that it is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CooptWarning)
        return load_dataset(name, root=root, require_train=False, **options)
