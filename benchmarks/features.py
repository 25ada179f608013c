"""Images to features: coopt against the ways they are usually made.

    python benchmarks/features.py [--model ViT-B-32] [--images 64] [--repeats 3] [--clip-benchmark DIR] [--json FILE]

The same JPEG files (500x375, made here), the same model with random weights (nothing is downloaded), batches of 32, one
process, the contenders in turn. `open_clip` is its own usual loop: its transform in a torch DataLoader with a worker per
core, and `model.encode_image`. `CLIP_benchmark` is the package of that name (1.6.2), whose loop `run_classification` is
given the same loader, with and without its mixed precision; it takes part when `--clip-benchmark` names the folder that
`pip install --no-deps --target DIR clip-benchmark` made. `cold` and `warm` are coopt with its feature cache on disk, empty
and full.

A rate is images per second, the median of the repeats, with the slowest and the fastest. Where other programs run on the
machine, images per second of processor time (workers included) compare better. Peak memory is that of a process of its
own for each contender, without the loader's workers.

Below that, without any model: files to batches of pixels by coopt's own reading and transform, in two threads (as
`extract_features(..., workers=2)` does it) and in a DataLoader's two worker processes, made anew for every pass, as usual,
and kept from pass to pass.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import forget_peak, peak_bytes, precisions_here, say
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.steps import random_backbone
from coopt.backbones import Backbone, Preprocessing
from coopt.data import FeatureCache, extract_features
from coopt.data.sources import BadContent, decode_views, ordered_map, read_content

BATCH = 32
WORKERS = 2
"""Threads or processes that decode where these are compared."""


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of photographs' size and detail: soft blobs of colour under grain."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        rng = np.random.RandomState(i)
        width, height = (375, 500) if i % 3 == 0 else (500, 375)
        blobs = Image.fromarray(rng.randint(0, 256, (12, 16, 3), dtype=np.uint8))
        soft = np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = 12 * rng.randn(height, width, 1)
        Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


class Files(Dataset):
    """Images as open_clip's users load them, with a label that nobody reads."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.paths[index])), 0


def open_clip_loader(backbone: Backbone, paths: list[Path]) -> DataLoader:
    """open_clip's own transform for this model, in a worker per core."""
    from open_clip.transform import image_transform

    transform = image_transform(backbone.preprocessing.size, is_train=False)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return DataLoader(Files(paths, transform), BATCH, num_workers=workers, pin_memory=backbone.device.type == "cuda")


def usual_loop(backbone: Backbone, paths: list[Path]) -> Tensor:
    """open_clip's `encode_image` over a DataLoader."""
    with torch.inference_mode():
        batches = [
            backbone.model.encode_image(pixels.to(backbone.device, non_blocking=True)).cpu()
            for pixels, _ in open_clip_loader(backbone, paths)
        ]
    return torch.cat(batches)


def clip_benchmark_loop(backbone: Backbone, paths: list[Path], amp: bool) -> Tensor:
    """CLIP_benchmark's loop; its "classifier" is the identity, so that it gives features (normalised, times 100)."""
    from clip_benchmark.metrics.zeroshot_classification import run_classification

    identity = torch.eye(backbone.embed_dim, device=backbone.device)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        features, _ = run_classification(
            backbone.model, identity, open_clip_loader(backbone, paths), backbone.device.type, amp=amp
        )
    return features


def contenders(
    backbone: Backbone, paths: list[Path], caches: Path, precisions: Sequence[str]
) -> dict[str, Callable[[], Tensor]]:
    """All ways from files to features."""

    def ours(**options: Any) -> Tensor:
        return extract_features(backbone, paths, **options).features[0]

    def cold() -> Tensor:
        with tempfile.TemporaryDirectory(dir=caches) as folder:
            return ours(cache=FeatureCache(folder))

    full = FeatureCache(caches / "full")
    ways = {
        **{f"coopt {name}": lambda name=name: ours(precision=name) for name in precisions},
        "open_clip fp32": lambda: usual_loop(backbone, paths),
        "coopt cold": cold,
        "coopt warm": lambda: ours(cache=full),
    }
    if find_clip_benchmark():
        ways["CLIP_benchmark fp32"] = lambda: clip_benchmark_loop(backbone, paths, amp=False)
        ways["CLIP_benchmark amp"] = lambda: clip_benchmark_loop(backbone, paths, amp=True)
    return ways


