"""What weights do not tell is known for certain, told, or warned about by name."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from coopt.backbones import from_state_dict, weights
from coopt.backbones.sources import assumptions, openclip_names, openclip_suggestions
from coopt.backbones.sources.openai_archive import infer_architecture, load_openai
from coopt.backbones.sources.openclip_loading import load_openclip
from coopt.backbones.sources.openclip_models import model_configs
from coopt.errors import BackboneError, WeightsWarning
from tests.backbones.small_models import CLIP, RESNET, configuration, save_folder, scramble, small_model

from .test_openai_archive import assert_same_model

NUMBERS = {name: torch.tensor(0) for name in ("input_resolution", "context_length", "vocab_size")}
OWN = r"write openclip:local-dir:FOLDER, with an open_clip_config.json in the folder"


def two_heads(vision: str = "vit") -> Any:
    """A model of open_clip's with heads 32 wide in both towers, and GELU."""
    tower = {"head_width": 32} if vision == "vit" else {**RESNET, "head_width": 32}
    config = configuration(text_cfg={"heads": 2})
    config["vision_cfg"] = {**config["vision_cfg"], **tower} if vision == "vit" else tower
    torch.manual_seed(0)
    return scramble(open_clip.CLIP(**config).eval().requires_grad_(False))


def quietly(load: Any, *arguments: Any, **options: Any) -> Any:
    """The result of a call that gives no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", WeightsWarning)
        return load(*arguments, **options)


# ---- openai:FILE


@pytest.mark.parametrize("vision", ["vit", "resnet"])
def test_weights_that_are_not_openais_are_warned_about(tmp_path: Path, vision: str) -> None:
    model = two_heads(vision)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    heads = 1 if vision == "vit" else 4
    message = (
        rf"mine.pt: weights do not tell the number of heads, the activation and how images are prepared. Assumed, as "
        rf"in OpenAI's models: heads 64 wide \({heads} in the image tower, 1 in the text tower\), QuickGELU, CLIP's "
        rf"mean and std. If that is not so, the features are wrong and no error says it: {OWN}."
    )
    with pytest.warns(WeightsWarning, match=message):
        wrong = load_openai(tmp_path / "mine.pt")
    pixels = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(wrong.encode_image(pixels), model.encode_image(pixels), atol=1e-2)


def test_told_in_python(tmp_path: Path) -> None:
    model = two_heads()
    with pytest.warns(
        WeightsWarning, match=r"^mine: .*heads 64 wide .*, QuickGELU.*: give head_width and quick_gelu.$"
    ):
        from_state_dict(model.state_dict(), "mine")
    with pytest.warns(WeightsWarning, match=r"Assumed, as in OpenAI's models: QuickGELU, CLIP's"):
        from_state_dict(model.state_dict(), "mine", head_width=32)
    with pytest.warns(WeightsWarning, match=r"Assumed, as in OpenAI's models: heads 64 wide"):
        from_state_dict(model.state_dict(), "mine", quick_gelu=False)
    assert_same_model(quietly(from_state_dict, model.state_dict(), "mine", head_width=32, quick_gelu=False), model)
    quick = small_model(quick_gelu=True)
    assert_same_model(quietly(from_state_dict, quick.state_dict(), "mine", head_width=64, quick_gelu=True), quick)


def test_told_by_a_folder(tmp_path: Path) -> None:
    config = configuration(vision_cfg={"head_width": 32}, text_cfg={"heads": 2})
    folder = save_folder(two_heads(), tmp_path / "mine", config, {"mean": [0.5, 0.5, 0.5]})
    assert_same_model(quietly(load_openclip, f"local-dir:{folder}"), two_heads())
    save_folder(two_heads(), folder, config, {})
    with pytest.warns(WeightsWarning, match=r"its open_clip_config.json has no preprocess_cfg.*Assumed: as for CLIP"):
        load_openclip(f"local-dir:{folder}")


def test_openais_archives_are_certain(tmp_path: Path) -> None:
    model = small_model(quick_gelu=True)
    torch.save({**model.state_dict(), **NUMBERS}, tmp_path / "small.pt")
    assert_same_model(quietly(load_openai, tmp_path / "small.pt"), model)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model as one that OpenAI published."""
    monkeypatch.setattr(assumptions, "model_configs", lambda: {"small": CLIP})
    monkeypatch.setattr(assumptions, "weight_tags", lambda: {"small": {"openai": {"quick_gelu": True}}})


