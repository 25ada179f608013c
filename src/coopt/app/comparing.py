"""Several methods on the same images, by cross-validation: a table, what of it is noise, and which to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from coopt import events
from coopt.app.comparison_files import ComparisonFolder, key_of
from coopt.app.cross_validation import LATE, ComparedMethod, CrossValidation
from coopt.app.estimators import estimator_for, method_class
from coopt.app.loading import load_sample
from coopt.app.requests import CompareRequest
from coopt.app.run_folder import images_of
from coopt.backbones import Backbone, load_backbone
from coopt.data import FeatureCache, ImageDataset, display_name
from coopt.data.descriptions import read_descriptions
from coopt.errors import DataError, Interrupted, ParameterError
from coopt.evaluation.choosing import Candidate, Choice, choose
from coopt.evaluation.folds import check_folds
from coopt.locks import writing_folder
from coopt.methods.learned import LearnedMethod
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.descriptions import Descriptions
from coopt.wording import called, counted, on_command_line, size_of

if TYPE_CHECKING:
    from coopt.report.comparison import Point

Entry = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class CompareResult:
    """A comparison.

    Attributes:
        data, dataset_hash, backbone: what was learned from and with.
        images: to learn from.
        predicted: how many of them were held out in some fold.
        one_thing: whether the images of a class look like pictures of one thing; see `share_of_one_thing`.
        shots, folds, seed: as asked for.
        methods: hand-made prompts first, the others in the order in which they were compared.
        choice: which of `methods` to take, and why.
        command: how it was started.
        warnings: what was warned of.
        out: the folder that was written.
    """

    data: str
    dataset_hash: str
    backbone: str
    images: int
    predicted: int
    one_thing: bool
    shots: int | None
    folds: int
    seed: int
    methods: tuple[ComparedMethod, ...]
    choice: Choice
    command: str
    warnings: tuple[events.Warned, ...] = ()
    out: Path | None = None

    @property
    def best(self) -> ComparedMethod:
        """The one to take."""
        return self._of(self.choice.taken)

    @property
    def runner_up(self) -> ComparedMethod | None:
        """The one that would be taken without the best; None: nothing else was compared."""
        return None if self.choice.runner_up is None else self._of(self.choice.runner_up)

    def _of(self, candidate: Candidate) -> ComparedMethod:
        return next(one for one in self.methods if one.hits and one.title == candidate.title)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows, the most accurate first."""
        headers = [
            *(f"On {counted(self.predicted, 'image')} held out, %", "accuracy", "95% interval", "beside the best"),
            *("seconds", "size", "memory", "new classes"),
        ]
        return headers, [self._row(one) for one in sorted(self.methods, key=lambda one: -sum(one.hits))]

    def _row(self, one: ComparedMethod) -> list[str]:
        if not one.hits:
            return [one.title, "late" if one.error == LATE else "failed", *[""] * 6]
        low, high = one.interval
        as_good = [same.title for same in self.choice.as_good]
        beside = "" if one.title == self.choice.most_accurate.title else "as good" if one.title in as_good else "worse"
        return [
            *(one.title, f"{one.accuracy:.1f}", f"{low:.1f} to {high:.1f}", beside),
            *(f"{one.seconds:.1f}", size_of(one.bytes), size_of(one.memory) if one.memory else "-"),
            "yes" if one.new_classes else "no",
        ]

    def sentences(self) -> list[str]:
        """What the table says, in words."""
        second = self.runner_up
        late = [one.title for one in self.methods if one.error == LATE]
        return [
            *self.choice.reasons,
            f"Taken: {self.best.title}.{'' if second is None else f' Without it: {second.title}.'}",
            *([f"Not finished within the budget: {', '.join(late)}."] if late else []),
        ]

    def markdown(self) -> str:
        """The table and the sentences."""
        headers, rows = self.table()
        cells = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
        table = "\n".join("| " + " | ".join(row) + " |" for row in cells)
        return (
            f"# {self.data}, {self.backbone}\n\n{table}\n\n" + "\n\n".join(self.sentences()) + f"\n\n`{self.command}`\n"
        )

    def points(self) -> list[Point]:
        """The methods that were finished, as the figure shows them."""
        from coopt.report.comparison import Point

        return [
            Point(one.title, one.accuracy, one.interval, one.seconds, one is self.best, one.method == ZeroShot.method)
            for one in self.methods
            if one.hits
        ]

    def __str__(self) -> str:
        headers, rows = self.table()
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        lines = [
            "   ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in [headers, *rows]
        ]
        return "\n".join([*lines, "", *self.sentences()])

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        first = ("command", "data", "dataset_hash", "backbone", "images", "predicted", "one_thing")
        names = (*first, "shots", "folds", "seed")
        return {
            **{name: getattr(self, name) for name in names},
            "methods": [one.to_dict() for one in self.methods],
            "best": {"method": self.best.method, "parameters": dict(self.best.parameters)},
            "sentences": self.sentences(),
            **({} if self.out is None else {"out": display_name(self.out)}),
            "warnings": [one.to_record() for one in self.warnings],
        }


