"""What could make a text pass cheaper than forward and backward over all classes in fp32, and with what error.

    python benchmarks/passes.py time [--model ViT-B-16] [--classes 100,1000] [--repeats 3] [--json FILE]
    python benchmarks/passes.py gradient [--problem mixed] [--shots 16] [--steps 32] [--json FILE]
    python benchmarks/passes.py training [--problem mixed] [--shots 1,4,16] [--seeds 1,2,3] [--cost 8,16,32] [--ways WAY,...]

- `time`: processor seconds of a CoOp step (16 context vectors, random weights) and of its parts: the forward pass alone,
  forward and backward for some of the classes (chosen anew each time), bf16, and what the images add to a step.
- `gradient`: the context's gradient where only some classes are sent backwards, along a training with all of them.
  `largest`: those that hold all but a share of the squared norm of the gradient with respect to the classes' features.
  `sampled`: drawn in proportion to that norm and weighted by one over their probability.
- `training`: accuracy on the validation part (and the loss in training) after Adam with all images, at equal cost. A cost of 1
  is forward and backward over all classes in fp32, whatever the precision; forward alone costs `FORWARD`. `stale`: a part of the
  classes in turn, forward and backward; the others keep their features of an earlier step, moved by the mean movement of
  that part. `bf16`: all steps; `bf16 half`: the first half of them.

A problem is the name of a bundled one, or a file of `torch.save` with `names`, and features and classes of images: `X` and `y` for
training (the same classes over and over), `XV` and `yV` to be tested on. It is learned with the bundled backbone.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import say
from benchmarks.names import class_names
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.sections import Table
from benchmarks.steps import Step, device, random_backbone
from coopt import load_backbone
from coopt.backbones import Backbone
from coopt.data import FeatureCache, Split, extract_features, few_shot
from coopt.data.bundled import load_bundled
from coopt.errors import ClassNameWarning
from coopt.prompts.context import initial_context
from coopt.runtime import Precision
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from coopt.training.heap import kept_heap

FORWARD = 0.47
"""What the forward pass alone costs of a step, as `time` measures it (1,000 classes, fp32): less than half, because the tower's
weights are frozen, so that the backward pass has one matrix product for each of the forward pass and not two."""

PARTS = (0.5, 0.25, 0.1)
"""Of the classes, in `time` and `gradient`."""

LEFT_OUT = (0.1, 0.01, 0.001)
"""Of the squared norm of the features' gradient, in `gradient`."""

LEARNING_RATE, BETAS = 0.05, (0.7, 0.9)

Way = Literal["all", "bf16", "bf16 half", "largest", "sampled", "stale"]

WAYS: tuple[tuple[Way, float], ...] = (
    ("all", 1.0),
    ("bf16", 1.0),
    ("bf16 half", 1.0),
    ("largest", 0.5),
    ("sampled", 0.25),
    ("sampled", 0.1),
    ("stale", 0.25),
    ("stale", 0.125),
)
"""In `training`, each with the part of the classes that go backwards."""


def some_classes(encoder: TextEncoder, classes: Tensor, context: Tensor) -> Tensor:
    """Features of some of the classes, in their order."""
    order = torch.argsort(encoder.prompts.lengths[classes], stable=True)
    chunk = encoder._fast_chunk(classes[order], 1, {})
    return chunk.run(encoder._inputs(context, {}, {}))[0][torch.argsort(order)]


def largest(norms: Tensor, left_out: float) -> Tensor:
    """The fewest classes that hold all but a share of the squared norm."""
    order = norms.argsort(descending=True)
    held = norms[order].square().cumsum(0)
    return order[: int((held < (1 - left_out) * held[-1]).sum()) + 1]


def probabilities(norms: Tensor, count: float) -> Tensor:
    """In proportion to the norms, at most 1 and `count` in sum."""
    certain = torch.zeros_like(norms, dtype=torch.bool)
    while True:
        scaled = norms * (count - certain.sum()) / norms[~certain].sum()
        more = (scaled >= 1) & ~certain
        if not more.any():
            return scaled.masked_fill(certain, 1.0)
        certain |= more


# ---- time


