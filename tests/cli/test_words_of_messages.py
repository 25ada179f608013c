"""What the command line says of wrong input speaks of its own options, never of Python's parameters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import run

PYTHON = re.compile(
    r"parameter of|parameter must|load_backbone\(|=True|=False|='|on the command line|in Python|Traceback"
)

WRONG = [
    ("fit", "{photos}", "--shots", "0"),
    ("fit", "{photos}", "--seed", "-1"),
    ("fit", "{photos}", "--seed", "4294967296"),
    ("fit", "{photos}", "--n-ctx", "0"),
    ("fit", "{photos}", "--n-ctx", "99"),
    ("fit", "{photos}", "--init", " "),
    ("fit", "{photos}", "--init", "a picture of a", "--n-ctx", "2"),
    ("fit", "{photos}", "--test-fraction", "1"),
    ("fit", "{photos}", "--test-fraction", "nan"),
    ("fit", "{photos}", "--recipe", "slow"),
    ("fit", "{photos}", "--epochs", "0"),
    ("fit", "{photos}", "--lr", "-1"),
    ("fit", "{photos}", "--lr", "nan"),
    ("fit", "{photos}", "--lr", "1e30", "--n-ctx", "2"),
    ("fit", "{photos}", "--set", "recipe.lr=fast"),
    ("fit", "{photos}", "--set", "recipe.batch_size=0"),
    ("fit", "{photos}", "--set", "recipe.optimizer=lion"),
    ("fit", "{photos}", "--set", "recipe.momentum=inf"),
    ("fit", "{photos}", "--method", "tip_adapter", "--set", "alpha=-1"),
    ("fit", "{photos}", "--method", "tip_adapter", "--set", "finetune=maybe"),
    ("fit", "{photos}", "--method", "kgcoop", "--set", "templates=no braces"),
    ("fit", "{photos}", "--method", "kgcoop", "--set", "templates=5"),
    ("fit", "{photos}", "--method", "tip_adapter", "--set", "templates=[no, 3]"),
    ("fit", "{photos}", "--method", "kgcoop", "--set", "guide_weight=much"),
    ("fit", "{photos}", "--method", "linear_probe", "--set", "C=0"),
    ("fit", "{photos}", "--memory", "much"),
    ("fit", "{photos}", "--memory", "1"),
    ("fit", "{photos}", "--device", "gpu"),
    ("fit", "{photos}", "--backbone", "vit"),
    ("fit", "{photos}", "--backbone", "openclip:ViT-B-16/openai"),
    ("zero-shot", "{photos}", "--template", "no braces"),
    ("eval", "{prompt}", "{photos}", "--position", "end"),
    ("eval", "{reference}", "{photos}"),
    ("predict", "{prompt}", "x.png", "--classes", "one"),
    ("words", "{prompt}", "--class", "red car"),
    ("demo", "--out", "{out}", "--data", "nope"),
    ("demo", "--out", "{out}", "--set", "recipe.lrr=1"),
    ("demo", "--out", "{out}", "--set", "lr=1"),
    ("demo", "--out", "{out}", "--set", "recipe.views=-1"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_input_is_answered_in_words_of_the_command_line(
    arguments: tuple[str, ...], learned: tuple[Path, Path], clip: str, tmp_path: Path
) -> None:
    places = {"photos": learned[1], "prompt": learned[0], "out": tmp_path / "out"}
    places["reference"] = Path(__file__).parents[1] / "golden" / "checkpoint_coop_end_m4"
    typed = [word.format(**places) for word in arguments]
    if arguments[0] == "fit":
        typed += ["--out", str(tmp_path / "out"), *([] if "--backbone" in typed else ["--backbone", clip])]
    result = run(*typed)
    assert result.exit_code in (1, 2), result.stdout
    assert not PYTHON.search(result.stderr), result.stderr
    assert "did not expect" not in result.stderr
    assert "1e30" in typed or not (tmp_path / "out").exists()  # what was learned before it went wrong is kept
