"""The small CLIP: open_clip's own architecture by configuration, a quick text pass for training, and the export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGE_SIZE = 64
TABLE_TYPE = torch.float8_e4m3fn  # of the token table: most of it is words that no caption holds
CONFIG: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 2, 2, 1], "width": 24, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
}
PREPROCESS: dict[str, Any] = {
    "size": [IMAGE_SIZE, IMAGE_SIZE],
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.28, 0.28, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def create(seed: int, first_logit_scale: float = 20.0, config: dict[str, Any] = CONFIG) -> CLIP:
    """A fresh model with open_clip's own initialisation."""
    torch.manual_seed(seed)
    model = CLIP(**config, output_dict=False)
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(first_logit_scale).log())
    return model


class TrainableText(nn.Module):
    """The model during training: only the vocabulary rows that captions use, only as many positions as captions have.

    Both are exact: unused rows receive no gradient, and in a causal tower nothing after the end token reaches it.

    Args:
        model: its token table is replaced by the rows that are used.
        vocabulary: the ids of these rows.
        unused: the size of what stands in all other rows.
        table_type: what the table is rounded to, in training as in the file.
        parts: captions of like length run together in so many parts.
    """

    model: Any  # open_clip's CLIP, whose modules have no types
    rows: Tensor
    vocabulary: Tensor

    def __init__(
        self,
        model: Any,
        vocabulary: list[int],
        unused: float = 0.02,
        table_type: torch.dtype = TABLE_TYPE,
        parts: int = 2,
    ) -> None:
        super().__init__()
        self.model, self.table_type, self.parts = model, table_type, parts
        rows = torch.full((model.vocab_size,), -1, dtype=torch.long)
        rows[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("vocabulary", torch.tensor(vocabulary), persistent=False)
        table = model.token_embedding.weight.detach()
        # Words that no caption holds stay as they began. Signs at CLIP's scale say as little as normal noise would, and
        # a packed file holds them in a tenth of the bytes.
        self.full_table = unused * table.sign()
        model.token_embedding = nn.Embedding.from_pretrained(table[vocabulary].clone(), freeze=False)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (captions, length), original ids -> (captions, embed)."""
        # Short captions first, in parts of like length: nothing after the end token is ever read.
        lengths = tokens.argmax(1) + 1
        order = lengths.argsort()
        parts = [self._encode(tokens[rows, : int(lengths[rows[-1]])]) for rows in order.chunk(self.parts)]
        return torch.cat(parts)[order.argsort()]

    def _encode(self, tokens: Tensor) -> Tensor:
        model, length = self.model, tokens.shape[1]
        table = model.token_embedding.weight
        # The file holds the table in fewer bits; training with it so rounded, nothing is lost in writing it down.
        table = table + (table.detach().to(self.table_type).float() - table.detach())
        rows = self.rows[tokens]
        x = F.embedding(rows.clamp(min=0), table)
        if bool((rows < 0).any()):  # a word that no caption holds
            x = torch.where((rows < 0)[..., None], self.full_table.to(x)[tokens], x)
        x = x + model.positional_embedding[:length]
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        x = model.ln_final(x)[torch.arange(len(x), device=x.device), tokens.argmax(1)]
        return x @ model.text_projection

    def whole_state(self) -> dict[str, Tensor]:
        """The state dict of the whole CLIP: the full vocabulary with the trained rows put back."""
        state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        table = self.full_table.clone()
        table[self.vocabulary.cpu()] = state["token_embedding.weight"].float()
        return state | {"token_embedding.weight": table}


class Trainable(TrainableText):
    """Both towers during training."""

    def __init__(self, model: Any, vocabulary: list[int], n_facts: int) -> None:
        super().__init__(model, vocabulary)
        # Reads single facts off the image feature: a plain signal for the image tower until the captions make sense
        # to it.
        self.reader = nn.Linear(model.visual.output_dim, n_facts)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (scenes, 3, 64, 64) uint8 -> (scenes, embed)."""
        return self.model.encode_image(prepared(pixels))


def prepared(pixels: Tensor) -> Tensor:
    """Pixels as the image tower takes them: (scenes, 3, 64, 64), from uint8 to floats."""
    mean, std = PREPROCESS["mean"][0], PREPROCESS["std"][0]
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def export(
    state: dict[str, Tensor],
    folder: Path,
    config: dict[str, Any] = CONFIG,
    table_type: torch.dtype = TABLE_TYPE,
) -> int:
    """Write open_clip's local-dir form, matrices in half precision, the token table in its own; returns the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: (value.half() if value.ndim >= 2 else value).contiguous() for name, value in state.items()}
    tensors["token_embedding.weight"] = state["token_embedding.weight"].to(table_type)
    part = folder / "open_clip_model.safetensors.part"
    save_file(tensors, part)
    part.chmod(0o644)  # safetensors writes files for their owner only
    part.replace(folder / "open_clip_model.safetensors")
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(described, indent=2) + "\n")
    return sum(f.stat().st_size for f in folder.iterdir())


def load(folder: Path) -> tuple[CLIP, Any, Any]:
    """The exported model as anybody would load it: model, preprocessing, tokenizer."""
    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")
