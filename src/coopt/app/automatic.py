"""`method="auto"`: methods are compared on the images to learn from, and the one taken learns from all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from coopt import events
from coopt.app.comparing import CompareResult, check_request, compare_on
from coopt.app.comparison_files import ComparisonFolder
from coopt.app.requests import AUTO, CompareRequest, FitRequest
from coopt.app.run_folder import RunFolder
from coopt.backbones import Backbone
from coopt.data import ImageDataset
from coopt.errors import NothingHeldOutError, ParameterError

PARAMETERS = ("folds", "budget", "methods")
"""Those of `CompareRequest` that a fit with this method may be given."""


@dataclass(frozen=True)
class Compared(events.Event):
    """Methods were compared, and one is taken.

    Attributes:
        result: the comparison.
    """

    result: CompareResult

    def to_dict(self) -> dict[str, Any]:
        """See `Event`."""
        return {"event": type(self).__name__, **self.result.to_dict()}

    def __str__(self) -> str:
        return str(self.result)


def comparison_of(request: FitRequest) -> CompareRequest:
    """What a fit with this method compares.

    Raises:
        ParameterError: a parameter that it does not have, or a value that it does not take.
    """
    for name in request.parameters:
        if name not in PARAMETERS:
            raise ParameterError(
                f"The method {AUTO!r} has no parameter {name!r}: it chooses a method as that is by default. Its parameters are "
                f"{', '.join(PARAMETERS)}. Name the method to set parameters of its own."
            )
    shared = {one.name for one in fields(FitRequest)} & {one.name for one in fields(CompareRequest)} - {"out"}
    compared = CompareRequest.of({name: getattr(request, name) for name in shared}, **request.parameters)
    check_request(compared)
    return compared


def choose_method(
    request: FitRequest, backbone: Backbone, dataset: ImageDataset, folder: RunFolder, command: str
) -> tuple[FitRequest, CompareResult | None]:
    """The request with the method that is taken, and the comparison; without one, where nothing can be held out, the usual method.

    Raises:
        CooptError: see `compare_on`.
    """
    kept = ComparisonFolder(folder.path, request.overwrite, folder.images)
    try:
        result = compare_on(comparison_of(request), backbone, dataset, kept, command)
    except NothingHeldOutError:
        usual = FitRequest(request.data).method
        events.say(
            f"No class has two different images, so methods cannot be compared: {usual} learns, as without {AUTO}."
        )
        return FitRequest.of(request, method=usual, parameters={}), None
    events.emit(Compared(result))
    chosen = {"method": result.best.method, "parameters": dict(result.best.parameters)}
    return FitRequest.of(request, **chosen), result