def processor_seconds(run: Callable[[], Any]) -> float:
    """Of this process, in all its threads: what else runs on the machine counts less than by the clock."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure_time(backbone: Backbone, classes: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and of its parts."""
    step = Step(backbone, class_names(classes), 16, 32)
    upstream = torch.randn(classes, backbone.embed_dim)
    cached = torch.randn(32, backbone.embed_dim)
    images = normalize(torch.randn(min(4096, 16 * classes), backbone.embed_dim), dim=-1)
    labels = torch.arange(len(images)) % classes

    def forward(encoder: TextEncoder) -> None:
        with torch.no_grad():
            encoder(step.start)

    def part(encoder: TextEncoder, share: float) -> None:
        chosen = torch.randperm(classes)[: int(share * classes)]
        features = some_classes(encoder, chosen, step.start.clone().requires_grad_())
        features.backward(upstream[chosen])

    def image_side() -> None:
        features = upstream.clone().requires_grad_()
        cross_entropy(100 * images @ normalize(features, dim=-1).T, labels).backward()

    ways: dict[str, Callable[[], Any]] = {"images": image_side}
    for precision in ("fp32", "bf16"):
        encoder = TextEncoder(backbone, step.prompts, precision=precision, batch=32)
        ways[f"{precision} step"] = lambda encoder=encoder: step.take(encoder, lambda: cached)
        ways[f"{precision} forward"] = lambda encoder=encoder: forward(encoder)
        for share in (one for one in PARTS if one * classes <= 1250):  # in one chunk
            ways[f"{precision} part {share}"] = lambda encoder=encoder, share=share: part(encoder, share)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with kept_heap():
        for i in range(arguments.repeats + (classes < 5000)):  # a first one of many classes counts as well as any other
            for name, run in ways.items():
                taken[name].append(processor_seconds(run))
                say(f"{classes} classes, {name}: {taken[name][-1]:.2f} s, repeat {i}")
    seconds = {name: min(times) for name, times in taken.items()}
    seconds["images"] *= 16 * classes / len(images)  # in slices of so many, each as dear as any other
    return {"classes": classes, "seconds": seconds}


def time_table(rows: list[dict[str, Any]]) -> Table:
    """Everything as a share of the fp32 step."""
    names = [name for name in rows[0]["seconds"] if name != "fp32 step"]
    header = ["", *(f"{row['classes']:,} classes" for row in rows)]
    first = ["fp32 step, seconds", *(f"{row['seconds']['fp32 step']:.2f}" for row in rows)]
    shares = [
        [f"{name}, of it", *(_ratio(row["seconds"].get(name), row["seconds"]["fp32 step"]) for row in rows)]
        for name in names
    ]
    return Table(header, [first, *shares])


def _ratio(part: float | None, whole: float) -> str:
    return "" if part is None else f"{part / whole:.3f}"


# ---- problems


@dataclass
class Problem:
    """Images and classes that a context is learned from."""

    names: list[str]
    images: Tensor
    targets: Tensor
    val: tuple[Tensor, Tensor]
    seed: int
    encoders: dict[str, TextEncoder] = field(default_factory=dict)

    @property
    def start(self) -> Tensor:
        return initial_context(bundled(), self.names, None, False, None, self.seed)

    def encoder(self, precision: Precision = "fp32") -> TextEncoder:
        if precision not in self.encoders:
            prompts = context_prompts(bundled(), self.names, len(self.start), "end", False)
            self.encoders[precision] = TextEncoder(bundled(), prompts, precision=precision)
        return self.encoders[precision]

    def logits(self, features: Tensor, images: Tensor) -> Tensor:
        return bundled().logit_scale * images @ normalize(features, dim=-1).T

    def loss(self, features: Tensor, images: Tensor | None = None, targets: Tensor | None = None) -> Tensor:
        return cross_entropy(
            self.logits(features, self.images if images is None else images),
            self.targets if targets is None else targets,
        )

    def of_features(self, features: Tensor, chosen: Tensor | None = None) -> Tensor:
        """The gradient with respect to each class's features, from all images or some."""
        leaf = features.detach().requires_grad_()
        some = (None, None) if chosen is None else (self.images[chosen], self.targets[chosen])
        return torch.autograd.grad(self.loss(leaf, *some), leaf)[0]

    def accuracy(self, context: Tensor) -> float:
        with torch.no_grad():
            images, targets = self.val
            hits = self.logits(self.encoder()(context), images).argmax(1) == targets
        return 100 * hits.float().mean().item()


@cache
def bundled() -> Backbone:
    return load_backbone("bundled")


def problem(name: str, shots: int, seed: int) -> Problem:
    """A sample of a bundled problem, or of a file's."""
    if Path(name).is_file():
        held = torch.load(name, weights_only=True)
        targets, generator = held["y"], torch.Generator().manual_seed(seed)
        mixed = torch.randperm(len(targets), generator=generator)
        of_class = [mixed[targets[mixed] == one][:shots] for one in range(len(held["names"]))]
        chosen = torch.cat(of_class)
        return Problem(held["names"], held["X"][chosen], targets[chosen], (held["XV"], held["yV"]), seed)
    data = load_bundled(name)
    names = list(data.class_names)
    train, val = few_shot(data, shots, seed).train, data.val
    assert val is not None
    return Problem(names, *_features(train, names), _features(val, names), seed)


