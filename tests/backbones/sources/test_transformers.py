"""The families of the package transformers, each held to transformers' own model of random weights."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import coopt
from coopt.backbones import load_backbone
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.sources.transformers import Transformers
from coopt.backbones.sources.transformers_config import FAMILIES
from coopt.methods.coop import CoOp
from coopt.testing import check_source
from tests.backbones.small_models import TEXT, VIT, configuration, save_folder, small_model

from .small_transformers import KINDS, PAD_MASKED, features_of, made

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TEXTS = ("a photo of a red cat", "cat", "Two Dogs, and the blue bird!", "0 cats")


class Small(NamedTuple):
    """A small model: its folder, transformers' own, and coopt's."""

    folder: Path
    model: Any
    backbone: ClipBackbone


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model of a kind, made once."""

    @functools.cache
    def of(kind: str) -> Small:
        folder = tmp_path_factory.mktemp("models") / kind
        model = made(kind, folder)
        backbone = load_backbone(f"transformers:{folder}")
        assert isinstance(backbone, ClipBackbone)
        return Small(folder, model, backbone)

    return of


def prompts(backbone: Any, texts: tuple[str, ...] = TEXTS) -> Tensor:
    """Token ids at the text tower's full length."""
    framing = backbone.tokenizer.framing
    ids = torch.full((len(texts), backbone.text.context_length), framing.pad)
    for i, text in enumerate(texts):
        start = [] if framing.start is None else [framing.start]
        row = [*start, *backbone.tokenizer.encode(text)[: ids.shape[1] - 2], framing.end]
        ids[i, : len(row)] = torch.tensor(row)
    return ids


def of_transformers(kind: str, model: Any, ids: Tensor, pad: int) -> Tensor:
    """Text features of transformers' own model, masked as its processor does; SigLIP's gives no mask."""
    mask = {} if kind.startswith("siglip") else {"attention_mask": behind_end(ids, pad)}
    return features_of(model.get_text_features(input_ids=ids, **mask))


def behind_end(ids: Tensor, pad: int) -> Tensor:
    return (ids != pad).long()


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_sources_promises_are_kept(small: Any, kind: str) -> None:
    check_source(Transformers, str(small(kind).folder))


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_scores_are_those_of_transformers(small: Any, kind: str) -> None:
    _, model, backbone = small(kind)
    ids, pad = prompts(backbone), backbone.tokenizer.framing.pad
    text = backbone.text(backbone.text.embed(ids), ids)
    assert distance(text, of_transformers(kind, model, ids, pad)) < 1e-6
    pixels = torch.randn(5, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))
    images = backbone.encode_image(pixels)
    assert distance(images, features_of(model.get_image_features(pixel_values=pixels))) < 1e-6
    mask = {} if kind.startswith("siglip") else {"attention_mask": behind_end(ids, pad)}
    scores = model(input_ids=ids, pixel_values=pixels, **mask).logits_per_image
    normalised = (images / images.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True))
    assert torch.allclose(backbone.score_head(*normalised), scores, atol=1e-5, rtol=1e-5)
    assert backbone.score_head.link == ("sigmoid" if kind.startswith("siglip") else "softmax")


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_the_text_towers(small: Any, kind: str) -> None:
    """Which positions a feature depends on, by changing one after another."""
    backbone = small(kind).backbone
    tower, framing = backbone.text, backbone.tokenizer.framing
    ids = prompts(backbone, ("red cat",))
    end = int((ids[0] == framing.end).int().argmax())
    vectors = tower.embed(ids)
    changed = vectors.repeat(ids.shape[1], 1, 1)
    places = torch.arange(ids.shape[1])
    changed[places, places] += torch.linspace(-2, 2, tower.width)
    difference = (tower(changed, ids.expand(len(changed), -1)) - tower(vectors, ids)).abs().amax(dim=1)
    seen = difference > 1e-4
    if kind.startswith("siglip"):
        assert seen.all() and tower.padding_matters and tower.pooling == "last" and framing.start is None
    else:
        assert seen[: end + 1].all() and not seen[end + 1 :].any() and not tower.padding_matters
    assert tower.causal == (kind in ("clip", "metaclip_2"))
    assert tower.pooling == {"clip": "argmax", "metaclip_2": "eos"}.get(kind, "last" if "siglip" in kind else "first")
    assert tower.any_length == (kind in PAD_MASKED) and tower.depth == 2
    assert (tower.open is None) == (kind in PAD_MASKED)


@pytest.mark.parametrize("kind", PAD_MASKED)
def test_prompts_that_are_cut_have_the_same_features(small: Any, kind: str) -> None:
    backbone = small(kind).backbone
    ids = prompts(backbone)
    full = backbone.text(backbone.text.embed(ids), ids)
    for row, feature in zip(ids, full, strict=True):
        cut = row[: int((row == backbone.tokenizer.framing.end).int().argmax()) + 1][None]
        assert distance(backbone.text(backbone.text.embed(cut), cut)[0], feature) < 1e-6


