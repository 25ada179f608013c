"""One fit alone, and beside another busy process: as torch's threads wait by themselves, and as the command line has them wait.

    python benchmarks/beside.py [--json FILE] [--model ViT-B-32] [--classes 100] [--steps 8] [--busy 1] [--repeats 3]

Each fit is a process of its own, on random image features and weights; its steps are timed, not its start. The other
process counts numbers in Python for as long as the fit takes. Ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

COUNTING = "while True: pass"


def ways() -> dict[str, tuple[dict[str, str], str | None]]:
    """How threads wait (environment), and how many there are (`Runtime`), by what the way is called."""
    from coopt.threads import WAITING

    return {
        "threads that spin, torch's default": ({}, None),
        "threads that sleep, as the command line sets them": (dict(WAITING), None),
        'threads that sleep, `Runtime(threads="auto")`': (dict(WAITING), "auto"),
    }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Within this context other processes keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def fitted(arguments: argparse.Namespace) -> None:
    """The work of one process: prints its seconds and threads."""
    import torch

    from benchmarks.measuring import seconds
    from benchmarks.names import imagenet_names
    from benchmarks.steps import random_backbone
    from coopt import CoOp, Runtime

    backbone = random_backbone(arguments.model)
    names = [f"{name} {i}" for i, name in enumerate(imagenet_names(arguments.classes))]
    features = torch.randn(len(names), backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    with Runtime(threads=arguments.threads):
        threads = torch.get_num_threads()
        model = CoOp(backbone, n_ctx=16, recipe={"epochs": 1}, class_names=names)
        model.fit(features, range(len(names)))  # the first time, libraries set themselves up
        model.set_params(recipe={"epochs": arguments.steps})
        print(json.dumps({"seconds": seconds(lambda: model.fit(features, range(len(names)))), "threads": threads}))


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per way: times alone and beside busy processes."""
    from benchmarks.measuring import spread
    from coopt.threads import WAITING

    results: dict[str, dict[str, list[Any]]] = {way: {"alone": [], "beside": [], "threads": []} for way in ways()}
    for _ in range(arguments.repeats):
        for way, (waiting, threads) in ways().items():
            environment = {name: value for name, value in os.environ.items() if name not in WAITING} | waiting
            for where, others in (("alone", 0), ("beside", arguments.busy)):
                again = [sys.executable, *sys.argv, "--work", *(("--threads", threads) if threads else ())]
                with busy(others):
                    done = subprocess.run(again, env=environment, capture_output=True, text=True, check=True)
                one = json.loads(done.stdout.splitlines()[-1])
                results[way][where].append(one["seconds"])
                results[way]["threads"].append(one["threads"])
                print(f"{way}, {where}: {one['seconds']:.2f} s on {one['threads']} threads", flush=True)
    return [
        {
            "way": way,
            "alone": spread(one["alone"]),
            "beside": spread(one["beside"]),
            "threads": sorted(set(one["threads"])),
        }
        for way, one in results.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file as well")
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip architecture")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--busy", type=int, default=1, help="other processes, each of which keeps a core busy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--threads", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        fitted(arguments)
        return
    from benchmarks import sections
    from benchmarks.report import on_screen, report

    what = f"{arguments.steps} steps, {arguments.model}, {arguments.classes} classes, M=16"
    result = {"what": what, "busy": arguments.busy, "rows": measure(arguments)}
    report(result, on_screen(sections.beside(result)), arguments)


if __name__ == "__main__":
    main()
