"""Small models in the format of the package transformers, with tokenizers and image processors, made on the spot."""

from __future__ import annotations

import io
import json
import re
import string
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coopt.backbones.tokenizers import clip_tokenizer
from tests.backbones.small_models import scramble

TEXT = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TEXT, "hidden_size": 40, "image_size": 32, "patch_size": 8}
EFFICIENTNET = {
    "image_size": 33,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "kernel_sizes": [3, 3],
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "depthwise_padding": [],
    "strides": [1, 2],
    "num_block_repeats": [1, 2],
    "expand_ratios": [1, 2],
    "hidden_dim": 24,
}
KINDS = ("clip", "metaclip_2", "siglip", "siglip2", "align", "altclip", "chinese_clip")
"""SigLIP 2 of fixed resolution is a SigLIP with another tokenizer."""
PAD_MASKED = ("align", "altclip", "chinese_clip")
_SENTENCES = [
    "a photo of a red car",
    "one cat",
    "an old oak tree",
    "two dogs and the blue bird",
    string.ascii_lowercase,
]
_CROP = {"shortest_edge": 32}
_CLASSES = {
    "clip": ("CLIPConfig", "CLIPModel"),
    "metaclip_2": ("MetaClip2Config", "MetaClip2Model"),
    "siglip": ("SiglipConfig", "SiglipModel"),
    "siglip2": ("SiglipConfig", "SiglipModel"),
    "align": ("AlignConfig", "AlignModel"),
    "altclip": ("AltCLIPConfig", "AltCLIPModel"),
    "chinese_clip": ("ChineseCLIPConfig", "ChineseCLIPModel"),
}


def made(kind: str, folder: Path, seed: int = 0, **changes: Any) -> Any:
    """A small model with random weights, saved with all that belongs to it; transformers' own, for comparison.

    Args:
        kind: one of `KINDS`.
        folder: where it is saved.
        seed: of the weights.
        changes: of the configuration; of a tower's, as text_config={...}.
    """
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(kind, folder)
    settings = _configuration(kind, tokens)
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    config_class, model_class = (getattr(transformers, name) for name in _CLASSES[kind])
    torch.manual_seed(seed)
    model = _scrambled(model_class(config_class(**settings)))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor(kind)))
    return model


def _configuration(kind: str, tokens: int) -> dict[str, Any]:
    text, vision = {**TEXT, "vocab_size": tokens}, dict(VISION)
    if kind in ("siglip", "siglip2"):
        text |= {"max_position_embeddings": 24, "projection_size": 40}
    if kind == "metaclip_2":
        text |= {"max_position_embeddings": 30, "eos_token_id": 2, "bos_token_id": 0}
    if kind == "altclip":
        text |= {"max_position_embeddings": 26, "project_dim": 28, "pad_token_id": 1}
    if kind in ("align", "chinese_clip"):
        text |= {"max_position_embeddings": 28}
    projection = {} if kind.startswith("siglip") else {"projection_dim": 24}
    return {"text_config": text, "vision_config": EFFICIENTNET if kind == "align" else vision, **projection}


def _scrambled(model: Any) -> Any:
    scramble(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            module, _, end = name.rpartition(".")
            if end == "weight" and re.search(r"norm\w*$|pre_LN$", module, re.IGNORECASE):
                weight.add_(1.0)
            elif weight.ndim == 4:  # EfficientNet's gates are small otherwise
                weight.mul_(2.0)
        for name, value in (("logit_scale", 2.5), ("logit_bias", -3.0), ("temperature", 0.1)):
            if hasattr(model, name):
                getattr(model, name).fill_(value)
    return model.eval().requires_grad_(False)


def image_processor(kind: str) -> dict[str, Any]:
    """The settings with which such models are published, for small images."""
    half = [0.5, 0.5, 0.5]
    if kind.startswith("siglip"):
        return {
            "image_processor_type": "SiglipImageProcessor",
            "do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": half, "image_std": half,
            "resample": 2 if kind == "siglip2" else 3, "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
        }  # fmt: skip
    if kind == "align":
        return {
            "image_processor_type": "EfficientNetImageProcessor",
            "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": False, "image_mean": half,
            "image_std": half, "include_top": False, "resample": 2, "rescale_factor": 1 / 127.5, "rescale_offset": True,
            "size": {"height": 42, "width": 42}, "crop_size": {"height": 33, "width": 33},
        }  # fmt: skip
    return {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3, "crop_size": 32,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "size": 32 if kind == "clip" else _CROP,
    }  # fmt: skip


# ---- tokenizers


def _write_tokenizer(kind: str, folder: Path) -> int:
    """Writes a tokenizer's files; the number of its tokens."""
    if kind == "clip":
        vocabulary = clip_tokenizer().vocabulary("<|startoftext|>", "<|endoftext|>")
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        return len(vocabulary)
    if kind in ("align", "chinese_clip"):
        return _word_piece(folder)
    if kind == "siglip":
        return _sentence_piece(folder)
    return _gemma(folder) if kind == "siglip2" else _xlm_roberta(folder)


def _letters() -> list[str]:
    return [*string.ascii_lowercase, *string.digits, *string.punctuation]


def _configure(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _word_piece(folder: Path) -> int:
    words = ["photo", "cat", "red"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *_letters(), *(f"##{one}" for one in _letters())]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    _configure(folder, tokenizer_class="BertTokenizer", do_lower_case=True, model_max_length=24)
    return len(tokens)


def _xlm_roberta(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = ["▁", *(f"▁{one}" for one in string.ascii_lowercase), *_letters(), "▁photo", "▁cat"]
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [(token, 0.0) for token in special] + [(piece, -5.0 + len(piece)) for piece in pieces]
    vocabulary.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    _configure(
        folder, tokenizer_class="XLMRobertaTokenizer", bos_token="<s>", eos_token="</s>", sep_token="</s>",
        cls_token="<s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>",
    )  # fmt: skip
    return len(vocabulary)


def _gemma(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_letters(), "ca", "cat", "▁cat"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("c", "a"), ("ca", "t"), ("▁", "cat")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    _configure(
        folder, tokenizer_class="GemmaTokenizer", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        unk_token="<unk>", add_bos_token=False, add_eos_token=True,
    )  # fmt: skip
    return len(tokens)


def _sentence_piece(folder: Path) -> int:
    import sentencepiece

    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 40), model_writer=content, vocab_size=64, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0, minloglevel=2, add_dummy_prefix=True,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(content.getvalue())
    _configure(
        folder, tokenizer_class="SiglipTokenizer", do_lower_case=True, eos_token="</s>", pad_token="</s>",
        unk_token="<unk>", model_max_length=24,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue()).get_piece_size()


def features_of(given: Any) -> torch.Tensor:
    """What `get_text_features` and `get_image_features` give: a tensor in transformers 4, an object in 5."""
    features = given if isinstance(given, torch.Tensor) else given.pooler_output
    assert isinstance(features, torch.Tensor)
    return features


def parts_of(model: nn.Module, count: int) -> list[dict[str, torch.Tensor]]:
    """A model's weights in several parts."""
    state = list(model.state_dict().items())
    return [dict(state[i::count]) for i in range(count)]
