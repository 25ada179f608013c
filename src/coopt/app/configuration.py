"""A fit's request in other forms: as the YAML file that repeats it, as what makes two runs the same, and as a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coopt.app.assignments import assignment
from coopt.app.method_options import method_options
from coopt.app.requests import FitRequest
from coopt.data.benchmarks.registry import is_name
from coopt.methods.base import ClipClassifier


def data_again(request: FitRequest) -> str:
    """The data as they are found again from any folder: the name of a data set, or an absolute path."""
    return str(request.data if is_name(str(request.data), request.root) else request.data.absolute())


def identity_of(request: FitRequest, estimator: ClipClassifier, dataset_hash: str) -> dict[str, Any]:
    """Equal for two runs that learn the same from the same data; `estimator` is not fitted yet."""
    decisive: dict[str, Any] = {"method": request.method, "backbone": request.backbone, "shots": request.shots}
    if request.value_range is not None:
        decisive["value_range"] = list(request.value_range)
    return {**decisive, **estimator.parameters, "images": dataset_hash}


def config_of(request: FitRequest, out: Path) -> dict[str, Any]:
    """The content of a configuration file (`coopt fit --config FILE`) that repeats the run into `out`."""
    values = request.to_dict()
    given, with_option = values.pop("parameters"), [one.name for one in method_options()]
    values |= {name: given[name] for name in with_option if given.get(name) is not None}
    values["set"] = [assignment(name, value) for name, value in given.items() if name not in with_option] or None
    values["data"], values["out"] = data_again(request), str(out.absolute())
    for name in ("root", "class_names", "descriptions"):
        path: Path | None = getattr(request, name)
        values[name] = None if path is None else str(path.absolute())
    if request.value_range is not None:
        values["value_range"] = ",".join(map(str, request.value_range))
    # The run may be repeated where it was; what it may do to the machine is decided each time.
    for name in ("overwrite", "download"):
        del values[name]
    first = ("data", "out", "method", "backbone", "shots", *with_option, "set", "seed", "test_fraction")
    ordered = {name: values[name] for name in first if name in values} | values
    return {name.replace("_", "-"): value for name, value in ordered.items() if value is not None}


def call_of(request: FitRequest) -> str:
    """The request as a line of Python."""
    usual = FitRequest(request.data)
    words = [repr(str(request.data))]
    for name, value in request.to_dict().items():
        if name == "parameters":
            assert isinstance(value, Mapping)
            words += [f"{key}={one!r}" for key, one in value.items()]
        elif name != "data" and getattr(request, name) != getattr(usual, name):
            words.append(f"{name}={value!r}")
    return f"coopt.app.fit({', '.join(words)})"
