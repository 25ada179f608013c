"""Time and memory of a training step as classes, or CoCoOp's images, are added.

    python benchmarks/scale.py [--model ViT-B-16] [--classes 100,1000,5000,21000] [--precisions fp32,bf16] [--json FILE]
    python benchmarks/scale.py --method cocoop [--classes 100,1000] [--batch 8]
    python benchmarks/scale.py --text-width 64 --text-layers 3      # a small tower, for a quick look
    python benchmarks/scale.py --memory 4G                          # what a step may hold

One process for each number of classes and each precision takes training steps on a model with random weights and cached
image features (CoOp: 16 context vectors, 32 images; CoCoOp: 4 context vectors, 8 images). The first step does not count, of
the others the fastest does; `plan_s` is what comes before the first: tokens, estimate and chunks. `above_model_mb` is the
most that the process ever held (on a GPU: its tensors there) above what it held once the model was there, some megabytes of
libraries' code that the first step reads among it; `estimate_mb` is what was said before that step, and `overshoot` what was
held for each byte of that.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import forget_peak, peak_bytes, precisions_here, say, seconds
from benchmarks.names import class_names
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.steps import ConditionalStep, Step, random_backbone
from coopt.errors import ClassNameWarning
from coopt.training.heap import kept_heap

DEFAULTS: dict[str, dict[str, Any]] = {
    "coop": {"kind": Step, "n_ctx": 16, "batch": 32, "classes": "100,1000,5000,21000"},
    "cocoop": {"kind": ConditionalStep, "n_ctx": 4, "batch": 8, "classes": "100,1000"},
}
PASSED_ON = ("method", "model", "batch", "memory", "repeats", "text_width", "text_layers")


def measure(classes: int, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row, measured in this process."""
    defaults = DEFAULTS[arguments.method]
    text = {"width": arguments.text_width, "layers": arguments.text_layers}
    backbone = random_backbone(arguments.model, {name: value for name, value in text.items() if value})
    begun = time.perf_counter()
    step = defaults["kind"](backbone, class_names(classes), defaults["n_ctx"], arguments.batch or defaults["batch"])
    forget_peak()
    before = peak_bytes()
    run = step.way(precision, arguments.memory)
    planned = time.perf_counter() - begun
    with kept_heap():  # as in training
        run()
        taken = min(seconds(run) for _ in range(arguments.repeats))
    held = peak_bytes() - before
    return {
        "classes": classes,
        "precision": precision,
        "plan_s": planned,
        "step_s": taken,
        "class_ms": 1e3 * taken / classes,
        "chunks": step.estimate.chunks,
        "estimate_mb": step.estimate.total / 1e6,
        "above_model_mb": held / 1e6,
        "overshoot": held / step.estimate.total,
    }


def in_own_process(classes: int, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own, whose peak is nobody else's."""
    given = {name: getattr(arguments, name) for name in PASSED_ON}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    command = [sys.executable, __file__, f"--one={classes}", f"--precisions={precision}", *options]
    row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    say(f"{precision}, {classes} classes, {given['memory']}: {row['step_s']:.3f} s, {row['above_model_mb']:,.0f} MB")
    return row


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `in_own_process` passes on, but for `--memory`."""
    parser.add_argument("--method", choices=DEFAULTS, default="coop")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--text-width", type=int, help="another width of its text tower")
    parser.add_argument("--text-layers", type=int, help="another number of blocks in its text tower")
    parser.add_argument("--batch", type=int, help="images in a step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    add_options(parser)
    parser.add_argument("--classes", help="numbers of classes")
    parser.add_argument("--memory", default="auto", help="what a step may hold above the model")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--repeats", type=int, default=1, help="measured steps")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ClassNameWarning)  # ImageNet has a few names twice
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.precisions, arguments)))
        return
    numbers = [int(n) for n in (arguments.classes or DEFAULTS[arguments.method]["classes"]).split(",")]
    precisions, left_out = precisions_here(arguments.precisions.split(","))
    rows = [in_own_process(n, precision, arguments) for precision in precisions for n in numbers]
    result = {**{name: getattr(arguments, name) for name in PASSED_ON}, "left_out": left_out, "rows": rows}
    report(result, on_screen(sections.scale(result)), arguments)


if __name__ == "__main__":
    main()
