"""What a folder has of the papers' data sets, and what exactly is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coopt.data.benchmarks.definitions import Benchmark
from coopt.data.benchmarks.loading import read_benchmark
from coopt.data.file_names import display_name
from coopt.errors import DataError
from coopt.wording import counted


@dataclass(frozen=True)
class BenchmarkStatus:
    """One data set under a root.

    Attributes:
        state: "absent" when its folder is not there, "complete" when nothing is missing, else "incomplete".
        classes, images: how many were found; 0 when the data set cannot be read.
        missing: what is missing or wrong, one entry each.
        split: "published" or "official"; "made" when a rule of coopt draws it; "" when the data set cannot be read.
    """

    state: Literal["complete", "incomplete", "absent"]
    classes: int = 0
    images: int = 0
    missing: tuple[str, ...] = ()
    split: Literal["published", "official", "made", ""] = ""


def benchmark_status(benchmark: Benchmark, root: Path) -> BenchmarkStatus:
    """Looks for a data set below `root`, without opening any image."""
    if not (root / benchmark.folder).is_dir():
        return BenchmarkStatus("absent", missing=(f"the folder {benchmark.folder}/",))
    try:
        contents = read_benchmark(benchmark, root)
    except DataError as error:
        return BenchmarkStatus("incomplete", missing=(str(error),))
    missing: list[str] = []
    if len(contents.class_names) < benchmark.classes:
        missing.append(f"{benchmark.classes - len(contents.class_names)} of {benchmark.classes} classes")
    if contents.missing:
        missing.append(
            f"{counted(len(contents.missing), 'image')} of the split, the first: {display_name(contents.missing[0])}"
        )
    elif contents.n_images < benchmark.size:
        missing.append(f"{benchmark.size - contents.n_images} of {benchmark.size} images")
    split = "made" if not contents.published else "official" if benchmark.published_split is None else "published"
    return BenchmarkStatus(
        "incomplete" if missing else "complete", len(contents.class_names), contents.n_images, tuple(missing), split
    )
