"""What README and docs tell people to type is there and does what it says.

Every code block names its language. Every command line is understood by its command; those that take seconds run, in a
folder that has what they speak of, and so does the Python of every page that has no test of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from coopt.cli import main
from tests.data.benchmarks.layouts import LAYOUTS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
LANGUAGES = {"console", "python", "json", "yaml", "toml", "text"}

RUN_ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/backbones.md": "tests/backbones/test_source.py",
    "docs/methods.md": "tests/methods/test_own_method.py",
}
"""Pages whose Python, and what they do with `my-prompt`, a test of their own runs."""

NOT_RUN = {
    "make": "sets up an environment",
    "pip": "needs a network",
    "python": "a benchmark takes minutes",
    "source": "needs the environment that make sets up",
    "coopt suite run mini-base-to-new": "takes minutes; tests/suites/test_running.py runs suites",
    "coopt suite run coop-domain": "needs weights of 600 MB even for a plan",
    "coopt eval coopt-imagenet": "needs a prompt learned on ImageNet",
    "coopt suite show --all": "tests/suites/test_tables.py shows all",
    "coopt fit photos --backbone mine:tiny": "tests/backbones/test_source.py runs it, with the package",
    "coopt compare photos --method deep_words": "tests/methods/test_own_method.py runs it, with the package",
    "coopt suite run ./deep.py": "likewise",
    "coopt fit scans --backbone openclip:hf-hub:": "needs a network; test_openclip_text_config.py loads such a model",
    "coopt fit photos --backbone openai:/path/to/ViT-B-16.pt": "needs weights of 600 MB",
}
"""Beginnings of command lines that are parsed and not run, and why."""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for fence in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text[: fence.start()].count("\n") + 1, fence[1], fence[2])


def commands(page: str) -> list[str]:
    """The command lines of a page, in blocks or in lines of their own, without comments; those over two lines joined."""
    inside = [line for block in blocks(page) if block.language == "console" for line in _joined(block.text)]
    alone = re.findall(r"^    ((?:coopt|python) .*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return [line for line in inside + alone if line]


def _joined(text: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]


def words_of(line: str) -> list[str]:
    """The arguments of a command line, without where its output goes."""
    return shlex.split(line.split(" > ")[0], comments=True)[1:]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(list(blocks(page)))
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}, line {block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_is_understood(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    understood: list[str] = []
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: understood.append(ctx.command_path))
    for line in commands(page):
        program = line.split()[0]
        assert program in {"coopt", "make", "pip", "python", "source"}, line
        if program == "coopt":
            before = len(understood)
            # The method of docs/methods.md is in a package that is not there; tests/methods/test_own_method.py runs it.
            result = CliRunner().invoke(main, words_of(line.replace("deep_words", "coop")))
            assert result.exit_code == 0, f"{line}\n{result.output}"
            assert len(understood) > before or "--help" in line, line
        if program == "python":
            assert (ROOT / line.split()[1]).is_file(), line
        if program == "make":
            assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


def test_a_wrong_command_line_is_not_understood() -> None:
    assert CliRunner().invoke(main, words_of("coopt fit photos --no-such-option")).exit_code == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the pages speak of: photos/, new/, birds/, DATA with the papers' data sets, results/,
    texts.json, mine.py."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for place, names in (("photos", ("cat", "dog")), ("birds", ("eagle", "owl")), ("new", ("",))):
        for k, name in enumerate(names):
            for i in range(6):
                pixels = random.integers(0, 90, (48, 48, 3), dtype=np.uint8)
                pixels[..., k] += 150
                file = folder / place / name / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    Image.fromarray(pixels).save(folder / "new.jpg")
    for make in LAYOUTS.values():
        make(folder / "DATA")
    texts = next(block.text for block in blocks("docs/methods.md") if block.language == "json")
    (folder / "texts.json").write_text(texts, encoding="utf-8")
    (folder / "results").symlink_to(ROOT / "results")
    suite = next(block.text for block in blocks("docs/suites.md") if block.language == "python")
    (folder / "mine.py").write_text(suite, encoding="utf-8")
    return folder


@pytest.fixture
def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the current one, with a cache that is kept from command to command."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COOPT_CACHE", str(folder / ".cache"))
    monkeypatch.delenv("COOPT_DATA_ROOT", raising=False)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, prepared: Path) -> None:
    for line in commands(page):
        if line.startswith(tuple(NOT_RUN)) or (page in RUN_ELSEWHERE and "my-prompt" in line):
            continue
        result = CliRunner().invoke(main, words_of(line))
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_pages_that_are_run_elsewhere_are() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_ELSEWHERE])
def test_python_runs(page: str, prepared: Path) -> None:
    """All blocks of a page in their order, as one program."""
    code = [block.text for block in blocks(page) if block.language == "python"]
    if code:
        program = "import coopt\n" + "\n".join(code)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=prepared
        )
        assert done.returncode == 0, f"{page}\n{done.stderr}"


def test_the_glossary_stays_short() -> None:
    """At most thirty words that the field does not have, in the architecture page."""
    section = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## Words\n")[2]
    words = re.findall(r"^\| ([a-z, ]+) \| (?!meaning)", section, re.MULTILINE)
    assert 20 <= len(words) <= 30
