"""One training step: the way without shared work against ours.

    python benchmarks/speed.py [--model ViT-B-16] [--classes 100] [--n-ctx 16] [--batch 32] [--repeats 3] [--json FILE]
    python benchmarks/speed.py --method cocoop [--model ViT-B-16] [--classes 100] [--n-ctx 4] [--batches 1,8,32]
    python benchmarks/speed.py --method tcp | maple | promptsrc | clip_lora | mmrl | two_stage [--model ViT-B-16] [--classes 100] [--batch 4]

The reference way computes what the published implementation computes: every prompt at all 77 tokens, and the images of
the batch through the image tower, at every step. Ours trains on cached image features through the fast text path. Both
run here, in one process, in turn, on the class names of Caltech101 (100 classes), for CoOp again of ImageNet, on a model
with random weights (nothing is downloaded). Seconds are the fastest of the repeats (what else runs on a machine only ever
adds time), and ratios are theirs; median and slowest say how much the machine moved. Peak memory is measured in a process of its
own for each way: the most that the whole process holds, model and libraries included. CoCoOp's reference way takes one
image in a step; ours takes several batch sizes, and ratios are those of the time per image. Of methods that change both towers
both ways pass the images of the batch through the changed tower; what is left of our step is said by its parts and a profile.
A line per measured step goes to standard error as it is taken; where bf16 is slower than fp32, it is left out.
`matmul_peak_share` is the text pass's matrix products per second, as a share of what this machine reaches on one large
product in the same precision.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import matmul_peak, peak_bytes, precisions_here, say, seconds, spread
from benchmarks.method_step import MethodStep, profile
from benchmarks.names import class_names, imagenet_names
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.sections import LONGER
from benchmarks.steps import UNBOUNDED, ConditionalStep, Step, device, random_backbone
from coopt.text.encode import TextEncoder
from coopt.training.heap import kept_heap

PRODUCTS_PER_LAYER = 2
"""Of a linear layer in a step: forward and backward; frozen weights need no gradient."""


OTHERS = ("tcp", "maple", "promptsrc", "clip_lora", "mmrl", "two_stage")
"""The first learns in the text tower, the rest in both."""

METHODS = ("coop", "cocoop", *OTHERS)


def gradient_error(step: Step) -> float:
    """Relative error of the fast path's gradient in fp32, on the same image features."""
    features = step.backbone.encode_image(step.pixels)
    theirs, ours = (step.step(name, lambda: features, UNBOUNDED)() for name in ("reference", "fp32"))
    return float((ours - theirs).norm() / theirs.norm())


def peak_memory(name: str, batch: int, arguments: argparse.Namespace) -> float:
    """GB that a process needs at most for two steps of one way."""
    options = [
        f"--{key.replace('_', '-')}={getattr(arguments, key)}" for key in ("method", "model", "classes", "n_ctx")
    ]
    command = [sys.executable, __file__, "--memory-of", name, f"--batch={batch}", *options]
    gigabytes = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    say(f"{name}: at most {gigabytes:.2f} GB")
    return gigabytes


def timed(ways: dict[str, Callable[[], Any]], repeats: int, ours: int) -> dict[str, list[float]]:
    """Seconds of every call of every way, in turn: `repeats` rounds of the first and `ours` times as many of the others."""
    first, *others = ways
    for run in ways.values():
        run()  # first calls allocate and choose kernels
    times: dict[str, list[float]] = {name: [] for name in ways}

    def measured(name: str) -> None:
        times[name].append(seconds(ways[name]))
        say(f"{name}: {times[name][-1]:.3f} s")

    for _ in range(repeats):
        measured(first)
        for name in others:
            with kept_heap():  # as in training
                for _ in range(ours):
                    measured(name)
    return times


