"""Parity with numbers recorded from the reference implementation.

    python benchmarks/parity.py tests/golden [--json FILE]

Runs every case of a folder in the format of `tests/golden`: whole trainings of CoOp (`coop_*`) and CoCoOp (`cocoop_*`),
zero-shot, linear probe, few-shot sampling, tokens, learning rates and the test transform, each training on the reference
path and on the fast path. CoCoOp is recorded at batch 1; `batch_err` says how far the gradient of a larger batch lies from
the mean of its images' own gradients. Errors are relative to the largest recorded value of the same array; identity is counted (0 = all equal).
Exits with 1 when something is not reproduced: relative errors up to 1e-4, pixels within 1/255, all else identical.

One number may move from machine to machine. The linear probe's solver stops once its gradient is small, not at the
optimum, and another rounding takes it to another such point: its decision values differ by up to 4e-3 of the largest
(measured with OpenBLAS's kernels for several processors). An image whose two best scores lie closer than `NEAR_TIE` may
then change sides. `tie_flips` counts by how many images accuracies differ that such ties explain; `accuracy_err` is the
rest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.golden import pixels, small_clip
from benchmarks.measuring import say
from benchmarks.report import add_json_option, report
from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.tokenizers import ClipTokenizer
from coopt.data import base_and_new, few_shot_indices, linear_probe_indices
from coopt.methods.cocoop import CoCoOp
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import logistic_regression, search_c
from coopt.prompts.context import word_context
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from coopt.text.layout import context_prompts
from coopt.training.loop import Observer
from coopt.training.recipe import PAPER

TOLERANCE = 1e-4
PIXEL_STEP = 1 / 255
PATHS = ("reference", "fast")
NEAR_TIE = 5e-3
"""Of the largest decision value: how close an image's two best scores may lie for it to change sides."""

BATCH = 4
"""Images in the batch that is compared with its images one by one."""

Errors = dict[str, float]


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest recorded magnitude."""
    a, b = (np.asarray(x.detach() if isinstance(x, Tensor) else x, dtype=np.float64) for x in (ours, theirs))
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / np.abs(b).max())


def training(backbone: Backbone, folder: Path, name: str) -> dict[str, Errors]:
    """A whole training: losses per step, context per epoch, logits before and after, the final meta-net."""
    case = json.loads((folder / f"{name}.json").read_text())
    recorded = np.load(folder / f"{name}.npz")
    images = pixels(case["data_seed"], case["n_images"], backbone.preprocessing.size[0])
    features = backbone.encode_image(images)
    image_err = relative(features, recorded["image_features"])
    result = {path: train(backbone, case, recorded, features, path) for path in PATHS}
    for errors in result.values():
        errors["image_features_err"] = image_err
    return result


def estimator_of(backbone: Backbone, case: dict, path: str) -> CoOp | CoCoOp:
    """The case's method, not trained."""
    recipe = replace(PAPER, lr=case["lr"], batch_size=case["batch"], epochs=case["epochs"])
    runtime = Runtime(text_path=path)  # type: ignore[arg-type]
    options: dict[str, Any] = {"n_ctx": case["n_ctx"], "init": None, "recipe": recipe, "runtime": runtime}
    if case["method"] == "cocoop":
        model = CoCoOp(backbone, **options)
    else:
        model = CoOp(backbone, csc=case.get("csc", False), position=case.get("position", "end"), **options)
    model.check_parameters()
    model._set_classes(backbone, case["classnames"], named=True)
    return model


def meta_net(recorded: Any, when: str) -> dict[str, Tensor]:
    """The recorded meta-net ("init" or "final"), by our names; empty for CoOp."""
    keys = [key for key in recorded.files if key.startswith(f"meta_net_{when}.")]
    return {key.replace(f"_{when}", ""): torch.from_numpy(recorded[key]).float() for key in keys}


