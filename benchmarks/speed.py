"""One training step of CoOp: the way without shared work against ours.

    python benchmarks/speed.py [--json] [--model ViT-B-16] [--classes 100] [--n-ctx 16] [--batch 32] [--repeats 5]

The reference way computes what the published implementation computes: every prompt at all 77 tokens, and the images of
the batch through the image tower, at every step. Ours trains on cached image features through the fast text path. Both
run here, in one process, in turn, on the class names of Caltech101 (100 classes) and again of ImageNet, on a model with random weights (nothing is downloaded). Seconds are the fastest
of the repeats (what else runs on a machine only ever adds time), and ratios are theirs; `spread` holds the median and the
slowest. Peak memory is measured in a process of its own
for each way: the most that the whole process holds, model and libraries included.
`matmul_peak_share` is the text pass's matrix products per second, as a share of what this machine reaches on one large
product in the same precision.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from coopt.backbones import Backbone, Preprocessing
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts

OURS = ("fp32", "bf16")


def random_backbone(model: str) -> Backbone:
    """An open_clip architecture with random weights."""
    import logging

    import open_clip

    from coopt.backbones.clip_model import ClipBackbone
    from coopt.backbones.tokenizers import clip_tokenizer

    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    clip = open_clip.create_model(model, force_quick_gelu=True)
    logging.disable(logging.NOTSET)
    size = clip.visual.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    return ClipBackbone(clip, f"random:{model}", clip_tokenizer(), Preprocessing(size=size), _device())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


CALTECH101 = [
    "accordion",
    "airplane",
    "anchor",
    "ant",
    "barrel",
    "bass",
    "beaver",
    "binocular",
    "bonsai",
    "brain",
    "brontosaurus",
    "buddha",
    "butterfly",
    "camera",
    "cannon",
    "car_side",
    "ceiling_fan",
    "cellphone",
    "chair",
    "chandelier",
    "cougar_body",
    "cougar_face",
    "crab",
    "crayfish",
    "crocodile",
    "crocodile_head",
    "cup",
    "dalmatian",
    "dollar_bill",
    "dolphin",
    "dragonfly",
    "electric_guitar",
    "elephant",
    "emu",
    "euphonium",
    "ewer",
    "face",
    "ferry",
    "flamingo",
    "flamingo_head",
    "garfield",
    "gerenuk",
    "gramophone",
    "grand_piano",
    "hawksbill",
    "headphone",
    "hedgehog",
    "helicopter",
    "ibis",
    "inline_skate",
    "joshua_tree",
    "kangaroo",
    "ketch",
    "lamp",
    "laptop",
    "leopard",
    "llama",
    "lobster",
    "lotus",
    "mandolin",
    "mayfly",
    "menorah",
    "metronome",
    "minaret",
    "motorbike",
    "nautilus",
    "octopus",
    "okapi",
    "pagoda",
    "panda",
    "pigeon",
    "pizza",
    "platypus",
    "pyramid",
    "revolver",
    "rhino",
    "rooster",
    "saxophone",
    "schooner",
    "scissors",
    "scorpion",
    "sea_horse",
    "snoopy",
    "soccer_ball",
    "stapler",
    "starfish",
    "stegosaurus",
    "stop_sign",
    "strawberry",
    "sunflower",
    "tick",
    "trilobite",
    "umbrella",
    "watch",
    "water_lilly",
    "wheelchair",
    "wild_cat",
    "windsor_chair",
    "wrench",
    "yin_yang",
]
"""The data set of CoOp's paper that has 100 classes."""


def class_names(count: int) -> list[str]:
    """Caltech101's for 100 classes; otherwise ImageNet's (longer ones), numbered again when more are wanted."""
    return CALTECH101 if count == len(CALTECH101) else imagenet_names(count)


def imagenet_names(count: int) -> list[str]:
    """ImageNet's class names, as open_clip ships them."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES as NAMES

    return [NAMES[i % len(NAMES)] + (f" {i // len(NAMES)}" if i >= len(NAMES) else "") for i in range(count)]


class Step:
    """One training step; the same images, labels and context for every way of taking it."""

    def __init__(self, backbone: Backbone, names: list[str], n_ctx: int, batch: int) -> None:
        generator = torch.Generator().manual_seed(1)
        device = backbone.device
        self.backbone = backbone
        self.prompts = context_prompts(backbone, names, n_ctx)
        self.pixels = torch.randn(batch, 3, *backbone.preprocessing.size, generator=generator).to(device)
        self.labels = (torch.arange(batch) % len(names)).to(device)
        self.start = (0.02 * torch.randn(n_ctx, backbone.text.width, generator=generator)).to(device)

    def take(self, encoder: TextEncoder, features: Callable[[], Tensor]) -> Tensor:
        """Loss, gradient and update; returns the gradient."""
        context = self.start.clone().requires_grad_()
        optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9)
        logits = self.backbone.logit_scale * normalize(features(), dim=-1) @ normalize(encoder(context), dim=-1).T
        cross_entropy(logits, self.labels).backward()
        optimizer.step()
        assert context.grad is not None
        return context.grad

    def way(self, name: str) -> Callable[[], Tensor]:
        """The step as a function: "reference", "fp32" or "bf16"."""
        if name == "reference":
            slow = TextEncoder(self.backbone, self.prompts, path="reference")
            return lambda: self.take(slow, lambda: self.backbone.encode_image(self.pixels))
        encoder = TextEncoder(self.backbone, self.prompts, path="fast", precision=name)  # type: ignore[arg-type]
        width = self.backbone.embed_dim
        cached = torch.randn(len(self.pixels), width, generator=torch.Generator().manual_seed(2)).to(
            self.backbone.device
        )
        return lambda: self.take(encoder, lambda: cached)


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes, work in flight on a GPU included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations per second of one large matrix product, the best of several."""
    a, b = (torch.randn(size, size, device=_device()).to(dtype) for _ in range(2))
    seconds(lambda: a @ b)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(8))


