"""`coopt report`: the numbers are those of the prompt, and the page holds all that it needs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopt
from coopt import app
from coopt.app.report_content import BINS, Seen, file_in, reliability
from coopt.errors import ParameterError
from tests.cli.conftest import run, run_json, save_image


class Page(HTMLParser):
    """What a page asks for, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        if tag not in ("meta", "img", "br", "line", "rect", "polyline", "link"):
            self.open.append(tag)
        self.asked += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        self.text.append(data)


def read(file: Path) -> Page:
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def made(learned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, app.ReportResult]:
    """The report of a copy of the prompt."""
    prompt = tmp_path_factory.mktemp("copy") / "prompt"
    shutil.copytree(learned[0], prompt)
    return prompt, app.report(prompt, cache=False)


def test_the_numbers_are_those_of_the_prompt(made: tuple[Path, app.ReportResult], learned: tuple[Path, Path]) -> None:
    prompt, result = made
    evaluated = app.evaluate(prompt, learned[1], cache=False)
    hand_made, by_prompt = result.content["accuracy"]
    assert by_prompt["accuracy"] == evaluated.accuracy and by_prompt["n"] == evaluated.evaluation.n
    assert by_prompt["interval"] == list(evaluated.evaluation.interval)
    recorded = json.loads((prompt / "result.json").read_text())
    assert hand_made["accuracy"] == recorded["metrics"]["zero_shot"]["accuracy"]
    assert result.content["data"]["learned_from"] == recorded["dataset"]["train"]
    assert result.content["losses"] == recorded["losses"] and len(recorded["losses"]) == recorded["epochs"]
    assert {one["name"]: one["n"] for one in result.content["classes"]} == {
        one.name: one.n for one in evaluated.evaluation.classes
    }
    assert sum(map(sum, result.content["confusion"]["counts"])) == evaluated.evaluation.n
    assert len(result.content["words"]["vectors"]) == 2 and result.content["suspicious"] is not None
    assert result.page == prompt / "report.html"
    assert json.loads((prompt / "report.json").read_text()) == json.loads(json.dumps(result.content))


def test_the_page_asks_for_nothing_and_closes_its_tags(made: tuple[Path, app.ReportResult]) -> None:
    page = read(made[0] / "report.html")
    assert page.open == [] and all(one.startswith("data:image/jpeg;base64,") for one in page.asked)
    source = (made[0] / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script", source) and len(source) < 3_000_000


def test_names_are_text_and_not_markup(clip: str, tmp_path: Path) -> None:
    """Classes and files are whatever people call them."""
    bad = '<img src=x onerror="alert(1)">&'
    for name in (bad, "b"):
        for i in range(4):
            save_image(tmp_path / "data" / name / f"{i} <b>.png", (200, 40, 40), i if name == "b" else 40 + i)
    out = tmp_path / "prompt"
    app.fit(tmp_path / "data", backbone=clip, out=out, n_ctx=1, recipe={"epochs": 1}, test_fraction=0.5, cache=False)
    app.report(out, folds=2, cache=False)
    page = read(out / "report.html")
    assert all(one.startswith("data:") for one in page.asked) and page.open == []
    assert bad in "".join(page.text)


def test_a_wrong_label_is_found(clip: str, tmp_path: Path) -> None:
    """One red picture lies among the blue ones; a method that sees colours says so."""
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 60, 220))):
        for i in range(6):
            save_image(tmp_path / "data" / "train" / name / f"{i}.png", colour, i)
            save_image(tmp_path / "data" / "test" / name / f"{i}.png", colour, 50 + i)
    save_image(tmp_path / "data" / "train" / "blue" / "wrong.png", (220, 30, 30), 9)
    out = tmp_path / "prompt"
    app.fit(tmp_path / "data", backbone=clip, out=out, method="gda", cache=False)
    content = app.report(out, cache=False).content
    assert content["suspicious"][0]["file"] == "train/blue/wrong.png"
    assert content["suspicious"][0]["taken_for"] == "red" and content["words"] is None
    assert app.report(out, cache=False, folds=0).content["suspicious"] is None


def test_other_images_and_what_cannot_be_reported(
    made: tuple[Path, app.ReportResult], photos: Path, tmp_path: Path
) -> None:
    prompt = made[0]
    content = app.report(prompt, photos, split="all", out=tmp_path / "other.html", cache=False).content
    assert (
        content["data"]["learned_from"] is None
        and content["suspicious"] is None
        and content["data"]["measured_on"] == 18
    )
    assert "Doubtful" not in (tmp_path / "other.html").read_text() and (tmp_path / "other.json").exists()
    (prompt / "result.json").rename(prompt / "hidden.json")
    try:
        with pytest.raises(ParameterError, match="does not say what it was learned from"):
            app.report(prompt)
    finally:
        (prompt / "hidden.json").rename(prompt / "result.json")
    typed = ("report", prompt, "--folds", 0, "--no-cache", "--out", tmp_path / "page.html")
    assert f"Written: '{tmp_path / 'page.html'}'" in run(*typed).stdout
    assert run_json(*typed)["page"] == str(tmp_path / "page.html")


def seen_of(probabilities: Any, targets: list[int]) -> Seen:
    values = np.array(probabilities)
    files = [Path(f"/data/{i}.png") for i in range(len(values))]
    return Seen(paths=files, root=Path("/data"), probabilities=values, targets=np.array(targets), names=["a", "b"])


def test_reliability_by_hand() -> None:
    one = seen_of([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0]], [0, 1, 1, 0])
    result = reliability(one)
    assert len(result["bins"]) == BINS
    filled = {round(10 * bar["low"]): bar for bar in result["bins"] if bar["n"]}
    assert set(filled) == {6, 9} and filled[9]["n"] == 3
    assert filled[9]["accuracy"] == pytest.approx(2 / 3) and filled[9]["confidence"] == pytest.approx(2.82 / 3)
    assert result["ece"] == pytest.approx((3 * abs(2.82 / 3 - 2 / 3) + abs(0.6 - 1.0)) / 4)
    assert [row["file"] for row in one.contradicted(9)] == ["1.png"]
    assert one.contradicted(9)[0] == {
        "file": "1.png",
        "label": "b",
        "taken_for": "a",
        "probability_of_label": pytest.approx(0.08),
        "probability": pytest.approx(0.92),
    }
    assert file_in(Path("/elsewhere/x.png"), Path("/data")) == "x.png"


def test_a_prompt_can_still_be_loaded_with_its_report_beside_it(made: tuple[Path, app.ReportResult]) -> None:
    assert coopt.load(made[0]).class_names_
