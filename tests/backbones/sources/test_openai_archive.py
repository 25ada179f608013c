"""OpenAI's archives, made here: a small model is scripted or traced, saved by TorchScript, and read back by us."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from coopt.backbones.sources.openai_archive import from_state_dict, infer_architecture, load_openai
from coopt.backbones.sources.openclip_loading import load_openclip
from coopt.errors import BackboneError, UnsafePickleError, WeightsNotFoundError
from tests.backbones.small_models import RESNET, VIT, small_model

# Plain state dicts of small models are no archives of OpenAI's; what is said of them is tested in test_assumptions.py.
pytestmark = pytest.mark.filterwarnings("ignore::coopt.errors.WeightsWarning")


def save_archive(model: Any, path: Path, half: bool = False, trace: bool = False) -> Path:
    """The model as OpenAI published theirs: TorchScript, with three numbers as buffers beside the weights."""
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    for name, number in numbers.items():
        if hasattr(model, name):  # open_clip keeps two of them as plain integers
            delattr(model, name)
        model.register_buffer(name, torch.tensor(number))
    if half:
        for part in model.modules():
            if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d)):
                part.half()
    if trace:
        script = torch.jit.trace(
            model, (torch.randn(1, 3, 32, 32), torch.randint(0, 49408, (1, 77))), check_trace=False
        )
    else:
        script = torch.jit.script(model)
    torch.jit.save(script, path)
    for name, number in numbers.items():
        delattr(model, name)
        setattr(model, name, number)
    return path


def assert_same_model(backbone: Any, model: Any, tolerance: float = 1e-5) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    ids = torch.zeros(2, 77, dtype=torch.long)
    ids[:, :4] = torch.tensor([[49406, 320, 1929, 49407], [49406, 320, 2368, 49407]])
    torch.testing.assert_close(
        backbone.encode_image(pixels), model.encode_image(pixels), atol=tolerance, rtol=tolerance
    )
    torch.testing.assert_close(
        backbone.text(backbone.text.embed(ids), ids), model.encode_text(ids), atol=tolerance, rtol=tolerance
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_archive_gives_the_model_back(tmp_path: Path, vision: dict, trace: bool) -> None:
    model = small_model(quick_gelu=True, vision_cfg=vision) if vision is VIT else resnet()
    path = save_archive(model, tmp_path / "small.pt", trace=trace)
    backbone = load_openai(path)
    assert_same_model(backbone, model)
    assert backbone.name == f"openai:{path}"
    assert backbone.preprocessing.size == (32, 32) and backbone.embed_dim == 32
    assert backbone.text.heads == 1 and backbone.text.pooling == "argmax" and backbone.text.causal
    assert backbone.text.open is not None and type(backbone.text.open.blocks[0].activation).__name__ == "QuickGELU"
    # the same weights from a plain state dict are the same backbone
    torch.save({"state_dict": model.state_dict()}, tmp_path / "plain.pt")
    assert load_openai(tmp_path / "plain.pt").fingerprint == backbone.fingerprint


def resnet() -> Any:
    import open_clip

    from tests.backbones.small_models import configuration, scramble

    config = {**configuration(), "vision_cfg": RESNET}
    return scramble(open_clip.CLIP(**config, quick_gelu=True).eval().requires_grad_(False))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    model = small_model(quick_gelu=True)
    path = save_archive(model, tmp_path / "half.pt", half=True)
    backbone = load_openai(path)
    assert {weight.dtype for weight in backbone.model.parameters()} == {torch.float32}
    assert not any(weight.requires_grad for weight in backbone.model.parameters())
    assert_same_model(backbone, model.float())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_archive_under_a_model_name_is_quick_gelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """openclip:MODEL/./archive.pt of OpenAI's weights must not fall back on GELU, as open_clip does."""
    from coopt.backbones.sources import openclip_names, openclip_suggestions
    from tests.backbones.small_models import CLIP

    for module in (openclip_names, openclip_suggestions):
        monkeypatch.setattr(module, "model_configs", lambda: {"small": CLIP})
    model = small_model(quick_gelu=True)
    path = save_archive(model, tmp_path / "small.pt")
    assert_same_model(load_openclip(f"small/{path}"), model)


