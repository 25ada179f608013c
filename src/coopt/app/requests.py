"""What can be asked for: one frozen dataclass for each thing that people do. They go to JSON and come back.

Importing this loads nothing heavy. A request is strict (paths are `Path`, several things are tuples); `Request.of` takes what
people and JSON give. See `coopt.app` for how they are used, and `coopt COMMAND --help` for what the fields mean in detail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from coopt.errors import ParameterError
from coopt.runtime import Precision

OnBadImage = Literal["skip", "fail"]
ValueRange = tuple[float | int, float | int]

_Request = TypeVar("_Request", bound="Request")

AUTO = "auto"
"""In the place of a method: the one that a comparison takes."""

CANDIDATES = (
    *("zero_shot", "tip_adapter", "gda", "lp_plus_plus", "linear_probe", "proker"),
    *("clap", "taskres", "prolip", "kgcoop", "coop"),
)
"""Methods that are compared where none are named, about in the order of what they cost."""


@dataclass(frozen=True)
class Request:
    """Base of all requests."""

    rest: ClassVar[str | None] = None
    """The field that takes options which have no field of their own."""

    @classmethod
    def of(cls: type[_Request], given: Request | Mapping[str, Any] | None = None, **options: Any) -> _Request:
        """A request from what people write, or from what `to_dict` gave: paths may be texts, tuples lists.

        Args:
            given: a request or a mapping of its fields, which `options` change.
            options: the fields by name.

        Raises:
            ParameterError: there is no such field.
        """
        base = {} if given is None else given if isinstance(given, Mapping) else given._values()
        values: dict[str, Any] = dict(base)
        known = {one.name: str(one.type) for one in fields(cls)}
        rest: dict[str, Any] = {}
        for name, value in options.items():
            if name in known:
                values[name] = value
            elif cls.rest is not None:
                rest[name] = value
            else:
                raise cls._unknown(name, list(known))
        if cls.rest is not None and rest:
            values[cls.rest] = {**(values.get(cls.rest) or {}), **rest}
        for name in values.keys() - known.keys():
            raise cls._unknown(name, list(known))
        return cls(**{name: _strict(known[name], value) for name, value in values.items()})

    @classmethod
    def _unknown(cls, name: str, known: list[str]) -> ParameterError:
        close = get_close_matches(name, known, n=2)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        return ParameterError(f"{cls.__name__} has no field {name!r}. {hint}Its fields are {', '.join(known)}.")

    def _values(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON; `of` makes the same request of it."""
        return {name: _plain(value) for name, value in self._values().items()}


def _strict(kind: str, value: Any) -> Any:
    """A value as the field of this type (as it is written) holds it."""
    if isinstance(value, str | os.PathLike) and kind.startswith("Path"):
        return Path(value)
    if kind.startswith("tuple"):
        if isinstance(value, str | os.PathLike):
            value = (value,)
        if isinstance(value, list | tuple):
            return tuple(_member(one) for one in value)
    return tuple(value) if isinstance(value, list) and kind.startswith("ValueRange") else value


def _member(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "to_dict"):  # a recipe among the parameters
        return value.to_dict()
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, Mapping) else value


@dataclass(frozen=True, kw_only=True)
class DataOptions(Request):
    """How labelled images are read; see `coopt.load_dataset`, and `coopt.load_backbone` for `value_range`.

    Attributes:
        root: the folder that holds the papers' data sets.
        class_names: a file of names for classes that are numbers or codes.
        class_from: which folder names the class.
        path_column, label_column, split_column: of a CSV.
        value_range: of black and white in images of more than 8 bits per value.
        on_bad_image: "fail", or "skip" to leave out images that cannot be read.
    """

    root: Path | None = None
    class_names: Path | None = None
    class_from: Literal["top", "parent", "path"] | None = None
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    value_range: ValueRange | None = None
    on_bad_image: OnBadImage = "fail"

    @property
    def reading(self) -> dict[str, Any]:
        """What `coopt.load_dataset` is given of them besides `root` and `on_bad_image`."""
        names = ("class_names", "class_from", "path_column", "label_column", "split_column")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Request):
    """The frozen model and how it runs.

    Attributes:
        backbone: its name; None: the one that the prompt was saved with.
        device: "auto", "cpu", "cuda", ...
        download: weights may be fetched from the network.
        cache: image features are kept on disk.
        precision: of both towers' matrix products; None: as the prompt was learned.
    """

    backbone: str | None = None
    device: str = "auto"
    download: bool = False
    cache: bool = True
    precision: Precision | None = None


