"""What lies in a folder of the package transformers: weights in every form, and whatever may be wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from coopt.backbones import load_backbone
from coopt.backbones.names import check_backbone_name
from coopt.errors import BackboneError, UnsafePickleError, UnsupportedBackboneError, WeightsNotFoundError

from .small_transformers import made, parts_of

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("original") / "model"
    return folder, made("chinese_clip", folder)


@pytest.fixture
def folder(original: tuple[Path, Any], tmp_path: Path) -> Path:
    """A folder of its own, whose files a test may damage."""
    return Path(shutil.copytree(original[0], tmp_path / "model"))


def message_of(name: str) -> str:
    """The one sentence, or a few, that are said of a name before anything is loaded."""
    with pytest.raises(BackboneError) as caught:
        check_backbone_name(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and key in content else value
    path.write_text(json.dumps(content))


# ---- weights


def _safetensors(model: Any, folder: Path) -> None:
    save_file(model.state_dict(), folder / "model.safetensors")


def _bin(model: Any, folder: Path) -> None:
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _parts(save: Callable, suffix: str) -> Callable[[Any, Path], None]:
    def write(model: Any, folder: Path) -> None:
        first, last = suffix
        table = {}
        for i, part in enumerate(parts_of(model, 3)):
            name = f"{first}-{i + 1:05}-of-00003.{last}"
            save(part, folder / name)
            table |= dict.fromkeys(part, name)
        (folder / f"{first}.{last}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))

    return write


def _with_leftovers(model: Any, folder: Path) -> None:
    """As older versions of transformers saved: with buffers, with a pooler of no use, under a prefix."""
    more = {
        "text_model.embeddings.position_ids": torch.arange(28)[None],
        "text_model.pooler.dense.bias": torch.ones(32),
    }
    torch.save(
        {f"module.{key}": value for key, value in (model.state_dict() | more).items()}, folder / "pytorch_model.bin"
    )


@pytest.mark.parametrize(
    "write",
    [
        _bin,
        _with_leftovers,
        _parts(save_file, ("model", "safetensors")),  # type: ignore[arg-type]
        _parts(torch.save, ("pytorch_model", "bin")),  # type: ignore[arg-type]
    ],
    ids=["bin", "leftovers", "safetensors in parts", "bin in parts"],
)
def test_weights_in_every_form_are_the_same_model(original: tuple[Path, Any], folder: Path, write: Callable) -> None:
    expected = load_backbone(f"transformers:{original[0]}")
    (folder / "model.safetensors").unlink()
    write(original[1], folder)
    backbone = load_backbone(f"transformers:{folder}")
    assert backbone.fingerprint == expected.fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_become_32(original: tuple[Path, Any], folder: Path, dtype: torch.dtype) -> None:
    save_file({key: value.to(dtype) for key, value in original[1].state_dict().items()}, folder / "model.safetensors")
    backbone = load_backbone(f"transformers:{folder}")
    weight = original[1].visual_projection.weight
    assert torch.equal(backbone.model.get_parameter("visual.proj"), weight.to(dtype).float().T)
    assert all(weight.dtype == torch.float32 for weight in backbone.model.parameters())


def test_nothing_is_unpickled(folder: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple:
            return exec, ("raise SystemExit('it was run')",)

    (folder / "model.safetensors").unlink()
    torch.save({"text_model.embeddings.x": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafePickleError):
        load_backbone(f"transformers:{folder}")


def test_weights_of_another_model(original: tuple[Path, Any], folder: Path) -> None:
    state = original[1].state_dict()
    key = "text_model.encoder.layer.1.attention.self.key.weight"
    faults = {
        "key.weight' is missing": {name: value for name, value in state.items() if name != key},
        "text.ln_embedding.weight": {
            name: value for name, value in state.items() if "embeddings.LayerNorm" not in name
        },
        "text.more": state | {"text_model.more": torch.ones(3)},
        "size mismatch": state | {"text_projection.weight": torch.ones(3, 3)},
    }
    for words, weights in faults.items():
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(BackboneError, match="are not those of") as caught:
            load_backbone(f"transformers:{folder}")
        assert words in str(caught.value) and "\n" not in str(caught.value)
    (folder / "model.safetensors").write_bytes((original[0] / "model.safetensors").read_bytes()[:-5000])
    with pytest.raises(BackboneError, match="damaged or cut short"):
        load_backbone(f"transformers:{folder}")


# ---- what is wrong with a folder


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "has no config.json; it is not a model in the format of the package transformers"),
        ("config.json", "{", "config.json cannot be read as JSON"),
        ("config.json", "[]", "config.json must hold a JSON object. Got list instead."),
        ("config.json", "version https://git-lfs.github.com/spec/v1\noid", "config.json is a pointer of git-lfs"),
        ("config.json", '{"model_type": "blip", "architectures": ["BlipModel"]}', "a model of the type 'blip' (BlipMo"),
        (
            "config.json",
            "{}",
            "of no type, which coopt does not read. It reads the model types clip (CLIP, MetaCLIP), m",
        ),
        ("config.json", '{"model_type": "siglip2"}', "a SigLIP 2 of the NaFlex kind"),
        ("config.json", '{"model_type": "clip", "architectures": ["CLIPTextModel"]}', "Expected a whole CLIPModel"),
        ("config.json", '{"model_type": "clip", "text_config": 3}', "is not the configuration of a CLIPModel"),
        ("preprocessor_config.json", None, "does not say how images are prepared: expected preprocessor_config.json"),
        ("preprocessor_config.json", "no", "preprocessor_config.json cannot be read as JSON"),
        ("vocab.txt", None, "has no tokenizer: expected tokenizer.json, vocab.json, vocab.txt"),
        ("model.safetensors", None, "has no weights: expected model.safetensors or pytorch_model.bin, or one of them"),
        ("model.safetensors", "", "is empty"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of git-lfs"),
    ],
)
def test_damaged_and_missing_files(folder: Path, file: str, content: str | None, words: str) -> None:
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    assert words in message_of(f"transformers:{folder}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"text_config": {"hidden_act": "swish"}},
            "text_config.hidden_act is 'swish', and coopt reads a ChineseCLIPModel",
        ),
        ({"text_config": {"num_attention_heads": 5}}, "hidden_size is no multiple of num_attention_heads"),
        ({"text_config": {"num_hidden_layers": "two"}}, "num_hidden_layers is 'two'"),
        ({"text_config": {"position_embedding_type": "relative_key"}}, "position_embedding_type is 'relative_key'"),
        ({"vision_config": {"num_channels": 1}}, "num_channels is 1, and coopt reads a ChineseCLIPModel with 3 alone"),
        ({"vision_config": {"image_size": [32, 64]}}, "image_size and patch_size is [[32, 64], 8]"),
        ({"vision_config": {"image_size": 48}}, "images have 48 x 48 pixels, and the image processor beside it makes"),
    ],
    ids=str,
)
def test_settings_of_the_model_that_are_not_known(folder: Path, changes: dict[str, Any], words: str) -> None:
    change(folder / "config.json", **changes)
    assert words in message_of(f"transformers:{folder}")


def test_parts_that_are_missing(original: tuple[Path, Any], folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    _parts(save_file, ("model", "safetensors"))(original[1], folder)  # type: ignore[arg-type]
    (folder / "model-00002-of-00003.safetensors").unlink()
    said = message_of(f"transformers:{folder}")
    assert "index.json names 3 files with weights, of which model-00002-of-00003.safetensors are missing" in said
    index = folder / "model.safetensors.index.json"
    for content in ("{}", '{"weight_map": {"a": "../../b"}}', '{"weight_map": 3}'):
        index.write_text(content)
        assert "is no index of weights" in message_of(f"transformers:{folder}")


def test_names_that_lead_nowhere(cache: Path, folder: Path, tmp_path: Path) -> None:
    assert "does not exist. Check the path, or write transformers:ORG/NAME" in message_of("transformers:./no/such")
    said = message_of("transformers:org/mine")
    assert f"looked for its config.json in the Hugging Face cache {cache}" in said
    assert "load_backbone(..., download=True)" in said
    assert f"is a file and not a folder. Write 'transformers:{folder}'" in message_of(
        f"transformers:{folder}/vocab.txt"
    )
    (tmp_path / "empty").mkdir()
    assert "It holds no model" in message_of(f"transformers:{tmp_path}/empty")
    check_backbone_name("transformers:org/mine", download=True)
    assert f"write 'transformers:{folder}'" in message_of(str(folder))


def test_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    check_backbone_name("transformers:~/model")


def test_tokenizers_of_another_model(folder: Path, tmp_path: Path) -> None:
    with (folder / "vocab.txt").open("a") as file:
        file.write("one\ntoo\nmany\n")
    with pytest.raises(BackboneError, match="the text tower has 144 tokens, and its tokenizer 147"):
        load_backbone(f"transformers:{folder}")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError, match=r"The tokenizer in .* cannot be read by transformers \d"):
        load_backbone(f"transformers:{folder}")
    made("clip", tmp_path / "clip", text_config={"eos_token_id": 49000})
    with pytest.raises(BackboneError, match="reads out at the token 49000, and its tokenizer ends with 49407"):
        load_backbone(f"transformers:{tmp_path}/clip")


def test_code_of_others_is_not_run(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('it was run')")
    (folder / "vocab.txt").rename(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["code.Mine", None]}})
    )
    with pytest.raises(BackboneError, match=r"The tokenizer in .* cannot be read by transformers"):
        load_backbone(f"transformers:{folder}")


def test_transformers_is_not_installed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("clip", tmp_path / "clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = r"A ChineseCLIPModel needs the package transformers, which is not installed: pip install 'coopt\[transformers\]'"
    with pytest.raises(BackboneError, match=words):
        check_backbone_name(f"transformers:{folder}")
    check_backbone_name(f"transformers:{tmp_path}/clip")
    vocabulary = json.loads((tmp_path / "clip" / "vocab.json").read_text())
    (tmp_path / "clip" / "vocab.json").write_text(json.dumps({**vocabulary, "cat</w>": vocabulary["dog</w>"]}))
    with pytest.raises(BackboneError, match=r"The tokenizer in .*clip needs the package transformers"):
        load_backbone(f"transformers:{tmp_path}/clip")


def test_names_are_checked_without_torch_and_transformers(folder: Path) -> None:
    program = (
        f"import sys; from coopt.backbones.names import check_backbone_name as check; check('transformers:{folder}'); "
        "sys.exit(3 * bool({'torch', 'transformers', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- how images are prepared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resample": 0}, "resample is 0, and coopt prepares bilinear (2) or bicubic (3) interpolation alone"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False}, "do_center_crop is False, and coopt prepares images of one size"),
        ({"do_pad": True}, "do_pad is True"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size is {'shortest_edge': 32, 'longest_edge': 64}"),
        ({"size": "large"}, "settings that coopt does not understand"),
        ({"image_mean": [0.5, 0.5]}, "settings that coopt does not understand (ValueError: expected three finite"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "names the image processor 'Siglip2ImageProcessor'"),
    ],
    ids=str,
)
def test_settings_of_the_image_processor_that_are_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UnsupportedBackboneError):
        check_backbone_name(f"transformers:{folder}")
    assert words in message_of(f"transformers:{folder}")


def test_settings_of_the_image_processor_that_are_not_known_are_named(folder: Path) -> None:
    change(folder / "preprocessor_config.json", do_sharpen=True, do_blur=False, sharpness=3)
    with pytest.warns(match=r"does not know and leaves out: do_sharpen = True, sharpness = 3"):
        check_backbone_name(f"transformers:{folder}")


def test_settings_within_the_processors_own_file(folder: Path) -> None:
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    expected = load_backbone(f"transformers:{folder}").preprocessing
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "X", "image_processor": settings}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_backbone_name(f"transformers:{folder}")
    assert load_backbone(f"transformers:{folder}", "cpu").preprocessing == expected
    (folder / "processor_config.json").write_text("{}")
    with pytest.raises(WeightsNotFoundError, match="does not say how images are prepared"):
        check_backbone_name(f"transformers:{folder}")
