"""Labels as users give them (class names or integers) to the integers that losses want."""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView, Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import Int

from coopt.data.class_names import warn_of_codes
from coopt.data.text_files import visible
from coopt.errors import DataError
from coopt.wording import counted


def encode_labels(
    labels: Sequence[Any] | np.ndarray | Any,
    class_names: Sequence[str] | np.ndarray | None = None,
    n_images: int | None = None,
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Labels to class indices, and the class names in the order of the indices.

    Args:
        labels: one per image, class names or integers (a list, array, tensor or series).
        class_names: the classes in order. Needed for integers; without it, names are sorted.
        n_images: how many images the labels belong to, when that is to be checked.

    Raises:
        DataError: wrong number of labels, missing or blank ones, integers without class names or out of their range,
            a name that is not among the class names, or fewer than two classes.
    """
    values = as_labels(labels)
    if n_images is not None and len(values) != n_images:
        raise DataError(
            f"Got {counted(len(values), 'label')} for {counted(n_images, 'image')}. Expected one label per image."
        )
    if not values:
        raise DataError("Got no labels. Expected one label per image.")
    names = None if class_names is None else as_class_names(class_names)
    if isinstance(values[0], str):
        return _encode_names(values, names)
    return _encode_integers(values, names)


def as_labels(labels: Any) -> list[Any]:
    """Labels as a list, of which all are class names or all are integers; it may be empty.

    Raises:
        DataError: they have no order, or are something else.
    """
    values = _as_list(labels)
    if all(isinstance(value, str) for value in values):
        return [str(value) for value in values]
    if all(isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_) for value in values):
        return [int(value) for value in values]
    wrong = next(i for i, value in enumerate(values) if type(value) is not type(values[0]) or not _is_label(value))
    hint = " Write [int(label) for label in labels]." if all(map(_is_whole, values)) else ""
    raise DataError(
        f"Label {wrong} is {values[wrong]!r} ({type(values[wrong]).__name__}). "
        f"Expected all labels to be class names (str), or all to be integers.{hint}"
    )


def _is_whole(value: object) -> bool:
    """A number without a fraction, of a type that is no integer's: 1.0, or a tensor with one integer in it."""
    try:
        return not isinstance(value, str | bool | np.bool_) and float(value) == int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _is_label(value: object) -> bool:
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool | np.bool_)


def _as_list(labels: Any) -> list[Any]:
    if isinstance(labels, str | bytes):
        raise DataError(f"Labels must be a list with one label per image. Got the single string {labels!r}.")
    if isinstance(labels, Set | Mapping):
        raise DataError(f"Labels must stand in the order of the images. Got a {type(labels).__name__}; give a list.")
    if hasattr(labels, "detach"):  # a torch tensor, maybe on a GPU
        labels = labels.detach().cpu().numpy()
    if hasattr(labels, "to_numpy"):  # a pandas series or frame
        labels = labels.to_numpy()
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise DataError(f"Labels must be one-dimensional. Got an array of shape {labels.shape}; use labels.ravel().")
    try:
        return list(labels)
    except TypeError:
        raise DataError(f"Labels must be a list with one label per image. Got {labels!r}.") from None


def as_class_names(class_names: Any) -> tuple[str, ...]:
    """Class names as a tuple: of a list, an array, a series, the keys of a mapping or whatever else gives texts in order.

    Raises:
        DataError: a single text, a set (which has no order), blank or repeated names, or fewer than two.
    """
    if isinstance(class_names, str | bytes):
        raise DataError(
            f"class_names must be a list of names. Got the single string {class_names!r}; write [{class_names!r}, ...] "
            "with all classes."
        )
    if isinstance(class_names, Set) and not isinstance(class_names, KeysView):
        raise DataError(
            "class_names must stand in an order, which a set has not. Write sorted(class_names), or a list."
        )
    try:
        names = tuple(class_names)
    except TypeError:
        raise DataError(f"class_names must be a list of names. Got {class_names!r}.") from None
    for name in names:
        if not isinstance(name, str) or not visible(name):
            raise DataError(f"Class names must be text that is not blank. Got {name!r}.")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"Class names must differ. Got {twice[0]!r} more than once; give each class its own name.")
    if len(names) < 2:
        raise DataError(f"Expected at least two classes. Got {len(names)}: {list(names)}. Add images of another class.")
    return tuple(str(name) for name in names)


def _encode_names(values: list[str], names: tuple[str, ...] | None) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    if blank := [i for i, value in enumerate(values) if not visible(value)]:
        raise DataError(f"Label {blank[0]} is blank ({len(blank)} in all). Expected a class name.")
    # Sorted, so that the order of the images does not decide the order of the classes.
    if names is None:
        names = as_class_names(sorted(set(values)))
        warn_of_codes(names, "give the names as labels")
    index = {name: i for i, name in enumerate(names)}
    if unknown := sorted(set(values) - set(index)):
        close = get_close_matches(unknown[0], names, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"The classes are {_shortened(names)}."
        raise DataError(
            f"The label {unknown[0]!r} is not among the {len(names)} class names ({len(unknown)} such labels). {hint}"
        )
    return np.array([index[value] for value in values], dtype=np.int64), names


def _encode_integers(values: list[int], names: tuple[str, ...] | None) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    if names is None:
        raise DataError(
            f"Labels are integers (first: {int(values[0])}), but a prompt needs class names. "
            "Give class_names=[...] in the order of the integers, or give the names as labels."
        )
    outside = [i for i, value in enumerate(values) if not 0 <= value < len(names)]
    if outside:
        raise DataError(
            f"Label {outside[0]} is {values[outside[0]]}. Expected integers from 0 to {len(names) - 1}, "
            f"for {len(names)} class names."
        )
    return np.array(values, dtype=np.int64), names


def _shortened(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(map(repr, names[:limit])) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
