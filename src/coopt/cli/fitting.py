"""`coopt fit`: data, zero-shot baseline, learning, measuring, saving."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from coopt.backbones import Backbone, load_backbone
from coopt.cli.fit_report import data_sentence, report, result_of, saved_extra
from coopt.cli.group import Interrupted
from coopt.cli.output import Output, size_of
from coopt.cli.run_folder import RunFolder, beside
from coopt.cli.settings import FitSettings
from coopt.data import Features, ImageDataset, display_name, few_shot, find_leakage, load_dataset
from coopt.evaluation import Evaluation, evaluate
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.methods.saving import save
from coopt.methods.zero_shot import ZeroShot

LARGE = 10**9
"""Bytes that are worth a sentence before they are taken."""


def run_fit(settings: FitSettings, output: Output, typed: Sequence[str]) -> None:
    """Fits a prompt and saves it.

    Args:
        settings: the options.
        output: where to speak.
        typed: the command line, to say how to go on.

    Raises:
        CooptError: anything that is wrong with the options, the data, the backbone or the output folder.
        Interrupted: Ctrl-C; says what was saved.
    """
    started = time.monotonic()
    recipe = getattr(settings.estimator(), "recipe_", None)  # also refuses what the method does not have
    whole = load_dataset(
        settings.data,
        seed=settings.seed,
        test_fraction=settings.test_fraction,
        root=settings.root,
        on_bad_image=settings.on_bad_image,  # type: ignore[arg-type]
    )
    dataset = whole if settings.shots is None else few_shot(whole, settings.shots, settings.seed)
    for line in data_sentence(dataset):
        output.say(line)
    folder = RunFolder(
        settings.out or default_folder(whole.name, settings.images),
        settings.identity(whole.hash),
        settings.overwrite,
        display_name(shlex.join(typed)),
        settings.images,
    )
    folder.check()  # before the backbone is loaded, which may take long
    leaks = find_leakage(dataset)
    backbone = load_backbone(settings.backbone, settings.device, settings.download)
    folder.identity["fingerprint"] = backbone.fingerprint
    folder.check()
    epochs = 0 if recipe is None else recipe.epochs_for(max(dataset.train.counts.values()))
    try:
        zero_shot, held_out = _zero_shot(settings, backbone, dataset)
        learning = time.monotonic()
        estimator = _learn(settings, backbone, dataset, folder, output, epochs)
    except KeyboardInterrupt:
        raise Interrupted(_how_to_go_on(folder, epochs, typed)) from None
    finally:
        folder.abandon()
    learning = time.monotonic() - learning
    learned = _measure(estimator, dataset, held_out)
    result = result_of(settings, whole, dataset, estimator, zero_shot, learned, typed)
    result |= {"leaks": len(leaks), "skipped": [] if held_out is None else [list(one) for one in held_out.skipped]}
    result["seconds"] = {"total": time.monotonic() - started, "learning": learning}
    save(estimator, folder.path, saved_extra(settings, whole, dataset, zero_shot, learned))
    folder.finish({**result, "warnings": output.warnings}, settings.config(folder.path))
    report(output, result, zero_shot, learned, folder.path, settings.data_typed)


def default_folder(name: str, images: Path | None) -> Path:
    """Where a prompt is saved when nothing else is said: here, or beside the folder of images where that is here."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    folder = f"coopt-{kept.strip('-.') or 'prompt'}"
    inside = images is not None and Path.cwd().is_relative_to(images.resolve())
    return beside(images, folder) if images is not None and inside else Path(folder)


def _zero_shot(
    settings: FitSettings, backbone: Backbone, dataset: ImageDataset
) -> tuple[Evaluation | None, Features | None]:
    """What a hand-made prompt reaches, and the features of the held-out images, which are computed once."""
    if dataset.test is None or len(dataset.test) == 0:
        return None, None
    zero_shot = ZeroShot(
        backbone,
        text_path=settings.text_path,  # type: ignore[arg-type]
        precision=settings.precision,  # type: ignore[arg-type]
        memory=settings.memory,
        cache=settings.cache,
    ).fit_classes(dataset.class_names)
    held_out = zero_shot.image_features(list(dataset.test.paths), settings.on_bad_image)  # type: ignore[arg-type]
    return _measure(zero_shot, dataset, held_out), held_out


def _measure(estimator: ClipClassifier, dataset: ImageDataset, held_out: Features | None) -> Evaluation | None:
    if held_out is None or dataset.test is None:
        return None
    kept = [dataset.test.paths[i] for i in held_out.kept]
    images = held_out.features[0] if estimator.uses_features else kept
    return evaluate(estimator, images, [dataset.test.labels[i] for i in held_out.kept])


def _learn(
    settings: FitSettings, backbone: Backbone, dataset: ImageDataset, folder: RunFolder, output: Output, epochs: int
) -> ClipClassifier:
    done = folder.begin()
    if done:
        output.say(f"Going on after epoch {done} of {epochs}, where an earlier run stopped.")
    estimator = settings.estimator(
        backbone=backbone,
        class_names=dataset.class_names,
        cache=settings.cache,
        on_bad_image=settings.on_bad_image,
        checkpoint=folder.checkpoint,
    )
    if isinstance(estimator, LearnedMethod) and (needed := estimator.step_bytes(backbone, dataset.class_names)) > LARGE:
        output.say(f"A training step holds up to {size_of(needed)} above the model; --memory SIZE lowers that.")
    estimator.fit(list(dataset.train.paths), list(dataset.train.labels))
    return estimator


def _how_to_go_on(folder: RunFolder, epochs: int, typed: Sequence[str]) -> str:
    done = folder.saved_epochs()
    saved = (
        f"{done} of {epochs} epochs are saved in '{display_name(folder.path)}'."
        if done
        else "No epoch was finished; image features computed so far are kept in the cache."
    )
    return f"Interrupted. {saved} Run the same command to go on:\n  {display_name(shlex.join(typed))}"