@pytest.mark.parametrize("kind", PAD_MASKED)
def test_gradients_are_those_through_transformers_own_embeddings(small: Any, kind: str) -> None:
    """Two learned vectors before the name, whose ids say nothing but that they are no padding."""
    _, model, backbone = small(kind)
    framing = backbone.tokenizer.framing
    ids = prompts(backbone)
    ids[:, 1:3] = framing.placeholder
    context = torch.randn(2, backbone.text.width, generator=torch.Generator().manual_seed(2))
    weights = torch.linspace(-1, 1, len(ids) * backbone.embed_dim).view(len(ids), -1)
    gradients = []
    for own in (True, False):
        learned = context.clone().requires_grad_()
        vectors = backbone.text.embed(ids).index_put((torch.tensor(0), torch.tensor(0)), torch.zeros(()))
        vectors = torch.cat([backbone.text.embed(ids[:, :1]), learned.expand(len(ids), -1, -1), vectors[:, 3:]], dim=1)
        if own:
            features = backbone.text(vectors, ids)
        else:
            mask, positions = behind_end(ids, framing.pad), {}
            if kind == "altclip":  # counted over what is no padding, which vectors alone do not say
                positions = {"position_ids": mask.cumsum(1) * mask + framing.pad}
            hidden = model.text_model(inputs_embeds=vectors, attention_mask=mask, **positions)[0]
            features = model.text_projection(hidden[:, 0])
        (features * weights).sum().backward()
        assert learned.grad is not None
        gradients.append(learned.grad)
    assert distance(*gradients) < 1e-5


def test_tokenizers_frame_as_transformers_does(small: Any) -> None:
    for kind in KINDS[1:]:
        folder, _, backbone = small(kind)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        length = backbone.text.context_length
        texts = [text.lower() for text in TEXTS] if kind == "siglip2" else list(TEXTS)
        wanted = theirs(texts, padding="max_length", max_length=length, truncation=True, padding_side="right")
        short = [len(backbone.tokenizer.encode(text)) <= length - 2 for text in TEXTS]
        assert any(short)
        assert torch.equal(prompts(backbone)[short], torch.tensor(wanted.input_ids)[short])


def test_siglip_pads_with_its_end_and_siglip_2_does_not(small: Any) -> None:
    one, two = (small(kind).backbone.tokenizer for kind in ("siglip", "siglip2"))
    assert one.framing.end == one.framing.pad == 1 and one.framing.start is None
    assert (two.framing.start, two.framing.end, two.framing.pad) == (None, 1, 0)
    # Both learned from lower case; SigLIP without punctuation.
    assert one.encode("A Red, CAT!") == one.encode("a red cat")
    assert two.encode("A RED cat.") == two.encode("a red cat.") != two.encode("a red cat")


@pytest.mark.parametrize(("kind", "text"), [("align", "a [SEP] cat [PAD]"), ("altclip", "a </s> cat <s>")])
def test_no_text_becomes_a_token_that_frames(small: Any, kind: str, text: str) -> None:
    tokenizer = small(kind).backbone.tokenizer
    framing = tokenizer.framing
    assert not {framing.start, framing.end, framing.pad} & set(tokenizer.encode(text))


def test_the_image_tower_takes_tokens_where_it_is_clips(small: Any) -> None:
    for kind in KINDS:
        image = small(kind).backbone.image
        assert image.depth == (0 if kind == "align" or kind.startswith("siglip") else 2)


@pytest.mark.parametrize("kind", ["siglip", "align"])
def test_image_towers_can_be_exchanged(small: Any, kind: str) -> None:
    backbone = small(kind).backbone
    tower = backbone.image_tower()
    with torch.no_grad():
        for weight in tower.parameters():
            weight.mul_(1.01)
    other = backbone.with_image_tower(tower)
    pixels = torch.randn(2, 3, *backbone.preprocessing.size)
    assert other.fingerprint != backbone.fingerprint
    assert not torch.allclose(other.encode_image(pixels), backbone.encode_image(pixels))


@pytest.mark.parametrize("kind", ["align", "siglip"])
def test_coop_learns_is_saved_and_loaded(small: Any, kind: str, tmp_path: Path) -> None:
    folder, _, backbone = small(kind)
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(3, backbone.embed_dim)), 4, axis=0)
    features = (centres + 0.3 * random.normal(size=centres.shape)).astype(np.float32)
    labels = np.repeat(["red cat", "dog", "old tree"], 4)
    method = CoOp(f"transformers:{folder}", n_ctx=2, recipe={"lr": 0.02, "epochs": 25, "views": 2})
    method.fit(features, labels)
    assert method.losses_[-1] < 0.9 * method.losses_[0] and method.score(features, labels) > 0.8
    method.save(tmp_path / "prompt")
    loaded = coopt.load(tmp_path / "prompt")
    assert np.array_equal(loaded.predict_proba(features), method.predict_proba(features))


def test_usual_values_are_those_of_transformers() -> None:
    for kind, family in FAMILIES.items():
        config = getattr(transformers, family.model.replace("Model", "Config"))()
        for tower, usual in ((config.text_config, family.text), (config.vision_config, family.vision)):
            theirs = tower.to_dict()
            assert {key: theirs[key] for key in usual} == dict(usual), kind
        assert getattr(config, "projection_dim", 512) == family.projection


