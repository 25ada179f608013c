"""`coopt eval` and `coopt zero-shot`: measuring prompts on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from coopt.backbones import load_backbone
from coopt.cli.evaluation_files import EVALUATION, write_evaluation
from coopt.cli.loading import Where, load_prompt, load_split, preprocessed
from coopt.cli.options import AS_USUAL, DataReading
from coopt.cli.output import MEASURES, Output, measures, percent
from coopt.cli.run_folder import PROMPT, refuse_foreign
from coopt.data import ImageDataset, display_name
from coopt.errors import ParameterError, SavedFileError
from coopt.evaluation import Evaluation, compare, evaluate, scores_among
from coopt.locks import writing_folder
from coopt.methods.base import ClipClassifier
from coopt.methods.reference_checkpoint import is_reference_checkpoint
from coopt.methods.saving import describe, save
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import DEFAULT_TEMPLATE, ENSEMBLE, template_list
from coopt.wording import counted

SHOWN_CONFUSIONS = 5
OWN_TEMPLATE = "dataset"
"""What is typed for the data set's own hand-made prompt."""


def run_eval(
    prompt: Path,
    data: Path,
    root: Path | None,
    split: str,
    where: Where,
    preprocess: str | None,
    out: Path | None,
    on_bad_image: Any,
    cache: bool,
    output: Output,
    reading: DataReading = AS_USUAL,
) -> None:
    """Measures one learned prompt.

    Raises:
        CooptError: anything wrong with the prompt, the data, the backbone or the output folder.
    """
    if out is not None:
        refuse_foreign(out, (EVALUATION,), _folder(data))
        click.get_current_context().with_resource(writing_folder(out, "--out"))
    dataset, chosen = load_split(data, split, prompt, on_bad_image, output, root, reading)
    estimator, own_classes = _with_classes_of(dataset, prompt, where, output)
    estimator.cache = cache
    with preprocessed(estimator.backbone_, preprocess):
        images = estimator.image_features(list(chosen.paths), on_bad_image)
    labels = [chosen.labels[i] for i in images.kept]
    scores, targets, names = scores_among(estimator, images, labels, None if own_classes else dataset.class_names)
    found = compare(targets, scores.argmax(axis=1), names)
    output.say()
    output.table(
        [f"On {counted(found.n, 'image')}, %", *MEASURES],
        [[display_name(prompt), *measures(found)]],
        right=(1, 2, 3, 4),
    )
    _say_mistakes(output, found)
    document = {
        "prompt": display_name(prompt),
        "backbone": estimator.backbone_.name,
        "data": display_name(data),
        "dataset_hash": dataset.hash,
        "split": split,
        "classes_of": "prompt" if own_classes else "data",
        "preprocessing": preprocess or "standard",
        "precision": estimator.image_precision,
        **found.to_dict(),
        "skipped": [list(one) for one in images.skipped],
    }
    if out is not None:
        kept = [chosen.paths[i] for i in images.kept]
        write_evaluation(out, {**document, "warnings": output.warnings}, kept, scores, targets, names, output)
        document["out"] = display_name(out)
    output.result(document)


def _with_classes_of(dataset: ImageDataset, prompt: Path, where: Where, output: Output) -> tuple[ClipClassifier, bool]:
    """The prompt with its own classes if these are enough, otherwise with the data's; and whether they were."""
    if is_reference_checkpoint(prompt):
        return load_prompt(prompt, where, dataset.class_names), False
    estimator = load_prompt(prompt, where)
    unknown = [name for name in dataset.class_names if name not in estimator.class_names_]
    if not unknown and dataset.fixed_classes and len(dataset.class_names) < len(estimator.class_names_):
        output.say(f"The prompt is applied to the {len(dataset.class_names)} classes of {dataset.name} alone.")
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
    output.say(
        f"The prompt was not learned for {len(unknown)} of the {len(dataset.class_names)} classes ({shown}), so it is "
        f"applied to the classes of the data."
    )
    return other, False


