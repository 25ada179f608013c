"""What can go wrong, as types. Every message says what was got, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class CooptError(Exception):
    """Base of every error that coopt raises on purpose."""


class ParameterError(CooptError, ValueError):
    """A parameter is out of its range: "The 'n_ctx' parameter of CoOp must be an int >= 1. Got 0 instead."."""


class TooLittleMemoryError(ParameterError):
    """A training step takes more memory than it may, in however small pieces."""


class DataError(CooptError, ValueError):
    """Images, labels or a data set are not usable as given."""


class NothingHeldOutError(DataError):
    """No class has two different images, so nothing can be held out to measure on."""


class BadImageError(DataError):
    """One image file cannot be read."""


class BadImagesError(BadImageError):
    """Image files that cannot be read, named at once.

    Attributes:
        reasons: one sentence per image.
        total: how many images were looked at.
        whole: these were all.
    """

    _SHOWN = 10

    def __init__(self, reasons: Sequence[str], total: int, whole: bool = True) -> None:
        self.reasons, self.total, self.whole = tuple(reasons), total, whole
        message = reasons[0]
        if len(reasons) > 1:
            lines = [f"{len(reasons)} of {'' if whole else 'the first '}{total} images cannot be read:"]
            lines += reasons[: self._SHOWN]
            if len(reasons) > self._SHOWN:
                lines.append(f"and {len(reasons) - self._SHOWN} more.")
            message = "\n  ".join(lines)
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:  # worker processes send their errors
        return type(self), (self.reasons, self.total, self.whole)


class PromptTooLongError(DataError):
    """A prompt does not fit the text tower's context length."""


class BackboneError(CooptError):
    """A backbone is unknown, damaged or not usable."""


class WeightsNotFoundError(BackboneError, FileNotFoundError):
    """Weights are not on this machine: says what is missing, where it was looked for and how to get it."""


class UnsupportedBackboneError(BackboneError):
    """The backbone is of a kind that coopt does not train prompts for."""


class BackboneMismatchError(BackboneError):
    """A learned prompt was made with another backbone than the one at hand."""


class SavedFileError(CooptError):
    """A saved prompt, checkpoint or result is missing, damaged or was changed."""


class InUseError(SavedFileError):
    """Another process is writing the same file or folder."""


class UnsafePickleError(SavedFileError):
    """A pickle asks for something that is not on the allow-list; nothing of it was run."""


class TrainingError(CooptError):
    """Training cannot go on: for example a loss that is not finite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C where it can be said what was saved and how to go on."""


class CooptWarning(UserWarning):
    """Base of every warning that coopt gives."""


class WeightsWarning(CooptWarning):
    """Something about weights was assumed, chosen or left out, because the file does not tell."""


class SavedFileWarning(CooptWarning):
    """Something about a saved file is odd: says what was made of it."""


class LeakageWarning(CooptWarning):
    """The same image is in the training and the test part."""


class SkippedImageWarning(CooptWarning):
    """Images were left out because they could not be read."""


class FewShotsWarning(CooptWarning):
    """A class has fewer images than the shots asked for; all of them are used."""


class ClassNameWarning(CooptWarning):
    """Class names that the text tower cannot tell apart, or that say nothing of what images show."""


class PrecisionWarning(CooptWarning):
    """bf16 was asked for where fp32 is faster, or was not used for that reason."""


class CacheWarning(CooptWarning):
    """The feature cache could not be read or written; work goes on without it."""


class UnlockedWarning(CooptWarning):
    """A file system knows no locks, so two processes could write to one place."""


class BusyMachineWarning(CooptWarning):
    """Other programs slow the computation down more than they need."""
