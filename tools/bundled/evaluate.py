"""Do prompts matter in this world? Zero-shot, linear probe and a plain, slow CoOp on every bundled data set.

Only open_clip and torch are used here, so that the numbers do not depend on the package they are meant for.
"""

from __future__ import annotations

import json
import math
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

from tools.bundled import model as clip

NAIVE = "a photo of a {}."


@dataclass(frozen=True)
class Part:
    """Image features of one folder, unit length: (images, embed), and labels: (images,)."""

    features: Tensor
    labels: Tensor

    def shots(self, per_class: int, seed: int) -> Part:
        """A few images of every class."""
        generator = torch.Generator().manual_seed(seed)
        chosen = []
        for label in range(int(self.labels.max()) + 1):
            rows = torch.nonzero(self.labels == label)[:, 0]
            chosen.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
        index = torch.cat(chosen)
        return Part(self.features[index], self.labels[index])


@dataclass(frozen=True)
class Recipe:
    """Full-batch gradient descent on the context, with a cosine schedule."""

    n_ctx: int = 16
    steps: int = 200
    learning_rate: float = 0.05
    momentum: float = 0.9


def read_parts(
    model: CLIP, preprocess: Any, folder: Path, described: dict[str, Any], only: tuple[str, ...] = ()
) -> dict[str, Part]:
    """Features of every part of one data set, or `only` of these."""
    parts = {}
    archive = zipfile.ZipFile(folder / f"{described['name']}.zip")
    for name in only or ("train", "val", "test", *described["shifted"]):
        images, labels = [], []
        for label, title in enumerate(described["classes"]):
            for file in sorted(one for one in archive.namelist() if one.startswith(f"{name}/{title}/")):
                with Image.open(archive.open(file)) as picture:
                    images.append(preprocess(picture.convert("RGB")))
                labels.append(label)
        with torch.no_grad():
            features = torch.cat([model.encode_image(chunk) for chunk in torch.stack(images).split(256)])
        parts[name] = Part(F.normalize(features, dim=-1), torch.tensor(labels))
    return parts


def accuracy(part: Part, classifier: Tensor) -> float:
    """Percent right; classifier: (classes, embed)."""
    return 100 * ((part.features @ classifier.T).argmax(1) == part.labels).float().mean().item()


def zero_shot(model: CLIP, tokenizer: Any, classes: list[str], template: str) -> Tensor:
    """Unit text features of the filled-in template: (classes, embed)."""
    with torch.no_grad():
        return model.encode_text(tokenizer([template.format(c) for c in classes]), normalize=True)


