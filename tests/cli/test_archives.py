"""Commands on ZIP archives of images: what they say and do is what they say and do of the folder."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from .conftest import make_photos, run, run_json


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The images that `learned` was learned from: an archive and a folder."""
    folder = make_photos(tmp_path_factory.mktemp("packed") / "photos")
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.rglob("*.png"):
            file.write(path, f"photos/{path.relative_to(folder).as_posix()}")
    return archive, folder


def test_fit_learns_the_same(packed: tuple[Path, Path], clip: str, short: Path, tmp_path: Path) -> None:
    documents = []
    for data in packed:
        out = tmp_path / data.suffix / "prompt"
        documents.append(run_json("fit", data, "--backbone", clip, "--config", short, "--out", out))
    assert (
        documents[0]["metrics"] == documents[1]["metrics"]
        and documents[0]["dataset"]["hash"] == documents[1]["dataset"]["hash"]
    )
    assert [one["dataset"]["path"] for one in documents] == list(map(str, packed))
    tensors = [(tmp_path / data.suffix / "prompt" / "prompt.safetensors").read_bytes() for data in packed]
    assert tensors[0] == tensors[1]
    again = run("fit", packed[0], "--backbone", clip, "--config", short, "--out", tmp_path / ".zip" / "prompt")
    assert again.exit_code == 0 and "archive" not in again.stderr


def test_eval_measures_the_same_and_names_mistakes_in_the_archive(
    packed: tuple[Path, Path], learned: tuple[Path, Path], tmp_path: Path
) -> None:
    archive, folder = (run_json("eval", learned[0], data, "--split", "all") for data in packed)
    assert archive["accuracy"] == folder["accuracy"] and archive["n"] == 18
    # Measured on what was held out from the folder then: the archive has the same names and so the same hash.
    said = run("eval", learned[0], packed[0], "--out", tmp_path / "out")
    assert said.exit_code == 0 and "held out when the prompt was learned" in said.stdout
    assert (tmp_path / "out" / "confusion.png").exists()


def test_predict_reads_archives_folders_and_files_in_them(
    packed: tuple[Path, Path], learned: tuple[Path, Path]
) -> None:
    archive, folder = packed
    expected = run_json("predict", learned[0], folder)["predictions"]
    found = run_json("predict", learned[0], archive)["predictions"]
    inner = archive / "photos"
    assert [one["path"] for one in found] == [str(inner / Path(one["path"]).relative_to(folder)) for one in expected]
    assert [{**one, "path": ""} for one in found] == [{**one, "path": ""} for one in expected]
    some = run_json("predict", learned[0], inner / "red car", inner / "blue sky" / "1.png")["predictions"]
    assert len(some) == 7 and some[-1]["path"].endswith(f"photos.zip{os.sep}photos{os.sep}blue sky{os.sep}1.png")


def test_predict_from_a_list_into_a_file_that_is_found_complete(
    packed: tuple[Path, Path], learned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"photos.zip/photos/red car/{i}.png" for i in range(3)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    monkeypatch.chdir(packed[0].parent)
    arguments = ("predict", learned[0], "--from-list", tmp_path / "list.txt", "--out", tmp_path / "out.csv")
    first = run(*arguments)
    assert first.exit_code == 0, first.stderr
    assert [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == names
    assert "complete" in run(*arguments).stdout
    os.utime(packed[0], ns=(1, 1))
    changed = run(*arguments)
    assert changed.exit_code == 1 and "some of its images were changed since (size or date)" in changed.stderr


def test_copies_go_out_of_the_archive_and_nothing_is_moved(
    packed: tuple[Path, Path], learned: tuple[Path, Path], tmp_path: Path
) -> None:
    archive, folder = packed
    out, sheet = tmp_path / "sorted", tmp_path / "sheet.html"
    said = run("predict", learned[0], archive, "--copy-to", out, "--contact-sheet", sheet)
    assert said.exit_code == 0, said.stderr
    assert f"18 images copied to '{out}'." in said.stdout
    copied = sorted(path.read_bytes() for path in out.rglob("*.png"))
    assert copied == sorted(path.read_bytes() for path in folder.rglob("*.png"))
    assert sheet.read_text().count("data:image/jpeg") == 18
    again = run("predict", learned[0], archive, "--copy-to", out)
    assert "0 images copied" in again.stdout and "18 lay there already" in again.stdout
    before = archive.read_bytes()
    refused = run("predict", learned[0], archive, "--move-to", out)
    assert (
        refused.exit_code == 1 and "is in an archive, which nothing is moved out of. Give --copy-to" in refused.stderr
    )
    assert archive.read_bytes() == before


def test_zero_shot_and_faults(packed: tuple[Path, Path], clip: str, tmp_path: Path) -> None:
    document = run_json("zero-shot", packed[0], "--backbone", clip)
    assert document["n"] == 18
    (tmp_path / "broken.zip").write_bytes(packed[0].read_bytes()[:5000])
    result = run("fit", tmp_path / "broken.zip", "--backbone", clip, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "DataError" and "broken.zip' is no ZIP archive, or not a whole one" in error["message"]
