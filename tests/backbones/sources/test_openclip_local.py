from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors.torch import save_file

from coopt.backbones import LocalBackbone, check_backbone_name, local_backbones
from coopt.backbones.sources.openclip_local import imagenet
from coopt.backbones.sources.openclip_models import model_configs, weight_tags
from tests.backbones.small_models import CLIP, put_in_cache, save_folder, small_model


def zipped(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", "")
    return path


def test_nothing_here(cache: Path) -> None:
    assert local_backbones() == ()


def test_what_is_in_the_caches_best_first(cache: Path, tmp_path: Path) -> None:
    clip = tmp_path / "home" / ".cache" / "clip"
    small = zipped(clip / "ViT-B-32.pt")
    resnet = zipped(clip / "rn50-quickgelu-yfcc15m-455df137.pt")
    zipped(clip / "another-model.pt")
    large = put_in_cache(cache, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "open_clip_model.safetensors")
    save_file(small_model().state_dict(), large)
    # its tokenizer is not here
    zipped(put_in_cache(cache, "timm/ViT-B-16-SigLIP", "open_clip_model.safetensors"))
    # in transformers' format: no weights under open_clip's names
    zipped(put_in_cache(cache, "openai/clip-vit-base-patch16", "pytorch_model.bin"))
    assert local_backbones() == (
        LocalBackbone("openclip:ViT-L-14/laion2b_s32b_b82k", large, large.stat().st_size, 75.3),
        LocalBackbone("openclip:ViT-B-32/openai", small, small.stat().st_size, 63.3),
        LocalBackbone("openclip:RN50/yfcc15m", resnet, resnet.stat().st_size, 32.8),
    )


def test_models_of_the_hub_without_a_tag(cache: Path) -> None:
    folder = put_in_cache(cache, "org/mine", "open_clip_config.json").parent
    save_folder(small_model(), folder)
    (row,) = local_backbones()
    assert row.name == "openclip:hf-hub:org/mine" and row.imagenet is None and row.bytes > 1_000_000
    config = {**CLIP, "text_cfg": {**CLIP["text_cfg"], "pool_type": "first"}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert local_backbones() == ()


def test_half_a_file_is_no_model(cache: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "home" / ".cache" / "clip" / "ViT-B-32.pt")
    path.write_bytes(path.read_bytes()[:-5])
    assert local_backbones() == ()
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert local_backbones() == ()


def test_published_numbers_are_of_tags_that_exist() -> None:
    for model, numbers in imagenet().items():
        assert model in model_configs()
        assert not set(numbers) - set(weight_tags()[model]), model
        # one file has one number, whichever of the two names it is found by
        assert not model.endswith("-quickgelu") or not set(numbers) & set(
            imagenet().get(model[: -len("-quickgelu")], {})
        )
    assert imagenet()["ViT-B-16"]["openai"] == 68.3 and imagenet()["coca_ViT-L-14"]["laion2b_s13b_b90k"] == 75.6


def test_every_kind_of_model_is_found(cache: Path) -> None:
    """SigLIP needs its tokenizer, a text tower of transformers its configuration too; CoCa needs neither."""
    names = {
        "timm/ViT-B-16-SigLIP": "openclip:ViT-B-16-SigLIP/webli",
        "laion/CoCa-ViT-B-32-laion2B-s13B-b90k": "openclip:coca_ViT-B-32/laion2b_s13b_b90k",
        "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k": "openclip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        "visheratin/nllb-clip-base-oc": "openclip:nllb-clip-base/v1",
    }
    for repo in names:
        zipped(put_in_cache(cache, repo, "open_clip_pytorch_model.bin"))
    assert [row.name for row in local_backbones()] == ["openclip:coca_ViT-B-32/laion2b_s13b_b90k"]
    put_in_cache(cache, "timm/ViT-B-16-SigLIP", "tokenizer.json").write_text("{}")
    for repo, kind in (("xlm-roberta-base", "xlm-roberta"), ("facebook/nllb-200-distilled-600M", "m2m_100")):
        put_in_cache(cache, repo, "config.json").write_text(json.dumps({"model_type": kind}))
        put_in_cache(cache, repo, "sentencepiece.bpe.model").write_bytes(b"x")
    found = {row.name: row.imagenet for row in local_backbones()}
    assert list(found.values()) == [76.0, 63.3, 62.4, 24.3] and set(found) == set(names.values())
    for name in found:
        check_backbone_name(name)


def test_sizes_are_of_the_files_that_links_lead_to(cache: Path, tmp_path: Path) -> None:
    blob = zipped(tmp_path / "blobs" / "abc")
    put_in_cache(cache, "laion/CoCa-ViT-B-32-laion2B-s13B-b90k", "open_clip_pytorch_model.bin").symlink_to(blob)
    (row,) = local_backbones()
    assert row.bytes == blob.stat().st_size and row.path.name == "open_clip_pytorch_model.bin"
