"""Measuring saved prompts, and hand-made ones, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coopt import events
from coopt.app.evaluation_files import EVALUATION, write_evaluation
from coopt.app.loading import load_prompt, load_split, preprocessed
from coopt.app.requests import EvaluateRequest, ZeroShotRequest
from coopt.app.run_folder import PROMPT, refuse_foreign
from coopt.backbones import load_backbone
from coopt.data import ImageDataset, display_name
from coopt.data.descriptions import read_descriptions
from coopt.errors import ParameterError, SavedFileError
from coopt.evaluation import Evaluation, compare, scores_among
from coopt.evaluation import evaluate as evaluation_of
from coopt.locks import writing_folder
from coopt.methods.base import ClipClassifier
from coopt.methods.reference_checkpoint import is_reference_checkpoint
from coopt.methods.saving import describe, save
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.descriptions import Descriptions
from coopt.prompts.templates import DEFAULT_TEMPLATE, ENSEMBLE, template_list
from coopt.runtime import Runtime
from coopt.wording import called, setting

OF_DATA = "dataset"
"""The template that stands for the data set's own hand-made prompt."""


@dataclass(frozen=True)
class EvaluationResult:
    """What a saved prompt is worth.

    Attributes:
        prompt, backbone, data: their names for people.
        dataset_hash: of the data.
        split: the part that was measured on.
        classes_of: "prompt" or "data": whose classes were chosen among.
        preprocessing: how images were prepared.
        precision: of the image tower.
        evaluation: the numbers.
        skipped: images that could not be read, and why.
        out: the folder that was written.
        warnings: what was warned of.
    """

    prompt: str
    backbone: str
    data: str
    dataset_hash: str
    split: str
    classes_of: str
    preprocessing: str
    precision: str
    evaluation: Evaluation
    skipped: tuple[tuple[str, str], ...]
    out: Path | None = None
    warnings: tuple[events.Warned, ...] = ()

    @property
    def accuracy(self) -> float:
        """In percent."""
        return self.evaluation.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        first = ("prompt", "backbone", "data", "dataset_hash", "split", "classes_of", "preprocessing", "precision")
        return {
            **{name: getattr(self, name) for name in first},
            **self.evaluation.to_dict(),
            "skipped": [list(one) for one in self.skipped],
            **({} if self.out is None else {"out": display_name(self.out)}),
            "warnings": [one.to_record() for one in self.warnings],
        }


def evaluate(prompt: EvaluateRequest | str | Path, data: str | Path | None = None, **options: Any) -> EvaluationResult:
    """Measures a saved prompt on labelled images.

    Args:
        prompt: a folder that a fit wrote, or a checkpoint of the reference implementation; or the whole request.
        data: a folder, a CSV file or the name of a data set. Where it has classes that the prompt does not know, the
            prompt is applied to the classes of the data.
        options: fields of `EvaluateRequest`.

    Raises:
        CooptError: anything wrong with the prompt, the data, the backbone or the output folder.
    """
    given = options if data is None else {"data": data, **options}
    request = EvaluateRequest.of(prompt, **given) if isinstance(prompt, EvaluateRequest) else None
    request = request or EvaluateRequest.of(prompt=prompt, **given)
    with events.warnings_collected() as warned:
        if request.out is None:
            return replace(_evaluate(request, warned), warnings=tuple(warned))
        refuse_foreign(request.out, (EVALUATION,), _folder(request.data))
        with writing_folder(request.out, called("out")):
            return replace(_evaluate(request, warned), warnings=tuple(warned))


def _evaluate(request: EvaluateRequest, warned: Sequence[events.Warned]) -> EvaluationResult:
    dataset, chosen = load_split(request, request.prompt)
    estimator, of_prompt = _with_classes_of(dataset, request)
    estimator.set_params(runtime__cache=request.cache)
    with preprocessed(estimator.backbone_, request.preprocess):
        images = estimator.image_features(list(chosen.paths), request.on_bad_image)
    labels = [chosen.labels[i] for i in images.kept]
    scores, targets, names = scores_among(estimator, images, labels, None if of_prompt else dataset.class_names)
    result = EvaluationResult(
        prompt=display_name(request.prompt),
        backbone=estimator.backbone_.name,
        data=display_name(request.data),
        dataset_hash=dataset.hash,
        split=request.split,
        classes_of="prompt" if of_prompt else "data",
        preprocessing=request.preprocess or "standard",
        precision=estimator.image_precision,
        evaluation=compare(targets, scores.argmax(axis=1), names),
        skipped=tuple(images.skipped),
        warnings=tuple(warned),
    )
    if request.out is None:
        return result
    paths = [chosen.paths[i] for i in images.kept]
    write_evaluation(request.out, result.to_dict(), paths, scores, targets, names)
    return replace(result, out=request.out)