def compare(data: CompareRequest | str | Path, *, command: str | None = None, **options: Any) -> CompareResult:
    """Compares methods on labelled images by cross-validation: every image is predicted once, by what was learned from others.

    Only training images are used; a test part stays untouched. Images that look alike are held out together
    (`coopt.evaluation.folds`).

    Args:
        data: a folder, a CSV file or the name of a data set; or the whole request.
        command: how it is started, for the record and for the message of an interrupted one; None: this call.
        options: fields of `CompareRequest`. A method is its name, or (name, parameters).

    Raises:
        CooptError: anything wrong with the data, the backbone or a parameter; also when all methods fail. Where one fails and
            others do not, its line says why.
        Interrupted: Ctrl-C; with `out` the same call goes on.
    """
    is_request = isinstance(data, CompareRequest)
    request = CompareRequest.of(data, **options) if is_request else CompareRequest.of(data=data, **options)
    with events.warnings_collected() as warned:
        comparison = _Comparison(request, command or f"coopt.compare({str(request.data)!r}, ...)")
        return replace(comparison.run(), warnings=tuple(warned))


class _Comparison:
    """One comparison; what is known of it becomes more from step to step."""

    def __init__(self, request: CompareRequest, command: str) -> None:
        self.request, self.command = request, command
        check_request(request)
        self.folder = ComparisonFolder(request.out, request.overwrite, images_of(request.data, request.root))
        _, self.dataset = load_sample(request, test_fraction=0)

    def run(self) -> CompareResult:
        """All methods, one after the other."""
        if self.request.out is None:
            return self._run()
        with writing_folder(self.request.out, called("out")):
            return self._run()

    def _run(self) -> CompareResult:
        request, dataset = self.request, self.dataset
        events.say(
            f"{dataset.name}: {counted(len(dataset.class_names), 'class')}, {counted(len(dataset.train), 'image')}."
        )
        for note in dataset.notes:
            events.say(note)
        backbone = load_backbone(request.backbone, request.device, request.download, request.value_range)
        return compare_on(request, backbone, dataset, self.folder, self.command)


