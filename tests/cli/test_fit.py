"""`coopt fit`: what it learns, says, saves and refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

import coopt
from coopt.app.fit_result import Measured
from coopt.app.method_options import method_names
from coopt.backbones import LocalBackbone, check_backbone_name
from coopt.cli.fit_report import FETCHED, _better
from coopt.evaluation import Evaluation
from coopt.training.recipe import FAST

from .conftest import COLOURS, make_photos, run, run_json, save_image


def test_everything_is_said_and_saved(learned: tuple[Path, Path]) -> None:
    out, _ = learned
    assert sorted(file.name for file in out.iterdir()) == [
        "config.yaml",
        "prompt.json",
        "prompt.safetensors",
        "result.json",
    ]
    result = json.loads((out / "result.json").read_text())
    assert result["class_names"] == sorted(COLOURS)
    assert (result["dataset"]["train"], result["dataset"]["test"]) == (15, 3)
    assert result["dataset"]["held_out_made"] is True
    assert (result["n_ctx"], result["epochs"], result["seed"], result["shots"]) == (2, 8, 1, None)
    assert result["recipe"]["lr"] == 0.02
    assert set(result["versions"]) >= {"coopt", "python", "torch", "open_clip"}
    assert len(result["backbone"]["fingerprint"]) == 64 and len(result["dataset"]["hash"]) == 64
    assert result["seconds"]["total"] > result["seconds"]["learning"] > 0
    assert result["peak_memory_bytes"] > 10**7
    assert result["metrics"]["learned"]["n"] == result["metrics"]["zero_shot"]["n"] == 3
    assert result["command"].startswith("coopt fit ")


def test_numbers_are_those_of_the_estimators(learned: tuple[Path, Path]) -> None:
    out, data = learned
    result = json.loads((out / "result.json").read_text())
    dataset = coopt.load_dataset(data)
    assert dataset.test is not None
    test = (list(dataset.test.paths), list(dataset.test.labels))
    backbone = result["backbone"]["name"]
    zero_shot = coopt.ZeroShot(backbone).fit_classes(dataset.class_names)
    assert result["metrics"]["zero_shot"]["accuracy"] == pytest.approx(100 * zero_shot.score(*test))
    assert result["metrics"]["learned"]["accuracy"] == pytest.approx(100 * coopt.load(out).score(*test))
    model = coopt.CoOp(backbone, n_ctx=2, recipe=result["recipe"])
    model.fit(list(dataset.train.paths), list(dataset.train.labels))
    assert (model.context_ == coopt.load(out).context_).all()  # type: ignore[attr-defined]


def test_people_are_told(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
    assert result.exit_code == 0 and result.stderr == ""
    for expected in (
        "photos: 3 classes, 15 images to learn from, 3 held out.",
        "There is no test part, so 3 of 18 images",
        'zero-shot, "a photo of a {}."',
        "learned prompt",
        f"Saved to '{tmp_path / 'out'}' (",
        f"coopt predict {tmp_path / 'out'} IMAGES...",
        f"coopt eval {tmp_path / 'out'} {photos}",
        f"coopt words {tmp_path / 'out'}",
    ):
        assert expected in result.stdout
    assert "\x1b" not in result.stdout
    assert "toy" not in result.stdout


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """Classes that a probe tells apart by their colours, and that a text tower knows nothing of."""
    for c, colour in enumerate(COLOURS.values()):
        for i in range(12):
            save_image(tmp_path / "data" / f"kind {'abc'[c]}" / f"{i}.png", colour, 100 * c + i)
    return tmp_path / "data"


def test_chance_level_is_no_success(nameless: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", nameless, "--backbone", clip, "--n-ctx", 2, "--epochs", 1, "--lr", 0.0, "--shots", 6)
    given += ("--seed", 2, "--test-fraction", 0.5, "--out", tmp_path / "out")
    result = run(*given)
    assert result.exit_code == 0, result.stderr
    assert "At chance level: 33.3 % of 18 held-out images (95% interval 16.3 to 56.3), where guessing gets 33.3 %." in (
        result.stdout
    )
    for line in (
        "Before it is of use, change:\n  - The class names: the features tell the classes apart",
        "learned prompt                      33.3    16.3 to 56.3",
        "linear probe (same features)       100.0   82.4 to 100.0",
        f"The linear probe is clearly better here:\n  coopt fit {nameless} --method linear_probe --out {tmp_path}/out-probe "
        f"--backbone {clip} --seed 2 --shots 6 --test-fraction 0.5",
    ):
        assert line in result.stdout
    assert "Next" not in result.stdout and "More images per class" not in result.stdout
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    metrics = document["metrics"]
    assert (metrics["chance"], metrics["at_chance"]) == (pytest.approx(100 / 3), True)
    assert metrics["learned"]["interval"] == pytest.approx([16.28, 56.26], abs=0.01)
    probe = shlex.split(result.stdout.splitlines()[-1].partition("coopt ")[2])
    found = run_json(*probe)["metrics"]
    assert found["learned"] == metrics["linear_probe"] and found["linear_probe"] is None


@pytest.mark.parametrize("options", [("--no-cache",), ("--shots", 1), ("--method", "linear_probe")])
def test_a_probe_is_fitted_where_it_is_quick(options: tuple, nameless: Path, clip: str, tmp_path: Path) -> None:
    method = ("--epochs", 1, "--n-ctx", 2) if "--method" not in options else ()
    document = run_json("fit", nameless, "--backbone", clip, "--out", tmp_path / "out", *method, *options)
    assert document["metrics"]["linear_probe"] is None


@pytest.mark.parametrize("local", [True, False])
def test_the_bundled_model_is_said_to_be_a_toy(
    local: bool, nameless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = (LocalBackbone("openclip:ViT-B-16/openai", tmp_path, 1, 68.3), LocalBackbone("worse", tmp_path, 2, 1.0))
    monkeypatch.setattr("coopt.cli.fit_report.local_backbones", lambda: there if local else ())
    typed = f"coopt fit {nameless} --epochs 1 --lr 0 --csc --out {tmp_path}/out"
    result = run(*typed.split()[1:])
    better = "--backbone openclip:ViT-B-16/openai" if local else f"--backbone {FETCHED} --download"
    found = "A better one is on this machine:" if local else "This fetches a better one (0.6 GB, once):"
    toy = "The bundled model is small and knows emoji and icons: for photographs it is a toy."
    assert f"\n{toy} {found}\n  {typed} {better}\n" in result.stdout
    assert f"\n  - The backbone. {found}\n    {typed} --overwrite {better}\n" in result.stdout
    check_backbone_name(FETCHED, download=True)


@pytest.mark.parametrize(
    ("there", "where", "named"),
    [
        # the best of those that are known and of a handy size, whatever source they come from
        ([("a", 1.7, 75.5), ("huge", 20.0, 82.0), ("b", 0.6, 76.2)], "A better one is on", "b"),
        ([("huge", 20.0, 82.0), ("large", 4.0, 78.0)], "A better one is on", "large"),
        # nothing is known of how good it is: a model of tissue, for instance
        ([("mine", 0.8, None), ("b", 0.6, 63.3)], "A better one is on", "b"),
        ([("mine", 0.8, None), ("caption", 1.0, 0.8)], "Another one is on", "mine"),
        # worse than it should be: a model that was tuned to write captions
        ([("caption", 1.0, 0.8)], "This fetches a better one", f"{FETCHED} --download"),
    ],
)
def test_which_model_is_named_instead(
    there: list, where: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(LocalBackbone(name, tmp_path, int(size * 1e9), known) for name, size, known in there)
    monkeypatch.setattr("coopt.cli.fit_report.local_backbones", lambda: rows)
    sentence, command = _better(["coopt", "fit", "photos"])
    assert sentence.startswith(where) and command == f"coopt fit photos --backbone {named}"


def test_the_bundled_model_is_no_toy_for_the_bundled_data(tmp_path: Path) -> None:
    result = run("fit", "bundled:wallpaper", "--shots", 1, "--epochs", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "toy" not in result.stdout


def test_every_method_is_called_by_its_name(photos: Path, clip: str, tmp_path: Path) -> None:
    for method, more, title in (
        ("tip_adapter", ("--set", "finetune=yes"), "Tip-Adapter-F"),
        ("linear_probe", (), "linear probe"),
    ):
        given = ("fit", photos, "--backbone", clip, "--method", method, *more, "--out", tmp_path / method)
        said = run(*given).stdout
        assert f"\n{title}  " in said and "learned prompt" not in said


def test_the_saved_configuration_repeats_the_run(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_json(
        *("fit", photos, "--backbone", clip, "--config", short, "--out", out),
        *("--shots", 3, "--csc", "--position", "middle", "--seed", 7, "--test-fraction", 0.4, "--no-cache"),
    )
    kept = {name: (out / name).read_bytes() for name in ("prompt.json", "prompt.safetensors", "config.yaml")}
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["shots"] == 3 and config["csc"] is True and config["cache"] is False and "init" not in config
    again = run_json("fit", "--config", out / "config.yaml")
    assert {name: (out / name).read_bytes() for name in kept} == kept
    assert again["settings"] == first["settings"]
    assert (first["dataset"]["train"], first["dataset"]["test"]) == (9, 6)
    assert coopt.load(out).context_.shape[:2] == (3, 2)  # type: ignore[attr-defined]


def test_init_words_and_number_of_vectors_must_agree(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    given = (
        "fit",
        photos,
        "--backbone",
        clip,
        "--config",
        short,
        "--init",
        "a picture of a",
        "--out",
        tmp_path / "out",
    )
    result = run(*given)
    assert result.exit_code == 1
    assert "The words of --init, 'a picture of a', are 4 tokens, but --n-ctx is 2." in result.stderr
    assert run_json(*given, "--n-ctx", 4)["n_ctx"] == 4


SHORTER = {
    "image_tuning": "recipe: {epochs: 2, lr: 0.00003}\n",
    **dict.fromkeys(("clip_lora", "cocoop", "maple", "promptsrc"), "recipe: {epochs: 2}\n"),
}
"""For methods whose step takes more than a text pass: how many steps there are is the recipe's matter."""


