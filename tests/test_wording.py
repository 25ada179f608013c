"""Messages speak of parameters in Python, and of options while a command runs."""

from __future__ import annotations

from coopt.wording import called, counted, on_command_line, setting, spoken, subject

OPTIONS = {"n_ctx": "--n-ctx", "download": "--download", "lr": "--lr", "set": "--set"}


def test_in_python_a_setting_is_a_parameter() -> None:
    assert not on_command_line()
    assert subject("n_ctx", "CoOp") == "The 'n_ctx' parameter of CoOp"
    assert setting("download", True) == "download=True"
    assert setting("init", "a photo") == "init='a photo'"


def test_while_a_command_runs_it_is_an_option() -> None:
    with spoken(OPTIONS):
        assert on_command_line()
        assert subject("n_ctx", "CoOp") == "--n-ctx"
        assert setting("n_ctx", 4) == "--n-ctx 4"
        assert setting("download", True) == "--download"
        assert setting("download", False) == "--no-download"
        assert subject("recipe.lr", "Recipe") == "--lr"
        assert subject("recipe.momentum", "Recipe") == "--set recipe.momentum"
        assert setting("alpha", 2.0) == "--set alpha=2.0"
        assert (called("lr"), called("recipe.lr"), called("recipe.views")) == ("--lr", "--lr", "--set recipe.views")
    assert called("recipe.lr") == "recipe.lr"
    assert not on_command_line()


def test_a_command_without_such_an_option_speaks_of_the_parameter() -> None:
    with spoken({"download": "--download"}):
        assert subject("n_ctx", "CoOp") == "The 'n_ctx' parameter of CoOp"
        assert setting("n_ctx", 4) == "n_ctx=4"


def test_one_is_no_plural() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]
    assert counted(3, "epoch") == "3 epochs"
