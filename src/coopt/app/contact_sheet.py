"""The contact sheet of a prediction: one HTML page with small pictures by class, which needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from coopt.app.prediction_rows import PredictedRow
from coopt.data.file_names import display_name
from coopt.data.images import open_image
from coopt.errors import BadImageError, SavedFileError
from coopt.files import write_bytes
from coopt.wording import called, counted

MOST_IN_CLASS, MOST = 60, 1500
"""Pictures of a class, and of the whole page; of about four kilobytes each."""

SIZE = 160
"""Pixels along the longer edge."""

_MARK = b"<!-- coopt contact sheet -->"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
h2 small, p, figcaption { color: var(--dim); font-weight: normal; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .7rem; }
figure { margin: 0; }
img, .gone { width: 100%; height: 8.5rem; object-fit: contain; background: #8882; border-radius: 4px; display: block; }
figcaption { font-size: .8rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption b { color: CanvasText; font-weight: 600; }
li { overflow-wrap: anywhere; }
"""


class ContactSheet:
    """A page that grows with the rows, up to a bound: `MOST_IN_CLASS` pictures of each class, `MOST` in all.

    Args:
        file: the page.
        title: stands above it.
        class_names: the classes, in the order of the page.
        least: the least confidence, if there is one.

    Raises:
        SavedFileError: the file is there and is something else.
    """

    def __init__(self, file: Path, title: str, class_names: Sequence[str], least: float | None) -> None:
        check_sheet(file)
        self.file, self.title, self.least = file, title, least
        self.class_names = class_names
        self.counts: Counter[str | None] = Counter()  # None: uncertain
        self.unreadable = 0
        self._figures: dict[str | None, list[str]] = {}
        self._reasons: list[str] = []
        self._shown = 0
        self._most = max(1, min(MOST_IN_CLASS, MOST // max(1, len(class_names))))

    def add(self, row: PredictedRow) -> None:
        """Takes up one image, with its picture while there is room."""
        if row.error is not None:
            self.unreadable += 1
            if len(self._reasons) < self._most:
                self._reasons.append(f"<li>{html.escape(row.error)}</li>")
            return
        name, share = row.best[0]
        section = name if row.sure else None
        self.counts[section] += 1
        if self.counts[section] <= self._most and self._shown < MOST:
            self._figures.setdefault(section, []).append(_figure(row.path, share))
            self._shown += 1

    def write(self) -> None:
        """Writes the page.

        Raises:
            SavedFileError: it cannot be written.
        """
        write_bytes(self.file, _MARK + b"\n" + self._page().encode("utf-8", "replace"))

    def _page(self) -> str:
        title = html.escape(display_name(self.title))
        order: list[str | None] = [*self.class_names, None]
        sections = [self._section(name) for name in order if self.counts[name]]
        bad = [f"<h2>Not read <small>{self.unreadable}</small></h2><ul>", *self._reasons, "</ul>"]
        return "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{title}</title><style>{_STYLE}</style></head><body>",
                f"<h1>{title}</h1><p>{html.escape(self._summary())}</p>",
                *sections,
                *(bad if self.unreadable else []),
                "</body></html>\n",
            ]
        )

    def _summary(self) -> str:
        total = sum(self.counts.values())
        left_out = f", {self.unreadable} could not be read" if self.unreadable else ""
        bound = (
            f" Shown are {self._shown}: the first {self._most} of each class at most, and {MOST} in all."
            if self._shown < total
            else ""
        )
        return f"{counted(total, 'image')}{left_out}.{bound} The percentage is the probability of the class."

    def _section(self, class_name: str | None) -> str:
        least = "" if self.least is None else f": no class reached {100 * self.least:g}%"
        name = f"Uncertain{least}" if class_name is None else display_name(class_name)
        figures = self._figures.get(class_name, [])
        shown = "" if len(figures) == self.counts[class_name] else f", {len(figures)} shown"
        return (
            f"<section><h2>{html.escape(name)} <small>{self.counts[class_name]}{shown}</small></h2>"
            f'<div class="grid">{"".join(figures)}</div></section>'
        )


def check_sheet(file: Path) -> None:
    """Refuses to replace anything but an earlier contact sheet.

    Raises:
        SavedFileError: the file is there and is something else.
    """
    try:
        with file.open("rb") as there:
            ours = there.read(len(_MARK)) == _MARK
    except FileNotFoundError:
        return
    except OSError as error:
        raise SavedFileError(f"Cannot write '{display_name(file)}': {error.strerror or error}.") from error
    if not ours:
        raise SavedFileError(f"'{display_name(file)}' is there already. Choose another {called('contact_sheet')}.")


def _figure(path: Path, share: float) -> str:
    name = html.escape(display_name(path), quote=True)
    short = html.escape(display_name(path.name))
    return (
        f'<figure title="{name}">{_picture(path, short)}'
        f"<figcaption><b>{100 * share:.1f}%</b> {short}</figcaption></figure>"
    )


def _picture(path: Path, name: str) -> str:
    picture = thumbnail(path)
    return '<div class="gone"></div>' if picture is None else f'<img alt="{name}" src="{picture}">'


def thumbnail(path: Path) -> str | None:
    """A small picture as an address that holds it; None where the file cannot be read any more."""
    try:
        picture = open_image(path)
    except BadImageError:  # it was there when it was classified
        return None
    picture.thumbnail((SIZE, SIZE), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