def peaks(precisions: Sequence[str]) -> dict[str, float]:
    """Operations per second of one large matrix product in each of our precisions."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {name: matmul_peak(dtypes[name]) for name in precisions}


def measure_cocoop(arguments: argparse.Namespace) -> dict[str, Any]:
    """CoCoOp: the reference way with one image, ours with several."""
    precisions, left_out = precisions_here(("fp32", "bf16"))
    backbone, names = random_backbone(arguments.model), class_names(arguments.classes)
    batches = [int(batch) for batch in arguments.batches.split(",")]
    steps = {batch: ConditionalStep(backbone, names, arguments.n_ctx, batch) for batch in {1, *batches}}
    cases = [(name, batch) for name in precisions for batch in batches]
    ways = {"reference": steps[1].way("reference")}
    ways |= {f"{name}, batch {batch}": steps[batch].way(name) for name, batch in cases}
    times = timed(ways, arguments.repeats, 2)
    reference, reached = min(times["reference"]), peaks(precisions)
    encoder = TextEncoder(backbone, steps[1].prompts)
    rows = []
    for name, batch in cases:
        best = min(times[f"{name}, batch {batch}"])
        rows.append(
            {
                "precision": name,
                "batch": batch,
                "step_s": best,
                "image_s": best / batch,
                "ratio": reference * batch / best,
                "matmul_peak_share": PRODUCTS_PER_LAYER * batch * encoder.operations / best / reached[name],
                "peak_memory_gb": peak_memory(name, batch, arguments),
            }
        )
    return {
        "what": f"CoCoOp, {arguments.model}, {arguments.classes} classes, M={arguments.n_ctx}, {device()}",
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        "reference": {"step_s": reference, "peak_memory_gb": peak_memory("reference", 1, arguments)},
        "ours": rows,
        "tokens": {"reference": 77 * arguments.classes, "ours": encoder.rows},
        "spread": {name: spread(values) for name, values in times.items()},
        "gradient_rel_err": gradient_error(steps[1]),
        "matmul_peak_gflops": {name: peak / 1e9 for name, peak in reached.items()},
    }


def measure_coop(arguments: argparse.Namespace) -> dict[str, Any]:
    """CoOp: everything, in one run."""
    ours, left_out = precisions_here(("fp32", "bf16"))
    step = Step(random_backbone(arguments.model), class_names(arguments.classes), arguments.n_ctx, arguments.batch)
    ways = {name: step.way(name) for name in ("reference", *ours)}
    longer = Step(step.backbone, imagenet_names(arguments.classes), arguments.n_ctx, arguments.batch)
    ways |= {name + LONGER: longer.way(name) for name in ours}
    times = timed(ways, arguments.repeats, 5)
    best = {name: min(values) for name, values in times.items()}
    reached = peaks(ours)
    encoder, its = (TextEncoder(one.backbone, one.prompts) for one in (step, longer))
    share, longer_share = (
        {name: PRODUCTS_PER_LAYER * one.operations / best[name + names] / reached[name] for name in ours}
        for one, names in ((encoder, ""), (its, LONGER))
    )
    return {
        "what": f"{arguments.model}, {arguments.classes} classes, M={arguments.n_ctx}, batch {arguments.batch}, {device()}",
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        **beside_reference(best, ours),
        "tokens": {"reference": 77 * arguments.classes, "ours": encoder.rows},
        "with_imagenet_names": {
            "tokens": its.rows,
            "ours_s": {name: best[name + LONGER] for name in ours},
            "ratio": {name: best["reference"] / best[name + LONGER] for name in ours},
            "matmul_peak_shares": longer_share,
        },
        "spread": {name: spread(values) for name, values in times.items()},
        "gradient_rel_err": gradient_error(step),
        "peak_memory_gb": {name: peak_memory(name, arguments.batch, arguments) for name in ("reference", *ours)},
        "matmul_peak_gflops": {name: peak / 1e9 for name, peak in reached.items()},
        "matmul_peak_share": share["fp32"],
        "matmul_peak_shares": share,
    }


def beside_reference(best: Mapping[str, float], ours: Sequence[str]) -> dict[str, Any]:
    """Seconds of the reference way and of ours, and how many times as fast these are."""
    return {
        "reference_s": best["reference"],
        "ours_s": {name: best[name] for name in ours},
        "ratio": {name: best["reference"] / best[name] for name in ours},
    }


def measure_method(arguments: argparse.Namespace) -> dict[str, Any]:
    """Another method: everything, in one run."""
    ours, left_out = precisions_here(("fp32", "bf16"))
    step = MethodStep(
        arguments.method, random_backbone(arguments.model), class_names(arguments.classes), arguments.batch
    )
    ways = {name: step.way(name) for name in ("reference", *ours)}
    theirs, mine = ways["reference"](), ways["fp32"]()
    times = timed(ways, arguments.repeats, 3)
    best = {name: min(values) for name, values in times.items()}
    parts = step.parts("fp32")
    for run in parts.values():
        run()
    return {
        "what": f"{arguments.method}, {arguments.model}, {arguments.classes} classes, batch {arguments.batch}, {device()}",
        "both_towers": arguments.method != OTHERS[0],
        "left_out": left_out,
        "threads": torch.get_num_threads(),
        **beside_reference(best, ours),
        "spread": {name: spread(values) for name, values in times.items()},
        "parts_s": {name: min(seconds(run) for _ in range(3)) for name, run in parts.items()},
        "profile": profile(ways["fp32"]),
        "gradient_rel_err": float((mine - theirs).norm() / theirs.norm()),
        "peak_memory_gb": {name: peak_memory(name, arguments.batch, arguments) for name in ("reference", *ours)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--method", choices=METHODS, default="coop")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--n-ctx", type=int, help="context vectors; 16 for CoOp and 4 for CoCoOp unless given")
    parser.add_argument("--batch", type=int, help="images in a step; 32 for CoOp and 4 for others unless given")
    parser.add_argument("--batches", default="1,8,32", help="images in our steps of CoCoOp")
    parser.add_argument("--repeats", type=int, default=3, help="measured reference steps")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    coop = arguments.method == "coop"
    arguments.n_ctx = arguments.n_ctx or (16 if coop else 4)
    arguments.batch = arguments.batch or (32 if coop else 4)
    if arguments.memory_of:
        names = class_names(arguments.classes)
        backbone = random_backbone(arguments.model)
        if arguments.method in OTHERS:
            run = MethodStep(arguments.method, backbone, names, arguments.batch).way(arguments.memory_of)
        else:
            kind = Step if coop else ConditionalStep
            run = kind(backbone, names, arguments.n_ctx, arguments.batch).way(arguments.memory_of)
        run(), run()
        print(peak_bytes() / 1e9)
        return
    measure, section = {
        "coop": (measure_coop, sections.coop_step),
        "cocoop": (measure_cocoop, sections.cocoop_step),
    }.get(arguments.method, (measure_method, sections.method_step))
    result = measure(arguments)
    report(result, on_screen(section(result)), arguments)


if __name__ == "__main__":
    main()
