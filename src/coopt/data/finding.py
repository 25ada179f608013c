"""Image files below folders, by globs and in any mix: what is found, and what is passed over, which is said."""

from __future__ import annotations

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from coopt.data.archives import inside, is_file, is_folder, open_archive
from coopt.data.file_kinds import is_system_name, is_unread, remedy_for
from coopt.data.file_names import display_name
from coopt.data.images import IMAGE_EXTENSIONS, unreadable
from coopt.errors import DataError, SkippedImageWarning
from coopt.wording import setting


@dataclass
class PassedOver:
    """What a search leaves out though it may have been meant.

    Attributes:
        refuse_folders: a sub-folder that may not be read is an error.
        folders: why each sub-folder could not be read.
        endings: how many files of each kind that coopt does not read.
        names: the first of these files.
    """

    refuse_folders: bool = False
    folders: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """Counts a file that is no image that can be read."""
        ending = file.suffix.lower()
        if not is_unread(ending):
            return
        self.endings[ending] += 1
        if len(self.names) < 3:
            self.names.append(display_name(file.name))

    def add_folder(self, error: DataError) -> None:
        """Notes a sub-folder that may not be read.

        Raises:
            DataError: it is not to be left out.
        """
        if self.refuse_folders:
            raise DataError(f"{error} {setting('on_bad_image', 'skip')} leaves it out.") from error
        self.folders.append(str(error))

    @property
    def files(self) -> str:
        """The files that were left out, as a sentence; empty when there are none."""
        if not self.endings:
            return ""
        kinds = ", ".join(f"{count} {ending}" for ending, count in self.endings.most_common())
        remedies = "; ".join(dict.fromkeys(remedy_for(ending) for ending, _ in self.endings.most_common()))
        more = ", ..." if self.endings.total() > len(self.names) else ""
        shown = ", ".join(f"'{name}'" for name in self.names)
        return f"Left out {kinds} ({shown}{more}): {remedies}."

    def warn(self, stacklevel: int) -> None:
        """Says what was left out."""
        if self.files:
            warnings.warn(self.files, SkippedImageWarning, stacklevel=stacklevel + 1)
        if self.folders:
            shown = " ".join(self.folders[:3]) + (f" And {len(self.folders) - 3} more." if self.folders[3:] else "")
            warnings.warn(
                f"Left out {len(self.folders)} folders. {shown}", SkippedImageWarning, stacklevel=stacklevel + 1
            )


def walk_images(folder: Path, passed_over: PassedOver | None = None) -> list[Path]:
    """All image files below a folder, as `iter_images` finds them.

    Args:
        folder: where to look.
        passed_over: is told what is left out, and says whether folders that may not be read are.

    Raises:
        DataError: a folder may not be read.
    """
    return list(_walk(folder, set(), passed_over or PassedOver(refuse_folders=True)))


def _walk(folder: Path, entered: set[tuple[int, int]], passed_over: PassedOver, top: bool = False) -> Iterator[Path]:
    try:
        identity, entries = _identity(folder), entries_of(folder)
    except DataError as error:
        if top:
            raise
        passed_over.add_folder(error)
        return
    if identity in entered:
        return
    if identity is not None:
        entered.add(identity)
    for entry in entries:
        if entry.is_folder:
            if not (entry.is_link and entry.path.resolve() in folder.resolve().parents):
                yield from _walk(entry.path, entered, passed_over)
        elif entry.is_image:
            yield entry.path
        else:
            passed_over.add(entry.path)


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from all others, whatever links lead to it; None in an archive, where there are no links."""
    try:
        status = folder.stat()
    except OSError as error:
        if inside(folder) is not None:
            return None
        raise unreadable(folder, error) from error
    return status.st_dev, status.st_ino


class FolderEntry(NamedTuple):
    """A file or folder in a folder: its path, whether it is a folder, and whether it is a symbolic link to what it is."""

    path: Path
    is_folder: bool
    is_link: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is an image file, by its ending."""
        return not self.is_folder and self.path.suffix.lower() in IMAGE_EXTENSIONS


