"""The archive of a data set's pictures: the same pictures give the same bytes."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes an archive of images, stored as they are; the same files give the same bytes.

    Args:
        path: of the archive.
        files: their contents by their paths inside, with forward slashes; the order is that of folders and names.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=lambda name: name.split("/")):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[name])