def train(backbone: Backbone, case: dict, recorded: Any, features: Tensor, path: str) -> Errors:
    """One recorded training repeated on one text path."""
    start = {"context": torch.from_numpy(recorded["ctx_init"]).float(), **meta_net(recorded, "init")}
    model = estimator_of(backbone, case, path)
    labels = torch.from_numpy(recorded["labels"]).long()

    def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(recorded["batch_order"][epoch]).long()
        return [(features[index], labels[index]) for index in order.split(case["batch"])]

    model._set_state(start)
    before = relative(model._logits(features), recorded["logits_before"])
    losses: list[Tensor] = []
    contexts: list[Tensor] = []
    watch = Observer(
        on_step=losses.append,
        on_epoch=lambda epoch, parameters: contexts.append(parameters["context"].detach().clone()),
    )
    model.learn(start, batches, case["epochs"], observer=watch)
    steps_per_epoch = len(losses) // case["epochs"]
    errors = {
        "loss_err": relative(torch.stack(losses), recorded["losses"].ravel()),
        "context_err": relative(torch.stack(contexts), recorded["ctx_per_epoch"]),
        "logits_err": max(before, relative(model._logits(features), recorded["logits_after"])),
        "lr_err": relative(
            np.repeat(model.recipe_.learning_rates(case["epochs"]), steps_per_epoch), recorded["lrs"].ravel()
        ),
        "token_mismatches": token_mismatches(backbone, case, recorded, case["n_ctx"]),
    }
    if isinstance(model, CoCoOp):
        ours, theirs = model._state(), meta_net(recorded, "final")
        errors["meta_net_err"] = max(relative(ours[name], theirs[name]) for name in theirs)
        errors["batch_err"] = batch_error(model, start, features[:BATCH], labels[:BATCH])
    if case.get("ctx_init"):
        words = word_context(backbone, case["ctx_init"], len(case["classnames"]) if case.get("csc") else None)
        errors["init_err"] = relative(words, recorded["ctx_init"])
    if "nearest_ids" in recorded:
        nearest = model.nearest_words(recorded["nearest_ids"].shape[-1])
        assert isinstance(nearest, list)
        ids = [[word.token_id for word in row] for row in nearest]
        errors["nearest_mismatches"] = float((np.array(ids) != recorded["nearest_ids"]).sum())
        errors["nearest_err"] = relative([[word.distance for word in row] for row in nearest], recorded["nearest_dist"])
    return errors


def batch_error(model: CoCoOp, start: dict[str, Tensor], features: Tensor, labels: Tensor) -> float:
    """The gradient of a batch against the mean of its images' gradients, each taken alone."""

    def gradients(chosen: Tensor) -> Tensor:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        model._objective(leaves).loss_of(features[chosen], labels[chosen]).backward()
        return torch.cat([leaf.grad.flatten() for leaf in leaves.values() if leaf.grad is not None])

    images = torch.arange(len(labels))
    return relative(gradients(images), torch.stack([gradients(image) for image in images.split(1)]).mean(dim=0))


def token_mismatches(backbone: Backbone, case: dict, recorded: Any, n_ctx: int) -> float:
    """Constant tokens that differ from the recorded ones (which have the class at the end)."""
    prompts = context_prompts(backbone, case["classnames"], n_ctx, "end")
    theirs = torch.from_numpy(recorded["tokenized_prompts"]).long()[:, : prompts.token_ids.shape[1]]
    return float(((prompts.token_ids != theirs) & ~prompts.is_context).sum())


