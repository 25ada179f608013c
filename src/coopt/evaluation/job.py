"""A job: one method, learned once and tested on every target of a protocol, as data.

A job is a JSON document that says all there is to do, so it can be written down, sent to another process or another machine
and done there (`coopt.evaluation.execution.execute`). It knows nothing of suites.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from coopt.data import ImageDataset, load_dataset
from coopt.data.bundled import PREFIX, find_bundled
from coopt.errors import ParameterError
from coopt.evaluation.protocols import Problem, ProtocolName, Sampling, problem_under


@dataclass(frozen=True)
class DatasetReference:
    """A data set that is not read yet.

    Attributes:
        name: in results, files and tables.
        source: as `coopt.load_dataset` takes it: "caltech101", "bundled:animals", a folder or a CSV.
        style: of a bundled data set: the art style of its test part; None: that of the training images.
        root: the folder that holds the papers' data sets; None: where COOPT_DATA_ROOT says.
        require_train: False for one that is only tested on, and may lack training images.
    """

    name: str
    source: str
    style: str | None = None
    root: str | None = None
    require_train: bool = True

    def load(self) -> ImageDataset:
        """Reads it.

        Raises:
            DataError: it is missing, or not usable.
        """
        if self.source.startswith(PREFIX):
            return find_bundled(self.source).load(self.style)
        return load_dataset(self.source, root=self.root, require_train=self.require_train)


@dataclass(frozen=True)
class Job:
    """One method on one data set with one backbone, at some shots, from one seed.

    Attributes:
        protocol: see `coopt.evaluation.protocols`.
        method: its name in results and tables, such as "CoOp (M=16)".
        estimator: the method's registered name, as in saved prompts: "coop".
        parameters: of the method, as it is made; those that are not named are as usual.
        sampling: how its training images are drawn, see `coopt.evaluation.protocols.Sampling`.
        backbone: the name that loads it.
        backbone_key: what files and tables call it.
        dataset: what is learned from.
        source: what its own test part is called among the targets of domain generalisation and transfer.
        others: the other targets of these two protocols.
        shots: labelled images per class; 0 for a method that sees none.
        seed: of the sample and of learning; None for a method that sees no image.
        words: how many nearest words of each learned vector are kept; 0: none.
    """

    protocol: ProtocolName
    method: str
    estimator: str
    parameters: Mapping[str, Any]
    sampling: Sampling
    backbone: str
    backbone_key: str
    dataset: DatasetReference
    source: str
    others: tuple[DatasetReference, ...]
    shots: int
    seed: int | None
    words: int = 0

    @property
    def name(self) -> str:
        """What its file is called: see `run_name`."""
        return run_name(self.backbone_key, self.dataset.name, self.method, self.shots, self.seed)

    @property
    def shared(self) -> tuple[Any, ...]:
        """Jobs that are equal in this are about the same images and the same backbone."""
        return (self.backbone, *self.data)

    @property
    def data(self) -> tuple[Any, ...]:
        """Jobs that are equal in this have the same problem."""
        return (self.protocol, self.dataset, self.source, self.others)

    def problem(self) -> Problem:
        """The data set under the protocol, read from disk.

        Raises:
            DataError: a data set is missing, or not as the protocol needs it.
        """
        dataset = replace(self.dataset.load(), name=self.dataset.name)
        others = {one.name: one.load() for one in self.others}
        return problem_under(self.protocol, dataset, others, self.source)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        document = asdict(self)
        return {**document, "parameters": jsonable(self.parameters), "others": list(document["others"])}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Job:
        """The job that `to_dict` described.

        Raises:
            ParameterError: a field is missing, unknown or of another kind.
        """
        try:
            values = dict(document)
            values["dataset"] = _reference(values["dataset"])
            values["others"] = tuple(_reference(one) for one in values["others"])
            if not isinstance(values["parameters"], Mapping):
                raise TypeError("'parameters' is not a mapping")
            return cls(**values)
        except KeyError as error:
            raise ParameterError(f"Not a job: it has no {error}. Expected the document of Job.to_dict().") from error
        except TypeError as error:
            raise ParameterError(f"Not a job: {error}. Expected the document of Job.to_dict().") from error


def _reference(document: Mapping[str, Any]) -> DatasetReference:
    known = {one.name for one in fields(DatasetReference)}
    if not isinstance(document, Mapping) or not {"name", "source"} <= set(document) <= known:
        raise TypeError(f"{document!r} is not a reference to a data set")
    return DatasetReference(**document)


def jsonable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they are when read back from JSON: tuples become lists, recipes what they hold.

    Raises:
        ParameterError: a parameter is none that JSON can hold.
    """
    try:
        return json.loads(json.dumps(dict(parameters), default=_described))
    except TypeError as error:
        raise ParameterError(
            f"Parameters of a job must be what JSON can hold: {error}. Got {dict(parameters)!r}."
        ) from error


def _described(value: Any) -> Any:
    if hasattr(value, "to_dict"):  # a recipe
        return value.to_dict()
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def run_name(backbone: str, dataset: str, method: str, shots: int, seed: int | None) -> str:
    """What a run is called: the same for the same point of a grid, whatever the method's parameters."""
    parts = [backbone, dataset, method]
    if seed is not None:
        parts += [f"{shots}-shot{'s' * (shots > 1)}", f"seed-{seed}"]
    return ".".join(in_file_names(part) for part in parts)


def in_file_names(text: str) -> str:
    """A name as names of files have it."""
    return re.sub(r"[^a-z0-9_=+-]+", "-", text.lower()).strip("-")
