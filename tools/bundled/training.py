"""Contrastive pre-training on scenes made on the fly. Can be stopped with Ctrl-C and goes on where it was."""

from __future__ import annotations

import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.bundled import model as clip
from tools.bundled.artwork import SEEN, Artwork
from tools.bundled.captions import Captions, Writer, vocabulary
from tools.bundled.compose import Composer
from tools.bundled.world import FAMILIES, N_FACTS, OFFSET, World, facts


@dataclass(frozen=True)
class Settings:
    """What a training run is.

    The learning rate is constant until the last part of the run and falls to zero there; everything else that changes
    depends on the step alone. So runs of different length are the same until the shorter one begins to fall: a
    checkpoint from before that point can be given any length.
    """

    steps: int = 18000
    captions_from: int = 5000  # until then the image tower learns alone: twice the pictures in the same time
    falling: float = 0.25  # the part of the run over which the learning rate falls
    batch: int = 64  # small steps, many of them: on a CPU the steps are what a run lacks
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    reader_weight: float = 0.15  # of reading single facts off the picture, against the captions
    simple_first: float = 0.8  # share of simple scenes at the start, falling over `simple_until` steps to ...
    simple_last: float = 0.2
    simple_until: int = 4000
    # A floor under the logit scale: learned prompts take their step size from it, and left alone it stays low as long
    # as things are hard to tell. It rises over `scale_until` steps, then again while the learning rate falls.
    first_scale: float = 14.0
    middle_scale: float = 28.0
    last_scale: float = 50.0
    scale_until: int = 8000
    seed: int = 0

    def fall_begins(self) -> int:
        """The step from which on the learning rate falls."""
        return round(self.steps * (1 - self.falling))

    def fallen(self, step: int) -> float:
        """0 until the learning rate begins to fall, 1 at the end of the run."""
        begin = self.fall_begins()
        return min(1.0, max(0.0, (step - begin) / (self.steps - begin)))

    def scale_floor(self, step: int) -> float:
        """The least logit scale at this step."""
        rise = (self.middle_scale / self.first_scale) ** min(1.0, step / self.scale_until)
        return self.first_scale * rise * (self.last_scale / self.middle_scale) ** self.fallen(step)