@pytest.mark.parametrize("method", [one for one in method_names() if one != "coop"])
def test_every_method_is_fitted_saved_and_used(method: str, photos: Path, clip: str, tmp_path: Path) -> None:
    out = tmp_path / method
    given = ["fit", photos, "--backbone", clip, "--method", method, "--out", out, "--shots", 2]
    if method in SHORTER:
        (tmp_path / "short.yaml").write_text(SHORTER[method])
        given += ["--config", tmp_path / "short.yaml"]
    document = run_json(*given)
    assert document["method"] == method and document["metrics"]["learned"]["n"] > 0
    assert run_json("eval", out, photos, "--backbone", clip, "--split", "all")["accuracy"] > 0
    again = run_json("fit", "--config", out / "config.yaml", "--overwrite")
    assert again["metrics"]["learned"] == document["metrics"]["learned"]


@pytest.mark.parametrize(("cost", "used"), [(0.25, "bf16"), (27.0, "fp32")])
def test_auto_precision_says_what_it_is(
    cost: float, used: str, cost_of_bf16: Any, photos: Path, clip: str, short: Path, tmp_path: Path
) -> None:
    cost_of_bf16(cost)
    given = ("fit", photos, "--backbone", clip, "--config", short, "--precision", "auto", "--out", tmp_path / "prompt")
    result = run(*given)
    assert f"--precision auto is {used} on this machine." in result.stdout and "Warning: bf16" not in result.stderr
    written = json.loads((tmp_path / "prompt" / "result.json").read_text())
    assert written["precision"] == used and written["settings"]["precision"] == "auto"
    assert run_json("info", tmp_path / "prompt")["parameters"]["precision"] == used
    assert run_json("eval", tmp_path / "prompt", photos)["precision"] == used


