"""Time and memory of a training step as classes, or CoCoOp's images, are added.

    python benchmarks/scale.py [--json] [--model ViT-B-16] [--classes 100,1000,5000,21000] [--precisions fp32,bf16]
    python benchmarks/scale.py --method cocoop [--json] [--classes 100,1000] [--batch 8]
    python benchmarks/scale.py --text-width 64 --text-layers 3      # a small tower, for a quick look
    python benchmarks/scale.py --memory 4G                          # what a step may hold

One process for each number of classes and each precision takes two training steps on a model with random weights and cached
image features (CoOp: 16 context vectors, 32 images; CoCoOp: 4 context vectors, 8 images). The second step's time counts;
`plan_s` is what comes before the first: tokens, estimate and chunks. Memory is the most that the process ever held (on a
GPU: its tensors there), above what it held before the first step (libraries, the model, its image tower too); `estimate_mb`
is what was said before it began.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.names import class_names
from benchmarks.speed import peak_bytes, seconds
from benchmarks.steps import ConditionalStep, Step, random_backbone
from coopt.errors import ClassNameWarning
from coopt.training.heap import kept_heap

DEFAULTS: dict[str, dict[str, Any]] = {
    "coop": {"kind": Step, "n_ctx": 16, "batch": 32, "classes": "100,1000,5000,21000"},
    "cocoop": {"kind": ConditionalStep, "n_ctx": 4, "batch": 8, "classes": "100,1000"},
}
PASSED_ON = ("method", "model", "batch", "memory", "text_width", "text_layers")


def measure(classes: int, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row, measured in this process."""
    defaults = DEFAULTS[arguments.method]
    text = {"width": arguments.text_width, "layers": arguments.text_layers}
    backbone = random_backbone(arguments.model, {name: value for name, value in text.items() if value})
    begun = time.perf_counter()
    step = defaults["kind"](backbone, class_names(classes), defaults["n_ctx"], arguments.batch or defaults["batch"])
    run = step.way(precision, arguments.memory)
    planned = time.perf_counter() - begun
    before = peak_bytes()
    with kept_heap():  # as in training
        run()
        taken = seconds(run)
    return {
        "classes": classes,
        "precision": precision,
        "plan_s": planned,
        "step_s": taken,
        "class_ms": 1e3 * taken / classes,
        "chunks": step.estimate.chunks,
        "estimate_mb": step.estimate.total / 1e6,
        "above_model_mb": (peak_bytes() - before) / 1e6,
        "peak_mb": peak_bytes() / 1e6,
    }


def in_own_process(classes: str, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own, whose peak is nobody else's."""
    given = {name: getattr(arguments, name) for name in PASSED_ON}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    command = [sys.executable, __file__, f"--one={classes}", f"--precisions={precision}", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--method", choices=DEFAULTS, default="coop")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--text-width", type=int, help="another width of its text tower")
    parser.add_argument("--text-layers", type=int, help="another number of blocks in its text tower")
    parser.add_argument("--classes", help="numbers of classes")
    parser.add_argument("--batch", type=int, help="images in a step")
    parser.add_argument("--memory", default="auto", help="what a step may hold above the model")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ClassNameWarning)  # ImageNet has a few names twice
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.precisions, arguments)))
        return
    numbers = (arguments.classes or DEFAULTS[arguments.method]["classes"]).split(",")
    rows = [in_own_process(n, precision, arguments) for precision in arguments.precisions.split(",") for n in numbers]
    what = {name: getattr(arguments, name) for name in PASSED_ON} | {"threads": torch.get_num_threads()}
    if arguments.json:
        print(json.dumps({**what, "rows": rows}, indent=1))
        return
    print("a training step: " + ", ".join(f"{name} {value}" for name, value in what.items() if value is not None))
    print(
        f"{'':6}{'classes':>8}{'plan s':>8}{'step s':>9}{'ms / class':>12}{'chunks':>8}{'estimated':>11}{'above model':>13} MB"
    )
    for row in rows:
        numbers = f"{row['plan_s']:8.2f}{row['step_s']:9.2f}{row['class_ms']:12.2f}{row['chunks']:8}"
        print(f"{row['precision']:6}{row['classes']:8}{numbers}{row['estimate_mb']:11.0f}{row['above_model_mb']:13.0f}")


if __name__ == "__main__":
    main()
