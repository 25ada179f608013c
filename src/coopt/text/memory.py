"""What a text pass holds in memory, known before it runs.

The figures count what autograd keeps for the gradient and what the hand-written gradients of attention and feed-forward
layers hold while they run; `tests/text/test_memory.py` holds them against what is really allocated.

Notation: C classes, B images in a step, P prefix tokens, W width, F hidden units, H heads, D output width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from coopt.backbones.text_tower import OpenBlock, TextTower
from coopt.errors import ParameterError
from coopt.runtime import TextPathTaken
from coopt.text.feed_forward import kernel_of
from coopt.text.pattern import Bins
from coopt.wording import subject

Memory = int | str
"""Bytes, a text such as "4G" (units of 1000), or "auto"."""

DEFAULT_MEMORY = 1_800_000_000
"""Bytes that a process may hold for the activations of one chunk when nothing else is said: enough for ImageNet's 1000
classes on a ViT-B text tower in one piece."""

ALLOCATOR = 1.5
"""What a process holds for each byte of its tensors: between them, the heap has holes (`benchmarks/memory.py`)."""

MIXED_ALLOCATOR = 1.75
"""The same where tensors of two precisions lie between each other: sizes differ more, and holes fit less well."""

LEAST_AUTOMATIC = 1 << 26
"""Below this many bytes chunks are too small to be worth it, however little is free."""

FILLED = 64
"""Rows that chunks are filled up to a multiple of where every shape costs memory of its own."""

HEAD_WIDTH = 64
"""Of a tower that does not say: as in nearly all."""

UNSEEN_LAYERS = 32
"""Of a tower that cannot be opened: as many as the largest have."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def bytes_of(memory: Memory) -> int | None:
    """A memory parameter in bytes; None for "auto".

    Raises:
        ParameterError: it is neither bytes, nor a text such as "4G", nor "auto".
    """
    if memory == "auto":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", memory.strip().upper()) if isinstance(memory, str) else None
    value = int(float(match[1]) * _UNITS[match[2]]) if match else memory
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(
            f"{subject('memory', 'the method')} must be 'auto', a number of bytes, or a text such as '4G'. "
            f"Got {memory!r} instead."
        )
    return value


def text_of(n_bytes: int) -> str:
    """Bytes as `bytes_of` reads them, rounded up to three digits."""
    unit = next((unit for unit in "TGM" if n_bytes >= _UNITS[unit]), "K")
    scaled = n_bytes / _UNITS[unit]
    digits = max(0, 2 - math.floor(math.log10(max(scaled, 1))))
    return f"{math.ceil(scaled * 10**digits) / 10**digits:g}{unit}"


