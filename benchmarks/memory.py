"""How much memory training takes as classes, or CoCoOp's images, are added.

    python benchmarks/memory.py [--json] [--classes 100,1000,5000] [--precision fp32]
    python benchmarks/memory.py --method cocoop [--json] [--classes 100,1000] [--batch 8] [--precision fp32]

One process for each number of classes takes two training steps on a ViT-B/16 with random weights and cached image features
(CoOp: 16 context vectors, 32 images; CoCoOp: 4 context vectors) and reports the most memory it ever held, in all and above
what it held before the first step (libraries, the model, its image tower too).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.names import class_names
from benchmarks.speed import peak_bytes, seconds
from benchmarks.steps import ConditionalStep, Step, random_backbone


def step_memory(classes: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Measured in this process."""
    kind, n_ctx = (Step, 16) if arguments.method == "coop" else (ConditionalStep, 4)
    step = kind(random_backbone(arguments.model), class_names(classes), n_ctx, arguments.batch)
    run = step.way(arguments.precision)
    before = peak_bytes()
    run()
    return {"classes": classes, "before_gb": before / 1e9, "step_s": seconds(run), "peak_gb": peak_bytes() / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--method", choices=("coop", "cocoop"), default="coop")
    parser.add_argument("--classes", help="100,1000,5000 for CoOp and 100,1000 for CoCoOp unless given")
    parser.add_argument("--batch", type=int, help="images in a step; 32 for CoOp and 8 for CoCoOp unless given")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    coop = arguments.method == "coop"
    arguments.batch = arguments.batch or (32 if coop else 8)
    if arguments.one:
        print(json.dumps(step_memory(arguments.one, arguments)))
        return
    rows = []
    for classes in (arguments.classes or ("100,1000,5000" if coop else "100,1000")).split(","):
        options = [f"--{key}={getattr(arguments, key)}" for key in ("method", "batch", "precision", "model")]
        command = [sys.executable, __file__, f"--one={classes}", *options]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if arguments.json:
        print(json.dumps({"precision": arguments.precision, "batch": arguments.batch, "rows": rows}, indent=1))
        return
    print(f"training step of {arguments.method}, {arguments.model}, batch {arguments.batch}, {arguments.precision}")
    print(f"{'classes':>8}{'s / step':>10}{'peak GB':>9}{'above the model':>17}")
    for row in rows:
        print(f"{row['classes']:8}{row['step_s']:10.2f}{row['peak_gb']:9.2f}{row['peak_gb'] - row['before_gb']:17.2f}")


if __name__ == "__main__":
    main()