def test_slow_bf16_is_said_with_the_options_that_help(
    cost_of_bf16: Any, photos: Path, clip: str, short: Path, tmp_path: Path
) -> None:
    cost_of_bf16(27.0)
    out = tmp_path / "prompt"
    fitted = run("fit", photos, "--backbone", clip, "--config", short, "--precision", "bf16", "--out", out)
    assert fitted.stderr.count("bf16 takes about 27 times as long as fp32 on this processor") == 1
    assert "Use --precision fp32, or --precision auto for the faster of the two." in fitted.stderr
    loaded = run("predict", out, photos)
    assert "learned in bf16, which takes about 27 times as long" in loaded.stderr
    assert "With --precision bf16 it predicts as it was learned." in loaded.stderr
    assert run_json("eval", out, photos)["precision"] == "fp32"
    assert run_json("eval", out, photos, "--precision", "bf16")["precision"] == "bf16"


@pytest.mark.parametrize("method", ["coop", "tip_adapter"])
def test_precision_is_of_every_image(
    method: str, photos: Path, short: Path, clip: str, tmp_path: Path, arithmetics: set[str]
) -> None:
    given = ["fit", photos, "--backbone", clip, "--method", method, "--out", tmp_path / "out"]
    given += ["--config", short] if method == "coop" else []
    document = run_json(*given, "--precision", "bf16")
    assert arithmetics == {"cpu+bf16"}  # those held out too, and what the hand-made prompt is measured on
    assert document["settings"]["precision"] == "bf16"
    run_json("fit", "--config", tmp_path / "out" / "config.yaml", "--overwrite")
    assert arithmetics == {"cpu+bf16"}
    run_json(*given, "--overwrite")
    assert arithmetics == {"cpu+bf16", "cpu"}


