"""From prompts to text features: chooses the path, the precision and how many classes run at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from coopt.backbones.precision import resolved
from coopt.backbones.protocol import Backbone
from coopt.errors import ParameterError, TooLittleMemoryError, UnsupportedBackboneError
from coopt.runtime import PRECISIONS, TEXT_PATHS, Precision, TextPath, TextPathTaken
from coopt.text.chunks import Chunk, Inputs, run_chunks
from coopt.text.converted import blocks_in
from coopt.text.fast import FastPass, Learned, places_of
from coopt.text.layout import Prompts
from coopt.text.memory import (
    BlockRange,
    Costs,
    Memory,
    StepMemory,
    automatic_memory,
    bytes_of,
    text_of,
)
from coopt.text.packed import PackedPlan, run_lengths
from coopt.text.padded import PaddedPass, PaddedPlan, serves
from coopt.text.plan import Patterns, make_plan
from coopt.text.reference import encode_reference
from coopt.text.sizes import ChunkSizes
from coopt.wording import called, setting, subject

KEPT_PLANS = 2
"""Plans kept for numbers of groups: images come in chunks of one size, and a last one of another."""


class TextEncoder:
    """Text features of fixed prompts under changing contexts.

    Args:
        backbone: whose text tower is used.
        prompts: C prompts.
        path: "fast" (causal towers), "reference" (any tower, at full length), "auto" (the quickest that is exact).
        precision: "fp32", or "bf16" for the matrix products only (LayerNorm, softmax and the result stay in fp32); "auto":
            the faster.
        memory: bytes (or a text such as "4G") that a training step may hold above the model; "auto" bounds the
            activations alone (see `automatic_memory`). When all classes together need more, they run in chunks, and
            each chunk's activations are computed a second time for the gradient instead of being kept. The features
            are the same; the memory no longer grows with the number of classes, but for the features themselves.
        batch: images of a step that the features of one context are compared with.
        learning: a gradient will be asked for, so activations are kept.
        deep: blocks, counted from 0, at whose input the context slots of all prompts are given new vectors, as in MaPLe
            (Khattak et al., CVPR 2023); from 1 on, since the context itself is what enters block 0.
        per_class_from: the block from which on such vectors are class-specific; None: in none. Where the prompts' context
            is class-specific, all of them may be.
        weights: names of the tower's weights that calls will give. On the fast path those of queries, keys, values and
            norms may be among them; passes with any others go through the tower's own forward.
        beside: bytes that a step holds for other things than the text, which count in its memory.

    Attributes:
        path: which path runs: "fast", "packed" (each prompt at its own length, through the tower's forward), "padded" (full
            length, of towers that see their padding) or "reference".

    Raises:
        ParameterError: an unknown path, precision, block or weight, "fast" for a tower or weights it is not exact for, or
            less memory than one class at a time takes (`TooLittleMemoryError`).
        UnsupportedBackboneError: blocks of a tower that does not let anybody in between them.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        *,
        path: TextPath = "auto",
        precision: Precision = "fp32",
        memory: Memory = "auto",
        batch: int = 1,
        learning: bool = True,
        deep: Collection[int] = (),
        per_class_from: int | None = None,
        weights: Collection[str] = (),
        beside: int = 0,
    ) -> None:
        for name, value, allowed in (("path", path, TEXT_PATHS), ("precision", precision, PRECISIONS)):
            if value not in allowed:
                raise ParameterError(
                    f"{subject(name, 'the text encoder')} must be one of {', '.join(allowed)}. Got {value!r} instead."
                )
        self.tower = backbone.text
        self.prompts = prompts
        self.deep = tuple(sorted(deep))
        self.weights = frozenset(weights)
        self._places = places_of(self.tower) if self.weights else {}
        self._per_class_from = 0 if prompts.class_specific else per_class_from
        self._check_tower(backbone, path)
        self.path = "reference" if path == "reference" else self._quickest()
        half = resolved(precision, backbone.device) == "bf16"
        self._full = self.tower.open.positions.dtype if self.tower.open else torch.float32
        self.dtype = torch.bfloat16 if half else self._full
        self.memory = bytes_of(memory)
        self.batch, self.beside = batch, beside
        if self.path == "fast":
            self._fast = FastPass.of(self.tower, blocks_in(self.tower, self.dtype), self.dtype)
        elif self.path == "padded":
            self._padded = PaddedPass.of(self.tower, blocks_in(self.tower, self.dtype), self.dtype)
        by_length = self.path in ("fast", "packed")
        self._order = torch.argsort(prompts.lengths, stable=True) if by_length else torch.arange(len(prompts))
        self._inverse = torch.argsort(self._order).to(backbone.device)
        costs = Costs.of(self.tower, backbone.embed_dim, self.dtype, self.path, learning, bool(self.weights))
        self._stages = self._make_stages()
        held, automatic = self._held_bytes(), automatic_memory(backbone.device)
        self._sizes = ChunkSizes(costs, self._stages, held, batch, self.memory, automatic, beside)
        self._chunks: dict[int, tuple[tuple[Chunk, ...], bool]] = {}  # by number of groups, the most recently used last
        self._refuse_too_little()

    def __call__(
        self,
        context: Float[Tensor, "*shape width"] | None = None,
        deep: Mapping[int, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "*groups classes dim"]:
        """Features (not normalised, float32) for a context: (M, W), class-specific (C, M, W), or per group (G, M, W).

        Args:
            context: the vectors that stand in the prompts' context slots.
            deep: block to the vectors that stand there from its input on: (M, W), class-specific (C, M, W) from
                `per_class_from` on, or per group (G, M, W) before it.
            weights: what stands for some of the tower's weights, by name.

        Returns:
            (C, D); for vectors per group (G, C, D).

        Raises:
            ParameterError: the blocks or weights are not those that the encoder was made for, or there are context slots
                and no context.
        """
        inputs = self._inputs(context, deep or {}, weights or {})
        groups = [len(one.vectors) for key, one in inputs.items() if isinstance(key, int) and _is_grouped(one)]
        chunks, keep_last = self._chunks_for(groups[0] if groups else 1)
        features = run_chunks(chunks, inputs, keep_last)[:, self._inverse]
        return features if groups else features[0]

    def _inputs(self, context: Tensor | None, deep: Mapping[int, Tensor], weights: Mapping[str, Tensor]) -> Inputs:
        if set(deep) != set(self.deep) or not set(weights) <= self.weights:
            raise ParameterError(
                f"Got vectors for the blocks {sorted(deep)} and the weights {sorted(weights)}; this text encoder was made "
                f"for the blocks {list(self.deep)} and the weights {sorted(self.weights)}."
            )
        if context is None and not self.prompts.enters and bool(self.prompts.is_context.any()):
            raise ParameterError("These prompts have slots for context vectors. Got no context to put into them.")
        vectors = {**({} if context is None else {0: context}), **deep}
        start = self._per_class_from
        learned: dict[int | str, Learned] = {
            block: Learned(one, start is not None and block >= start and one.ndim == 3)
            for block, one in vectors.items()
        }
        return {**learned, **{name: Learned(one, False) for name, one in weights.items()}}

    def _chunks_for(self, groups: int) -> tuple[tuple[Chunk, ...], bool]:
        """The chunks, and whether the last one's activations are kept."""
        chunks = self._chunks.pop(groups, None) or self._make_chunks(groups)
        while len(self._chunks) >= KEPT_PLANS:
            self._chunks.pop(next(iter(self._chunks)))
        self._chunks[groups] = chunks
        return chunks

    def _make_chunks(self, groups: int) -> tuple[tuple[Chunk, ...], bool]:
        patterns: Patterns = {}
        bounds = self._sizes.cut(groups)
        parts = [self._order[start:stop] for start, stop in bounds]
        if self.path == "fast":
            chunks = tuple(self._fast_chunk(classes, groups, patterns) for classes in parts)
        elif self.path == "padded":
            chunks = tuple(self._padded_chunk(classes, groups) for classes in parts)
        else:
            lengths = [self._stages[0].tails[start:stop] for start, stop in bounds]
            chunks = tuple(self._forward_chunk(*part, groups) for part in zip(parts, lengths, strict=True))
        return chunks, self._sizes.estimate(bounds, groups).keeps_last

    def _fast_chunk(self, classes: Tensor, groups: int, patterns: Patterns) -> Chunk:
        whole, costs = len(classes) == len(self.prompts), self._sizes.costs
        regrouped_at = self._stages[1].block if len(self._stages) > 1 else None
        plan = make_plan(
            self.prompts, classes, groups, self.tower, self.dtype, patterns, costs.multiple(not whole), regrouped_at
        )
        kept = whole and costs.learning and not self.weights  # of chunks it would add up
        constant = self._fast.constant(plan) if kept else None
        return Chunk(plan.order, lambda inputs: self._fast_with(inputs)(plan, _vectors(inputs), constant))

    def _fast_with(self, inputs: Inputs) -> FastPass:
        weights = {self._places[name]: one.vectors for name, one in inputs.items() if isinstance(name, str)}
        return self._fast.with_weights(weights) if weights else self._fast

    def _padded_chunk(self, classes: Tensor, groups: int) -> Chunk:
        plan = PaddedPlan.of(self.tower, self.prompts[classes], groups)
        whole = len(classes) == len(self.prompts)
        constant = self._padded.constant(plan) if whole and self._sizes.costs.learning else None
        return Chunk(classes.to(self.tower.device), lambda inputs: self._padded(plan, _vectors(inputs), constant))

    def _forward_chunk(self, classes: Tensor, lengths: Tensor, groups: int) -> Chunk:
        """Through the tower's own forward: the packed path and the reference path."""
        prompts, device = self.prompts[classes], self.tower.device
        plan = PackedPlan(prompts, lengths, groups) if self.path == "packed" else None

        def run(inputs: Inputs) -> Tensor:
            bf16 = self.dtype is torch.bfloat16
            weights = {name: one.vectors for name, one in inputs.items() if isinstance(name, str)}
            # On a CPU the fused attention in bfloat16 asks for instructions that are not everywhere.
            plain = sdpa_kernel(SDPBackend.MATH) if bf16 and device.type == "cpu" else nullcontext()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16), plain:
                if plan is not None:
                    features = plan.encode(self.tower, _vectors(inputs), weights)
                else:
                    features = encode_reference(self.tower, prompts, _vectors(inputs), weights)
            return features.to(self._full).view(groups, len(prompts), -1)

        return Chunk(classes.to(device), run)

    def _make_stages(self) -> list[BlockRange]:
        """How rows are grouped from block to block: anew where vectors of shared positions become class-specific."""
        if self.path != "fast":
            full = torch.full((len(self.prompts),), self.tower.context_length)
            packed = run_lengths(self.prompts.lengths[self._order]) if self.path == "packed" else full
            return [BlockRange(0, 0, packed)]
        lengths, shared = self.prompts.lengths[self._order], self.prompts.shared
        # Before vectors are put in nothing is learned, so nothing is kept there.
        stages, start = [BlockRange(self.prompts.enters, shared, lengths - shared)], self._per_class_from
        specific = [block for block in self.deep if start is not None and block >= start]
        shorter = replace(self.prompts, class_specific=True).shared
        if specific and shorter < shared:
            stages.append(BlockRange(specific[0], shorter, lengths - shorter))
        return stages

    def _held_bytes(self) -> int:
        """Of class-specific vectors: themselves, their gradients on either side of the chunks, two moments; of weights:
        themselves and these as well. And what the padded path and the packed path hold of each prompt."""
        start = self._per_class_from
        specific = sum(block >= start for block in self.deep) if start is not None else 0
        specific += self.prompts.class_specific
        slots = int(self.prompts.context_index.max()) + 1
        weights = sum(one.numel() for name, one in self.tower.named_parameters() if name in self.weights)
        learned = 5 * 4 * (specific * len(self.prompts) * slots * self.tower.width + weights)
        if self.path == "padded":
            return learned + self._padded.constant_bytes(self.prompts)
        return learned + (17 * self.prompts.token_ids.numel() if self.path == "packed" else 0)

    def estimate(self, groups: int = 1) -> StepMemory:
        """What a training step will hold above the model, known before it runs."""
        return self._sizes.estimate(self._sizes.cut(groups), groups)

    @property
    def least_memory(self) -> int:
        """Bytes that a step with one context takes at least, in chunks as small as it pays."""
        return min(self._sizes.estimate(bounds, 1).total for bounds in self._sizes.cuts())

    def shrink(self, groups: int = 1) -> bool:
        """Halves the chunks, after the device ran out of memory with `groups` contexts at once.

        Returns:
            False when they are as small as they can be.
        """
        if not self._sizes.halve(groups):
            return False
        self._chunks.clear()
        return True

    @property
    def groups_at_once(self) -> int:
        """How many contexts with all their classes fit into the memory together; at least one."""
        # One context's prompts at full length fill any matrix product.
        return self._sizes.at_once() if self.path in ("fast", "packed") else 1

    @property
    def rows(self) -> int:
        """Tokens that pass through the first block for one context: the work of one text pass."""
        return self._rows_of(self._stages[0])

    def _rows_of(self, stage: BlockRange) -> int:
        return len(self._sizes.cut(1)) * stage.prefix + int(stage.tails.sum())

    @property
    def operations(self) -> int:
        """Floating-point operations of the linear layers in one pass over one context, forward."""
        width, hidden, layers = self.tower.width, self.tower.hidden or 4 * self.tower.width, self.tower.depth or 12
        per_row = 2 * (4 * width * width + 2 * width * hidden)
        if self.path in ("packed", "reference"):
            return layers * per_row * self.rows
        read = len(self.prompts)
        if self.path == "padded":  # nothing is projected in the first block, nor in the last but for the rows read out
            return per_row * ((layers - 1) * self.rows + read) - 6 * width * width * self.rows
        last_rows = self._rows_of(
            self._stages[-1]
        )  # in the last block, keys and values of all and the rest of the ends
        last = 2 * (2 * width * width * (last_rows + read) + 2 * width * hidden * read)
        stops = [*(stage.block for stage in self._stages[1:]), layers - 1]
        before = sum(
            (stop - stage.block) * self._rows_of(stage) for stage, stop in zip(self._stages, stops, strict=True)
        )
        return per_row * before + last

    def _quickest(self) -> TextPathTaken:
        """The quickest path that is exact for the tower, and for weights that are exchanged."""
        if self.weights <= self._places.keys() and self.tower.text_path == "fast":
            return "fast"
        if self.weights:
            return "packed" if self.tower.text_path == "packed" else "reference"
        return "padded" if serves(self.tower) else self.tower.text_path

    def _check_tower(self, backbone: Backbone, path: TextPath) -> None:
        if path == "fast" and self._quickest() != "fast":
            raise ParameterError(
                f"The fast text path is not exact for {backbone.name}{' with other weights' if self.weights else ''}. Use "
                f"{setting('text_path', 'auto')} (here the {self._quickest()} path) or {setting('text_path', 'reference')}."
            )
        if self.deep and not self.tower.depth:
            raise UnsupportedBackboneError(
                f"{backbone.name}: vectors cannot be put between the blocks of its text tower, which are not known."
            )
        if self.deep and not (self.deep[0] > 0 and self.deep[-1] < self.tower.depth):
            raise ParameterError(
                f"{subject('deep', 'the text encoder')} must name blocks from 1 to {self.tower.depth - 1}. "
                f"Got {list(self.deep)} instead."
            )
        if (entered := self.prompts.enters) and (self.tower.text_path != "fast" or entered not in self.deep):
            raise UnsupportedBackboneError(
                f"{backbone.name}: vectors can be put in between the tokens of a prompt at one of the blocks that are named, in a "
                f"causal text tower that is read out at the end token. Got block {entered} of {list(self.deep)}."
            )
        unknown = self.weights - {name for name, _ in self.tower.named_parameters() if name != "token_embedding.weight"}
        if unknown:
            raise ParameterError(f"The text tower of {backbone.name} has no weights {sorted(unknown)} to be exchanged.")

    def _refuse_too_little(self) -> None:
        if self.memory is None or self._sizes.fits(self.estimate()):
            return
        raise TooLittleMemoryError(
            f"{subject('memory', 'the method')} must be at least {text_of(self.least_memory)} here: what a step takes in the "
            f"smallest chunks ({len(self.prompts)} classes, {self.batch} images compared with them). "
            f"Got {text_of(self.memory)} instead; give more, or take a smaller batch ({called('recipe.batch_size')})."
        )


def _vectors(inputs: Inputs) -> dict[int, Learned]:
    return {block: one for block, one in inputs.items() if isinstance(block, int)}


def _is_grouped(learned: Learned) -> bool:
    return learned.vectors.ndim == 3 and not learned.class_specific