def _say_mistakes(output: Output, found: Evaluation) -> None:
    worst = [one for one in found.worst_classes() if one.accuracy < 100]
    if not worst:
        return
    output.say()
    output.table(
        ["Weakest classes, %", "images", "accuracy"],
        [[display_name(one.name), str(one.n), percent(one.accuracy)] for one in worst],
        right=(1, 2),
    )
    output.say()
    output.table(
        ["Most frequent mistakes", "taken for", "images"],
        [
            [display_name(one.true), display_name(one.predicted), str(one.count)]
            for one in found.confusions[:SHOWN_CONFUSIONS]
        ],
        right=(2,),
    )


def run_zero_shot(
    data: Path,
    root: Path | None,
    split: str,
    templates: Sequence[str],
    ensemble: bool,
    where: Where,
    out: Path | None,
    on_bad_image: Any,
    cache: bool,
    output: Output,
    reading: DataReading = AS_USUAL,
) -> None:
    """Measures hand-made prompts one by one and, when there are several, together.

    Raises:
        CooptError: anything wrong with the templates, the data or the backbone.
    """
    if out is not None:
        _check_prompt_folder(out, data)
        click.get_current_context().with_resource(writing_folder(out, "--out"))
    dataset, chosen = load_split(data, split, None, on_bad_image, output, root, reading)
    named = [one for template in templates for one in _meant(template, dataset)]
    singles = list(dict.fromkeys([*named, *(ENSEMBLE if ensemble else ())])) or [DEFAULT_TEMPLATE]
    backbone = load_backbone(where.backbone or "bundled", where.device, where.download, where.value_range)

    def classifier(used: str | list[str]) -> ZeroShot:
        found = ZeroShot(backbone, templates=used, precision=where.precision or "fp32", cache=cache)
        return found.fit_classes(dataset.class_names)

    together = classifier(singles)  # every template is checked before images are encoded
    images = together.image_features(list(chosen.paths), on_bad_image)
    labels = [chosen.labels[i] for i in images.kept]
    rows = [(template, evaluate(classifier(template), images.features[0], labels)) for template in singles]
    whole = evaluate(together, images.features[0], labels)
    if len(singles) > 1:
        rows.append((f"all {len(singles)} together", whole))
    output.say()
    output.table(
        [f"On {counted(whole.n, 'image')}, %", *MEASURES],
        [[display_name(name), *measures(one)] for name, one in rows],
        right=(1, 2, 3, 4),
    )
    _say_mistakes(output, whole)
    if out is not None:
        save(together, out, {"accuracy": {"images": whole.n, "zero_shot": whole.accuracy}})
        output.say()
        output.say(f"Saved to '{display_name(out)}'; use it as `coopt predict {display_name(out)} IMAGES...`.")
    output.result(_zero_shot_document(data, split, dataset, together, singles, rows, whole, out, images.skipped))


def _folder(data: Path) -> Path | None:
    """The folder of images, if that is what the data are."""
    return data if data.is_dir() else None


def _check_prompt_folder(folder: Path, data: Path) -> None:
    """Refuses to write a prompt over one that was learned, or among files that are not ours."""
    refuse_foreign(folder, (PROMPT,), _folder(data))
    if (folder / PROMPT).exists() and (method := describe(folder)["method"]) != ZeroShot.method:
        raise SavedFileError(
            f"'{display_name(folder)}' holds a prompt that was learned ({method}). Choose another folder with --out."
        )


def _meant(template: str, dataset: ImageDataset) -> Sequence[str]:
    """The templates that a word of `--template` stands for."""
    if template != OWN_TEMPLATE:
        return template_list(template)
    if dataset.template is None:
        raise ParameterError(
            f"{dataset.name} has no hand-made prompt of its own. Write one, such as --template 'a photo of a {{}}.'."
        )
    return [dataset.template]


def _zero_shot_document(
    data: Path,
    split: str,
    dataset: ImageDataset,
    together: ZeroShot,
    singles: list[str],
    rows: Sequence[tuple[str, Evaluation]],
    whole: Evaluation,
    out: Path | None,
    skipped: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    return {
        "backbone": together.backbone_.name,
        "precision": together.image_precision,
        "data": display_name(data),
        "dataset_hash": dataset.hash,
        "split": split,
        "templates": [{"template": name, "accuracy": one.accuracy} for name, one in rows[: len(singles)]],
        "used": singles,
        **whole.to_dict(),
        "out": None if out is None else display_name(out),
        "skipped": [list(one) for one in skipped],
    }