def linear_probe(train: Part, val: Part, classes: int) -> tuple[Tensor, Tensor]:
    """Logistic regression on the features; the weight decay that does best on val. Returns weight and bias."""
    best, weights = -1.0, None
    for decay in (1e-4, 1e-3, 1e-2):
        weight = torch.zeros(classes, train.features.shape[1], requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

        def closure(weight: Tensor = weight, bias: Tensor = bias, decay: float = decay, by: Any = optimiser) -> Tensor:
            by.zero_grad()
            loss = F.cross_entropy(train.features @ weight.T + bias, train.labels) + decay * weight.square().sum() / 2
            loss.backward()
            return loss

        optimiser.step(closure)
        right = ((val.features @ weight.T + bias).argmax(1) == val.labels).float().mean().item()
        if right > best:
            best, weights = right, (weight.detach(), bias.detach())
    assert weights is not None
    return weights


def coop(model: CLIP, tokenizer: Any, classes: list[str], train: Part, recipe: Recipe, seed: int) -> Tensor:
    """Learn one context for all classes in front of the class name: the classifier (classes, embed)."""
    generator = torch.Generator().manual_seed(seed)
    context = (
        0.02 * torch.randn(recipe.n_ctx, model.token_embedding.embedding_dim, generator=generator)
    ).requires_grad_()
    filled = tokenizer([" ".join(["x"] * recipe.n_ctx) + f" {c}." for c in classes])
    length = int(filled.argmax(1).max()) + 1  # in a causal tower nothing after the end token matters
    tokens, scale = filled[:, :length], model.logit_scale.exp().detach()
    embedded = model.token_embedding(tokens).detach()

    def encode() -> Tensor:
        middle = context.expand(len(classes), -1, -1)
        x = (
            torch.cat([embedded[:, :1], middle, embedded[:, 1 + recipe.n_ctx :]], 1)
            + model.positional_embedding[:length].detach()
        )
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        return F.normalize(x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection, dim=-1)

    optimiser = torch.optim.SGD([context], lr=recipe.learning_rate, momentum=recipe.momentum)
    for step in range(recipe.steps):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        loss = F.cross_entropy(scale * train.features @ encode().T, train.labels)
        (context.grad,) = torch.autograd.grad(loss, context)
        optimiser.step()
    with torch.no_grad():
        return encode()


def evaluate(
    model_folder: Path,
    data: Path,
    out: Path,
    shots: tuple[int, ...],
    contexts: tuple[int, ...],
    seeds: int,
    recipe: Recipe,
    only: list[str],
    on: str = "test",
) -> None:
    """Evaluate every data set (or `only` these) and write one JSON line for each.

    `on` is "test", which takes the shifted tests along, or "val", on which everything is to be chosen.
    """
    model, preprocess, tokenizer = clip.load(model_folder)
    model.requires_grad_(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w") as lines:
        for described in json.loads((data / "datasets.json").read_text()):
            if only and described["name"] not in only:
                continue
            began = time.time()
            parts = read_parts(model, preprocess, data, described)
            described["scored"] = ("test", *described["shifted"]) if on == "test" else (on,)
            record = {"name": described["name"], "classes": len(described["classes"])}
            record |= _zero_shot_rows(model, tokenizer, described, parts)
            for k in shots:
                record |= _shot_rows(model, tokenizer, described, parts, k, contexts, seeds, recipe)
            record["seconds"] = round(time.time() - began, 1)
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            print(f"{described['name']}: {record['seconds']} s", flush=True)


def table(results: Path, part: str = "test") -> str:
    """The results on one part as a markdown table, with the mean over all data sets below."""
    records = [json.loads(line) for line in results.read_text().splitlines()]
    columns = [key for key in records[0] if key.endswith(f"/{part}")]
    means = [sum(r[c] for r in records) / len(records) for c in columns]
    lines = [["", *(c.split("/")[0] for c in columns)], ["---"] * (len(columns) + 1)]
    lines += [[r["name"], *(f"{r[c]:.0f}" for c in columns)] for r in records]
    lines += [["**mean**", *(f"{m:.1f}" for m in means)]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _zero_shot_rows(model: CLIP, tokenizer: Any, described: dict[str, Any], parts: dict[str, Part]) -> dict[str, float]:
    rows = {}
    for title, template in (("naive", NAIVE), ("hand", described["prompt"])):
        classifier = zero_shot(model, tokenizer, described["classes"], template)
        for name in described["scored"]:
            rows[f"{title}/{name}"] = round(accuracy(parts[name], classifier), 1)
    return rows


def _shot_rows(
    model: CLIP,
    tokenizer: Any,
    described: dict[str, Any],
    parts: dict[str, Part],
    k: int,
    contexts: tuple[int, ...],
    seeds: int,
    recipe: Recipe,
) -> dict[str, float]:
    sums: dict[str, float] = {}

    def add(key: str, value: float) -> None:
        sums[key] = sums.get(key, 0.0) + value / seeds

    for seed in range(seeds):
        train = parts["train"].shots(k, seed)
        weight, bias = linear_probe(train, parts["val"].shots(min(k, 4), seed), len(described["classes"]))
        for name in described["scored"]:
            right = ((parts[name].features @ weight.T + bias).argmax(1) == parts[name].labels).float().mean().item()
            add(f"probe{k}/{name}", 100 * right)
        for n_ctx in contexts:
            settings = Recipe(n_ctx, recipe.steps, recipe.learning_rate, recipe.momentum)
            classifier = coop(model, tokenizer, described["classes"], train, settings, seed)
            for name in described["scored"]:
                add(f"coop{n_ctx}@{k}/{name}", accuracy(parts[name], classifier))
    return {key: round(value, 1) for key, value in sums.items()}