def compare_on(
    request: CompareRequest, backbone: Backbone, dataset: ImageDataset, folder: ComparisonFolder, command: str
) -> CompareResult:
    """Compares methods on the training part of a data set that is read already.

    Args:
        request: what is compared, and how.
        backbone: the frozen model.
        dataset: whose training part is used.
        folder: where the comparison is kept, and goes on from an earlier one.
        command: how it is started.

    Raises:
        NothingHeldOutError: no class has two different images.
        DataError: the hand-made prompt fails.
        SavedFileError: the folder holds another comparison.
        Interrupted: Ctrl-C.
    """
    texts = None if request.descriptions is None else read_descriptions(request.descriptions, dataset.class_names)
    entries, methods = entries_of(request), list[ComparedMethod]()
    folder.begin(_identity(request, backbone, dataset, texts))
    try:
        with _cache(request) as cache:
            validation = CrossValidation(request, backbone, dataset, texts, cache)
            with events.tracked("comparing", len(entries)) as work:
                for number, entry in enumerate(entries, start=1):
                    methods.append(folder.done(*entry) or validation.line(*entry))
                    folder.keep(methods[-1])
                    work.update(number, methods[-1].title)
    except KeyboardInterrupt:
        kept = f"{len(methods)} of {counted(len(entries), 'method')} done"
        where = "" if folder.path is None else f", and kept in '{display_name(folder.path)}'"
        again = "Run the same command" if on_command_line() else "Make the same call"
        go_on = f" {again} to go on:\n  {command}" if folder.path is not None else ""
        raise Interrupted(f"Interrupted. {kept}{where}.{go_on}") from None
    if methods[0].error is not None:
        raise DataError(f"{methods[0].title} failed, with which all others are compared: {methods[0].error}")
    result = CompareResult(
        data=display_name(request.data),
        dataset_hash=dataset.hash,
        backbone=backbone.name,
        images=len(validation.images),
        predicted=validation.predicted,
        one_thing=validation.one_thing,
        shots=request.shots,
        folds=request.folds,
        seed=request.seed,
        methods=tuple(methods),
        choice=choose([one.as_candidate() for one in methods if one.hits], validation.one_thing),
        command=command,
        out=folder.path,
    )
    folder.finish(result.to_dict(), result.markdown(), result.points())
    return result


def _identity(
    request: CompareRequest, backbone: Backbone, dataset: ImageDataset, texts: Descriptions | None
) -> dict[str, Any]:
    """What makes two comparisons the same, but for their methods and their budget."""
    return {
        "images": dataset.hash,
        "backbone": backbone.fingerprint,
        "descriptions": None if texts is None else {name: list(said) for name, said in texts.items()},
        **{name: getattr(request, name) for name in ("folds", "shots", "seed", "precision", "value_range")},
    }


@contextmanager
def _cache(request: CompareRequest) -> Iterator[FeatureCache]:
    """The user's, or one that is gone afterwards: either way no image is encoded twice."""
    if request.cache:
        yield FeatureCache()
        return
    with TemporaryDirectory(prefix="coopt-") as folder:
        cache = FeatureCache(Path(folder))
        try:
            yield cache
        finally:
            cache.close()


def entries_of(request: CompareRequest) -> list[Entry]:
    """The methods with their parameters: hand-made prompts first, then what costs little, then what passes texts or images.

    Raises:
        ParameterError: there are none, or one is named twice.
    """
    entries: list[Entry] = [(one, {}) if isinstance(one, str) else (one[0], dict(one[1])) for one in request.methods]
    if not entries:
        raise ParameterError(f"There is nothing to compare: give at least one of {called('methods')}.")
    keys = [key_of(*entry) for entry in entries]
    twice = next((entry[0] for entry, key in zip(entries, keys, strict=True) if keys.count(key) > 1), None)
    if twice is not None:
        raise ParameterError(f"The method {twice!r} is named twice with the same parameters. Leave one of them out.")
    if all(name != ZeroShot.method for name, _ in entries):
        entries.insert(0, (ZeroShot.method, {}))
    return sorted(entries, key=lambda entry: _cost(entry[0]))


def check_request(request: CompareRequest) -> None:
    """Refuses what can be known to be wrong before anything is loaded.

    Raises:
        ParameterError: something is.
    """
    check_folds(request.folds)
    if request.budget is not None and not request.budget > 0:
        raise ParameterError(f"The 'budget' parameter must be above 0 seconds. Got {request.budget!r} instead.")
    for method, parameters in entries_of(request):
        estimator_for(request, method, parameters, learns=False)


def _cost(method: str) -> int:
    cls = method_class(method, learns=False)
    if cls is ZeroShot:
        return 0
    return 1 + issubclass(cls, LearnedMethod) + 2 * (not cls.capabilities.features_only)