def test_golden_weights_are_what_they_were_generated_from() -> None:
    model = small_model(quick_gelu=True)
    backbone = from_state_dict(model.state_dict(), "mine")
    assert backbone.name == "mine" and "mine" in repr(backbone)
    assert_same_model(backbone, model)


def test_architecture_of_openais_own_models() -> None:
    """The shapes of ViT-B/32 and RN50x4 as OpenAI published them, on tensors without data."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    text = {
        "ln_final.weight": empty(640),
        "positional_embedding": empty(77, 640),
        "token_embedding.weight": empty(49408, 640),
        "text_projection": empty(640, 640),
        **{f"transformer.resblocks.{i}.ln_1.weight": empty(640) for i in range(12)},
    }
    blocks = {f"visual.layer{s + 1}.{i}.bn1.weight": empty(1) for s, n in enumerate((4, 6, 10, 6)) for i in range(n)}
    resnet = {
        **blocks,
        "visual.layer1.0.conv1.weight": empty(80, 80, 1, 1),
        "visual.attnpool.positional_embedding": empty(82, 2560),
    }
    config = infer_architecture({**text, **resnet}, "RN50x4")
    assert config["vision_cfg"] == {"layers": (4, 6, 10, 6), "width": 80, "head_width": 64, "image_size": 288}
    expected = {"context_length": 77, "vocab_size": 49408, "width": 640, "heads": 10, "layers": 12}
    assert config["text_cfg"] == expected and config["embed_dim"] == 640
    vit = {
        "visual.proj": empty(768, 640),
        "visual.conv1.weight": empty(768, 3, 32, 32),
        "visual.positional_embedding": empty(50, 768),
        **{f"visual.transformer.resblocks.{i}.ln_1.weight": empty(768) for i in range(12)},
    }
    config = infer_architecture({**text, **vit}, "ViT-B/32")
    assert config["vision_cfg"] == {
        "layers": 12,
        "width": 768,
        "head_width": 64,
        "patch_size": 32,
        "image_size": 224,
    }


def test_missing_file() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"The weights file /nowhere/ViT-B-16.pt does not exist"):
        load_openai("/nowhere/ViT-B-16.pt")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"is a folder, not a file"):
        load_openai(tmp_path)


def test_other_weights(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(
        BackboneError, match=r"no weight 'ln_final.weight': these are not the weights of an OpenAI CLIP"
    ):
        load_openai(tmp_path / "other.pt")
    state = dict(small_model(quick_gelu=True).state_dict())
    del state["visual.ln_post.bias"]
    with pytest.raises(BackboneError, match=r"not those of an OpenAI CLIP.*visual\.ln_post\.bias"):
        from_state_dict(state, "mine")
    del state["visual.positional_embedding"]
    with pytest.raises(BackboneError, match=r"no weight 'visual\.positional_embedding'"):
        from_state_dict(state, "mine")


@pytest.mark.parametrize("content", [[1, 2], {"a": "text"}, {}, {1: torch.zeros(1)}], ids=str)
def test_file_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(BackboneError, match=r"odd.pt (holds no weights|is not a state dict)"):
        load_openai(tmp_path / "odd.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_truncated_archive(tmp_path: Path) -> None:
    path = save_archive(small_model(quick_gelu=True), tmp_path / "small.pt")
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BackboneError, match=r"small.pt is (damaged|not|empty)"):
            load_openai(path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_flipped_bytes_in_an_archive(tmp_path: Path) -> None:
    path = save_archive(small_model(quick_gelu=True), tmp_path / "small.pt")
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 5000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"small.pt is damaged"):
        load_openai(path)


def test_hostile_archive(tmp_path: Path) -> None:
    """A TorchScript archive whose pickle calls os.system is refused, and the call is not made."""
    marker = tmp_path / "owned"
    program = b"cos\nsystem\n(X" + len(f"touch {marker}").to_bytes(4, "little") + f"touch {marker}".encode() + b"tR."
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", program)
        archive.writestr("evil/version", "3")
    with pytest.raises(UnsafePickleError, match=r"evil.pt asks for os.system.*nothing of it was run"):
        load_openai(tmp_path / "evil.pt")
    assert not marker.exists()
