"""Prompts learned with a softmax or a sigmoid loss, on text towers that were trained with one or the other.

    python -m tools.bundled towers                    # trains the softmax tower, some 25 minutes on two cores
    python -m tools.bundled towers --loss sigmoid     # and its twin
    python benchmarks/sigmoid.py [--seeds 1 2 3] [--shots 1 4 16] [--json FILE]

Both towers read the same captions of the same scenes in the same order, for the bundled images; they differ in their loss
(CLIP's, and that of Zhai et al.: "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, arXiv:2303.15343). CoOp learns
on each with the cross-entropy of a softmax over the classes; on the sigmoid's also with its own loss: the binary cross-entropy
of every class by itself, summed over the classes, with the bias that the tower was trained with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.recipe import Row, Task, summary
from benchmarks.report import add_json_option, on_screen, report
from coopt import CoOp, load_backbone
from coopt.data import FeatureCache
from coopt.data.bundled import bundled_datasets
from coopt.methods.forward import Batch, Forward

TOWERS = Path(__file__).parents[1] / ".work" / "bundled" / "towers"


class SigmoidCoOp(CoOp):
    """CoOp with the sigmoid loss."""

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """The mean over images of the sum over classes, as in training."""
        scores = forward.logits()
        wanted = one_hot(batch.targets, scores.shape[1]).to(scores)
        return binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / len(scores)


WAYS = {
    "softmax tower, softmax loss": ("w256", CoOp),
    "sigmoid tower, softmax loss": ("w256-sigmoid", CoOp),
    "sigmoid tower, sigmoid loss": ("w256-sigmoid", SigmoidCoOp),
}


def rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Every way on every data set, and the prompts written by hand for each tower."""
    cache = FeatureCache()
    for tower in dict.fromkeys(tower for tower, _ in WAYS.values()):
        backbone = load_backbone(f"openclip:local-dir:{arguments.towers / tower / 'model'}")
        for described in bundled_datasets():
            task = Task(described, backbone, cache, arguments.on)
            for row in task.hand_made():
                yield Row(
                    f"{'sigmoid' if 'sigmoid' in tower else 'softmax'} tower, {row.candidate}",
                    *list(asdict(row).values())[1:],
                )
            for name, (of, method) in WAYS.items():
                if of == tower:
                    for shots in arguments.shots:
                        yield from (task.row(name, {}, shots, seed, method) for seed in arguments.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--towers", type=Path, default=TOWERS, help="folder of both models")
    parser.add_argument("--on", choices=("val", "test"), default="test", help="the part that is scored")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add_json_option(parser)
    arguments = parser.parse_args()
    measured = list(rows(arguments))
    result = {
        "on": arguments.on,
        "shots": arguments.shots,
        "seeds": arguments.seeds,
        "data_sets": len({row.dataset for row in measured}),
        "candidates": summary(measured, {name: {"tower": tower} for name, (tower, _) in WAYS.items()}),
        "rows": [asdict(row) for row in measured],
    }
    report(result, on_screen(sections.recipe(result)), arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)  # steps are small here, and threads would only wait for each other
    main()