# ---- one model in three formats


def three_formats(folder: Path) -> tuple[Any, Any]:
    """(open_clip's model, transformers' with the same weights), saved in the formats of both and in OpenAI's."""
    model = small_model(quick_gelu=True)
    save_folder(model, folder / "open_clip", {**configuration(), "quick_gelu": True})
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    torch.save(model.state_dict() | {key: torch.tensor(value) for key, value in numbers.items()}, folder / "openai.pt")
    text, vision = (
        {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 1}
        for width in (TEXT["width"], VIT["width"])
    )
    config = transformers.CLIPConfig(
        text_config={**text, "eos_token_id": 2},
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    theirs = transformers.CLIPModel(config).eval().requires_grad_(False)
    state, visual = theirs.state_dict(), model.visual
    copies = {
        "text_model.embeddings.token_embedding.weight": model.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": model.positional_embedding,
        "text_model.final_layer_norm.weight": model.ln_final.weight,
        "text_model.final_layer_norm.bias": model.ln_final.bias,
        "text_projection.weight": model.text_projection.T,
        "vision_model.embeddings.class_embedding": visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": visual.positional_embedding,
        "visual_projection.weight": visual.proj.T,
        "logit_scale": model.logit_scale,
    }
    for ours, name in ((visual.ln_pre, "pre_layrnorm"), (visual.ln_post, "post_layernorm")):
        copies |= {f"vision_model.{name}.{end}": getattr(ours, end) for end in ("weight", "bias")}
    for tower, blocks in (("text_model", model.transformer.resblocks), ("vision_model", visual.transformer.resblocks)):
        for i, block in enumerate(blocks):
            at = f"{tower}.encoder.layers.{i}"
            pairs = {
                "layer_norm1": block.ln_1, "layer_norm2": block.ln_2, "mlp.fc1": block.mlp.c_fc,
                "mlp.fc2": block.mlp.c_proj, "self_attn.out_proj": block.attn.out_proj,
            }  # fmt: skip
            for end in ("weight", "bias"):
                copies |= {f"{at}.{name}.{end}": getattr(module, end) for name, module in pairs.items()}
                three = getattr(block.attn, f"in_proj_{end}").chunk(3)
                copies |= {f"{at}.self_attn.{one}_proj.{end}": part for one, part in zip("qkv", three, strict=True)}
    assert set(copies) == {name for name in state if "position_ids" not in name}
    for name, value in copies.items():
        state[name].copy_(value)
    theirs.save_pretrained(folder / "transformers")
    (folder / "transformers" / "preprocessor_config.json").write_text(
        '{"do_resize": true, "size": 32, "crop_size": 32, "do_center_crop": true, "do_normalize": true, "resample": 3}'
    )
    return model, theirs


def test_one_model_in_three_formats(tmp_path: Path) -> None:
    model, theirs = three_formats(tmp_path)
    names = (
        f"openclip:local-dir:{tmp_path}/open_clip",
        f"openai:{tmp_path}/openai.pt",
        f"transformers:{tmp_path}/transformers",
    )
    backbones = [load_backbone(name) for name in names]
    assert all(isinstance(backbone, ClipBackbone) for backbone in backbones)
    ids, pixels = prompts(backbones[0], TEXTS), torch.randn(4, 3, 32, 32)
    assert len({backbone.fingerprint for backbone in backbones}) == 1
    for backbone in backbones:
        text, images = backbone.text(backbone.text.embed(ids), ids), backbone.encode_image(pixels)
        assert torch.equal(text, model.encode_text(ids)) and torch.equal(images, model.encode_image(pixels))
        assert backbone.preprocessing == backbones[0].preprocessing and backbone.text.open is not None
        assert backbone.score_head == backbones[0].score_head
    assert distance(model.encode_text(ids), features_of(theirs.get_text_features(input_ids=ids))) < 1e-6
    assert distance(model.encode_image(pixels), features_of(theirs.get_image_features(pixel_values=pixels))) < 1e-6


def test_clip_needs_neither_transformers_nor_open_clip(small: Any) -> None:
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        f"from coopt.backbones import load_backbone; load_backbone('transformers:{small('clip').folder}')\n"
        "assert 'open_clip' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"text_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-2}, "projection_dim": 20},
        {"vision_config": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-2, "num_attention_heads": 2}},
        {"text_config": {"eos_token_id": 2, "num_attention_heads": 1}},
    ],
    ids=str,
)
def test_settings_of_clip_come_from_its_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = made("clip", tmp_path, **changes)
    backbone = load_backbone(f"transformers:{tmp_path}")
    assert isinstance(backbone, ClipBackbone)
    ids, pixels = prompts(backbone), torch.randn(2, 3, 32, 32)
    assert distance(backbone.text(backbone.text.embed(ids), ids), of_transformers("clip", model, ids, 0)) < 1e-6
    assert distance(backbone.encode_image(pixels), features_of(model.get_image_features(pixel_values=pixels))) < 1e-6
