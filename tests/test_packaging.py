"""What is installed and what is cloned stays small: few files, and none that belongs elsewhere."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "coopt"

MOST_INSTALLED, MOST_CLONED = 400, 1500


def packaged() -> list[Path]:
    """The files that a wheel is made of: all that lies in the package but what Python leaves there."""
    return [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def cloned() -> list[str]:
    """The files that git has."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a clone")
    names = [name.decode("utf-8", "surrogateescape") for name in done.stdout.split(b"\0") if name]
    if not names:
        pytest.skip("not a clone")
    return names


def test_few_files_are_installed() -> None:
    kinds = Counter(path.suffix for path in packaged())
    assert kinds.total() < MOST_INSTALLED, kinds.most_common(5)
    # One archive per bundled data set, no loose pictures.
    assert kinds[".zip"] == len([*(PACKAGE / "bundled" / "data").glob("*.zip")]) > 10
    assert set(kinds) <= {".py", ".pyi", ".typed", ".json", ".zip", ".safetensors", ".yaml", ".j2"}


def test_few_files_are_cloned_and_none_is_large() -> None:
    names = cloned()
    assert len(names) < MOST_CLONED, Counter(Path(name).parts[0] for name in names).most_common(5)
    large = [name for name in names if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 2_500_000]
    assert large == ["src/coopt/bundled/data/fleet.zip", "src/coopt/bundled/model/open_clip_model.safetensors"]
    results = [name for name in names if name.startswith("results/")]
    assert results and all(name.endswith(".jsonl") for name in results)  # packed


def test_what_is_installed_is_what_git_has() -> None:
    """A file that is ignored or was forgotten would be in one of them alone."""
    known = {name for name in cloned() if name.startswith("src/coopt/")}
    there = {path.relative_to(ROOT).as_posix() for path in packaged()}
    assert there <= known | untracked(), sorted(there - known - untracked())


def untracked() -> set[str]:
    """New files that git does not ignore: they are to be committed yet."""
    command = ["git", "ls-files", "-z", "--others", "--exclude-standard", "src/coopt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return {name.decode() for name in done.stdout.split(b"\0") if name}