def as_openai_publishes(model: Any) -> dict[str, torch.Tensor]:
    """Matrices that went through 16 bits, embeddings that did not, and a logit scale of 100."""
    state = dict(model.state_dict())
    for key, value in state.items():
        if value.ndim > 1 and "embedding" not in key:
            state[key] = value.half().float()
    return {**state, "logit_scale": torch.tensor(math.log(100))}


def test_openais_weights_without_their_archive(published: None, tmp_path: Path) -> None:
    """The state dict of `clip.load(...)`: known by shapes and arithmetic together, and by neither alone."""
    state = as_openai_publishes(small_model(quick_gelu=True))
    torch.save(state, tmp_path / "clip.pt")
    quietly(load_openai, tmp_path / "clip.pt")
    others = {
        "trained further": {**state, "transformer.resblocks.0.mlp.c_fc.weight": torch.randn(256, 64)},
        "all in 16 bits": {key: value.half() for key, value in state.items()},
        "another scale": {**state, "logit_scale": torch.tensor(4.0)},
    }
    for what, other in others.items():
        torch.save(other, tmp_path / "other.pt")
        with pytest.warns(WeightsWarning, match=r"write openclip:small//\S+/other.pt for open_clip's model of these"):
            load_openai(tmp_path / "other.pt")
        assert what
    torch.save(as_openai_publishes(small_model(quick_gelu=True, embed_dim=48)), tmp_path / "shape.pt")
    with pytest.warns(WeightsWarning, match=OWN):
        load_openai(tmp_path / "shape.pt")


def test_checkpoints_of_open_clips_training_say_so(published: None, tmp_path: Path) -> None:
    content = {"epoch": 1, "name": "2024-model_small-lr_0.1-b_8", "state_dict": small_model().state_dict()}
    torch.save(content, tmp_path / "epoch_1.pt")
    with pytest.warns(WeightsWarning, match=r"saved by open_clip's training \(run '2024-model_small-lr_0.1-b_8'\)"):
        load_openai(tmp_path / "epoch_1.pt")


def shapes_of(model: str) -> dict[str, torch.Tensor]:
    """The weights of one of open_clip's models, as shapes without data."""
    config = model_configs()[model]
    with torch.device("meta"):
        built = open_clip.CLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    return built.state_dict()


@pytest.mark.parametrize(("model", "heads"), [("ViT-H-14", 16), ("ViT-g-14", 16), ("ViT-bigG-14", 16)])
def test_shapes_of_models_with_other_heads_are_refused(model: str, heads: int) -> None:
    state = shapes_of(model)
    message = (
        rf"these are the shapes of open_clip's {model}, whose towers \(image, text\) have \({heads}, \d+\) heads .*"
        rf"openclip:{model}/./big.pt\.$"
    )
    with pytest.raises(BackboneError, match=message):
        from_state_dict(state, "openai:big.pt")
    # another image size, as after training on larger images
    state["visual.positional_embedding"] = torch.empty(1 + 24 * 24, state["visual.class_embedding"].shape[0])
    with pytest.raises(BackboneError, match=rf"the shapes of open_clip's {model}"):
        from_state_dict(state, "openai:big.pt")


