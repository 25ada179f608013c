"""`coopt fit`: data, zero-shot baseline, learning, measuring, saving."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import resolved
from coopt.cli.fit_advice import Measured
from coopt.cli.fit_report import report, result_of, saved_extra, say_data, title_of
from coopt.cli.output import Output, size_of
from coopt.cli.run_folder import RunFolder, beside
from coopt.cli.settings import FitSettings
from coopt.data import Features, ImageDataset, display_name, few_shot, find_leakage, load_dataset
from coopt.data.features import named_together_with
from coopt.errors import Interrupted
from coopt.evaluation import Evaluation, evaluate
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.saving import save
from coopt.methods.zero_shot import ZeroShot
from coopt.wording import counted

LARGE = 10**9
"""Bytes that are worth a sentence before they are taken."""

QUICK_PROBE = 10**7
"""Images times classes times width of the features up to which a linear probe takes a few seconds at most."""


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
    whole, dataset = _data(settings)
    say_data(output, settings, dataset, typed)
    folder = RunFolder(
        settings.out or default_folder(whole.name, settings.images),
        settings.identity(whole.hash),
        settings.overwrite,
        display_name(shlex.join(typed)),
        settings.images,
    )
    folder.check()  # before the backbone is loaded, which may take long
    value_range = settings.reading.value_range
    leaks = find_leakage(dataset, value_range=value_range)
    backbone = load_backbone(settings.backbone, settings.device, settings.download, value_range)
    if settings.precision == "auto":
        output.say(f"--precision auto is {resolved('auto', backbone.device)} on this machine.")
    folder.identity["fingerprint"] = backbone.fingerprint
    folder.check()
    epochs = 0 if recipe is None else recipe.epochs_for(max(dataset.train.counts.values()))
    try:
        with named_together_with(dataset.train.paths):
            zero_shot, held_out = _zero_shot(settings, backbone, dataset)
        learning = time.monotonic()
        estimator = _learn(settings, backbone, dataset, folder, output, epochs)
        learning = time.monotonic() - learning
        measured = _measure_all(settings, estimator, dataset, zero_shot, held_out)
    except KeyboardInterrupt:
        raise Interrupted(_how_to_go_on(folder, epochs, typed, settings.cache)) from None
    finally:
        folder.abandon()
    result = result_of(settings, whole, dataset, estimator, measured, typed)
    result |= {"leaks": len(leaks), "skipped": [] if held_out is None else [list(one) for one in held_out.skipped]}
    result["seconds"] = {"total": time.monotonic() - started, "learning": learning}
    save(estimator, folder.path, saved_extra(settings, whole, dataset, measured))
    folder.finish({**result, "warnings": output.warnings}, settings.config(folder.path))
    report(output, result, measured, folder.path, settings, title_of(estimator), typed)


def _data(settings: FitSettings) -> tuple[ImageDataset, ImageDataset]:
    """The whole data set, and what is learned from of it."""
    whole = load_dataset(
        settings.data,
        seed=settings.seed,
        test_fraction=settings.test_fraction,
        root=settings.root,
        on_bad_image=settings.on_bad_image,  # type: ignore[arg-type]
        **settings.reading.of_dataset,
    )
    return whole, whole if settings.shots is None else few_shot(whole, settings.shots, settings.seed)


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


def _measure_all(
    settings: FitSettings,
    estimator: ClipClassifier,
    dataset: ImageDataset,
    zero_shot: Evaluation | None,
    held_out: Features | None,
) -> Measured | None:
    learned = _measure(estimator, dataset, held_out)
    if zero_shot is None or learned is None:
        return None
    probe = _probe(settings, estimator, dataset) if settings.cache else None
    found = None if probe is None else _measure(probe, dataset, held_out)
    return Measured(zero_shot, learned, found, learned.chance(len(dataset.class_names)))


def _probe(settings: FitSettings, estimator: ClipClassifier, dataset: ImageDataset) -> LinearProbe | None:
    """A linear probe on the features that were learned from, which lie in the cache; None where it is not quick."""
    backbone, train = estimator.backbone_, dataset.train
    cost = len(train) * len(dataset.class_names) * backbone.embed_dim
    if not estimator.uses_features or isinstance(estimator, LinearProbe) or cost > QUICK_PROBE:
        return None
    found = estimator.image_features(list(train.paths), settings.on_bad_image)  # type: ignore[arg-type]
    labels = [train.labels[i] for i in found.kept]
    if min(map(labels.count, dataset.class_names)) < 2:  # too few to choose its strength of regularisation
        return None
    return LinearProbe(backbone, seed=settings.seed, class_names=dataset.class_names).fit(found.features[0], labels)


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


def _how_to_go_on(folder: RunFolder, epochs: int, typed: Sequence[str], cache: bool) -> str:
    done = folder.saved_epochs()
    kept = "; image features computed so far are kept in the cache" if cache else ""
    saved = (
        f"{done} of {counted(epochs, 'epoch')} saved in '{display_name(folder.path)}'."
        if done
        else f"No epoch was finished{kept}."
    )
    return f"Interrupted. {saved} Run the same command to go on:\n  {display_name(shlex.join(typed))}"