@dataclass(frozen=True, kw_only=True)
class FitRequest(DataOptions, ModelOptions):
    """To learn a prompt from labelled images and save it.

    Attributes:
        data: a folder, a CSV file or the name of a data set; see `coopt.load_dataset`.
        out: the folder to save into; None: coopt-NAME.
        method: its name, such as "coop"; "auto" compares some (`CompareRequest`) and learns with the one to take.
        parameters: of the method, such as {"n_ctx": 4, "recipe": {"epochs": 50}}; what is not named is as usual. Those of "auto"
            are `folds`, `budget` and `methods`.
        descriptions: a file of texts about the classes, for methods that take them.
        shots: images per class to learn from; None: all.
        seed: of all that is random.
        test_fraction: of each class, held out when the data have no test part; 0: none.
        text_path: how prompts are encoded.
        memory: what learning may hold above the model, such as "4G".
        overwrite: a prompt of another run in `out` may be replaced.
    """

    rest = "parameters"

    data: Path = field(kw_only=False)
    out: Path | None = None
    method: str = "coop"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    descriptions: Path | None = None
    shots: int | None = None
    seed: int = 1
    test_fraction: float | int = 0.2
    backbone: str = "bundled"
    precision: Precision = "fp32"
    text_path: str = "auto"
    memory: str | int = "auto"
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class PromptOptions(ModelOptions):
    """A prompt that was saved, and how it runs.

    Attributes:
        prompt: the folder, or a checkpoint of CoOp's reference implementation.
        position: of the class name in a reference checkpoint, which does not say it.
        value_range: of black and white in images of more than 8 bits per value; None: as the prompt was saved.
    """

    prompt: Path = field(kw_only=False)
    position: Literal["end", "middle", "front"] | None = None
    value_range: ValueRange | None = None


@dataclass(frozen=True, kw_only=True)
class PredictRequest(PromptOptions):
    """To classify images with a saved prompt.

    Attributes:
        images: files, folders and globs.
        from_list: instead, a file that names images, one per line; "-": standard input.
        class_names: other classes than the prompt's.
        topk: classes per image.
        min_confidence: an image whose most probable class is less probable gets none.
        out: the file for the rows; None: they are in the result.
        form: of the file, "csv" or "jsonl".
        overwrite: begin the file anew.
        copy_to, move_to: folders into which images are copied or moved, by class.
        contact_sheet: the file of an HTML page with small pictures by class.
        on_bad_image: "skip", or "fail" to stop at an image that cannot be read.
        keep_rows: without `out`: the result has the rows; False: they are told as events and forgotten.
    """

    images: tuple[str, ...] | None = field(default=None, kw_only=False)
    from_list: str | None = None
    class_names: tuple[str, ...] | None = None
    topk: int = 1
    min_confidence: float | int | None = None
    out: Path | None = None
    form: Literal["csv", "jsonl"] | None = None
    overwrite: bool = False
    copy_to: Path | None = None
    move_to: Path | None = None
    contact_sheet: Path | None = None
    on_bad_image: OnBadImage = "skip"
    keep_rows: bool = True


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(DataOptions, PromptOptions):
    """To measure a saved prompt on labelled images.

    Attributes:
        data: see `FitRequest`.
        split: the part of the data: "test", "val", "train" or "all".
        preprocess: how images are prepared, "standard" or "reference-2021-09"; None: as the model was trained.
        out: the folder for mistakes and confusions.
    """

    data: Path = field(kw_only=False)
    split: Literal["test", "val", "train", "all"] = "test"
    preprocess: str | None = None
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ReportRequest(DataOptions, PromptOptions):
    """To make a page about a saved prompt.

    Attributes:
        data: labelled images, see `FitRequest`; None: those that the prompt was learned from, where they were then.
        split: see `EvaluateRequest`.
        out: the page; beside it is the same as JSON. None: report.html in the prompt's folder.
        folds: the training images are dealt to so many parts, each of which is looked at by what is learned from the others, to
            find doubtful labels; 0: this is left out.
    """

    data: Path | None = field(default=None, kw_only=False)
    split: Literal["test", "val", "train", "all"] = "test"
    out: Path | None = None
    folds: int = 3


@dataclass(frozen=True, kw_only=True)
class ZeroShotRequest(DataOptions, ModelOptions):
    """To measure hand-made prompts on labelled images.

    Attributes:
        data: see `FitRequest`.
        templates: such as ("a {}.",); "dataset": the data set's own; "ensemble-80": all of CLIP's; none: "a photo of a {}.".
        ensemble: also the seven templates that CLIP's authors selected.
        descriptions: a file of texts about the classes, which are averaged with the templates.
        split: see `EvaluateRequest`.
        out: the folder to save all of them together into, as a prompt.
    """

    data: Path = field(kw_only=False)
    templates: tuple[str, ...] = ()
    ensemble: bool = False
    descriptions: Path | None = None
    split: Literal["test", "val", "train", "all"] = "test"
    backbone: str = "bundled"
    precision: Precision = "fp32"
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CompareRequest(DataOptions, ModelOptions):
    """To compare methods on the training images of one data set, by cross-validation.

    Attributes:
        data: see `FitRequest`.
        methods: their names; several times the same one with other parameters as (name, parameters). Hand-made prompts are
            always among them.
        folds: parts into which the images are dealt; each is predicted by what was learned from the others.
        budget: seconds for learning, after image features are computed; what is not finished then is left out. None: no end.
        descriptions: see `FitRequest`; methods that take none are compared without.
        shots: images per class to learn from and to predict; None: all.
        seed: of the sample, the folds and learning.
        text_path, memory: see `FitRequest`.
        out: the folder for the table, the figure and the JSON, where an interrupted comparison goes on; None: nothing is saved.
        overwrite: another comparison in `out` may be replaced.
    """

    data: Path = field(kw_only=False)
    methods: tuple[str | tuple[str, Mapping[str, Any]], ...] = CANDIDATES
    folds: int = 3
    budget: float | int | None = None
    descriptions: Path | None = None
    shots: int | None = None
    seed: int = 1
    backbone: str = "bundled"
    precision: Precision = "fp32"
    text_path: str = "auto"
    memory: str | int = "auto"
    out: Path | None = None
    overwrite: bool = False
