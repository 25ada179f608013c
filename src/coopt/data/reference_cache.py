"""The few-shot caches of CoOp's reference code: `<data set>/split_fewshot/shot_{k}-seed_{s}.pkl`.

They are pickles; they are read with an allow-list, so that a hostile one is refused and nothing of it is run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from coopt import safe_pickle
from coopt.data.file_names import display_name
from coopt.data.splits import ImageDataset, Split
from coopt.errors import DataError, SavedFileError
from coopt.safe_pickle import Datum


def read_reference_cache(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, must_exist: bool = True
) -> ImageDataset:
    """A few-shot sample as the reference (and MaPLe, PromptSRC, Tip-Adapter and relatives) cached it.

    The caches hold absolute paths of the machine that made them. Where these are gone, the same images are looked for
    below `root`: "/old/disk/oxford_pets/images/a.jpg" becomes "<root>/images/a.jpg".

    Args:
        path: the pickle.
        root: the data set's folder; None: the one that holds the folder of the pickle.
        must_exist: False: paths are not checked, and those that are absolute stay as they are.

    Raises:
        UnsafePickleError: the pickle asks for more than such a cache needs.
        SavedFileError: it is missing, damaged, or no such cache.
        DataError: the images are not to be found.
    """
    path = Path(path)
    folder = path.resolve().parent.parent if root is None else Path(root)
    parts = safe_pickle.load_datums(path)
    if not parts.get("train"):
        raise SavedFileError(f"'{display_name(path)}' holds no training images. Expected a few-shot cache of CoOp.")
    names = _class_names(path, [item for items in parts.values() for item in items])
    splits = {part: _to_split(items, folder, must_exist) for part, items in parts.items()}
    return ImageDataset(
        name=display_name(folder.name) or path.stem,
        root=folder,
        class_names=names,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
    )


def _class_names(path: Path, items: list[Datum]) -> tuple[str, ...]:
    """The class names in the order of their labels."""
    names: dict[int, str] = {}
    for item in items:
        if names.setdefault(item.label, item.classname) != item.classname:
            raise SavedFileError(
                f"'{display_name(path)}' gives label {item.label} two class names: {names[item.label]!r} and "
                f"{item.classname!r}."
            )
    ordered = tuple(names[label] for label in sorted(names))
    if len(set(ordered)) < len(ordered):
        raise SavedFileError(f"'{display_name(path)}' gives one class name to two labels.")
    return ordered


def _to_split(items: list[Datum], folder: Path, must_exist: bool) -> Split:
    paths: list[Path] = []
    missing: list[str] = []
    prefix = 0  # how many leading parts of the old paths to drop: found once, nearly always right for all
    for impath in (item.impath for item in items):
        if not must_exist:
            paths.append(folder / impath)
            continue
        image, prefix = _rerooted(impath, folder, prefix)
        if image is None:
            missing.append(impath)
        else:
            paths.append(image)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(items)} images of the few-shot cache are not there, the first: "
            f"'{display_name(missing[0])}', also looked for below '{display_name(folder)}'. "
            "Put the cache into a sub-folder of the data set's folder (in Python: give that folder as root)."
        )
    return Split(tuple(paths), tuple(item.classname for item in items))


def _rerooted(impath: str, folder: Path, prefix: int) -> tuple[Path | None, int]:
    """The image where it is now, and how many leading parts of its old path were dropped."""
    if (folder / impath).is_file():  # an absolute path that is still right, or a relative one
        return folder / impath, prefix
    parts = [part for part in re.split(r"[/\\]", impath) if part not in ("", ".", "..")]
    for drop in (prefix, *range(len(parts))):
        candidate = folder.joinpath(*parts[drop:])
        if drop < len(parts) and candidate.is_file():
            return candidate, drop
    return None, prefix
