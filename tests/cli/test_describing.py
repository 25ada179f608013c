"""`coopt words`, `coopt info`, `coopt cache`, `coopt backbones`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import coopt
from coopt.backbones import BackboneInfo, list_backbones

from .conftest import run, run_json

REFERENCE = Path(__file__).parent.parent / "golden" / "checkpoint_coop_end_m4"


@pytest.fixture(scope="module")
def specific(learned: tuple[Path, Path], clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-specific prompt."""
    out = tmp_path_factory.mktemp("specific") / "prompt"
    config = learned[0].parent / "short.yaml"
    result = run("fit", learned[1], "--backbone", clip, "--config", config, "--csc", "--no-cache", "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


class TestWords:
    def test_words_and_distances(self, learned: tuple[Path, Path]) -> None:
        document = run_json("words", learned[0], "--topk", 3)
        model = coopt.load(learned[0])
        expected = model.nearest_words(3)  # type: ignore[attr-defined]
        assert [[one["word"] for one in row] for row in document["words"]] == [
            [w.word for w in row] for row in expected
        ]
        assert document["scale"]["random_to_word"] > 0 and document["scale"]["word_to_word"] > 0
        shown = run("words", learned[0], "--topk", 3).stdout
        first = expected[0][0]
        assert f"{first.word} ({first.distance:.3f})" in shown
        assert "not its meaning" in shown and f"{document['scale']['random_to_word']:.3f}" in shown

    def test_class_specific(self, specific: Path) -> None:
        assert set(run_json("words", specific)["words"]) == {"red car", "green_leaf", "blue sky"}
        assert "class blue sky (one of 3; choose with --class NAME)" in run("words", specific).stdout
        assert set(run_json("words", specific, "--class", "red car")["words"]) == {"red car"}
        assert "Did you mean 'red car'?" in run("words", specific, "--class", "red cat").stderr

    def test_reference_checkpoint(self, clip: str) -> None:
        assert len(run_json("words", REFERENCE, "--backbone", clip)["words"]) == 4

    def test_cocoop(self, clip: str, tmp_path: Path) -> None:
        """The vectors before any image shifts them."""
        features = np.random.RandomState(0).randn(6, 48).astype(np.float32)
        recipe = {"epochs": 1, "lr": 0.0, "warmup_lr": 0.0}
        coopt.CoCoOp(clip, recipe=recipe).fit(features, ["a", "b"] * 3).save(tmp_path / "prompt")
        nearest = [row[0]["word"] for row in run_json("words", tmp_path / "prompt", "--topk", 1)["words"]]
        assert nearest == ["a", "photo", "of", "a"]

    def test_what_has_no_vectors(self, learned: tuple[Path, Path], clip: str, tmp_path: Path) -> None:
        assert "leave out --class" in run("words", learned[0], "--class", "red car").stderr
        coopt.ZeroShot(clip).fit_classes(["a", "b"]).save(tmp_path / "hand")
        result = run("words", tmp_path / "hand")
        assert result.exit_code == 1 and "holds the method 'zero_shot', which has no context vectors" in result.stderr


class TestInfo:
    def test_without_the_backbone(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        folder = tmp_path / "sent"
        folder.mkdir()
        for name in ("prompt.json", "prompt.safetensors"):
            text = (learned[0] / name).read_bytes()
            (folder / name).write_bytes(text.replace(b"small.pt", b"gone!.pt"))
        document = run_json("info", folder)
        assert document["method"] == "coop" and document["parameters"]["n_ctx"] == 2
        assert document["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
        shown = run("info", folder).stdout
        for expected in (
            "3: blue sky, green_leaf, red car",
            "gone!.pt",
            "fast, lr 0.02, epochs 8, views 2",
            "15 images",
        ):
            assert expected in shown
        assert run("info", folder / "prompt.json").exit_code == 0

    def test_reference_checkpoint(self) -> None:
        assert run_json("info", REFERENCE)["context_shape"][0] == 4
        assert "4 vectors of width" in run("info", REFERENCE).stdout

    def test_nothing_there(self, tmp_path: Path) -> None:
        result = run("info", tmp_path)
        assert result.exit_code == 1
        assert "There is no saved prompt at" in result.stderr and "coopt fit ... --out FOLDER" in result.stderr

    def test_a_misspelt_folder(self, learned: tuple[Path, Path]) -> None:
        meant = f"Did you mean {learned[0]}?"
        for arguments in (("info",), ("words",), ("predict", "--from-list", "-")):
            assert meant in run(arguments[0], learned[0].with_name("promt"), *arguments[1:]).stderr
        assert "Beside it there are prompt." in run("info", learned[0].with_name("xyz")).stderr


def test_cache(photos: Path, clip: str) -> None:
    assert run_json("cache")["entries"] == 0
    run_json("zero-shot", photos, "--backbone", clip, "--no-cache")
    assert run_json("cache")["entries"] == 0
    run_json("zero-shot", photos, "--backbone", clip)
    document = run_json("cache")
    assert document["entries"] == 18 and document["bytes"] > 0
    assert [(one["name"], one["entries"]) for one in document["backbones"]] == [(clip, 18)]
    assert "18 features" in run("cache").stdout
    cleared = run("cache", "--clear").stdout
    assert cleared.startswith("Cleared: ") and ": 0 features" in cleared
    assert run_json("cache")["entries"] == 0


class TestBackbones:
    def test_supported_ones(self) -> None:
        rows = list_backbones()
        found = run_json("backbones")["backbones"]
        assert [one["name"] for one in found] == [row.name for row in rows if row.supported]
        shown = run("backbones").stdout
        assert "ViT-B-16 " in shown and "openai, " in shown
        assert f"{len(found)} models." in shown
        assert "Text path: fast; packed, each prompt at its own length; or reference, all prompts at the full" in shown
        assert "packed     10: not causal; padding is masked" in shown
        assert "reference  39: not causal, and padding is seen" in shown
        assert "reference  39" not in run("backbones", "--filter", "RN50").stdout

    def test_all_and_filter(self) -> None:
        assert len(run_json("backbones", "--all")["backbones"]) == len(list_backbones())
        assert all("RN50" in one["name"] for one in run_json("backbones", "--filter", "rn50")["backbones"])
        nothing = run("backbones", "--filter", "zzz").stdout
        assert "models has 'zzz' in its name or tags." in nothing
        assert nothing.startswith("None of the ")  # and no empty table

    def test_those_that_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [BackboneInfo("good"), BackboneInfo("odd", supported=False, reason="it has no text tower")]
        monkeypatch.setattr("coopt.cli.backbones.list_backbones", lambda: rows)
        shown = run("backbones").stdout
        assert "1 models; 1 that cannot be used are left out (--all shows them)" in shown and "Text path" not in shown
        assert "cannot be used: it has no text tower" in run("backbones", "--all", "--filter", "odd").stdout
        assert "--all shows them." in run("backbones", "--filter", "odd").stdout

    def test_on_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert "No published model is in the caches of Hugging Face and of CLIP" in run("backbones", "--local").stdout
        path = tmp_path / ".cache" / "clip" / "ViT-B-32.pt"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", bytes(2000))
        size = path.stat().st_size
        row = {"name": "openclip:ViT-B-32/openai", "path": str(path), "bytes": size, "imagenet": 63.3}
        assert run_json("backbones", "--local")["backbones"] == [row]
        assert run_json("backbones", "--local", "--filter", "RN50")["backbones"] == []
        shown = run("backbones", "--local").stdout.split()
        assert shown[shown.index("openclip:ViT-B-32/openai") :][1:4] == ["2.1", "kB", "63.3"]