@pytest.mark.parametrize("model", ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"])
def test_openais_resnets_are_recognised(model: str) -> None:
    inferred = infer_architecture(shapes_of(model), model)
    assert assumptions._shape(inferred) == assumptions._shape(model_configs()[model])
    assert assumptions._heads(inferred) == assumptions._heads(model_configs()[model])
    assumptions._refuse_other_heads(inferred, model, "")


@pytest.mark.parametrize("model", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"])
def test_openais_transformers_are_recognised(model: str) -> None:
    inferred = infer_architecture(shapes_of(model), model)
    assert assumptions._shape(inferred) == assumptions._shape(model_configs()[model])
    assert assumptions._heads(inferred) == assumptions._heads(model_configs()[model])
    assumptions._refuse_other_heads(inferred, model, "")


# ---- openclip:MODEL/FILE


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """open_clip's tables with small models: one with a QuickGELU twin, one without."""
    names_of = ("twin", "single", "mixed", "plain")
    configs = {**dict.fromkeys(names_of, CLIP), "twin-quickgelu": {**CLIP, "quick_gelu": True}}
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
    tags = {
        "twin": {
            "openai": {"hf_hub": "org/twin/", "quick_gelu": True},
            "mine": {"url": "https://example.org/twin-quick-0123abcd.pt", "quick_gelu": True},
        },
        "single": {"a": half, "b": {**half, "hf_hub": "x/y/"}},
        "mixed": {"a": half, "b": {}},
        "plain": {"a": {}},
    }
    for module in (openclip_names, openclip_suggestions, assumptions):
        monkeypatch.setattr(module, "model_configs", lambda: configs)
        monkeypatch.setattr(module, "weight_tags", lambda: tags)
    return tags


def test_activation_of_a_model_with_a_twin_is_warned_about(tables: dict, tmp_path: Path) -> None:
    model = small_model(quick_gelu=True)
    path = tmp_path / "mine.pt"
    torch.save(model.state_dict(), path)
    message = (
        rf"^openclip:twin/{path}: weights do not tell all about their model. Assumed: the activation is GELU; for "
        rf"weights that were trained with QuickGELU, as all that come from OpenAI's, write "
        rf"openclip:twin-quickgelu/{path}. If that is not so, the features are wrong and no error says it. All can be "
        rf"told with openclip:local-dir:FOLDER, with an open_clip_config.json in the folder.$"
    )
    with pytest.warns(WeightsWarning, match=message):
        load_openclip(f"twin/{path}")
    assert_same_model(quietly(load_openclip, f"twin-quickgelu/{path}"), model)


def test_certain_files_for_a_model_with_a_twin(tables: dict, tmp_path: Path) -> None:
    model = small_model(quick_gelu=True)
    archive = tmp_path / "openai.pt"
    torch.save({**model.state_dict(), **NUMBERS}, archive)
    named = tmp_path / "twin-quick-0123abcd.pt"
    cached = tmp_path / "models--org--twin" / "snapshots" / "1" / "open_clip_model.bin"
    cached.parent.mkdir(parents=True)
    for path in (named, cached):
        torch.save(model.state_dict(), path)
    for path in (archive, named, cached):
        assert_same_model(quietly(load_openclip, f"twin/{path}"), model)


def test_another_model_in_the_name_of_the_training_run(tables: dict, tmp_path: Path) -> None:
    path = tmp_path / "epoch_3.pt"
    run = {"epoch": 3, "name": "2024_01_01-model_twin-quickgelu-lr_0.1-b_8", "state_dict": small_model().state_dict()}
    torch.save(run, path)
    with pytest.warns(
        WeightsWarning, match=r"comes from a training run of twin-quickgelu; for that write openclip:twin-quick"
    ):
        load_openclip(f"twin/{path}")
    quietly(load_openclip, f"twin-quickgelu/{path}")


def test_preprocessing_of_a_file(tables: dict, tmp_path: Path) -> None:
    """As all published weights of the model have it, or CLIP's where they differ; with a warning unless all are CLIP's."""
    path = tmp_path / "mine.pt"
    torch.save(small_model().state_dict(), path)
    with pytest.warns(WeightsWarning, match=r"Assumed: images are prepared as for all published weights of single. If"):
        backbone = load_openclip(f"single/{path}")
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5) and backbone.preprocessing.resize_mode == "squash"
    with pytest.warns(
        WeightsWarning, match=r"Assumed: images are prepared as for CLIP, while published weights of mixed differ"
    ):
        backbone = load_openclip(f"mixed/{path}")
    assert backbone.preprocessing.mean[0] == pytest.approx(0.48145466)
    assert quietly(load_openclip, f"plain/{path}").preprocessing == backbone.preprocessing


def test_resized_positions_are_warned_about(tables: dict, tmp_path: Path) -> None:
    torch.save(small_model(vision_cfg={"image_size": 48}).state_dict(), tmp_path / "larger.pt")
    with pytest.warns(WeightsWarning, match=r"the weights have 37 positions where this architecture has 17 \(visual"):
        load_openclip(f"plain/{tmp_path}/larger.pt")
    save_folder(small_model(text_cfg={"context_length": 50}), tmp_path / "folder", CLIP)
    with pytest.warns(
        WeightsWarning, match=r"the weights have 50 positions where this architecture has 77 \(positional"
    ):
        load_openclip(f"local-dir:{tmp_path}/folder")


def test_which_of_open_clips_models_are_ambiguous() -> None:
    """The real tables: models with a twin are those for which weights of both activations are about."""
    ambiguous = {name for name in model_configs() if f"{name}-quickgelu" in model_configs()}
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "RN50", "RN101"} < ambiguous
    for model, tags in weights_tags_by_activation().items():
        assert model in ambiguous or len(tags) == 1, model


def weights_tags_by_activation() -> dict[str, set[bool]]:
    from coopt.backbones.sources.openclip_models import weight_tags

    found = {}
    for model, tags in weight_tags().items():
        if not model_configs()[model].get("quick_gelu"):
            found[model] = {bool(tag.get("quick_gelu")) for tag in tags.values()}
    return found


def test_the_numbers_of_openais_archives() -> None:
    assert tuple(NUMBERS) == weights.NOT_WEIGHTS