class OurFiles(Dataset):
    """Images as `extract_features` prepares them: read, hashed, decoded, transformed."""

    def __init__(self, paths: list[Path], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        content = read_content((index, self.paths[index]))
        views = content if isinstance(content, BadContent) else decode_views(content, self.preprocessing, ["test"])
        if isinstance(views, BadContent):
            raise views.error
        return views[0]


def decoders(files: OurFiles) -> dict[str, Callable[[], int]]:
    """Ways from files to batches of pixels; each returns how many images there were."""

    def threads() -> Iterator[Tensor]:
        with ThreadPoolExecutor(WORKERS) as pool:
            pixels = ordered_map(pool, files.__getitem__, range(len(files)), window=WORKERS + BATCH)
            while batch := list(islice(pixels, BATCH)):
                yield torch.stack(batch)

    kept = DataLoader(files, BATCH, num_workers=WORKERS, persistent_workers=True)
    return {
        f"{WORKERS} threads (coopt)": lambda: sum(map(len, threads())),
        f"{WORKERS} processes": lambda: sum(map(len, DataLoader(files, BATCH, num_workers=WORKERS))),
        f"{WORKERS} processes, kept": lambda: sum(map(len, kept)),
    }


def find_clip_benchmark() -> bool:
    """Whether CLIP_benchmark can be imported."""
    from importlib.util import find_spec

    return find_spec("clip_benchmark") is not None


def processor_seconds() -> float:
    """Processor time of this process and of its workers that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def cosine(features: Tensor, expected: Tensor) -> float:
    """The least cosine between features that should be the same."""
    return float(torch.cosine_similarity(features.float(), expected.float()).min())


def peak_memory(name: str, folder: Path, arguments: argparse.Namespace) -> float:
    """GB that a process of its own needs at most for one way, with the images and the full cache in `folder`."""
    options = [f"--model={arguments.model}", f"--images={arguments.images}", f"--folder={folder}"]
    if arguments.clip_benchmark:
        options.append(f"--clip-benchmark={arguments.clip_benchmark}")
    command = [sys.executable, __file__, "--memory-of", name, *options]
    gigabytes = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    say(f"{name}: at most {gigabytes:.2f} GB")
    return gigabytes


def spread(rates: Sequence[float]) -> dict[str, float]:
    """What repeats say of the machine."""
    return {"slowest": min(rates), "median": statistics.median(rates), "fastest": max(rates)}


def in_turn(
    ways: dict[str, Callable[[], Any]], arguments: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Images per second of every way, and images per second of processor time."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, run in ways.items():
            start, spent = time.perf_counter(), processor_seconds()
            run()
            walls[name].append(arguments.images / (time.perf_counter() - start))
            say(f"{name}: {walls[name][-1]:,.1f} images / s")
            processor[name].append(arguments.images / (processor_seconds() - spent))
    medians = {name: statistics.median(values) for name, values in processor.items()}
    return {name: spread(values) for name, values in walls.items()}, medians


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, in one run."""
    precisions, left_out = precisions_here(("fp32", "bf16"))
    with prepared(arguments, precisions) as (backbone, folder, paths, ways):
        # First calls allocate, choose kernels and fill the cache.
        features = {name: run() for name, run in ways.items()}
        rates, per_processor = in_turn(ways, arguments)
        decoding = decoders(OurFiles(paths, backbone.preprocessing))
        decoded = {name: run() for name, run in decoding.items()}
        assert set(decoded.values()) == {arguments.images}, decoded
        decoding_rates, _ = in_turn(decoding, arguments)
        peaks = {name: peak_memory(name, folder, arguments) for name in ways} if arguments.memory else {}
    return {
        "what": f"{arguments.model}, {arguments.images} JPEGs of 500x375, batch {BATCH}, {backbone.device.type}",
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        "images_per_s": rates,
        "images_per_processor_s": per_processor,
        "least_cosine": {name: cosine(one, features["open_clip fp32"]) for name, one in features.items()},
        "peak_memory_gb": peaks,
        "decoded_images_per_s": decoding_rates,
    }


@contextlib.contextmanager
def prepared(
    arguments: argparse.Namespace, precisions: Sequence[str]
) -> Iterator[tuple[Backbone, Path, list[Path], dict[str, Callable[[], Tensor]]]]:
    """The model, and a folder with images in it and the ways over them; a new folder exists for as long as this lasts."""
    given = arguments.folder
    with contextlib.nullcontext(given) if given else tempfile.TemporaryDirectory() as folder:
        backbone = random_backbone(arguments.model)
        paths = make_images(Path(folder) / "images", arguments.images)
        yield backbone, Path(folder), paths, contenders(backbone, paths, Path(folder), precisions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure peak memory")
    parser.add_argument("--clip-benchmark", metavar="DIR", help="where CLIP_benchmark is installed")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clip_benchmark:
        sys.path.append(arguments.clip_benchmark)
    if arguments.memory_of:
        with prepared(arguments, ("fp32", "bf16")) as (_, _, _, ways):
            forget_peak()
            ways[arguments.memory_of]()
            print(peak_bytes() / 1e9)
        return
    result = measure(arguments)
    report(result, on_screen(sections.features(result)), arguments)


if __name__ == "__main__":
    main()
