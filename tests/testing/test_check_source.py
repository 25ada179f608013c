"""`coopt.testing.check_source`: it passes what is right, and sees each kind of fault."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from coopt.backbones import Backbone, BackboneInfo, ScoreHead, Source
from coopt.backbones.names import SOURCES
from coopt.backbones.text_tower import Tokens
from coopt.errors import BackboneError
from coopt.testing import check_source
from tests.backbones.small_models import configuration, save_folder, small_model
from tests.models import small_open_clip

Change = Callable[[Any], None]
LOADED = itertools.count()
TOKENIZER = ("framing", "vocab_size", "encode", "decode")


def source_of(change: Change | None = None, **text: Any) -> Source:
    """A source of one small model, which is changed in some way after it was loaded."""

    class Small(Source):
        scheme = "small"

        def list(self) -> list[BackboneInfo]:
            return [BackboneInfo("one", context_length=77)]

        def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
            backbone = small_open_clip(**text)
            backbone.name = f"small:{spec}"
            if change is not None:
                change(backbone)
            return backbone

    return Small()


def bidirectional(change: Change | None = None) -> Source:
    return source_of(change, custom=True, no_causal_mask=True, pool_type="last")


@pytest.mark.parametrize("source", [source_of(), bidirectional()], ids=["causal", "bidirectional"])
def test_what_is_right_passes(source: Source) -> None:
    check_source(source, "one")


def test_coopts_own_sources_pass(tmp_path: Path) -> None:
    check_source(SOURCES.get("bundled"))
    changes = {"text_cfg": {"no_causal_mask": True, "pool_type": "last"}, "custom_text": True}
    folder = save_folder(small_model(**changes), tmp_path / "folder", configuration(**changes))
    check_source(SOURCES.get("openclip"), f"local-dir:{folder}")
    numbers = {key: torch.tensor(0) for key in ("input_resolution", "context_length", "vocab_size")}
    torch.save({**small_model(quick_gelu=True).state_dict(), **numbers}, tmp_path / "small.pt")
    check_source(SOURCES.get("openai"), f"{tmp_path}/small.pt")


def forward_as(change: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]], behind: Any = None) -> Change:
    """The text tower with its arguments changed, or its result."""

    def apply(backbone: Any) -> None:
        tower, original = backbone.text, type(backbone.text).forward

        class Changed(type(tower)):
            def forward(self, vectors: Tensor, ids: Tensor, at_block: Any = None) -> Tensor:
                features = original(self, *change(self, vectors, ids), at_block)
                return features if behind is None else behind(features)

        tower.__class__ = Changed

    return apply


def setting(path: str, value: Any) -> Change:
    def apply(backbone: Any) -> None:
        *owners, name = path.split(".")
        for owner in owners:
            backbone = getattr(backbone, owner)
        setattr(backbone, name, value)

    return apply


def asks_for_gradients(backbone: Any) -> None:
    backbone.text.ln_final.requires_grad_(True)


def learns(backbone: Any) -> None:
    backbone.model.visual.train()


def forgets_that_blocks_take_vectors(backbone: Any) -> None:
    original = backbone.text.forward
    backbone.text.forward = lambda vectors, ids, at_block=None: original(vectors, ids)


def puts_vectors_into_every_prompt(backbone: Any) -> None:
    original = backbone.text.forward

    def forward(vectors: Tensor, ids: Tensor, at_block: Any = None) -> Tensor:
        everywhere = {
            block: Tokens(
                torch.arange(len(ids)), tokens.positions.expand(len(ids)), tokens.vectors.expand(len(ids), -1)
            )
            for block, tokens in (at_block or {}).items()
        }
        return original(vectors, ids, everywhere)

    backbone.text.forward = forward


def other_blocks(backbone: Any) -> None:
    blocks = backbone.text.open.blocks
    backbone.text.open = replace(backbone.text.open, blocks=blocks[:-1])


def other_weights_each_time(backbone: Any) -> None:
    with torch.no_grad():
        backbone.text.ln_final.bias.add_(next(LOADED))


def random_images(backbone: Any) -> None:
    original = backbone.encode_image
    backbone.encode_image = lambda pixels: original(pixels) + torch.rand(())


def images_see_each_other(backbone: Any) -> None:
    original = backbone.encode_image
    backbone.encode_image = lambda pixels: original(pixels) + pixels.mean() * 10


def another_image_tower(backbone: Any) -> None:
    backbone.encode_image = torch.no_grad()(backbone.image.__call__)
    backbone.image = copy.deepcopy(backbone.image)
    with torch.no_grad():
        backbone.image.visual.proj.mul_(-1)


def shares_its_image_tower(backbone: Any) -> None:
    backbone.image_tower = lambda: backbone.image.requires_grad_(True)


def frames_texts_itself(backbone: Any) -> None:
    other = SimpleNamespace(**{name: getattr(backbone.tokenizer, name) for name in TOKENIZER})
    other.encode = lambda text: [*backbone_encode(text), other.framing.end]
    backbone_encode = backbone.tokenizer.encode
    backbone.tokenizer = other


def decodes_something_else(backbone: Any) -> None:
    backbone.tokenizer = SimpleNamespace(**{name: getattr(backbone.tokenizer, name) for name in TOKENIZER})
    backbone.tokenizer.decode = lambda ids: "something else"


def embeds_positions(backbone: Any) -> None:
    original = backbone.text.embed
    backbone.text.embed = lambda ids: original(ids) + backbone.text.positional_embedding[: ids.shape[-1]]


FAULTS: list[tuple[Change, str]] = [
    (setting("name", "one"), "must be called 'small:one', not 'one'"),
    (setting("device", torch.device("meta")), "must be on cpu"),
    (setting("score_head", ScoreHead(-1.0)), "no score head"),
    (setting("fingerprint", "1"), "a fingerprint is a hash"),
    (asks_for_gradients, "weights must be frozen"),
    (learns, "must be in evaluation mode"),
    (frames_texts_itself, "must leave out the start and end tokens"),
    (decodes_something_else, "decode must give the text again"),
    (setting("embed_dim", 31), "the text tower must give features"),
    (setting("text.width", 65), "embed must give vectors of the shape"),
    (embeds_positions, "token embeddings without positions"),
    (forward_as(lambda tower, vectors, ids: (tower.embed(ids), ids)), "must compute with all vectors"),
    (
        forward_as(lambda tower, vectors, ids: (vectors + tower.embed(ids) / 2, ids)),
        "must take the vectors where they are learned",
    ),
    (
        forward_as(lambda tower, vectors, ids: (vectors + vectors.mean(0), ids)),
        "must not depend on other prompts",
    ),
    (
        forward_as(lambda tower, vectors, ids: (vectors, ids), lambda features: features + torch.rand(())),
        "must give the same features again",
    ),
    (
        forward_as(lambda tower, vectors, ids: (vectors, ids), lambda features: features * 2),
        "must give the features of the model's own encode_text",
    ),
    (forward_as(lambda tower, vectors, ids: (vectors.detach(), ids)), "gradients of the features must reach"),
    (forgets_that_blocks_take_vectors, "vectors at the input of block 0 must take their place"),
    (puts_vectors_into_every_prompt, "vectors at the input of block 0 must take their place"),
    (setting("text.causal", False), "opens its blocks must be causal and not depend on padding, or neither"),
    (setting("text.padding_matters", True), "opens its blocks must be causal and not depend on padding, or neither"),
    (other_blocks, "the blocks that the tower opens must give the features"),
    (other_weights_each_time, "the fingerprint must be the same"),
    (random_images, "encode_image must give the same features again"),
    (images_see_each_other, "must not depend on other images"),
    (another_image_tower, "the image tower must give the features of encode_image"),
    (shares_its_image_tower, "must not share its weights"),
]


@pytest.mark.parametrize(("change", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_faults_of_a_backbone(change: Change, said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_source(source_of(change), "one")
    assert said.lower() in str(caught.value).lower()


def test_a_length_that_does_not_fit() -> None:
    """What the tower itself says."""
    with pytest.raises(RuntimeError, match="must match the size"):
        check_source(source_of(setting("text.context_length", 78)), "one")
    with pytest.raises(RuntimeError, match=r"shape of the .*attn_mask"):
        check_source(source_of(setting("text.any_length", True)), "one")


def test_untrue_claims_of_a_bidirectional_tower() -> None:
    with pytest.raises(AssertionError, match="Padding changes the features: the tower must say that padding_matters"):
        check_source(bidirectional(setting("text.padding_matters", False)), "one")
    causal = source_of(setting("text.causal", True), custom=True, no_causal_mask=True)
    with pytest.raises(
        AssertionError, match="end token changes the features: the tower must not say that it is causal"
    ):
        check_source(causal, "one")


class Listed(Source):
    scheme = "small"

    def __init__(self, *rows: BackboneInfo) -> None:
        self.rows = rows

    def list(self) -> tuple[BackboneInfo, ...]:
        return self.rows

    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        return source_of().load(spec, device)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([BackboneInfo("one"), BackboneInfo("one")], "A model must be listed once"),
        ([BackboneInfo("one", context_length=32)], "context length, which is 77"),
        ([BackboneInfo("one", text_path="reference")], "text path, which is 'fast'"),
        ([], "'one-no-such-model' is the name of no model, and was loaded"),
    ],
)
def test_faults_of_a_list(rows: list[BackboneInfo], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopt.testing.sources._check_names_without_torch", lambda *_: None)
    with pytest.raises(AssertionError, match=said.replace("'", ".")):
        check_source(Listed(*rows), "one")


def test_faults_of_errors() -> None:
    class Vague(Listed):
        def check(self, spec: str, download: bool = False) -> None:
            if spec != "one":
                raise BackboneError("wrong")

    class Raises(Listed):
        def check(self, spec: str, download: bool = False) -> None:
            {"one": 1}[spec]

    with pytest.raises(AssertionError, match=r"must say the name \(one-no-such-model\); it says: wrong"):
        check_source(Vague(), "one")
    with pytest.raises(AssertionError, match="must be refused with a BackboneError, not with KeyError"):
        check_source(Raises(), "one")


def test_a_source_that_imports_torch_to_check_a_name() -> None:
    with pytest.raises(AssertionError, match="must be checked and listed without torch, and the module .*test_check"):
        check_source(Torchy(), "one")


class Torchy(Listed):
    """Of this module, which imports torch."""

    def __init__(self) -> None:
        super().__init__(BackboneInfo("one", context_length=77))


def test_what_is_no_source(unchecked: None) -> None:
    with pytest.raises(AssertionError, match=r"A source is a coopt.backbones.Source, and this one a Linear."):
        check_source(cast(Any, nn.Linear(1, 1)))
