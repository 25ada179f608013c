"""A page about a prompt: how good it is and where it fails, which images are doubtful, how it was made and how it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coopt import events
from coopt.app import report_content as content
from coopt.app.contact_sheet import thumbnail
from coopt.app.cross_validation import CrossValidation
from coopt.app.estimators import parameters_of
from coopt.app.loading import load_prompt, load_split
from coopt.app.report_content import Seen
from coopt.app.requests import CompareRequest, EvaluateRequest, ReportRequest
from coopt.app.run_folder import RESULT
from coopt.data import FeatureCache, Features, ImageDataset, Split, display_name, few_shot, find_leakage
from coopt.data.leakage import groups_that_show_the_same
from coopt.errors import NothingHeldOutError, ParameterError
from coopt.files import write_bytes, write_json
from coopt.methods.base import ClipClassifier
from coopt.methods.reference_checkpoint import is_reference_checkpoint
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.wording import called, counted

PAGE = "report.html"


@dataclass(frozen=True)
class ReportResult:
    """A report.

    Attributes:
        page: the file.
        content: all that is on it, ready for JSON.
        warnings: what was warned of.
    """

    page: Path
    content: Mapping[str, Any]
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "page": display_name(self.page),
            **self.content,
            "warnings": [one.to_record() for one in self.warnings],
        }


def report(prompt: ReportRequest | str | Path, data: str | Path | None = None, **options: Any) -> ReportResult:
    """Makes a page about a saved prompt, which needs no other file and no network, and the same as JSON beside it.

    Args:
        prompt: a folder that a fit wrote; or the whole request.
        data: labelled images; None: those that it was learned from.
        options: fields of `ReportRequest`.

    Raises:
        CooptError: anything wrong with the prompt, the data or the file.
    """
    given = options if data is None else {"data": data, **options}
    request = ReportRequest.of(prompt, **given) if isinstance(prompt, ReportRequest) else None
    request = request or ReportRequest.of(prompt=prompt, **given)
    with events.warnings_collected() as warned:
        return replace(_report(request), warnings=tuple(warned))


def _report(request: ReportRequest) -> ReportResult:
    if is_reference_checkpoint(request.prompt):
        raise ParameterError(
            f"'{display_name(request.prompt)}' is a checkpoint of the reference implementation, which says neither its classes nor "
            "how it was made. A report is about a folder that `coopt fit` wrote; `coopt eval` measures checkpoints."
        )
    run = _run_of(request.prompt)
    where = request.data or _data_of(request, run)
    shared = {name: value for name, value in request.to_dict().items() if name not in ("data", "out", "folds")}
    dataset, measured_on = load_split(EvaluateRequest.of(data=where, **shared), request.prompt)
    estimator = load_prompt(request)
    estimator.set_params(runtime__cache=request.cache)
    if list(dataset.class_names) != list(estimator.class_names_):
        estimator = estimator.with_classes(dataset.class_names)
    images = estimator.image_features(list(measured_on.paths), request.on_bad_image)
    made = report_on(estimator, dataset, measured_on, images, run, request.folds, request.cache)
    page = request.out or request.prompt / PAGE
    write_report(page, made, dataset.root)
    return ReportResult(page, made)


def write_report(page: Path, made: Mapping[str, Any], root: Path) -> None:
    """Writes the page, and the same as JSON beside it.

    Args:
        page: the file.
        made: what `report_on` gave.
        root: the folder that images are counted from.

    Raises:
        SavedFileError: a file cannot be written.
    """
    from coopt.report.page import report_page

    shown = [one["file"] for one in (*made["mistakes"], *(made["suspicious"] or ()))]
    pictures = {file: thumbnail(root / file) for file in dict.fromkeys(shown)}
    write_bytes(page, report_page(made, pictures).encode("utf-8", "replace"))
    write_json(page.with_suffix(".json"), dict(made))


def report_on(
    estimator: ClipClassifier,
    dataset: ImageDataset,
    measured_on: Split,
    images: Features,
    run: Mapping[str, Any],
    folds: int,
    cache: bool,
) -> dict[str, Any]:
    """All that is on the page, ready for JSON.

    Args:
        estimator: fitted.
        dataset: whose training part may be what it learned from.
        measured_on: the images to measure on.
        images: their features, as the estimator makes them.
        run: what `result.json` holds; empty where there is none.
        folds: see `ReportRequest`.
        cache: image features are kept on disk.
    """
    names = list(estimator.class_names_)
    held_out = measured_on.take(images.kept)
    learned = Seen.of(estimator.logits(images), held_out, dataset.root, names)
    zero_shot = ZeroShot(estimator.backbone_, runtime=estimator.runtime).fit_classes(names)
    frozen = images if estimator.capabilities.features_only else zero_shot.image_features(list(held_out.paths))
    hand_made = Seen.of(zero_shot.logits(frozen), held_out, dataset.root, names)
    own = run.get("dataset", {}).get("hash") == dataset.hash and len(dataset.train) > 0
    if own and run.get("shots") is not None:
        dataset = few_shot(dataset, run["shots"], run["seed"])
    train = dataset.train if own else None
    same = [] if train is None else _same_pictures(train, dataset.root)
    return {
        "title": f"{estimator.full_title}: {dataset.name}",
        "method": estimator.method,
        "backbone": estimator.backbone_.name,
        "data": {
            "name": dataset.name,
            "classes": len(names),
            "learned_from": None if train is None else len(train),
            "measured_on": len(held_out),
        },
        "accuracy": [
            content.measured(f'hand-made prompt, "{DEFAULT_TEMPLATE}"', hand_made),
            content.measured(estimator.full_title, learned),
        ],
        "chance": learned.evaluation.chance(len(names)),
        "classes": content.classes(learned, hand_made, train),
        "confusion": content.confusion(learned),
        "mistakes": learned.contradicted(content.MOST_MISTAKES),
        "leaks": []
        if train is None
        else content.shown_pairs(find_leakage(replace(dataset, test=held_out)), dataset.root),
        "copies": same,
        "suspicious": _suspicious(estimator, dataset, folds, cache) if train is not None else None,
        "losses": content.losses(estimator) or list(run.get("losses", [])),
        "words": content.words(estimator),
        "compared": run.get("compared", {}).get("sentences", []),
        "made": {
            name: run[name]
            for name in ("command", "seed", "shots", "precision", "versions", "machine", "recipe", "seconds")
            if run.get(name) is not None
        }
        | {"fingerprint": estimator.backbone_.fingerprint},
        "warnings_then": run.get("warnings", []),
    }


def _same_pictures(train: Split, root: Path) -> list[list[str]]:
    """Training images that show the same as an earlier one, with that."""
    first = groups_that_show_the_same(train.paths)
    pairs = [(train.paths[one], train.paths[i]) for i, one in enumerate(first) if one != i]
    return content.shown_pairs(pairs, root)


def _suspicious(
    estimator: ClipClassifier, dataset: ImageDataset, folds: int, cache: bool
) -> list[dict[str, Any]] | None:
    """Training images whose label what was learned from the others contradicts, the surest first; None: not looked at."""
    if folds == 0:
        return None
    own = parameters_of(estimator.method, learns=False)
    parameters = {name: value for name, value in estimator.parameters.items() if name in own}
    request = CompareRequest(
        Path(dataset.name), folds=folds, seed=int(getattr(estimator, "seed", 1)), precision=estimator.precision_
    )
    try:
        validation = CrossValidation(request, estimator.backbone_, dataset, None, FeatureCache() if cache else None)
    except NothingHeldOutError:
        return None
    names = list(dataset.class_names)
    found: list[dict[str, Any]] = []
    with events.tracked("looking for doubtful labels", folds) as work:
        for number, (fitted, tested, _) in enumerate(validation.fitted(estimator.method, parameters), start=1):
            out = validation.images.take(tested.tolist())
            found += Seen.of(fitted.logits(list(out.paths)), out, dataset.root, names).contradicted(len(out))
            work.update(number)
    return sorted(found, key=lambda one: -one["probability"])[: content.MOST_SUSPICIOUS]


def _run_of(prompt: Path) -> dict[str, Any]:
    try:
        return json.loads((prompt / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _data_of(request: ReportRequest, run: Mapping[str, Any]) -> Path:
    path = run.get("dataset", {}).get("path")
    if path is None:
        raise ParameterError(
            f"'{display_name(request.prompt)}' does not say what it was learned from. Give the images: "
            f"{called('data')} (coopt report PROMPT DATA)."
        )
    events.say(
        f"The images are those that it was learned from: {display_name(path)}, {counted(run['dataset']['train'], 'image')}."
    )
    return Path(path)