def gradient_error(step: Step) -> float:
    """Relative error of the fast path's context gradient in fp32, on the same image features."""
    features = step.backbone.encode_image(step.pixels)
    paths = [TextEncoder(step.backbone, step.prompts, path=path) for path in ("reference", "fast")]  # type: ignore[arg-type]
    theirs, ours = (step.take(encoder, lambda: features) for encoder in paths)
    return float((ours - theirs).norm() / theirs.norm())


def peak_bytes() -> int:
    """The most that this process (on a GPU: its tensors there) has held so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would report the parent's peak where that was higher
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """GB that a process needs at most for two steps of one way."""
    options = [f"--{key.replace('_', '-')}={getattr(arguments, key)}" for key in ("model", "classes", "n_ctx", "batch")]
    command = [sys.executable, __file__, "--memory-of", name, *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, in one run."""
    step = Step(random_backbone(arguments.model), class_names(arguments.classes), arguments.n_ctx, arguments.batch)
    ways = {name: step.way(name) for name in ("reference", *OURS)}
    longer = Step(step.backbone, imagenet_names(arguments.classes), arguments.n_ctx, arguments.batch)
    ways |= {f"{name}, ImageNet's names": longer.way(name) for name in OURS}
    for run in ways.values():
        run()  # first calls allocate and choose kernels
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        times["reference"].append(seconds(ways["reference"]))
        for name in list(ways)[1:]:
            times[name] += [seconds(ways[name]) for _ in range(5)]
    best = {name: min(values) for name, values in times.items()}
    peaks = {"fp32": matmul_peak(torch.float32), "bf16": matmul_peak(torch.bfloat16)}
    # Forward and backward; frozen weights need one product each.
    operations = 2 * TextEncoder(step.backbone, step.prompts).operations
    share = {name: operations / best[name] / peaks[name] for name in OURS}
    return {
        "what": f"{arguments.model}, {arguments.classes} classes, M={arguments.n_ctx}, batch {arguments.batch}, {_device()}",
        "threads": torch.get_num_threads(),
        "reference_s": best["reference"],
        "ours_s": {name: best[name] for name in OURS},
        "ratio": {name: best["reference"] / best[name] for name in OURS},
        "tokens": {"reference": 77 * arguments.classes, "ours": TextEncoder(step.backbone, step.prompts).rows},
        "with_imagenet_names": {
            "tokens": TextEncoder(longer.backbone, longer.prompts).rows,
            "ours_s": {name: best[f"{name}, ImageNet's names"] for name in OURS},
            "ratio": {name: best["reference"] / best[f"{name}, ImageNet's names"] for name in OURS},
        },
        "spread": {name: [statistics.median(values), max(values)] for name, values in times.items()},
        "gradient_rel_err": gradient_error(step),
        "peak_memory_gb": {name: peak_memory(name, arguments) for name in ("reference", *OURS)},
        "matmul_peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()},
        "matmul_peak_share": share["fp32"],
        "matmul_peak_shares": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--n-ctx", type=int, default=16, help="context vectors")
    parser.add_argument("--batch", type=int, default=32, help="images in a step")
    parser.add_argument("--repeats", type=int, default=3, help="measured reference steps")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        step = Step(random_backbone(arguments.model), class_names(arguments.classes), arguments.n_ctx, arguments.batch)
        run = step.way(arguments.memory_of)
        run(), run()
        print(peak_bytes() / 1e9)
        return
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"one training step, {result['what']}, {result['threads']} threads")
    print(f"{'':12}{'seconds':>10}{'ratio':>8}{'peak GB':>9}{'of matmul peak':>16}")
    print(f"{'reference':12}{result['reference_s']:10.3f}{1:8.1f}{result['peak_memory_gb']['reference']:9.2f}")
    for name in OURS:
        row = result["ours_s"][name], result["ratio"][name], result["peak_memory_gb"][name]
        print(f"{'ours ' + name:12}{row[0]:10.3f}{row[1]:8.1f}{row[2]:9.2f}{result['matmul_peak_shares'][name]:16.0%}")
    ratios = result["with_imagenet_names"]["ratio"]
    print(f"with ImageNet's longer names: ratio {ratios['fp32']:.1f} (fp32), {ratios['bf16']:.1f} (bf16)")
    print(f"relative error of the gradient (fp32): {result['gradient_rel_err']:.1e}")


if __name__ == "__main__":
    main()
