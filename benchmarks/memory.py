"""How much memory training takes as classes are added.

    python benchmarks/memory.py [--json] [--classes 100,1000,5000] [--precision fp32]

One process for each number of classes takes two training steps on a ViT-B/16 with random weights (16 context vectors, 32
cached image features) and reports the most memory it ever held, in all and above what it held before the first step
(libraries, the model, its image tower too).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.speed import Step, class_names, peak_bytes, random_backbone, seconds


def step_memory(classes: int, precision: str, model: str) -> dict[str, float]:
    """Measured in this process."""
    step = Step(random_backbone(model), class_names(classes), n_ctx=16, batch=32)
    run = step.way(precision)
    before = peak_bytes()
    run()
    return {"classes": classes, "before_gb": before / 1e9, "step_s": seconds(run), "peak_gb": peak_bytes() / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--classes", default="100,1000,5000")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(step_memory(arguments.one, arguments.precision, arguments.model)))
        return
    rows = []
    for classes in arguments.classes.split(","):
        command = [
            sys.executable,
            __file__,
            f"--one={classes}",
            f"--precision={arguments.precision}",
            f"--model={arguments.model}",
        ]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if arguments.json:
        print(json.dumps({"precision": arguments.precision, "rows": rows}, indent=1))
        return
    print(f"training step, {arguments.model}, M=16, {arguments.precision}")
    print(f"{'classes':>8}{'s / step':>10}{'peak GB':>9}{'above the model':>17}")
    for row in rows:
        print(f"{row['classes']:8}{row['step_s']:10.2f}{row['peak_gb']:9.2f}{row['peak_gb'] - row['before_gb']:17.2f}")


if __name__ == "__main__":
    main()