def _with_classes_of(dataset: ImageDataset, request: EvaluateRequest) -> tuple[ClipClassifier, bool]:
    """The prompt with its own classes if these are enough, otherwise with the data's; and whether they were."""
    if is_reference_checkpoint(request.prompt):
        return load_prompt(request, dataset.class_names), False
    estimator = load_prompt(request)
    unknown = [name for name in dataset.class_names if name not in estimator.class_names_]
    if not unknown and dataset.fixed_classes and len(dataset.class_names) < len(estimator.class_names_):
        events.say(f"The prompt is applied to the {len(dataset.class_names)} classes of {dataset.name} alone.")
        return estimator, False
    if not unknown:
        return estimator, True
    shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    try:
        other = estimator.with_classes(dataset.class_names)
    except ParameterError as error:
        raise ParameterError(
            f"The data has {len(unknown)} classes that the prompt was not learned for: {shown}. {error}"
        ) from error
    events.say(
        f"The prompt was not learned for {len(unknown)} of the {len(dataset.class_names)} classes ({shown}), so it is "
        f"applied to the classes of the data."
    )
    return other, False


@dataclass(frozen=True)
class ZeroShotResult:
    """What hand-made prompts are worth.

    Attributes:
        backbone, precision, data, dataset_hash, split, skipped, out, warnings: see `EvaluationResult`.
        templates: each with what it is worth alone.
        together: all of them together.
    """

    backbone: str
    precision: str
    data: str
    dataset_hash: str
    split: str
    templates: tuple[tuple[str, Evaluation], ...]
    together: Evaluation
    skipped: tuple[tuple[str, str], ...]
    out: Path | None = None
    warnings: tuple[events.Warned, ...] = ()

    @property
    def accuracy(self) -> float:
        """Of all of them together, in percent."""
        return self.together.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        first = ("backbone", "precision", "data", "dataset_hash", "split")
        return {
            **{name: getattr(self, name) for name in first},
            "templates": [{"template": name, "accuracy": one.accuracy} for name, one in self.templates],
            "used": [name for name, _ in self.templates],
            **self.together.to_dict(),
            "out": None if self.out is None else display_name(self.out),
            "skipped": [list(one) for one in self.skipped],
            "warnings": [one.to_record() for one in self.warnings],
        }


def zero_shot(data: ZeroShotRequest | str | Path, **options: Any) -> ZeroShotResult:
    """Measures hand-made prompts one by one and together.

    Args:
        data: a folder, a CSV file or the name of a data set; or the whole request.
        options: fields of `ZeroShotRequest`.

    Raises:
        CooptError: anything wrong with the templates, the data or the backbone.
    """
    is_request = isinstance(data, ZeroShotRequest)
    request = ZeroShotRequest.of(data, **options) if is_request else ZeroShotRequest.of(data=data, **options)
    with events.warnings_collected() as warned:
        if request.out is None:
            return replace(_zero_shot(request), warnings=tuple(warned))
        _check_prompt_folder(request.out, request.data)
        with writing_folder(request.out, called("out")):
            return replace(_zero_shot(request), warnings=tuple(warned))


def _zero_shot(request: ZeroShotRequest) -> ZeroShotResult:
    dataset, chosen = load_split(request, None)
    named = [one for template in request.templates for one in _meant(template, dataset)]
    singles = list(dict.fromkeys([*named, *(ENSEMBLE if request.ensemble else ())])) or [DEFAULT_TEMPLATE]
    descriptions = request.descriptions and read_descriptions(request.descriptions, dataset.class_names)
    backbone = load_backbone(request.backbone, request.device, request.download, request.value_range)

    def classifier(used: str | list[str], descriptions: Descriptions | None = None) -> ZeroShot:
        estimator = ZeroShot(
            backbone,
            templates=used,
            descriptions=descriptions,
            runtime=Runtime(precision=request.precision, cache=request.cache),
        )
        return estimator.fit_classes(dataset.class_names)

    together = classifier(singles, descriptions)  # every template is checked before images are encoded
    images = together.image_features(list(chosen.paths), request.on_bad_image)
    labels = [chosen.labels[i] for i in images.kept]
    rows = [(template, evaluation_of(classifier(template), images.features[0], labels)) for template in singles]
    whole = evaluation_of(together, images.features[0], labels)
    if request.out is not None:
        save(together, request.out, {"accuracy": {"images": whole.n, "zero_shot": whole.accuracy}})
    return ZeroShotResult(
        backbone=backbone.name,
        precision=together.image_precision,
        data=display_name(request.data),
        dataset_hash=dataset.hash,
        split=request.split,
        templates=tuple(rows),
        together=whole,
        skipped=tuple(images.skipped),
        out=request.out,
    )


def _folder(data: Path) -> Path | None:
    """The folder of images, if that is what the data are."""
    return data if data.is_dir() else None


def _check_prompt_folder(folder: Path, data: Path) -> None:
    """Refuses to write a prompt over one that was learned, or among files that are not ours."""
    refuse_foreign(folder, (PROMPT,), _folder(data))
    if (folder / PROMPT).exists() and (method := describe(folder)["method"]) != ZeroShot.method:
        raise SavedFileError(
            f"'{display_name(folder)}' holds a prompt that was learned ({method}). Choose another folder with "
            f"{called('out')}."
        )


def _meant(template: str, dataset: ImageDataset) -> Sequence[str]:
    """The templates that a word stands for."""
    if template != OF_DATA:
        return template_list(template)
    if dataset.template is None:
        raise ParameterError(
            f"{dataset.name} has no hand-made prompt of its own. Write one, such as {setting('templates', 'a photo of a {}.')}."
        )
    return [dataset.template]