class Loop(ABC):
    """Steps with a checkpoint and a log in a work folder; how to stop and how to go on."""

    def __init__(
        self, settings: Settings, net: clip.TrainableText, optimiser: torch.optim.Optimizer, work: Path, log: Path
    ) -> None:
        self.settings, self.net, self.optimiser, self.log = settings, net, optimiser, log
        self.checkpoint = work / "checkpoint.pt"
        self.device = next(net.parameters()).device
        self.step, self.elapsed, self.stopped = 0, 0.0, False

    @abstractmethod
    def one_step(self) -> dict[str, float]:
        """Take one step; what the log is to say of it."""

    @abstractmethod
    def export(self) -> int:
        """Write the model as it is; returns the bytes."""

    def train(self, log_every: int = 50, save_every: int = 250) -> bool:
        """Train to the end or until Ctrl-C; True when the run is complete."""
        self.resume()
        if self.step == 0:
            self.log.unlink(missing_ok=True)
        before = signal.signal(signal.SIGINT, self._stop)
        self.net.train()
        began, resumed_at = time.time(), self.elapsed
        sums: dict[str, list[float]] = {}
        while self.step < self.settings.steps and not self.stopped:
            if self.step == self.settings.fall_begins():
                self._save(self.checkpoint.with_name("constant.pt"))  # from here on, other lengths are possible
            for name, value in self.one_step().items():
                sums.setdefault(name, []).append(value)
            self.step += 1
            self.elapsed = resumed_at + time.time() - began
            if self.step % log_every == 0:
                self._report({name: sum(values) / len(values) for name, values in sums.items()})
                sums = {}
            if self.step % save_every == 0:
                self._save()
        self._save()
        signal.signal(signal.SIGINT, before)
        done = self.step >= self.settings.steps
        print(f"{'done' if done else 'stopped'} at step {self.step} after {self.elapsed / 60:.1f} minutes", flush=True)
        return done

    def set_rates(self) -> float:
        """Give each group its learning rate of this step; how far the fall has come."""
        fallen = self.settings.fallen(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = (
                group["times"] * self.settings.learning_rate * min(1.0, (self.step + 1) / self.settings.warmup)
            )
            group["lr"] *= 1 - fallen
        return fallen

    def descend(self, loss: Tensor) -> None:
        """One step of the optimiser; the logit scale stays within its bounds."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        with torch.no_grad():
            self.net.model.logit_scale.clamp_(math.log(self.settings.scale_floor(self.step)), math.log(100))

    @contextmanager
    def precision(self) -> Iterator[None]:
        # Plain matrix products: at these sizes the CPU's fused attention is more than twice as slow.
        with torch.autocast(self.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            yield

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True

    def _report(self, means: dict[str, float]) -> None:
        record = {"step": self.step, "seconds": round(self.elapsed, 1)} | {k: round(v, 4) for k, v in means.items()}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as out:
            out.write(json.dumps(record) + "\n")
        print(record, flush=True)

    def _save(self, to: Path | None = None) -> None:
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        state["settings"] = asdict(self.settings)
        to = to or self.checkpoint
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_suffix(".part")
        torch.save(state, part)
        part.replace(to)
        self.export()

    def resume(self) -> None:
        """Take up the checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.elapsed = state["step"], state["elapsed"]
            print(f"going on from step {self.step}", flush=True)


class Run(Loop):
    """One training run of both towers."""

    net: clip.Trainable

    def __init__(self, artwork: Artwork, settings: Settings, work: Path, log: Path, model_folder: Path) -> None:
        self.model_folder = model_folder
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        seen = artwork.of_styles(SEEN)  # the held-out styles never reach training
        self.world, self.composer, self.writer = World(seen), Composer(seen, device, vary=True), Writer()
        net = clip.Trainable(clip.create(settings.seed), vocabulary(self.writer), N_FACTS).to(device)
        net.model.visual.to(memory_format=torch.channels_last)
        super().__init__(settings, net, optimiser(net, settings), work, log)

    def export(self) -> int:
        return clip.export(self.net.whole_state(), self.model_folder)

    def one_step(self) -> dict[str, float]:
        settings = self.settings
        fallen = self.set_rates()
        pixels, true, captions = self._batch()
        with self.precision():
            images = self.net.encode_image(pixels)
            read = self.net.reader(images)
        loss, seen = _reading_loss(read.float(), true)
        if captions is not None:
            contrast, told = self._contrast(images, captions, true)
            loss = contrast + settings.reader_weight * (1 - 0.8 * fallen) * loss  # in the end, captions matter
            seen |= told
        self.descend(loss)
        return seen

    def _contrast(self, images: Tensor, captions: Captions, true: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The contrastive loss of scenes and captions, and what the log says of it."""
        with self.precision():
            texts = self.net.encode_text(captions.tokens.to(self.device))
        scale = self.net.model.logit_scale.exp()
        logits = scale * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
        matches = captions.truth(true)
        contrast = (soft_loss(logits, matches) + soft_loss(logits.T, matches.T)) / 2
        matched = matches.gather(0, logits.argmax(0, keepdim=True)).float().mean()
        return contrast, {"loss": contrast.item(), "text_to_image": matched.item(), "scale": scale.item()}

    def _batch(self) -> tuple[Tensor, Tensor, Captions | None]:
        """Scenes of this step: a function of the seed and the step alone, so that a resumed run sees the same ones."""
        settings = self.settings
        seed = settings.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        early = max(0.0, 1 - self.step / settings.simple_until)
        simple = settings.simple_last + (settings.simple_first - settings.simple_last) * early
        scenes = self.world.draw(settings.batch, generator, simple=simple)
        true = facts(scenes)
        captions = self.writer(true, seed) if self.step >= settings.captions_from else None
        return self.composer(scenes, generator), true.to(self.device), captions


def optimiser(net: clip.TrainableText, settings: Settings, table_times: float = 1.0) -> torch.optim.Optimizer:
    """AdamW for all that is not frozen; `table_times` is of the embeddings' learning rate."""
    embeddings = [net.model.token_embedding.weight, net.model.positional_embedding]
    of_scores = [net.model.logit_scale, *([] if net.model.logit_bias is None else [net.model.logit_bias])]
    apart = {id(p) for p in (*of_scores, *embeddings)}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in apart]
    matrices = [p for p in others if p.ndim >= 2]
    vectors = [p for p in others if p.ndim < 2]
    groups = [
        {"params": embeddings, "weight_decay": settings.weight_decay, "times": table_times},
        {"params": matrices, "weight_decay": settings.weight_decay, "times": 1.0},
        {"params": vectors, "weight_decay": 0.0, "times": 1.0},
        # CoOp's small learning rates need a large logit scale; left alone it grows too slowly in a short run.
        {"params": of_scores, "weight_decay": 0.0, "times": 3.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def soft_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """Cross-entropy of each row against all its matches in equal parts."""
    target = matches / matches.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def _reading_loss(read: Tensor, true: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How well the reader names the value of every family, where the scene has one; things, the hardest, count double.

    Every scene counts alike: a family that few scenes of a batch have would otherwise shout with little to say.
    """
    total = read.new_zeros(())
    for family, values in FAMILIES.items():
        columns = slice(OFFSET[family], OFFSET[family] + len(values))
        told = true[:, columns].any(1)
        if told.any():
            weight = (2.0 if family.endswith("thing") else 1.0) * told.float().mean()
            total = total + weight * soft_loss(read[told, columns], true[told, columns])
    things = slice(OFFSET["any_thing"], OFFSET["any_thing"] + len(FAMILIES["any_thing"]))
    right = true[:, things].gather(1, read[:, things].argmax(1, keepdim=True)).float().mean()
    return total, {"reading": total.item(), "things": right.item()}