def test_methods_are_those_that_can_be_saved() -> None:
    from coopt.methods import registry

    assert {*method_names(), "zero_shot"} == set(registry.METHODS)


def test_a_parameter_of_the_method(photos: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", photos, "--backbone", clip, "--method", "tip_adapter", "--out", tmp_path / "out")
    document = run_json(*given, "--set", "finetune=true", "--set", "beta=2.0")
    assert (document["settings"]["finetune"], document["settings"]["beta"]) == (True, 2)
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["set"] == ["finetune=true", "beta=2.0"]
    again = run_json("fit", "--config", tmp_path / "out" / "config.yaml", "--overwrite")
    assert again["metrics"]["learned"] == document["metrics"]["learned"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "linear_probe", "--csc"), "The method 'linear_probe' has no --csc."),
        (("--method", "text_bias", "--n-ctx", 4), "The method 'text_bias' has no --n-ctx."),
        (("--method", "linear_probe", "--set", "K=3"), "has no parameter 'K'. --set takes C."),
        (("--set", "n_ctx=3"), "n_ctx has an option of its own: write --n-ctx 3."),
        (("--set", "cache=no"), "cache has an option of its own: write --no-cache."),
        (("--set", "recipe=paper"), "recipe has an option of its own: write --recipe paper."),
        (("--set", "lr=0.1"), "lr has an option of its own: write --lr 0.1."),
        (("--set", "data=x"), "The method 'coop' has no parameter 'data'."),
        (("--set", "batch_size=8"), "'batch_size'. Did you mean recipe.batch_size?"),
        (("--set", "recipe.lrr=0.1"), "A recipe has no field 'lrr'. Did you mean recipe.lr?"),
        (("--set", "recipe.name=paper"), "A recipe's name is given with --recipe NAME"),
        (("--set", "recipe.lr=abc"), "--lr must be a number >= 0. Got 'abc' instead."),
        (("--set", "recipe.epochs=1.5"), "--epochs must be an int >= 1. Got 1.5 instead."),
        (("--set", "recipe.batch-size=0"), "--set recipe.batch_size must be an int >= 1. Got 0 instead."),
        (("--set", "recipe.lr="), "--set takes NAME=VALUE, such as --set recipe.lr=0.01. Got 'recipe.lr=' instead."),
        (("--set", "finetune"), "--set takes NAME=VALUE"),
        (("--set", "recipe.lr=1", "--set", "recipe.lr=2"), "--set gives recipe.lr two values, 1 and 2."),
        (("--epochs", 3, "--set", "recipe.epochs=4"), "--epochs 3 and --set recipe.epochs=4 contradict each other."),
        (("--method", "linear_probe", "--epochs", 3), "The method 'linear_probe' has no --epochs."),
        (("--method", "linear_probe", "--steps", 3), "The method 'linear_probe' has no --steps."),
        (("--method", "linear_probe", "--budget", "5m"), "The method 'linear_probe' has no --budget."),
        (("--steps", 3, "--set", "recipe.steps=4"), "--steps 3 and --set recipe.steps=4 contradict each other."),
        (
            ("--budget", "1m", "--set", "recipe.seconds=5"),
            "--budget 60.0 and --set recipe.seconds=5 contradict each other.",
        ),
        (("--set", "recipe.seconds=5m"), "--budget must be a number > 0. Got '5m' instead."),
        (("--method", "linear_probe", "--set", "recipe.lr=1"), "has no parameter 'recipe.lr'. --set takes C."),
        (("--init", ""), "--init must be words such as 'a photo of a', or be left out. Got '' instead."),
        (("--method", "tip_adapter", "--set", "beta=-1.0"), "--set beta must be a number >= 0. Got -1.0 instead."),
    ],
)
def test_what_the_method_does_not_have(options: tuple, said: str, photos: Path, clip: str, tmp_path: Path) -> None:
    result = run("fit", photos, "--backbone", clip, "--out", tmp_path / "out", *options)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", 3, "--lr", "1e-2", "--set", "recipe.views=2", "--set", "recipe.warmup_lr=none"),
        ("--set", "recipe.epochs=03", "--set", "recipe.lr=1e-2", "--set", " recipe.views = 2"),
    ],
)
def test_every_field_of_the_recipe_can_be_typed(options: tuple, photos: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", photos, "--backbone", clip, "--out", tmp_path / "out")
    document = run_json(*given, *options)
    assert document["recipe"] == {**FAST.to_dict(), "epochs": 3, "lr": 0.01, "views": 2}
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (config["recipe"]["epochs"], config["recipe"]["lr"]) == (3, 0.01)
    assert not {"epochs", "lr", "set"} & set(config)
    again = ("fit", "--config", tmp_path / "out" / "config.yaml")
    assert run_json(*again)["recipe"] == document["recipe"]
    assert run_json(*again, "--epochs", 2, "--overwrite")["recipe"] == {**document["recipe"], "epochs": 2}


def test_of_two_ways_to_say_it_the_typed_one_wins(photos: Path, clip: str, tmp_path: Path) -> None:
    given = (
        "fit",
        photos,
        "--backbone",
        clip,
        "--out",
        tmp_path / "out",
        "--config",
        tmp_path / "c.yaml",
        "--overwrite",
    )
    (tmp_path / "c.yaml").write_text("epochs: 2\nlr: 1e-2\n")
    assert run_json(*given, "--set", "recipe.epochs=1")["epochs"] == 1
    (tmp_path / "c.yaml").write_text("budget: 5m\nsteps: 2\n")
    document = run_json(*given, "--set", "recipe.seconds=7.5", "--steps", 1)
    assert (document["epochs"], document["recipe"]["steps"], document["recipe"]["seconds"]) == (1, 1, 7.5)
    (tmp_path / "c.yaml").write_text("set: [recipe.epochs=2, recipe.lr=0.01]\n")
    document = run_json(*given, "--epochs", 1)
    assert (document["epochs"], document["recipe"]["lr"]) == (1, 0.01)


def test_what_learning_took_and_why_it_ended(photos: Path, clip: str, tmp_path: Path) -> None:
    given = (
        "fit",
        "bundled:animals",
        "--shots",
        8,
        "--set",
        "recipe.least_classes=2",
        "--out",
        tmp_path / "out",
        "--overwrite",
    )  # 112 images
    document = run_json(*given, "--steps", 18)
    assert (document["epochs"], document["recipe"]["steps"]) == (18, 18)
    # Where the epochs ended, the loss and the gradients of two halves; then two steps, each at least a text pass.
    assert document["text_passes"] >= 16 + 5 / 3 + 2 and document["stopped"] and len(document["agreements"]) == 1
    assert json.loads((tmp_path / "out" / "result.json").read_text())["stopped"] == document["stopped"]
    said = run(*given, "--budget", "1h").stdout
    learned = run_json(*given, "--set", "recipe.seconds=3600.0")
    assert learned["recipe"]["seconds"] == 3600 and learned["agreements"]
    passes, epochs = learned["text_passes"], learned["epochs"]
    assert f"\nLearned in {passes:.0f} text passes ({epochs} epochs): {learned['stopped']}.\nSaved to" in said
    document = run_json("fit", photos, "--backbone", clip, "--method", "linear_probe", "--out", tmp_path / "probe")
    assert (document["text_passes"], document["stopped"], document["agreements"]) == (None, None, None)


def test_a_budget_ends_learning(photos: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", photos, "--backbone", clip, "--out", tmp_path / "out")
    assert ": the time is over." in run(*given, "--epochs", 10000, "--budget", "0.05").stdout


def test_parts_on_disk_are_used(short: Path, clip: str, tmp_path: Path) -> None:
    make_photos(tmp_path / "data" / "train", 2)
    make_photos(tmp_path / "data" / "val", 1, seed=1)
    make_photos(tmp_path / "data" / "test", 4, seed=2)
    arguments = ("fit", tmp_path / "data", "--backbone", clip, "--config", short, "--out", tmp_path / "out")
    document = run_json(*arguments)
    assert [document["dataset"][part] for part in ("train", "val", "test")] == [6, 3, 12]
    assert document["metrics"]["learned"]["n"] == 12
    assert "6 images to learn from, 12 held out, 3 for validation (not used)." in run(*arguments).stdout


def test_csv(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    rows = [
        f"{file},{file.parent.name},{'test' if file.stem == '0' else 'train'}" for file in sorted(photos.rglob("*.png"))
    ]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows))
    document = run_json(
        "fit", tmp_path / "labels.csv", "--backbone", clip, "--config", short, "--out", tmp_path / "out"
    )
    assert (document["dataset"]["train"], document["dataset"]["test"]) == (15, 3)


def test_without_held_out_images_nothing_is_measured(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out", "--test-fraction", 0)
    assert "No images are held out, so accuracy is not measured." in run(*arguments).stdout
    assert run_json(*arguments)["metrics"] == dict.fromkeys(
        ("zero_shot", "learned", "linear_probe", "chance", "at_chance")
    )


def test_more_shots_than_images_and_duplicates_are_warned_of(
    photos: Path, short: Path, clip: str, tmp_path: Path
) -> None:
    test = coopt.load_dataset(photos).test
    assert test is not None
    double = test.paths[0].with_name("copy.png")
    double.write_bytes(test.paths[0].read_bytes())
    csv = tmp_path / "all.csv"
    parts = dict.fromkeys(test.paths, "test")
    files = sorted(photos.rglob("*.png"))
    csv.write_text("path,label,split\n" + "\n".join(f"{f},{f.parent.name},{parts.get(f, 'train')}" for f in files))
    result = run(
        *("fit", csv, "--backbone", clip, "--config", short, "--out", tmp_path / "out", "--shots", 50, "--json")
    )
    warnings = json.loads(result.stdout)["warnings"]
    assert [warning["type"] for warning in warnings] == ["FewShotsWarning", "LeakageWarning"]
    assert [line[:9] for line in result.stderr.splitlines()] == ["Warning: ", "Warning: "]


def test_bad_images_stop_it_or_are_left_out(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    (photos / "red car" / "broken.png").write_bytes(b"not a picture")
    arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "broken.png' is not an image that Pillow knows" in result.stderr
    assert "With --on-bad-image skip such images are left out and named." in result.stderr
    assert not (tmp_path / "out").exists()
    document = run_json(*arguments, "--on-bad-image", "skip")
    assert [warning["type"] for warning in document["warnings"]] == ["SkippedImageWarning"]


class TestOtherRunsInTheFolder:
    def test_other_settings_are_refused(self, photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
        arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
        run_json(*arguments)
        kept = (tmp_path / "out" / "prompt.safetensors").read_bytes()
        result = run(*arguments, "--n-ctx", 3)
        assert result.exit_code == 1
        assert "holds a prompt with other settings (n-ctx 2 there, 3 now)" in result.stderr
        assert "--overwrite" in result.stderr
        save_image(photos / "red car" / "new.png", (250, 0, 0), 99)
        assert "(other images)" in run(*arguments).stderr
        assert (tmp_path / "out" / "prompt.safetensors").read_bytes() == kept
        assert run_json(*arguments, "--n-ctx", 3, "--overwrite")["n_ctx"] == 3

    def test_other_weights_of_the_same_name_are_refused(
        self, photos: Path, short: Path, clip: str, tmp_path: Path
    ) -> None:
        arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
        run_json(*arguments)
        file = tmp_path / "out" / "result.json"
        file.write_text(file.read_text().replace(json.loads(file.read_text())["identity"]["fingerprint"], "f" * 64))
        assert "(other weights of the backbone)" in run(*arguments).stderr

    def test_a_prompt_without_record_is_refused(self, photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "prompt.json").write_text("{}")
        result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert "(it has no readable result.json)" in result.stderr

    def test_a_file_in_the_place_of_the_folder(self, photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a letter")
        result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert "is a file, expected a folder" in result.stderr
        assert (tmp_path / "out").read_text() == "a letter"

    def test_a_folder_of_other_files_is_refused(self, photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "config.yaml").write_text("of another program")
        arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "mine")
        for more in ((), ("--overwrite",)):
            result = run(*arguments, *more)
            assert result.exit_code == 1
            assert "holds other files (config.yaml) and nothing that coopt wrote. Choose a new" in result.stderr
        assert [file.name for file in (tmp_path / "mine").iterdir()] == ["config.yaml"]
        (tmp_path / "mine" / "config.yaml").rename(tmp_path / "mine" / ".hidden")
        assert run(*arguments).exit_code == 0
        (tmp_path / "mine" / "notes.txt").write_text("a note beside the prompt")
        assert run(*arguments).exit_code == 0

    def test_the_folder_of_images_is_refused(self, photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
        for out in (photos, photos / "prompt", photos / "red car" / "prompt", photos / ".." / "photos" / "prompt"):
            result = run("fit", photos, "--backbone", clip, "--config", short, "--out", out)
            assert result.exit_code == 1
            assert "is inside of the folder of images" in result.stderr and "Choose a folder outside" in result.stderr
        assert sorted(one.name for one in photos.iterdir()) == sorted(COLOURS)

    def test_learning_from_the_working_folder_saves_beside_it(
        self, photos: Path, short: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos)
        assert run_json("fit", ".", "--backbone", clip, "--config", short)["out"] == str(tmp_path / "coopt-photos")
        assert sorted(one.name for one in photos.iterdir()) == sorted(COLOURS)


@pytest.mark.parametrize(
    ("learned", "probe", "n", "better"),
    [(91.7, 100.0, 12, False), (17.6, 58.8, 17, True), (60.0, 62.0, 1000, False), (26.0, 69.7, 2000, True)],
)
def test_the_probe_is_called_better_beyond_the_noise_of_both(
    learned: float, probe: float, n: int, better: bool
) -> None:
    found = [Evaluation(n, accuracy, 0.0, 0.0, (), ()) for accuracy in (learned, probe)]
    assert Measured(found[0], found[0], found[1], 10.0).probe_is_better is better
    assert not Measured(found[0], found[0], None, 10.0).probe_is_better