def entries_of(folder: Path) -> list[FolderEntry]:
    """A folder's files and folders, sorted, without hidden ones and what systems leave there ('.git', '__MACOSX').

    The folder may be a ZIP archive, or lie in one; an archive that lies in a folder is a file.

    Raises:
        DataError: the folder may not be read, or the archive cannot.
    """
    within = inside(folder)
    if within is not None:
        archive, name = open_archive(within[0]), within[1]
        names = sorted(one for one in archive.folders.get(name, ()) if not is_system_name(one))
        return [FolderEntry(folder / one, (f"{name}/{one}" if name else one) in archive.folders) for one in names]
    try:
        with os.scandir(folder) as entries:
            listed = sorted(
                # A link is followed by pathlib, for which one that leads nowhere or to itself is no folder.
                (one.name, Path(one.path).is_dir() if one.is_symlink() else one.is_dir(), one.is_symlink())
                for one in entries
                if not is_system_name(one.name)
            )
    except OSError as error:
        raise unreadable(folder, error) from error
    return [FolderEntry(folder / name, is_folder, is_link) for name, is_folder, is_link in listed]


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files from any mix of files, folders (searched recursively), ZIP archives and globs ('photos/**/*.jpg').

    The order is that of `sources`, sorted within each folder and glob; a file found twice comes once. A file that is
    named itself is taken whatever its ending.

    Raises:
        DataError: a source does not exist, or nothing was found.
    """
    return list(iter_images(sources))


def iter_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """The images of `find_images`, one after another: of a folder, no more than the entries of one are held at a time.

    Below a folder, hidden files and folders are left out, and what systems leave there. Files of kinds that coopt does
    not read (archives too, which are searched only when they are named), and sub-folders that may not be read, are left
    out with a warning at the end. Symbolic links are followed, except those to a folder that holds them (which would bring
    in the images of other classes), and no folder is entered twice, so loops end.

    Raises:
        DataError: a source does not exist (before the first image), or nothing was found.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    kinds = [_kind(source) for source in given]
    missing = [display_name(source) for source, kind in zip(given, kinds, strict=True) if kind is None]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"No such file or folder: {shown}. Expected image files, folders of images, or globs.")
    seen: set[Path] = set()
    any_image = False
    passed_over = PassedOver()
    for source, kind in zip(given, kinds, strict=True):
        for path in _images_of(source, kind, passed_over):
            if path not in seen:
                any_image = True
                yield path
                if len(given) > 1:  # one source alone never names a file twice
                    seen.add(path)
    if any_image:
        passed_over.warn(stacklevel=2)
    else:
        shown = ", ".join(f"'{display_name(source)}'" for source in given[:5]) or "an empty list"
        raise DataError(
            f"No images found in {shown}. Expected files ending in {', '.join(sorted(IMAGE_EXTENSIONS))} "
            f"(hidden files are left out). {' '.join([passed_over.files, *passed_over.folders[:3]])}".rstrip()
        )


def _kind(source: str | os.PathLike[str]) -> Literal["folder", "file", "glob"] | None:
    """What a source is; None when it does not exist."""
    path = Path(source)
    # What exists under that very name comes first: "photo[1].jpg" is a file, not a glob.
    if is_folder(path):
        return "folder"
    try:
        if path.exists() or is_file(path):
            return "file"
    except (OSError, ValueError):  # a name too long for the system, or with a null byte
        return None
    return "glob" if glob.has_magic(os.fspath(source)) else None


def _images_of(source: str | os.PathLike[str], kind: str | None, passed_over: PassedOver) -> Iterator[Path]:
    if kind == "folder":
        yield from _walk(Path(source), set(), passed_over, top=True)
    elif kind == "file":
        yield Path(source)
    else:
        yield from _matches(os.fspath(source), passed_over)


def _matches(pattern: str, passed_over: PassedOver) -> Iterator[Path]:
    """The images a glob stands for, those below a folder that it matches included, each once."""
    seen: set[Path] = set()
    named = set(Path(pattern).parts)  # what is named itself is meant, whatever it is called
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob takes no absolute patterns)
        path = Path(match)
        if any(is_system_name(part) for part in path.parts if part not in named):
            continue
        if is_folder(path):
            below: Iterable[Path] = _walk(path, set(), passed_over)
        elif path.suffix.lower() in IMAGE_EXTENSIONS:
            below = [path]
        else:
            passed_over.add(path)
            continue
        for image in below:
            if image not in seen:
                seen.add(image)
                yield image
