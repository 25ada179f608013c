"""The papers' data sets: eleven to learn from and four shifted ImageNets, with where their files lie."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coopt.data.benchmarks import class_folders, imagenet, official
from coopt.data.benchmarks.split_file import Parts

_A_PHOTO = "a photo of a {}."
_HALF = "50/20/30 of each class"
_OFFICIAL = "official test part, the others 80/20 of each class"


@dataclass(frozen=True)
class Benchmark:
    """One of the papers' data sets, not read yet.

    Attributes:
        name: as people type it.
        title: as tables of papers call it.
        folder: where it lies below the root.
        images: the folder of its images, below `folder`; split files count their paths from there.
        template: its hand-made prompt.
        classes, size: how many classes and images it has when it is complete.
        rule: makes the split where there is no split file; it gets `folder` and `images`.
        rule_name: the same in words.
        drawn: the rule decides where images go, so that its split differs from the published one.
        lists: files that the rule reads, below `folder`; empty when it reads the folders of the images.
        published_split: a file below `folder` that holds the split of the papers; None: the lists are the split.
        aliases: other names.
        test_only: there is nothing to learn from; it measures what was learned on ImageNet.
        part_of_imagenet: only its own classes are to be told apart, not all of ImageNet's.
    """

    name: str
    title: str
    folder: str
    images: str
    template: str
    classes: int
    size: int
    rule: Callable[[Path, Path], Parts]
    rule_name: str
    drawn: bool = True
    lists: tuple[str, ...] = ()
    published_split: str | None = None
    aliases: tuple[str, ...] = ()
    test_only: bool = False
    part_of_imagenet: bool = False


BENCHMARKS = (
    Benchmark(
        name="imagenet",
        title="ImageNet",
        folder="imagenet",
        images="images",
        template=_A_PHOTO,
        classes=1000,
        size=1_331_167,
        rule=imagenet.imagenet,
        rule_name="official; val and test are both the validation part",
        drawn=False,
        aliases=("imagenet1k", "ilsvrc2012"),
    ),
    Benchmark(
        name="caltech101",
        title="Caltech101",
        folder="caltech-101",
        images="101_ObjectCategories",
        template=_A_PHOTO,
        classes=100,
        size=8242,
        rule=class_folders.caltech,
        rule_name=_HALF,
        published_split="split_zhou_Caltech101.json",
        aliases=("caltech",),
    ),
    Benchmark(
        name="oxford_pets",
        title="OxfordPets",
        folder="oxford_pets",
        images="images",
        template="a photo of a {}, a type of pet.",
        classes=37,
        size=7349,
        rule=official.pets,
        rule_name=_OFFICIAL,
        lists=("annotations/trainval.txt", "annotations/test.txt"),
        published_split="split_zhou_OxfordPets.json",
        aliases=("pets", "oxford_iiit_pet"),
    ),
    Benchmark(
        name="stanford_cars",
        title="StanfordCars",
        folder="stanford_cars",
        images="",
        template=_A_PHOTO,
        classes=196,
        size=16_185,
        rule=official.cars,
        rule_name=_OFFICIAL,
        lists=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"),
        published_split="split_zhou_StanfordCars.json",
        aliases=("cars",),
    ),
    Benchmark(
        name="oxford_flowers",
        title="OxfordFlowers",
        folder="oxford_flowers",
        images="jpg",
        template="a photo of a {}, a type of flower.",
        classes=102,
        size=8189,
        rule=official.flowers,
        rule_name=_HALF,
        lists=("imagelabels.mat", "cat_to_name.json"),
        published_split="split_zhou_OxfordFlowers.json",
        aliases=("flowers", "flowers102", "oxford_flowers102"),
    ),
    Benchmark(
        name="food101",
        title="Food101",
        folder="food-101",
        images="images",
        template="a photo of {}, a type of food.",
        classes=101,
        size=101_000,
        rule=class_folders.plain,
        rule_name=_HALF,
        published_split="split_zhou_Food101.json",
        aliases=("food",),
    ),
    Benchmark(
        name="fgvc_aircraft",
        title="FGVCAircraft",
        folder="fgvc_aircraft",
        images="images",
        template="a photo of a {}, a type of aircraft.",
        classes=100,
        size=10_000,
        rule=official.aircraft,
        rule_name="official",
        drawn=False,
        lists=("variants.txt", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
        aliases=("aircraft",),
    ),
    Benchmark(
        name="sun397",
        title="SUN397",
        folder="sun397",
        images="SUN397",
        template=_A_PHOTO,
        classes=397,
        size=39_700,
        rule=official.sun,
        rule_name=_OFFICIAL,
        lists=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
        published_split="split_zhou_SUN397.json",
        aliases=("sun",),
    ),
    Benchmark(
        name="dtd",
        title="DescribableTextures",
        folder="dtd",
        images="images",
        template="{} texture.",
        classes=47,
        size=5640,
        rule=class_folders.plain,
        rule_name=_HALF,
        published_split="split_zhou_DescribableTextures.json",
        aliases=("textures",),
    ),
    Benchmark(
        name="eurosat",
        title="EuroSAT",
        folder="eurosat",
        images="2750",
        template="a centered satellite photo of {}.",
        classes=10,
        size=27_000,
        rule=class_folders.eurosat,
        rule_name=_HALF,
        published_split="split_zhou_EuroSAT.json",
    ),
    Benchmark(
        name="ucf101",
        title="UCF101",
        folder="ucf101",
        images="UCF-101-midframes",
        template="a photo of a person doing {}.",
        classes=101,
        size=13_320,
        rule=official.ucf,
        rule_name=_OFFICIAL,
        lists=tuple(f"ucfTrainTestlist/{name}.txt" for name in ("classInd", "trainlist01", "testlist01")),
        published_split="split_zhou_UCF101.json",
        aliases=("ucf",),
    ),
    Benchmark(
        name="imagenetv2",
        title="ImageNetV2",
        folder="imagenetv2",
        images="imagenetv2-matched-frequency-format-val",
        template=_A_PHOTO,
        classes=1000,
        size=10_000,
        rule=imagenet.imagenet_v2,
        rule_name="test only",
        drawn=False,
        test_only=True,
    ),
    Benchmark(
        name="imagenet_sketch",
        title="ImageNet-Sketch",
        folder="imagenet-sketch",
        images="images",
        template=_A_PHOTO,
        classes=1000,
        size=50_889,
        rule=imagenet.imagenet_variant,
        rule_name="test only",
        drawn=False,
        test_only=True,
    ),
    Benchmark(
        name="imagenet_a",
        title="ImageNet-A",
        folder="imagenet-adversarial",
        images="imagenet-a",
        template=_A_PHOTO,
        classes=200,
        size=7500,
        rule=imagenet.imagenet_variant,
        rule_name="test only",
        drawn=False,
        aliases=("imagenet_adversarial",),
        test_only=True,
        part_of_imagenet=True,
    ),
    Benchmark(
        name="imagenet_r",
        title="ImageNet-R",
        folder="imagenet-rendition",
        images="imagenet-r",
        template=_A_PHOTO,
        classes=200,
        size=30_000,
        rule=imagenet.imagenet_variant,
        rule_name="test only",
        drawn=False,
        aliases=("imagenet_rendition",),
        test_only=True,
        part_of_imagenet=True,
    ),
)
"""In the order of the papers' tables."""

DATASET_TEMPLATES = {benchmark.name: benchmark.template for benchmark in BENCHMARKS}
"""The hand-made prompt of each data set (CoOp's appendix)."""


def find_benchmark(name: str) -> Benchmark | None:
    """The data set of a name or alias, whatever its case, hyphens and underscores; None when there is none."""
    return _BY_KEY.get(_key(name))


def _key(name: str) -> str:
    """Letters and digits, with folders kept apart: a path is no name."""
    return re.sub(r"[ _-]", "", name.lower())


_BY_KEY = {_key(name): one for one in BENCHMARKS for name in (one.name, one.title, one.folder, *one.aliases)}
