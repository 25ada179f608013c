"""Things found by name, in coopt and in other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from coopt.errors import CooptError, ParameterError
from coopt.registry import Registry

GROUP = "coopt.test_registry"


@pytest.fixture
def registry() -> Registry:
    return Registry(GROUP, {"bpe": "coopt.backbones.bpe:MERGES", "words": "coopt.wording:counted"}, what="thing")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, announced: str, code: str) -> None:
    """A package in a folder of its own, as pip would leave it, on the import path."""
    home = folder / package
    (home / f"{package}-1.0.dist-info").mkdir(parents=True)
    (home / f"{package}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (home / f"{package}-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\n{announced}\n")
    (home / f"{package}.py").write_text(code)
    monkeypatch.syspath_prepend(str(home))


def test_builtin_names_are_imported_when_asked_for(registry: Registry) -> None:
    assert registry.names() == ("bpe", "words") == tuple(registry)
    assert registry.get("bpe") == 48_894
    assert "bpe" in registry and "nothing" not in registry
    assert registry.origin("bpe") is None


def test_entry_points_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    assert "mine" not in registry
    install(tmp_path, monkeypatch, "coopt_try_one", "mine = coopt_try_one:VALUE", "VALUE = 7")
    assert registry.names() == ("bpe", "words", "mine")
    assert registry.get("mine") == 7
    assert registry.origin("mine") == "coopt_try_one"


def test_a_broken_entry_point_is_named_and_disturbs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    install(tmp_path, monkeypatch, "coopt_try_two", "mine = coopt_try_two:VALUE", "import no_such_module_at_all")
    assert registry.get("bpe") == 48_894
    message = (
        r"The thing 'mine' of the package coopt_try_two cannot be loaded from 'coopt_try_two:VALUE': "
        r"ModuleNotFoundError: No module named 'no_such_module_at_all'. Update that package, or uninstall it."
    )
    with pytest.raises(CooptError, match=message):
        registry.get("mine")


def test_packages_that_disagree_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    install(tmp_path, monkeypatch, "coopt_try_three", "mine = coopt_try_three:VALUE", "VALUE = 3")
    install(tmp_path, monkeypatch, "coopt_try_four", "mine = coopt_try_four:VALUE", "VALUE = 4")
    with pytest.raises(CooptError, match="several packages: coopt_try_four, coopt_try_three. Uninstall all but one."):
        registry.get("mine")


def test_coopts_own_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    install(tmp_path, monkeypatch, "coopt_try_five", "bpe = coopt_try_five:VALUE", "VALUE = 5")
    assert registry.names() == ("bpe", "words")
    assert registry.get("bpe") == 48_894
    with pytest.raises(ParameterError, match="The thing 'bpe' comes with coopt. Take another name."):
        registry.register("bpe", 5)


def test_registering(registry: Registry) -> None:
    assert registry.register("one", 1) == 1

    @registry.register("two")
    def two() -> int:
        return 2

    assert registry.names() == ("bpe", "words", "one", "two")
    assert registry.get("one") == 1
    assert registry.get("two") is two
    registry.register("one", 11)  # a notebook's cell that runs again
    assert registry.get("one") == 11


def test_an_unknown_name_says_which_are_near(registry: Registry) -> None:
    message = "There is no thing 'word'. Did you mean 'words'\\? Known: bpe, words."
    with pytest.raises(ParameterError, match=message):
        registry.get("word")
    with pytest.raises(ParameterError, match="There is no thing 'zzz'. Known: bpe, words."):
        registry.get("zzz")