def zeroshot(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """Hand-made templates one by one and as an ensemble."""
    case = json.loads((folder / "zeroshot.json").read_text())
    recorded = np.load(folder / "zeroshot.npz")
    images = normalize(backbone.encode_image(pixels(5, 16, backbone.preprocessing.size[0])), dim=-1)
    result = {}
    for path in PATHS:

        def logits(templates: list[str], path: str = path) -> Tensor:
            features = template_features(backbone, case["classnames"], templates, path=path)  # type: ignore[arg-type]
            return backbone.logit_scale * images @ features.T

        single = [logits([template]) for template in case["templates"]]
        result[path] = {
            "image_features_err": relative(images, recorded["image_features"]),
            "logits_err": max(relative(ours, recorded[f"logits_template{i}"]) for i, ours in enumerate(single)),
            "ensemble_err": relative(logits(case["templates"]), recorded["logits_ensemble"]),
        }
    return result


def linear_probe(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """The sample, the C that the search finds, and the test accuracy, for every number of shots and seed."""
    cases = json.loads((folder / "linear_probe.json").read_text())
    data = np.load(folder / "linear_probe.npz")
    errors = {"mismatches": 0.0, "c_err": 0.0, "accuracy_err": 0.0, "tie_flips": 0.0}
    for key, expected in cases.items():
        shots, seed = _numbers(key)
        train, val = linear_probe_indices(data["train_y"], data["val_y"], shots, seed)
        errors["mismatches"] += (train != expected["train_idx"]) + (val != expected["val_idx"])
        x, y = data["train_x"][train], data["train_y"][train]
        c = search_c(x, y, data["val_x"][val], data["val_y"][val])
        scores = logistic_regression(c, x, y).decision_function(data["test_x"])
        explained, rest = flips(scores, data["test_y"], expected["test_acc"])
        errors["c_err"] = max(errors["c_err"], relative(c, expected["C"]))
        errors["tie_flips"] += explained
        errors["accuracy_err"] = max(errors["accuracy_err"], rest / (expected["test_acc"] / 100 * len(scores)))
    return {"scikit-learn": errors}


def flips(scores: np.ndarray, labels: np.ndarray, accuracy: float) -> tuple[int, int]:
    """By how many images the accuracy (percent) differs from that of `scores` (n, C): explained by near-ties, and not."""
    best = np.argsort(scores, axis=1)[:, -2:]
    margins = np.diff(np.take_along_axis(scores, best, axis=1))[:, 0]
    undecided = (margins < NEAR_TIE * np.abs(scores).max()) & (best == labels[:, None]).any(axis=1)
    right = best[:, 1] == labels
    difference = round(accuracy / 100 * len(labels)) - int(right.sum())  # > 0: images that ours gets wrong
    possible = int((undecided & (right == (difference < 0))).sum())
    explained = min(abs(difference), possible)
    return explained, abs(difference) - explained


def _numbers(key: str) -> list[int]:
    """The numbers in a key such as "shots16_seed3"."""
    return [int(number) for number in re.findall(r"\d+", key)]


def fewshot_sampling(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """The very images, in order, of every seed and number of shots; and the base and new halves."""
    golden = json.loads((folder / "fewshot_sampling.json").read_text())
    train, val = golden["train"], golden["val"]
    wrong = 0
    for key, expected in golden["expected"].items():
        seed, shots = _numbers(key)
        chosen = few_shot_indices([y for _, y in train], [y for _, y in val], shots, seed)
        picked = {"train": [train[i] for i in chosen[0]], "val": [val[i] for i in chosen[1]]}
        wrong += sum([path for path, _ in picked[part]] != expected[part] for part in picked)
        halves = base_and_new([y for _, y in picked["train"]])
        for half, classes in (("base", halves.base), ("new", halves.new)):
            new_label = {label: i for i, label in enumerate(classes)}
            ours = [[path, new_label[y]] for path, y in picked["train"] if y in new_label]
            wrong += ours != expected[f"{half}_train"]
    return {"sampling": {"mismatches": float(wrong)}}


def tokenizer(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """Token ids of odd texts."""
    cases = json.loads((folder / "tokenizer.json").read_text())
    encode = ClipTokenizer().encode
    return {"tokens": {"mismatches": float(sum(encode(case["text"]) != case["ids"] for case in cases))}}


def lr_per_epoch(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """The learning rate of every epoch."""
    cases = json.loads((folder / "lr_per_epoch.json").read_text())
    return {"schedule": {"lr_err": max(relative(PAPER.learning_rates(int(e)), rates) for e, rates in cases.items())}}


def test_transform(backbone: Backbone, folder: Path) -> dict[str, Errors]:
    """The test transform's pixels, in units of the pixel range (0 to 1)."""
    recorded = np.load(folder / "test_transform.npz")
    preprocessing = Preprocessing(size=(224, 224))
    worst = 0.0
    for key in recorded.files:
        with Image.open(folder / f"{key}.png") as image:
            ours = preprocessing.test(image).numpy()
        difference = np.abs(ours - recorded[key].astype(np.float32)) * np.array(preprocessing.std)[:, None, None]
        worst = max(worst, float(difference.max()))
    return {"pixels": {"pixel_err": worst}}


SINGLE: dict[str, Callable[[Backbone, Path], dict[str, Errors]]] = {
    "zeroshot": zeroshot,
    "linear_probe": linear_probe,
    "fewshot_sampling": fewshot_sampling,
    "tokenizer": tokenizer,
    "lr_per_epoch": lr_per_epoch,
    "test_transform": test_transform,
}


def run(folder: Path) -> dict[str, Any]:
    """Every case of a folder: {"cases": {name: {path: errors}}, "worst_err": ..., "failed": [...]}."""
    backbone = small_clip(folder / "clip_small.json")
    cases: dict[str, dict[str, Errors]] = {}
    for file in sorted([*folder.glob("coop_*.json"), *folder.glob("cocoop_*.json")]):
        cases[file.stem] = training(backbone, folder, file.stem)
        say(f"{file.stem}: done")
    for name, case in SINGLE.items():
        if any(folder.glob(f"{name}.*")):
            cases[name] = case(backbone, folder)
            say(f"{name}: done")
    flat = [
        (f"{name}.{path}.{what}", what, value)
        for name, paths in cases.items()
        for path, errors in paths.items()
        for what, value in errors.items()
    ]
    limits = {"pixel_err": PIXEL_STEP, "tie_flips": np.inf}
    return {
        "cases": cases,
        "worst_err": max(value for _, what, value in flat if what not in limits),
        "failed": [where for where, what, value in flat if not value <= limits.get(what, TOLERANCE)],
    }


def table(result: dict[str, Any]) -> str:
    """`run` for people: a line for each case on each path."""
    lines = [
        f"{name:18} {path:10} " + "  ".join(f"{what} {value:.1e}" for what, value in errors.items())
        for name, paths in result["cases"].items()
        for path, errors in paths.items()
    ]
    failed = ", ".join(result["failed"] or ["none"])
    return "\n".join([*lines, f"worst relative error {result['worst_err']:.1e}; failed: {failed}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="GOLDEN_DIR", help="recorded cases, e.g. tests/golden")
    add_json_option(parser)
    arguments = parser.parse_args()
    if not (arguments.folder / "clip_small.json").is_file():
        parser.error(f"{arguments.folder} holds no clip_small.json; expected a folder such as tests/golden")
    torch.set_num_threads(1)  # as recorded; and for models this small more threads are slower
    result = run(arguments.folder)
    report(result, table(result), arguments)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
