"""Files that are no images that can be read, recognised so that messages can say what they are and what to do."""

from __future__ import annotations

import re
from pathlib import Path

SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found"),
        *("network trash folder", "temporary items", "thevolumesettingsfolder"),
        *("__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    }
)
"""Names, in lower case, of what systems, archives and programs leave among people's files."""


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system, archive or program left there."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


HEIF_ENDINGS = (".heic", ".heif", ".hif")
_INSTALL_HEIF = "`pip install 'coopt[heic]'` reads them"

# Endings of pictures and documents that people keep among their images, and what can be done with them.
_UNREAD = {
    _INSTALL_HEIF: HEIF_ENDINGS,
    "develop camera raw files to JPEG": (
        *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".raf", ".pef"),
        *(".srw", ".x3f", ".3fr", ".erf", ".kdc", ".mrw", ".raw", ".rwl", ".iiq"),
    ),
    "take single frames of videos": (
        *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts", ".flv"),
    ),
    "convert them to PNG or JPEG": (
        *(".svg", ".svgz", ".psd", ".psb", ".ai", ".eps", ".xcf", ".kra", ".jxl", ".jxr", ".hdr", ".exr", ".pdf"),
        *(".djvu", ".dcm", ".nii", ".npy", ".j2k", ".jpx", ".pcx", ".dds", ".qoi", ".sgi", ".fits"),
    ),
    "unpack archives": (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"),
}
_REMEDY_OF = {ending: remedy for remedy, endings in _UNREAD.items() for ending in endings}


def is_unread(ending: str) -> bool:
    """Whether a file with this ending (in lower case, with its dot) is a picture or document that coopt does not read."""
    return ending in _REMEDY_OF


def remedy_for(ending: str) -> str:
    """What can be done with files of an ending for which `is_unread` holds."""
    return _REMEDY_OF[ending]


# What a file's first bytes say, and what to do.
_BEGINNINGS = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer and not the file itself. Run `git lfs pull` there"),
    (b"/annex/objects/", "a git-annex pointer and not the file itself. Run `git annex get` there"),
    (b"PK\x03\x04", "a ZIP archive (or an office document). Unpack it"),
    (b"\x1f\x8b", "a gzip archive. Unpack it"),
    (b"BZh", "a bzip2 archive. Unpack it"),
    (b"\xfd7zXZ", "an xz archive. Unpack it"),
    (b"(\xb5/\xfd", "a Zstandard archive. Unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive. Unpack it"),
    (b"Rar!", "a RAR archive. Unpack it"),
    (b"PAR1", "a Parquet table. Save its images as files"),
    (b"\x89HDF", "an HDF5 file. Save its images as files"),
    (b"\x93NUMPY", "a NumPy array. Load it with numpy.load and give the array, or save its images as files"),
    (b"%PDF", "a PDF document. Save its pages as images"),
    (b"%!PS", "a PostScript document. Convert it to PNG"),
    (b"SQLite format 3", "an SQLite database. Save its images as files"),
    (b"\x1aE\xdf\xa3", "a video. Take single frames of it"),
    (b"\xff\x0a", "a JPEG XL image. Convert it to PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image. Convert it to PNG or JPEG"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image. Convert it to PNG"),
)
_MP4_BRANDS_OF_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heif(data: bytes) -> bool:
    """Whether the bytes begin as those of a HEIC or HEIF image do."""
    return data[4:8] == b"ftyp" and data[8:12] in _MP4_BRANDS_OF_HEIF


def what_it_is(data: bytes) -> str | None:
    """What a file that is no readable image is, and what to do, to follow "'x.jpg' is"; None when nothing is known.

    Args:
        data: the file's first bytes, 512 or more.
    """
    if is_heif(data):
        return "a HEIC (HEIF) image. Install what reads it with `pip install 'coopt[heic]'`, or convert it to JPEG"
    if data[4:8] == b"ftyp":
        return "a video, or an image of a kind that this Pillow does not read. Convert it to JPEG"
    if data[128:132] == b"DICM":
        return "a DICOM image. Convert it to PNG"
    if data[257:262] == b"ustar":
        return "a tar archive. Unpack it"
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!-- ")):
        return "a web page (HTML): the download went wrong or needs an account. Fetch it again"
    if b"<svg" in text:
        return "an SVG drawing. Convert it to PNG"
    if text.startswith((b"<?xml", b"<error")):
        return "an XML document: the download went wrong, or it is no image. Fetch it again"
    if re.match(rb'[\[{]\s*["\[{]', text):
        return "a JSON document: the download went wrong, or it is no image. Fetch it again"
    return None


# What people give as a data set and cannot be read as one, by its ending.
_NO_DATA_SETS = {
    "an archive: unpack it and give its folder": (
        *(".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".iso"),
    ),
    "a spreadsheet: save it as CSV with the columns path,label": (".xlsx", ".xls", ".ods", ".numbers"),
    "a table of records: save its images as files, or its paths and labels as CSV with the columns path,label": (
        *(
            ".parquet",
            ".arrow",
            ".feather",
            ".tfrecord",
            ".lmdb",
            ".mdb",
            ".h5",
            ".hdf5",
            ".npz",
            ".npy",
            ".pt",
            ".pth",
        ),
        *(".db", ".sqlite", ".pickle", ".pkl"),
    ),
    "JSON: convert it to a CSV with the columns path,label": (".json", ".jsonl", ".ndjson"),
    "a text file: make it a CSV with the columns path,label": (".txt", ".text", ".lst", ".list", ".md"),
    "a configuration file: give it with --config": (".yaml", ".yml"),
}
_DATA_KIND_OF = {ending: kind for kind, endings in _NO_DATA_SETS.items() for ending in endings}


def no_data_set(file: Path, image_endings: frozenset[str]) -> str | None:
    """What a file is that was given as a data set, and what to do, to follow "'x.tar' is"; None when it is not known."""
    ending = file.suffix.lower()
    if ending in image_endings or (is_unread(ending) and ending not in _DATA_KIND_OF):
        return "a single file: give the folder above its class folder"
    if ending in _DATA_KIND_OF:
        return _DATA_KIND_OF[ending]
    try:
        with file.open("rb") as opened:
            beginning = opened.read(512)
        if beginning.startswith(b"PK\x03\x04"):
            return "a ZIP archive (or an office document). Give an archive of images the ending .zip"
        return what_it_is(beginning)
    except OSError:
        return None
