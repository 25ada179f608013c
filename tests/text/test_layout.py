"""Where tokens and context vectors stand."""

from __future__ import annotations

import pytest

from coopt.backbones import Backbone
from coopt.errors import ClassNameWarning, DataError, ParameterError, PromptTooLongError
from coopt.text.layout import check_class_names, context_prompts, template_prompts

START, END, PERIOD = 49406, 49407, 269


def slots(backbone: Backbone, name: str, n_ctx: int, position: str) -> list[int | str]:
    """One prompt as a list: token ids, and "V0", "V1" ... for context vectors."""
    prompts = context_prompts(backbone, [name, "some other, longer name"], n_ctx, position)  # type: ignore[arg-type]
    length = int(prompts.lengths[0])
    pairs = zip(prompts.token_ids[0].tolist(), prompts.context_index[0].tolist(), strict=True)
    row = [f"V{index}" if index >= 0 else token for token, index in pairs]
    return row[:length]


def test_positions_of_the_class_name(backbone: Backbone) -> None:
    cat = 2368
    assert slots(backbone, "cat", 3, "end") == [START, "V0", "V1", "V2", cat, PERIOD, END]
    assert slots(backbone, "cat", 3, "middle") == [START, "V0", cat, "V1", "V2", PERIOD, END]
    assert slots(backbone, "cat", 3, "front") == [START, cat, "V0", "V1", "V2", PERIOD, END]


def test_underscores_are_blanks(backbone: Backbone) -> None:
    assert slots(backbone, "forest_road", 1, "end") == slots(backbone, "forest road", 1, "end")


def test_a_period_that_merges_with_the_name_stays_with_it(backbone: Backbone) -> None:
    """ "crane (bird)." ends in one token ")."; in the middle and in front it counts as the name's last."""
    encode = backbone.tokenizer.encode
    merged = encode("crane (bird).")
    assert len(merged) == len(encode("crane (bird)")) and merged[-1] != PERIOD
    assert slots(backbone, "crane (bird)", 2, "middle") == [START, "V0", *merged, "V1", END]
    assert slots(backbone, "crane (bird)", 2, "front") == [START, *merged, "V0", "V1", END]


def test_shared_positions(backbone: Backbone) -> None:
    names = ["red cat", "red dog"]
    assert context_prompts(backbone, names, 4, "end").shared == 1 + 4 + 1  # the names share their first word
    assert context_prompts(backbone, names, 4, "middle").shared == 1 + 2 + 1
    assert context_prompts(backbone, names, 4, "front").shared == 1 + 1
    assert context_prompts(backbone, names, 4, "end", class_specific=True).shared == 1
    same = context_prompts(backbone, ["cat", "cat"], 4)
    assert same.shared == int(same.lengths[0]) - 1  # the end token always stays in the tail


def test_a_name_too_long_is_named(backbone: Backbone) -> None:
    with pytest.raises(
        PromptTooLongError, match=r"'long long.*' has \d+ tokens \(16 context vectors.*takes 77.*lower n_ctx"
    ):
        context_prompts(backbone, ["cat", "long " * 70], 16)
    with pytest.raises(PromptTooLongError, match="Shorten the class name or the template"):
        template_prompts(backbone, ["cat", "long " * 80], "a photo of a {}.")


def test_special_words_in_names_are_plain_text(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, ["cat", "a <end_of_text> b"], 4)
    assert (prompts.token_ids == END).sum(dim=1).tolist() == [1, 1]


def test_special_tokens_that_a_tokenizer_lets_through_are_refused(backbone: Backbone, monkeypatch) -> None:
    monkeypatch.setattr(backbone.tokenizer, "encode", lambda text: [320, END, 320])
    with pytest.raises(DataError, match="start or end token"):
        context_prompts(backbone, ["cat", "dog"], 4)
    with pytest.raises(DataError, match="start or end token"):
        template_prompts(backbone, ["cat", "dog"], "a {}")


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}"])
def test_templates_hold_one_name(backbone: Backbone, template: str) -> None:
    with pytest.raises(ParameterError, match="exactly once"):
        template_prompts(backbone, ["cat"], template)


@pytest.mark.usefixtures("unchecked")
def test_position_is_checked(backbone: Backbone) -> None:
    with pytest.raises(
        ParameterError, match="'position' parameter of a prompt must be one of end, middle, front. Got 'top'"
    ):
        context_prompts(backbone, ["cat"], 4, "top")  # type: ignore[arg-type]


def test_names_that_tokenise_alike_are_warned_of(backbone: Backbone) -> None:
    with pytest.warns(ClassNameWarning, match="'forest_road' and 'Forest  road' have the same tokens"):
        check_class_names(backbone, ["forest_road", "cat", "Forest  road"])


@pytest.mark.parametrize("name", ["", "  ", "_"])
def test_names_without_content_are_refused(backbone: Backbone, name: str) -> None:
    with pytest.raises(DataError, match="at least one visible character"):
        check_class_names(backbone, ["cat", name])