def automatic_memory(device: torch.device) -> int:
    """Bytes that a process may hold for the activations of one chunk when nothing is said.

    `DEFAULT_MEMORY`, halved until it is at most half of what is free. So it depends on the moment only where memory is
    short, and elsewhere every run is cut alike, to the last bit.
    """
    free, memory = free_memory(device), DEFAULT_MEMORY
    while free is not None and memory > max(free // 2, LEAST_AUTOMATIC):
        memory //= 2
    return memory


def free_memory(device: torch.device) -> int | None:
    """Bytes that this device could still give; None where nobody can tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return 1024 * int(match[1]) if match and device.type == "cpu" else None


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a step holds above the model, at most.

    Attributes:
        chunks: pieces of classes that run one after another.
        kept: activations of the largest chunk that wait for its gradient.
        chunk: the most that the largest chunk holds, what is kept included.
        head: features and logits while they are compared.
        carried: features and gradients of all classes that are held while a chunk runs.
        indices: what says which row stands where, and constants; they stay from step to step.
        weights: copies of the tower's weights in the working precision, none in float32; and what is held beside the text pass.
        allocator: what the process holds for each byte of its tensors.
    """

    chunks: int
    kept: int
    chunk: int
    head: int
    carried: int
    indices: int
    weights: int
    allocator: float

    @property
    def keeps_last(self) -> bool:
        """Several chunks are each computed again for their gradient; the last one is not where that takes no more memory."""
        return self.chunks == 1 or self.kept + self.head <= self.chunk + self.carried

    @property
    def tensors(self) -> int:
        """The most that a step's tensors take at any moment."""
        waiting = self.kept if self.keeps_last else 0
        return self.indices + max(waiting + self.head, self.chunk + self.carried)

    @property
    def total(self) -> int:
        """The most by which the process grows."""
        return math.ceil(self.allocator * self.tensors) + self.weights

    @property
    def activations(self) -> int:
        """What of that the largest chunk makes."""
        return math.ceil(self.allocator * self.chunk)


class ChunkSize(NamedTuple):
    """Bytes that a chunk of classes keeps for the gradient, the most that it holds, and those of its layout's indices."""

    kept: int
    most: int
    indices: int


class BlockRange(NamedTuple):
    """Blocks between which rows are grouped alike.

    Attributes:
        block: the first of them.
        prefix: P.
        tails: their lengths, ascending; on the reference path those of whole prompts.
    """

    block: int
    prefix: int
    tails: Int[Tensor, " classes"]


class _StageSize(NamedTuple):
    """Rows of a stage, and bytes: what a block keeps, what it works with, the same of the last block, and indices."""

    rows: int
    block: int
    working: int
    last: int
    last_block: int
    indices: int


@dataclass(frozen=True)
class Costs:
    """What a text pass costs in memory.

    Attributes:
        path: which; the figures of the packed path and the reference path are rougher.
        learning: activations are kept for a gradient.
        width, hidden, heads, layers, dim: of the tower: W, F, H, its blocks, D.
        size: bytes of a number in the matrix products; `attention_size` in attention.
        hidden_kept: how many times the hidden units are kept for the gradient.
        trained: some of the tower's weights are learned.
    """

    path: TextPathTaken
    learning: bool
    width: int
    hidden: int
    heads: int
    layers: int
    dim: int
    size: int
    attention_size: int
    hidden_kept: int
    trained: bool = False

    @classmethod
    def of(
        cls,
        tower: TextTower,
        dim: int,
        dtype: torch.dtype,
        path: TextPathTaken,
        learning: bool,
        trained: bool = False,
    ) -> Costs:
        """The costs of a tower's text pass."""
        blocks = tower.open.blocks if tower.open else ()
        size = torch.finfo(dtype).bits // 8
        on_cpu = tower.device.type == "cpu"
        return cls(
            path=path,
            learning=learning,
            width=tower.width,
            hidden=tower.hidden or 4 * tower.width,
            heads=tower.heads or max(1, tower.width // HEAD_WIDTH),
            layers=tower.depth or UNSEEN_LAYERS,
            dim=dim,
            size=size,
            attention_size=max(4, size) if on_cpu else size,
            # An activation that torch has no kernel for keeps what each of its operations needs.
            hidden_kept=1 if blocks and _is_one_operation(blocks[0], path in ("fast", "padded")) else 3,
            trained=trained,
        )

    @property
    def allocator(self) -> float:
        """What a process holds for each byte of its tensors."""
        return MIXED_ALLOCATOR if self.size < 4 else ALLOCATOR

    def multiple(self, cut: bool) -> int:
        """Rows of a chunk are filled up to a multiple of this; `cut`: the chunk is one of several.

        A CPU's bfloat16 products are compiled for every shape and kept, so chunks should not differ by a few rows.
        """
        return FILLED if cut and self.size < self.attention_size else 1

    def chunk(self, stages: Sequence[BlockRange], groups: int, cut: bool) -> ChunkSize:
        """Bytes of one chunk of classes.

        Args:
            stages: how rows are grouped, from block to block.
            groups: contexts that run together.
            cut: it is one of several.
        """
        if self.path == "padded":
            return self._padded_chunk(stages[0], groups)
        if self.path != "fast":
            return self._forward_chunk(stages[0], groups)
        sizes = [self._stage(stage, groups, cut) for stage in stages]
        ends = [*(stage.block for stage in stages[1:]), self.layers - 1]
        blocks = sum(
            max(0, end - stage.block) * size.block for stage, size, end in zip(stages, sizes, ends, strict=True)
        )
        block, working = max(size.block for size in sizes), max(size.working for size in sizes)
        if len(stages) > 1:  # the rows of both stages, while one is made of the other
            working += sum(4 * self.width * size.rows for size in sizes)
        last, last_block, indices = sizes[-1].last, sizes[-1].last_block, sum(size.indices for size in sizes)
        if not self.learning:
            return ChunkSize(0, max(block + working, last + last_block), indices)
        return ChunkSize(blocks + last, blocks + max(last + last_block, working), indices)

    def _stage(self, stage: BlockRange, groups: int, cut: bool) -> _StageSize:
        prefix, tails = stage.prefix, stage.tails
        w, s, a = self.width, self.size, self.attention_size
        multiple = self.multiple(cut)
        filled = groups * (prefix + int(tails.sum())), groups * len(tails)
        rows, ends = (multiple * math.ceil(count / multiple) for count in filled)
        bins, width, most = Bins.of(tails, prefix).shape
        keys, asking = prefix + width, groups * bins * most
        attended, seen = groups * (prefix + bins * width), 2 * groups * bins * keys
        batch, last_batch = 2 * groups * prefix + attended + seen, 2 * groups * prefix + seen
        scores, end_scores = groups * self.heads * (prefix**2 + bins * width * keys), self.heads * asking * keys
        given = rows * w * s * self.trained  # to projections that are learned
        # Both LayerNorms' inputs (float32) and statistics, the activation's input; queries, keys, values; the softmax.
        block = rows * (8 * w + 16 + s * self.hidden_kept * self.hidden) + (batch * w + scores) * a + given
        last = given + rows * (4 * w + 8) + ((last_batch + asking) * w + end_scores) * a
        last += ends * (12 * w + s * self.hidden_kept * self.hidden + 4 * self.dim)
        feed_forward = rows * (2 * self.hidden * s + 12 * w + 2 * w * s)
        attention = rows * (8 * w + 4 * w * s) + ((batch + attended) * w + 3 * scores) * a
        attention -= rows * s * self.hidden  # the feed-forward layers behind it have given theirs back
        last_block = rows * (16 * w + 3 * w * s) + (last_batch + 2 * asking) * w * a
        # In either direction, for every head, of what is projected, of keys and values, of what is attended, of the ends.
        indices = 4 * self.heads * (batch + last_batch + attended + asking + 6 * rows + ends)
        indices += a * (prefix**2 + bins * (width + most) * keys)
        working = max(feed_forward, attention, 20 * w * rows)
        return _StageSize(rows, block, working, last, last_block, indices)

    def _padded_chunk(self, stage: BlockRange, groups: int) -> ChunkSize:
        prompts, length = groups * len(stage.tails), int(stage.tails[0])
        rows, w, s, a, h = prompts * length, self.width, self.size, self.attention_size, self.hidden
        # Both LayerNorms' inputs (float32) and statistics, queries, keys, values and what is attended, the activation's input.
        block = rows * (8 * w + 16 + 4 * w * a + 4 * self.heads + s * self.hidden_kept * h)
        pooled = prompts * (self.heads * (length * a + w * (a + s)) + 12 * w + s * self.hidden_kept * h + 4 * self.dim)
        last = rows * (4 * w + 8 + w * a) + pooled
        feed_forward = rows * (2 * h * s + 12 * w + 2 * w * s)
        attention = rows * (12 * w + 5 * w * a + 3 * w * s * (s < a))
        last_block = rows * (8 * w + 2 * w * a) + 2 * pooled
        working, indices = max(feed_forward, attention), 8 * rows + 24 * prompts
        if not self.learning:
            return ChunkSize(0, max(block + working, last + last_block), indices)
        kept = max(0, self.layers - 1) * block + last
        return ChunkSize(kept, kept + max(last_block, working), indices)

    def _forward_chunk(self, stage: BlockRange, groups: int) -> ChunkSize:
        """Through the tower's own forward."""
        rows, pairs = groups * int(stage.tails.sum()), groups * int(stage.tails.square().sum())
        block = rows * (32 * self.width + 4 * self.hidden_kept * self.hidden) + 8 * self.heads * pairs
        if self.trained:  # what matrix products were given, for the gradient of their weights
            block += rows * (12 * self.width + 4 * self.hidden)
        working = rows * (20 * self.width + 8 * self.hidden)
        kept = self.layers * block if self.learning else 0
        return ChunkSize(kept, kept + working + (0 if self.learning else block), 0)

    def head(self, classes: int, images: int, groups: int) -> tuple[int, int]:
        """Bytes of features and logits: while they are compared, and while a chunk runs.

        Args:
            classes: C.
            images: B, for each group.
            groups: contexts, each with features of its own.
        """
        features, logits = 4 * groups * classes * self.dim, 4 * groups * classes * images
        if not self.learning:
            return 3 * features, 2 * features
        return 8 * features + 3 * logits + 12 * images * groups * self.dim, 3 * features

    @property
    def weights(self) -> int:
        """Bytes of the weights of linear layers in the working precision, where they are copies.

        On a CPU about half as much again: what its library compiles for products in bfloat16, and keeps.
        """
        if self.path not in ("fast", "padded") or self.size >= 4:
            return 0
        copies = self.layers * (4 * self.width**2 + 2 * self.width * self.hidden) * self.size
        return copies + copies // 2 if self.size < self.attention_size else copies

    def plans(self, chunks: int, stages: Sequence[BlockRange], groups: int) -> int:
        """Bytes of what stays from step to step: which token each tail row holds, and the constants of a single chunk.

        Args:
            chunks: how many there are.
            stages: of all classes together.
            groups: contexts that run together.
        """
        if self.path != "fast":
            return 0
        rows = int(stages[0].tails.sum()) * (chunks == 1 and self.learning)  # whose constants are kept
        followed = [*stages, *stages[: int(stages[0].block > 0)]]  # another plan, before vectors are put in
        held = rows * self.width * (4 + 3 * self.size) + 8 * sum(s.prefix + int(s.tails.sum()) for s in followed[1:])
        return sum(2048 * chunks + 64 * int(stage.tails.sum()) for stage in followed) + groups * held


def _is_one_operation(block: OpenBlock, opened: bool) -> bool:
    return isinstance(block.activation, nn.GELU) or (opened and kernel_of(block) is not None)
