"""Runtime: what belongs to the machine and the moment, and not to what is learned."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from pathlib import Path
from typing import Any, Literal

from coopt import threads
from coopt.errors import ParameterError
from coopt.parameters import Declared, parameter
from coopt.wording import subject

Precision = Literal["auto", "fp32", "bf16"]
"""Of a tower's matrix products; what is between them stays in float32. "auto": see `coopt.backbones.precision`."""

PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")

TextPath = Literal["auto", "fast", "reference"]
TEXT_PATHS: tuple[TextPath, ...] = ("auto", "fast", "reference")
TextPathTaken = Literal["fast", "packed", "padded", "reference"]

DECISIVE = ("precision", "text_path")
"""Of a runtime, what is kept with a learned prompt: it moves results by more than rounding, or may."""


class Runtime(Declared):
    """How the machine is used: the same settings for any method, in one object.

        runtime = coopt.Runtime(device="cpu", precision="auto")
        coopt.CoOp(n_ctx=4, runtime=runtime).fit(images, labels)

    It decides nothing of what is learned, but for rounding (1e-6), and for `precision`. Methods that send no prompts through
    the text tower (the linear probe) compute in fp32 whatever it says.

    As a context it gives its number of threads to all that runs within:

        with coopt.Runtime(threads="auto"):
            model.fit(images, labels)

    Raises:
        ParameterError: a value is none of those that are expected.
    """

    device: str = parameter(default="auto", option=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision | None = parameter(
        default=None,
        choices=PRECISIONS,
        option=True,
        help="Of both towers' matrix products. bf16 moves features by up to a percent on the mean and is faster where the "
        "hardware knows it; auto takes the faster.",
        doc='Of both towers\' matrix products, in learning and in prediction: "fp32"; "bf16", which is several times as fast '
        "where the hardware knows it and many times as slow where it does not, with features that differ by less than a "
        'percent on the mean; "auto", the faster of the two on this machine (`precision_` says which). None: fp32, and for '
        "a loaded prompt what it was learned with. Features given instead of images are taken as they are.",
    )
    text_path: TextPath = parameter(
        default="auto",
        choices=TEXT_PATHS,
        option=True,
        help="How prompts are encoded.",
        doc='How prompts are encoded: "auto" (the fast path where it is exact), "fast" or "reference".',
    )
    memory: int | str = parameter(
        default="auto",
        option=True,
        metavar="SIZE",
        help="What learning may hold above the model, such as 4G.",
        doc='Bytes, or a text such as "4G", that a training step may hold above the model; "auto" bounds what grows with the '
        "classes, the activations. It decides how many classes run at once, and nothing of what is learned.",
    )
    cache: Any = parameter(
        default=True,
        option=True,
        help="Keep image features on disk, or not.",
        doc="Keep image features on disk (True), or in a `FeatureCache`, or nowhere (False).",
    )
    checkpoint: str | Path | None = parameter(
        default=None,
        help="A file that keeps the state of training; a killed run fitted again goes on from there.",
    )
    verbose: bool = parameter(default=False, help="Show progress on a terminal.")
    threads: int | Literal["auto"] | None = parameter(
        default=None,
        check=lambda value: value == "auto" or (type(value) is int and value >= 1),
        said="an int >= 1, 'auto' or None",
        option=True,
        metavar="N|auto",
        shown_default="all cores",
        help="How many threads compute; auto: as many as other processes leave cores idle.",
        doc='How many threads compute: a number; "auto" for as many as there are cores that other processes leave idle, '
        "looked at here and again whenever something is learned; None for torch's own choice, which is all cores. The same "
        "number gives the same bits; another one moves results by rounding.",
    )

    def __init_post__(self) -> None:
        self.check_parameters()
        self._before: list[tuple[int, Token[bool]]] = []

    def _set_param(self, name: str, value: Any) -> None:
        super()._set_param(name, value)
        self.check_parameters()

    def changed(self, **params: Any) -> Runtime:
        """Another runtime with some parameters changed.

        Raises:
            ParameterError: there is no such parameter, or a value is not allowed.
        """
        return Runtime(**self.get_params(deep=False)).set_params(**params)

    def computing(self) -> AbstractContextManager[Any]:
        """A context with this number of threads; where None was said, with the number there is."""
        return nullcontext() if self.threads is None else self

    def __enter__(self) -> Runtime:
        import torch

        self._before.append((torch.get_num_threads(), threads.adapting.set(self.threads == "auto")))
        if self.threads is not None:
            torch.set_num_threads(threads.idle_cores() if self.threads == "auto" else self.threads)
        return self

    def __exit__(self, *error: Any) -> None:
        import torch

        number, token = self._before.pop()
        threads.adapting.reset(token)
        torch.set_num_threads(number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runtime) and self.get_params(deep=False) == other.get_params(deep=False)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:  # what was before this context belongs to the process
        return _runtime, (self.get_params(deep=False),)


def _runtime(parameters: dict[str, Any]) -> Runtime:
    return Runtime(**parameters)


def refuse_moved(name: str, value: Any, call: str) -> None:
    """Says where a parameter of `Runtime` goes that was given to something else.

    Args:
        name: the argument.
        value: what was given.
        call: what it was given to: "CoOp", or "coopt.load".

    Raises:
        ParameterError: it is a parameter of `Runtime`.
    """
    if name in {one.name for one in Runtime.parameters_declared}:
        raise ParameterError(
            f"{subject(name, call)} belongs to the machine, and is said by a Runtime: write "
            f"{call}(..., runtime=coopt.Runtime({name}={value!r}))."
        )
