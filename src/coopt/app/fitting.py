"""Learning a prompt: data, zero-shot baseline, learning, measuring, saving."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt import events
from coopt.app.automatic import choose_method, comparison_of
from coopt.app.configuration import call_of, config_of, data_again, identity_of
from coopt.app.estimators import estimator_for, no_such_option, parameters_of
from coopt.app.fit_result import FitResult, Measured, result_of, saved_extra
from coopt.app.loading import load_sample
from coopt.app.requests import AUTO, FitRequest
from coopt.app.run_folder import COMPARISON, RunFolder, beside, images_of
from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import resolved
from coopt.data import Features, ImageDataset, Split, display_name, find_leakage
from coopt.data.descriptions import read_descriptions
from coopt.data.features import named_together_with
from coopt.errors import Interrupted
from coopt.evaluation import Evaluation, evaluate
from coopt.locks import writing_folder
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.saving import save
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.descriptions import Descriptions
from coopt.runtime import Runtime
from coopt.training.recipe import Recipe
from coopt.wording import called, counted, on_command_line, setting, size_of

LARGE = 10**9
"""Bytes that are worth a sentence before they are taken."""

QUICK_PROBE = 10**7
"""Images times classes times width of the features up to which a linear probe takes a few seconds at most."""


@dataclass(frozen=True)
class DataRead(events.Event):
    """There are images to learn from.

    Attributes:
        name: of the data set.
        classes: how many.
        train, test, val: images of the parts; None: there is no such part.
        notes: what was decided about them, in sentences.
    """

    name: str
    classes: int
    train: int
    test: int | None
    val: int | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{counted(self.train, 'image')} to learn from"]
        if self.test is not None:
            parts.append(f"{self.test} held out")
        if self.val is not None:
            parts.append(f"{self.val} for validation (not used)")
        lines = [f"{self.name}: {counted(self.classes, 'class')}, {', '.join(parts)}."]
        if self.test is None:
            lines.append("No images are held out, so accuracy is not measured.")
        return "\n".join([*lines, *self.notes])


def fit(data: FitRequest | str | Path, *, command: str | None = None, **options: Any) -> FitResult:
    """Learns a prompt from labelled images, measures it on those that are held out, and saves it.

    Args:
        data: a folder, a CSV file or the name of a data set; or the whole request.
        command: how the run is started, for the record and for the message of an interrupted run; None: this call.
        options: fields of `FitRequest`; all other names are parameters of the method, such as `n_ctx=4`.

    Raises:
        CooptError: anything that is wrong with the options, the data, the backbone or the output folder.
        Interrupted: Ctrl-C; says what was saved. The same call goes on.
    """
    request = FitRequest.of(data, **options) if isinstance(data, FitRequest) else FitRequest.of(data=data, **options)
    with events.warnings_collected() as warned:
        run = _Fit(request, command or call_of(request))
        with run.held():
            return run.run(warned)


class _Fit:
    """One run; what is known of it becomes more from step to step."""

    def __init__(self, request: FitRequest, command: str) -> None:
        self.started = time.monotonic()
        self.descriptions: Descriptions | None = None
        self.asked = self.request = request
        self.command, self.compared = command, None
        self.epochs, self.at_most = 0, ""
        if request.method == AUTO:
            comparison_of(request)  # wrong parameters are refused before anything is read
        else:
            self.estimator = estimator_for(request, request.method, request.parameters)
        self.whole, self.dataset = load_sample(request, request.test_fraction)
        if request.descriptions is not None:
            if request.method != AUTO and "descriptions" not in parameters_of(request.method):
                raise no_such_option(request.method, "descriptions")
            self.descriptions = read_descriptions(request.descriptions, self.dataset.class_names)
        images = images_of(request.data, request.root)
        out = request.out or default_folder(self.whole.name, images)
        self.folder = RunFolder(out, {"method": AUTO}, request.overwrite, command, images)
        if request.method != AUTO:
            self._decide(request)

    def _decide(self, request: FitRequest) -> None:
        """Now it is known by which method."""
        self.request = request
        if self.descriptions is not None and "descriptions" in parameters_of(request.method, learns=False):
            self.estimator.set_params(descriptions=self.descriptions)
        self.identity = identity_of(request, self.estimator, self.whole.hash)
        self.folder.identity = dict(self.identity)
        recipe = getattr(self.estimator, "recipe_", None)
        if recipe is not None:
            self.epochs, self.at_most = most_epochs(recipe, self.dataset.train)

    @contextmanager
    def held(self) -> Iterator[None]:
        """From here on no other process writes into the folder."""
        parts = (self.dataset.train, self.dataset.test, self.dataset.val)
        train, test, val = (None if part is None else len(part) for part in parts)
        events.emit(
            DataRead(self.dataset.name, len(self.dataset.class_names), train or 0, test, val, tuple(self.dataset.notes))
        )
        self.folder.refuse_foreign()
        with writing_folder(self.folder.path, called("out") if on_command_line() else "out"):
            if self.asked.method != AUTO or not (self.folder.path / COMPARISON).exists():
                self.folder.check()  # before the backbone is loaded, which may take long
            yield

    def run(self, warned: list[events.Warned]) -> FitResult:
        """Learns, measures and saves."""
        request, dataset, folder = self.asked, self.dataset, self.folder
        leaks = find_leakage(dataset, value_range=request.value_range)
        backbone = load_backbone(request.backbone, request.device, request.download, request.value_range)
        if request.precision == "auto":
            events.say(f"{setting('precision', 'auto')} is {resolved('auto', backbone.device)} on this machine.")
        if request.method == AUTO:
            request, self.compared = choose_method(request, backbone, dataset, folder, self.command)
            learns = request.method != ZeroShot.method
            self.estimator = estimator_for(request, request.method, request.parameters, learns)
            self._decide(request)
        folder.identity["fingerprint"] = backbone.fingerprint
        folder.check()
        try:
            with named_together_with(dataset.train.paths):
                zero_shot, held_out = _zero_shot(request, backbone, dataset, self.descriptions)
            learning = time.monotonic()
            self._learn(backbone)
            learning = time.monotonic() - learning
            measured = _measure_all(request, self.estimator, dataset, zero_shot, held_out)
        except KeyboardInterrupt:
            raise Interrupted(self._how_to_go_on()) from None
        finally:
            folder.abandon()
        save(self.estimator, folder.path, saved_extra(request, self.whole, dataset, measured))
        result = result_of(
            request=request,
            identity=self.identity,
            path=data_again(request),
            whole=self.whole,
            dataset=dataset,
            estimator=self.estimator,
            measured=measured,
            command=self.command,
            leaks=len(leaks),
            skipped=() if held_out is None else tuple(held_out.skipped),
            seconds={"total": time.monotonic() - self.started, "learning": learning},
            compared=self.compared,
            warnings=tuple(warned),
            out=folder.path,
        )
        folder.finish(result.to_dict(), config_of(self.asked, folder.path))
        return result

    def _learn(self, backbone: Backbone) -> None:
        done = self.folder.begin()
        if done:
            events.say(f"Going on after epoch {done} of {self.at_most}{self.epochs}, where an earlier run stopped.")
        request, names, train = self.request, self.dataset.class_names, self.dataset.train
        self.estimator.set_params(
            backbone=backbone,
            class_names=names,
            on_bad_image=request.on_bad_image,
            runtime__cache=request.cache,
            runtime__checkpoint=self.folder.checkpoint,
        )
        if isinstance(self.estimator, LearnedMethod) and (needed := self.estimator.step_bytes(backbone, names)) > LARGE:
            lower = f"{called('memory')} SIZE" if on_command_line() else "memory"
            events.say(f"A training step holds up to {size_of(needed)} above the model; {lower} lowers that.")
        self.estimator.fit(list(train.paths), list(train.labels))

    def _how_to_go_on(self) -> str:
        done = self.folder.saved_epochs()
        cached = "; image features computed so far are kept in the cache" if self.request.cache else ""
        saved = (
            f"{done} of {self.at_most}{counted(self.epochs, 'epoch')} saved in '{display_name(self.folder.path)}'."
            if done
            else f"No epoch was finished{cached}."
        )
        again = "Run the same command" if on_command_line() else "Make the same call"
        return f"Interrupted. {saved} {again} to go on:\n  {self.command}"


def most_epochs(recipe: Recipe, train: Split) -> tuple[int, str]:
    """How many epochs and steps of L-BFGS there are at most, and "at most " where there may be fewer."""
    most = epochs = recipe.epochs_for(max(train.counts.values()), sum(train.counts.values()))
    if recipe.views > 0 and recipe.goes_on(len(train), len(train.counts)):
        most += recipe.most_passes(len(train))  # a step is a text pass at least
    if recipe.steps is not None:
        most = min(most, recipe.steps)
    return most, "at most " if most > epochs or recipe.seconds is not None else ""


def default_folder(name: str, images: Path | None) -> Path:
    """Where a prompt is saved when nothing else is said: here, or beside the folder of images where that is here."""
    cleaned = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    folder = f"coopt-{cleaned.strip('-.') or 'prompt'}"
    inside = images is not None and Path.cwd().is_relative_to(images.resolve())
    return beside(images, folder) if images is not None and inside else Path(folder)


def _zero_shot(
    request: FitRequest, backbone: Backbone, dataset: ImageDataset, descriptions: Descriptions | None
) -> tuple[Evaluation | None, Features | None]:
    """What a hand-made prompt reaches, and the features of the held-out images, which are computed once."""
    if dataset.test is None or len(dataset.test) == 0:
        return None, None
    zero_shot = ZeroShot(
        backbone,
        descriptions=descriptions,
        runtime=Runtime(
            text_path=request.text_path,  # type: ignore[arg-type]
            precision=request.precision,
            memory=request.memory,
            cache=request.cache,
        ),
    ).fit_classes(dataset.class_names)
    held_out = zero_shot.image_features(list(dataset.test.paths), request.on_bad_image)
    return _measure(zero_shot, dataset, held_out), held_out


def _measure(estimator: ClipClassifier, dataset: ImageDataset, held_out: Features | None) -> Evaluation | None:
    if held_out is None or dataset.test is None:
        return None
    paths = [dataset.test.paths[i] for i in held_out.kept]
    images = held_out.features[0] if estimator.capabilities.features_only else paths
    return evaluate(estimator, images, [dataset.test.labels[i] for i in held_out.kept])


def _measure_all(
    request: FitRequest,
    estimator: ClipClassifier,
    dataset: ImageDataset,
    zero_shot: Evaluation | None,
    held_out: Features | None,
) -> Measured | None:
    learned = _measure(estimator, dataset, held_out)
    if zero_shot is None or learned is None:
        return None
    probe = _probe(request, estimator, dataset) if request.cache else None
    of_probe = None if probe is None else _measure(probe, dataset, held_out)
    return Measured(zero_shot, learned, of_probe, learned.chance(len(dataset.class_names)))


def _probe(request: FitRequest, estimator: ClipClassifier, dataset: ImageDataset) -> LinearProbe | None:
    """A linear probe on the features that were learned from, which lie in the cache; None where it is not quick."""
    backbone, train = estimator.backbone_, dataset.train
    cost = len(train) * len(dataset.class_names) * backbone.embed_dim
    if not estimator.capabilities.features_only or isinstance(estimator, LinearProbe) or cost > QUICK_PROBE:
        return None
    features = estimator.image_features(list(train.paths), request.on_bad_image)
    labels = [train.labels[i] for i in features.kept]
    if min(map(labels.count, dataset.class_names)) < 2:  # too few to choose its strength of regularisation
        return None
    return LinearProbe(backbone, seed=request.seed, class_names=dataset.class_names).fit(features.features[0], labels)
