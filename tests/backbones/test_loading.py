from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coopt.backbones import Backbone, list_backbones, load_backbone
from coopt.errors import BackboneError, ParameterError, WeightsNotFoundError

from .small_models import save_folder, small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(small_model(), tmp_path_factory.mktemp("small"))


def test_one_model_per_name_and_device(folder: Path) -> None:
    name = f"openclip:local-dir:{folder}"
    backbone = load_backbone(name)
    assert load_backbone(name) is backbone is load_backbone(name, device=str(backbone.device))
    assert load_backbone(backbone) is backbone
    assert backbone.name == name and isinstance(backbone, Backbone)
    # scikit-learn's clone copies parameters deeply
    assert copy.deepcopy(backbone) is backbone and copy.copy(backbone) is backbone


def test_relative_paths_follow_the_working_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_folder(small_model(seed=1), tmp_path / "other")
    monkeypatch.chdir(folder)
    here = load_backbone("openclip:local-dir:.", device="cpu")
    monkeypatch.chdir(other)
    assert load_backbone("openclip:local-dir:.", device="cpu").fingerprint != here.fingerprint


def test_fingerprint_is_of_architecture_and_weights(folder: Path, tmp_path: Path) -> None:
    first = load_backbone(f"openclip:local-dir:{folder}", device="cpu")
    same = load_backbone(f"openclip:local-dir:{save_folder(small_model(), tmp_path / 'same')}", device="cpu")
    assert first is not same and first.fingerprint == same.fingerprint and len(first.fingerprint) == 64
    other = load_backbone(f"openclip:local-dir:{save_folder(small_model(seed=1), tmp_path / 'other')}", device="cpu")
    assert other.fingerprint != first.fingerprint
    # the same weights under another number of heads give other answers
    from .small_models import configuration

    config = configuration(text_cfg={"heads": 2})
    heads = load_backbone(f"openclip:local-dir:{save_folder(small_model(), tmp_path / 'heads', config)}", device="cpu")
    assert heads.fingerprint != first.fingerprint


def test_goes_to_worker_processes(folder: Path) -> None:
    backbone = load_backbone(f"openclip:local-dir:{folder}", device="cpu")
    again = pickle.loads(pickle.dumps(backbone))
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.encode_image(pixels), backbone.encode_image(pixels))
    assert again.fingerprint == backbone.fingerprint and again.tokenizer.encode("a dog") == [320, 1929]


def test_encode_image(folder: Path) -> None:
    backbone = load_backbone(f"openclip:local-dir:{folder}", device="cpu")
    features = backbone.encode_image(torch.randn(3, 3, 32, 32))
    assert features.shape == (3, backbone.embed_dim) and features.dtype == torch.float32
    assert not features.requires_grad
    # usable in a graph, which tensors of torch's inference mode are not
    (features * torch.ones(backbone.embed_dim, requires_grad=True)).sum().backward()
    with pytest.raises(ParameterError, match=r"takes pixels of height and width \(32, 32\). Got \(16, 32\) instead"):
        backbone.encode_image(torch.randn(1, 3, 16, 32))


def test_gradients_reach_given_vectors(folder: Path) -> None:
    text = load_backbone(f"openclip:local-dir:{folder}", device="cpu").text
    ids = torch.zeros(1, 77, dtype=torch.long)
    ids[0, :3] = torch.tensor([49406, 320, 49407])
    embeddings = text.embed(ids).clone().requires_grad_()
    feature = text(embeddings, ids)
    feature.sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad[0, :3].abs().amax(-1) > 0).all() and not embeddings.grad[0, 3:].any()


@pytest.mark.parametrize("name", ["vit", "openclip:", "openai:", "", "x:y"])
def test_unknown_kind(name: str) -> None:
    with pytest.raises(BackboneError, match=r"There is no backbone '.*'. Write 'bundled', 'openclip:MODEL/TAG'"):
        load_backbone(name)


def test_not_a_name(unchecked: None) -> None:
    with pytest.raises(ParameterError, match=r"A backbone must be a name or a Backbone. Got int instead"):
        load_backbone(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), r"torch and torchvision must be of one build"),
        (
            ModuleNotFoundError("No module named 'open_clip'", name="open_clip"),
            r"open_clip is not installed: pip install",
        ),
    ],
)
def test_open_clip_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    from coopt.backbones import zoo

    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(zoo.importlib, "import_module", fail)
    with pytest.raises(BackboneError, match=message):
        zoo.import_open_clip()


def test_missing_archive() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"/no/ViT-B-16.pt does not exist"):
        load_backbone("openai:/no/ViT-B-16.pt")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta:x"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(ParameterError, match=f"The device '{device}' is not on this machine. Use 'auto', 'cpu'"):
        load_backbone("bundled", device=device)


def test_bundled() -> None:
    backbone = load_backbone("bundled", device="cpu")
    assert backbone.name == "bundled" and backbone.text.open is not None
    height, width = backbone.preprocessing.size
    assert torch.isfinite(backbone.encode_image(torch.zeros(1, 3, height, width))).all()


def test_missing_bundled_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from coopt.backbones.sources import bundled

    monkeypatch.setattr(bundled.resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsNotFoundError, match=r"bundled model is missing from this installation.*Reinstall coopt"):
        load_backbone("bundled", device="meta")


def test_listing_imports_neither_torch_nor_open_clip() -> None:
    program = (
        "import sys; from coopt.backbones import list_backbones; rows = list_backbones();"
        "assert len(rows) == 144, len(rows); assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_the_protocol_does_not_import_open_clip() -> None:
    program = (
        "import sys; from coopt.backbones import Backbone, Preprocessing, load_backbone, from_state_dict;"
        "assert 'open_clip' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_rows_of_the_list() -> None:
    rows = {row.name: row for row in list_backbones()}
    assert rows["ViT-B-16"].supported and "openai" in rows["ViT-B-16"].tags and rows["ViT-B-16"].context_length == 77
    assert rows["PE-Core-L-14-336"].context_length == 32
    assert rows["ViT-B-16"].text_path == "fast"
    assert rows["ViT-B-16-SigLIP"].supported and rows["ViT-B-16-SigLIP"].text_path == "reference"
    assert rows["ViT-B-16"].why == "" and rows["ViT-B-16-SigLIP"].why == "not causal, and padding is seen"
    assert rows["coca_ViT-B-32"].text_path == "reference" and rows["coca_ViT-B-32"].context_length == 76
    assert rows["coca_ViT-B-32"].why == "a class token behind the text, which sees a token of padding"
    assert rows["roberta-ViT-B-32"].text_path == "packed" and rows["roberta-ViT-B-32"].context_length == 77
    assert rows["roberta-ViT-B-32"].why == "not causal; padding is masked"


def test_unknown_public_name() -> None:
    import coopt.backbones

    with pytest.raises(AttributeError, match="load_backbones"):
        coopt.backbones.load_backbones  # noqa: B018


def test_a_value_range_is_of_its_own_backbone() -> None:
    plain = load_backbone("bundled")
    ranged = load_backbone("bundled", value_range=(0, 4095))
    assert ranged.preprocessing.value_range == (0, 4095)
    assert load_backbone("bundled").preprocessing.value_range is None  # which others share
    assert ranged.model is plain.model and ranged.fingerprint == plain.fingerprint
    assert pickle.loads(pickle.dumps(ranged)).preprocessing == ranged.preprocessing
    with pytest.raises(ParameterError, match=r"two different finite numbers"):
        plain.with_value_range((1, 1))
