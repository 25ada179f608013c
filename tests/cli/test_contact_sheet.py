"""`coopt predict --contact-sheet`: one page that needs nothing beside it, of bounded size."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from coopt.app.contact_sheet import ContactSheet
from coopt.app.prediction_rows import PredictedRow

from .conftest import make_photos, run, save_image


class Page(HTMLParser):
    """Headings, captions, pictures and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.captions: list[str] = []
        self.pictures: list[Image.Image] = []
        self.tags: set[str] = set()
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("h2", "figcaption"):
            self._into = self.headings if tag == "h2" else self.captions
            self._into.append("")
        if tag == "img":
            kind, _, data = str(dict(attrs)["src"]).partition(",")
            assert kind == "data:image/jpeg;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h2", "figcaption"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def test_pictures_stand_by_class(learned: tuple[Path, Path], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2, seed=3)
    (photos / "red car" / "<b>bad.png").write_bytes(b"junk")
    sheet = tmp_path / "new" / "sheet.html"
    classes = "red <i>car</i>,blue sky & more"
    result = run("predict", learned[0], photos, "--classes", classes, "--contact-sheet", sheet)
    assert result.exit_code == 0, result.stderr
    assert f"Contact sheet: '{sheet}'." in result.stdout
    text = sheet.read_text(encoding="utf-8")
    page = Page(text)
    assert [heading.rsplit(" ", 1)[0] for heading in page.headings[:-1]] == [
        name for name in classes.split(",") if name in " ".join(page.headings)
    ]
    assert sum(int(heading.rsplit(" ", 1)[1]) for heading in page.headings[:-1]) == 6
    assert page.headings[-1] == "Not read 1" and "&lt;b&gt;bad.png" in text and not {"b>bad", "i"} & page.tags
    assert len(page.pictures) == 6 and all(max(picture.size) <= 160 for picture in page.pictures)
    assert all(re.fullmatch(r"\d+\.\d% \d\.png", caption) for caption in page.captions)
    assert "6 images, 1 could not be read. The percentage" in text
    assert "http" not in text
    assert [file.name for file in sheet.parent.iterdir()] == ["sheet.html"]


def test_its_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save_image(tmp_path / "0.png", (1, 2, 3), 0)
    monkeypatch.setattr("coopt.app.contact_sheet.MOST_IN_CLASS", 2)
    monkeypatch.setattr("coopt.app.contact_sheet.MOST", 5)
    sheet = ContactSheet(tmp_path / "sheet.html", "title", ["a", "b"], 0.5)
    for name in "aaabbb":
        sheet.add(PredictedRow(image, ((name, 0.75),)))
    for _ in range(3):
        sheet.add(PredictedRow(image, (("a", 0.25),), sure=False))
    sheet.add(PredictedRow(tmp_path / "gone.png", error="gone"))
    sheet.write()
    text = (tmp_path / "sheet.html").read_text()
    page = Page(text)
    assert page.headings == ["a 3, 2 shown", "b 3, 2 shown", "Uncertain: no class reached 50% 3, 1 shown", "Not read 1"]
    assert len(page.pictures) == 5
    assert "Shown are 5: the first 2 of each class at most, and 5 in all." in text


def test_an_image_that_went_away_leaves_a_gap(tmp_path: Path) -> None:
    sheet = ContactSheet(tmp_path / "sheet.html", "title", ["a", "b"], None)
    sheet.add(PredictedRow(tmp_path / "gone.png", (("a", 0.75),)))
    sheet.write()
    assert Page((tmp_path / "sheet.html").read_text()).captions == ["75.0% gone.png"]


def test_only_an_earlier_sheet_is_replaced(learned: tuple[Path, Path], tmp_path: Path) -> None:
    photos, sheet = make_photos(tmp_path / "photos", 1), tmp_path / "sheet.html"
    sheet.write_text("<html>mine</html>")
    refused = run("predict", learned[0], photos, "--contact-sheet", sheet)
    assert refused.exit_code == 1 and "sheet.html' is there already. Choose another --contact-sheet." in refused.stderr
    assert sheet.read_text() == "<html>mine</html>"
    sheet.unlink()
    arguments = ("predict", learned[0], photos, "--contact-sheet", sheet, "--out", tmp_path / "rows.csv")
    for said in ("3 images classified, 0 left out: ", "is complete: 3 images classified, 0 left out."):
        result = run(*arguments)
        assert result.exit_code == 0 and said in result.stdout and "Contact sheet: " in result.stdout
        assert len(Page(sheet.read_text()).pictures) == 3
        sheet.unlink()