def _features(split: Split, names: list[str]) -> tuple[Tensor, Tensor]:
    features = extract_features(bundled(), list(split.paths), cache=FeatureCache()).features[0]
    return normalize(features, dim=-1), torch.tensor([names.index(label) for label in split.labels])


# ---- gradient


def measure_gradient(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Errors of the context's gradient at some steps of a training, for several numbers of images."""
    given = problem(arguments.problem, int(arguments.shots.split(",")[0]), 1)
    encoder, adam = given.encoder(), Adam(given.start)
    looked_at = {0, *(2**i for i in range(1, 10)), arguments.steps - 1}
    for step in range(arguments.steps):
        context = adam.vectors.clone().requires_grad_()
        features = encoder(context)

        def back(upstream: Tensor, features: Tensor = features, context: Tensor = context) -> Tensor:
            return torch.autograd.grad(features, context, upstream, retain_graph=True)[0]

        exact = back(given.of_features(features))
        for n in (len(given.targets), 256, 32) if step in looked_at else ():
            chosen = None if n >= len(given.targets) else torch.randperm(len(given.targets))[:n]
            upstream = given.of_features(features, chosen)
            whole, norms = back(upstream), upstream.norm(dim=1)
            row = {"step": step, "images": n, "of_all_images": errors(whole, exact)}
            for left_out in LEFT_OUT:
                kept = torch.zeros_like(norms)
                kept[largest(norms, left_out)] = 1
                row[f"largest {left_out}"] = {
                    "part": kept.mean().item(),
                    **errors(back(upstream * kept[:, None]), whole),
                }
            for part in PARTS:
                p = probabilities(norms, part * len(norms))
                drawn = [(torch.rand(len(p)) < p) / p.clamp_min(1e-12) for _ in range(4)]
                several = [errors(back(upstream * weights[:, None]), whole) for weights in drawn]
                row[f"sampled {part}"] = {key: sum(one[key] for one in several) / 4 for key in several[0]}
            say(f"step {step}, {n} images")
            yield row
        adam.move(exact, step, arguments.steps)


def errors(estimate: Tensor, exact: Tensor) -> dict[str, float]:
    """Relative error and cosine."""
    cosine = cosine_similarity(estimate.flatten(), exact.flatten(), dim=0)
    return {"error": ((estimate - exact).norm() / exact.norm()).item(), "cosine": cosine.item()}


def gradient_table(rows: list[dict[str, Any]]) -> Table:
    """Errors, and the part of the classes where it is not given."""
    ways = [name for name in rows[0] if name not in ("step", "images", "of_all_images")]
    header = ["step", "images", *ways]
    cells = [
        [
            str(row["step"]),
            f"{row['images']:,}",
            *((f"{row[way]['part']:.2f}: " if "part" in row[way] else "") + f"{row[way]['error']:.2f}" for way in ways),
        ]
        for row in rows
    ]
    return Table(header, cells)


# ---- training


class Adam:
    """A context under Adam with a cosine schedule."""

    def __init__(self, vectors: Tensor, betas: tuple[float, float] = BETAS) -> None:
        self.vectors, self.betas = vectors.clone(), betas
        self.mean, self.square = torch.zeros_like(vectors), torch.zeros_like(vectors)

    def move(self, gradient: Tensor, step: int, steps: int) -> None:
        first, second = self.betas
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient.square()
        rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        size = (self.square / (1 - second ** (step + 1))).sqrt() + 1e-8
        self.vectors = self.vectors - rate * self.mean / (1 - first ** (step + 1)) / size


def train(given: Problem, way: Way, part: float, cost: float) -> dict[str, float]:
    """A training of as many steps as that cost allows."""
    classes, generator = len(given.names), torch.Generator().manual_seed(given.seed)
    each = {"sampled": FORWARD + part, "largest": FORWARD + part}.get(way, part)
    steps = round((cost - FORWARD * (way == "stale")) / each)
    # Gradients of a part of the classes in turn are averaged over as many classes as those of all are.
    adam = Adam(given.start, tuple(1 - (1 - beta) * min(part, 1.0) for beta in BETAS) if way == "stale" else BETAS)  # type: ignore[arg-type]
    remaining, known = torch.empty(0, dtype=torch.long), torch.empty(0)
    for step in range(steps):
        context = adam.vectors.clone().requires_grad_()
        half = way == "bf16" or (way == "bf16 half" and step < steps // 2)
        encoder = given.encoder("bf16" if half else "fp32")
        if way in ("sampled", "largest"):
            upstream = given.of_features(encoder(context.detach()))
            p, chosen = probabilities(upstream.norm(dim=1), part * classes), torch.empty(0)
            if way == "sampled":
                chosen = (torch.rand(classes, generator=generator) < p).nonzero()[:, 0]
                upstream = upstream[chosen] / p[chosen, None]
            else:
                chosen = upstream.norm(dim=1).argsort(descending=True)[: int(part * classes)]
                upstream = upstream[chosen]
            features = some_classes(encoder, chosen, context)
        elif way == "stale":
            if not len(known):
                with torch.no_grad():
                    known = encoder(context)
            count = max(1, int(part * classes))
            if len(remaining) < count:
                remaining = torch.randperm(classes, generator=generator)
            chosen, remaining = remaining[:count], remaining[count:]
            features = some_classes(encoder, chosen, context)
            known = known + (features.detach() - known[chosen]).mean(0)
            known[chosen] = features.detach()
            upstream = given.of_features(known)[chosen]
        else:
            features = encoder(context)
            upstream = given.of_features(features)
        adam.move(torch.autograd.grad(features, context, upstream)[0], step, steps)
    with torch.no_grad():
        loss = given.loss(given.encoder()(adam.vectors)).item()
    return {"accuracy": given.accuracy(adam.vectors), "loss": loss, "steps": steps}


def measure_training(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All ways on all samples."""
    samples = [
        (int(shots), problem(arguments.problem, int(shots), int(seed)))
        for shots in arguments.shots.split(",")
        for seed in arguments.seeds.split(",")
    ]
    encoders = samples[0][1].encoders  # they have the same classes
    for way, part in WAYS:
        if arguments.ways and f"{way} {part:g}" not in arguments.ways.split(","):
            continue
        for cost in map(float, arguments.cost.split(",")):
            for shots, given in samples:
                given.encoders = encoders
                row = {"way": way, "part": part, "cost": cost, "shots": shots, "seed": given.seed}
                row |= train(given, way, part, cost)
                say(f"{way} {part:g}, cost {cost:g}, {shots} shots: {row['accuracy']:.2f}, loss {row['loss']:.3f}")
                yield row


def training_table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy and loss, mean of all samples."""
    costs = sorted({row["cost"] for row in rows})

    def cell(way: str, part: float, cost: float) -> str:
        found = [row for row in rows if (row["way"], row["part"], row["cost"]) == (way, part, cost)]
        accuracy, loss = (sum(row[what] for row in found) / len(found) for what in ("accuracy", "loss"))
        return f"{accuracy:.2f} ({loss:.3f})"

    ways = list(dict.fromkeys((row["way"], row["part"]) for row in rows))
    cells = [
        [way if part == 1 else f"{way} {part:g}", *(cell(way, part, cost) for cost in costs)] for way, part in ways
    ]
    return Table(["", *(f"cost {cost:g}" for cost in costs)], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("what", choices=("time", "gradient", "training"))
    parser.add_argument("--model", default="ViT-B-16", help="time: an open_clip architecture")
    parser.add_argument("--classes", default="100,1000", help="time: numbers of classes")
    parser.add_argument("--repeats", type=int, default=3, help="time: measured steps")
    parser.add_argument("--problem", default="mixed", help="a bundled problem, or a file")
    parser.add_argument("--shots", default="16", help="images of each class")
    parser.add_argument("--seeds", default="1", help="training: samples")
    parser.add_argument("--steps", type=int, default=32, help="gradient: of the training")
    parser.add_argument("--ways", help="training: some of them, as in 'all 1,sampled 0.25'")
    parser.add_argument("--cost", default="8,16,32", help="training: steps over all classes that may be spent")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ClassNameWarning)  # ImageNet has a few names twice
    torch.manual_seed(0)
    if arguments.what == "time":
        backbone = random_backbone(arguments.model)
        rows = [measure_time(backbone, int(classes), arguments) for classes in arguments.classes.split(",")]
        about = f"{arguments.model}, 16 context vectors, {device()}: processor seconds, the fastest of the repeats."
        table = time_table(rows)
    elif arguments.what == "gradient":
        rows = list(measure_gradient(arguments))
        about = "The relative error of the context's gradient; before it the part of the classes that went backwards."
        table = gradient_table(rows)
    else:
        rows = list(measure_training(arguments))
        about = "Accuracy on the validation part in percent, and the loss in training, mean of the samples."
        table = training_table(rows)
    report({"what": arguments.what, "rows": rows}, on_screen([about, table]), arguments)


if __name__ == "__main__":
    main()
