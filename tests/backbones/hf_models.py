"""Small encoders of the package transformers, as open_clip takes them, with tokenizers that the tests make themselves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from coopt.backbones.protocol import Framing
from coopt.backbones.sources.openclip_loading import build_model

from .small_models import VIT, save_folder, scramble

ROBERTA = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "max_position_embeddings": 82, "pad_token_id": 1, "type_vocab_size": 1,
}  # fmt: skip
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**ROBERTA, "max_position_embeddings": 80, "pad_token_id": 0, "type_vocab_size": 2},
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "mt5": {"d_model": 64, "d_kv": 32, "d_ff": 96, "num_layers": 2, "num_heads": 2, "pad_token_id": 0},
    "m2m_100": {
        "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128, "pad_token_id": 1,
        "max_position_embeddings": 80, "scale_embedding": True,
    },
}  # fmt: skip
"""Kind of encoder to what is in its config.json, but for the size of the vocabulary."""

BIOMED = {
    "hf_model_name": "org/biomed-bert",
    "hf_tokenizer_name": "org/biomed-bert",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": 60,
}
"""A text tower's configuration with all that BiomedCLIP's says (there the length is 256)."""

_KNOWN = (
    "a an the photo picture of cat cats dog dogs red green blue one two three bird car tree house small large animal"
)
_WORDS = _KNOWN.split()
_LETTERS = "abcdefghijklmnopqrstuvwxyz.,-'0123456789"
_SENTENCES = [f"{x} {y} {z}." for x in _WORDS for y in _WORDS[:8] for z in _WORDS[8:14]] + list(_LETTERS)


class FramedTokenizer:
    """A tokenizer of 600 tokens with the start, end and padding that a kind of encoder has."""

    vocab_size = 600

    def __init__(self, kind: str) -> None:
        pad = TEXT_CONFIGS[kind]["pad_token_id"]
        self.framing = {
            "bert": Framing(3, 4, pad),
            "mt5": Framing(None, 1, pad),
            "m2m_100": Framing(580, 2, pad),
        }.get(kind, Framing(0, 2, pad))

    def encode(self, text: str) -> list[int]:
        return [10 + ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(number - 10) for number in ids)


def text_config(kind: str, vocab_size: int = 600) -> dict[str, Any]:
    """A small encoder's config.json."""
    return {"model_type": kind, **TEXT_CONFIGS[kind], "vocab_size": vocab_size}


def hf_model(kind: str, seed: int = 0, vocab_size: int = 600, **text: Any) -> Any:
    """A small open_clip model with such a text tower, with random weights in which every token matters."""
    torch.manual_seed(seed)
    return scramble(build_model(hf_configuration(**text), text_config=text_config(kind, vocab_size)).eval())


def hf_configuration(**text: Any) -> dict[str, Any]:
    """open_clip's configuration of a small model with such a text tower."""
    return {"embed_dim": 48, "vision_cfg": {**VIT, "layers": 1}, "text_cfg": {**BIOMED, **text}}


def save_tokenizer(kind: str, folder: Path) -> int:
    """Writes the files of a tokenizer of the kind that belongs to an encoder; the number of its tokens."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    config = _TOKENIZERS[kind](folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(AutoTokenizer.from_pretrained(str(folder), local_files_only=True))


def save_hf_folder(kind: str, folder: Path, with_config: bool = True, **text: Any) -> tuple[Any, Path]:
    """(a small model, its folder in open_clip's layout with the tokenizer's files and the encoder's config.json)."""
    size = save_tokenizer(kind, folder)
    model = hf_model(kind, vocab_size=size, **text)
    if with_config:
        (folder / "config.json").write_text(json.dumps(text_config(kind, size)))
    return model, save_folder(model, folder, hf_configuration(**text))


def _word_pieces(folder: Path) -> dict[str, Any]:
    words = [*_WORDS, *(letter for letter in _LETTERS if letter not in _WORDS)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(f"##{letter}" for letter in _LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return {"tokenizer_class": "BertTokenizer"}


def _byte_pairs(folder: Path) -> dict[str, Any]:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(_SENTENCES, vocab_size=320, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))
    return {"tokenizer_class": "RobertaTokenizer"}


def _sentence_pieces(file: str, config: dict[str, Any], **settings: Any) -> Callable[[Path], dict[str, Any]]:
    def write(folder: Path) -> dict[str, Any]:
        from sentencepiece import SentencePieceTrainer

        written = io.BytesIO()
        SentencePieceTrainer.train(  # type: ignore[attr-defined]
            sentence_iterator=iter(_SENTENCES), model_writer=written, vocab_size=90, minloglevel=2, hard_vocab_limit=False,
            **settings,
        )  # fmt: skip
        (folder / file).write_bytes(written.getvalue())
        return config

    return write


_TOKENIZERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "bert": _word_pieces,
    "roberta": _byte_pairs,
    "xlm-roberta": _sentence_pieces("sentencepiece.bpe.model", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "mt5": _sentence_pieces(
        "spiece.model", {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}, pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    ),
    "m2m_100": _sentence_pieces(
        "sentencepiece.bpe.model",
        {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": ["eng_Latn", "fra_Latn"]},
    ),
}
