"""A whole run of ImageNet's size: 1,000 classes, 16 images of each, from features to a learned prompt.

    python benchmarks/whole.py [--json FILE] [--model ViT-B-16] [--classes 1000] [--shots 16] [--precisions fp32,bf16]

Everything that `CoOp.fit` does is timed, from reading class names to the learned context, with its default recipe, on
random image features and a model with random weights: what is learned means nothing, and what it costs is what it costs.
Memory is the most that the process held above what it held before the run (on a GPU: its tensors there).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from coopt.runtime import Runtime

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import forget_peak, peak_bytes, precisions_here, say, seconds
from benchmarks.names import imagenet_names
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.steps import device, random_backbone
from coopt import CoOp
from coopt.backbones import Backbone


def measure(backbone: Backbone, precision: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    drawn = imagenet_names(arguments.classes)
    names = [name if drawn.index(name) == i else f"{name} {i}" for i, name in enumerate(drawn)]  # a few come twice
    targets = torch.arange(arguments.shots * len(names)) % len(names)
    features = torch.randn(len(targets), backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    model = CoOp(backbone, n_ctx=16, class_names=names, runtime=Runtime(precision=precision, verbose=False))
    forget_peak()
    before = peak_bytes()
    taken = seconds(lambda: model.fit(features, targets))
    passes = model.text_passes_
    say(f"{precision}: {passes:.1f} text passes in {taken:.1f} s; {model.stopped_}")
    return {
        "precision": precision,
        "seconds": taken,
        "steps": passes,
        "step_s": taken / passes,
        "stopped": model.stopped_,
        "above_model_mb": (peak_bytes() - before) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--precisions", default="fp32,bf16")
    arguments = parser.parse_args()
    backbone = random_backbone(arguments.model)
    precisions, left_out = precisions_here(arguments.precisions.split(","))
    rows = [measure(backbone, precision, arguments) for precision in precisions]
    what = f"{arguments.model}, {arguments.classes} classes, {arguments.shots} shots, M=16, {device()}"
    result = {"what": what, "left_out": left_out, "rows": rows}
    report(result, on_screen(sections.whole(result)), arguments)


if __name__ == "__main__":
    main()
