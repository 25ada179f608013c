"""Text towers of other widths for the bundled image tower, with token embeddings of other sizes.

What a recipe reaches may hang on the width of the text tower it was chosen with, or on how large that tower's token
embeddings happen to be. These are trained towers in the same world to hold it to. The image tower is the bundled one,
frozen (Zhai et al.: "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022, arXiv:2111.07991): the features
of many scenes are computed once, so a step costs no more than its captions, and each is told apart from many scenes.

A tower trained with the sigmoid loss (Zhai et al.: "Sigmoid Loss for Language Image Pre-Training", ICCV 2023,
arXiv:2303.15343) is the twin of the one of the same width: same scenes, captions, steps and seed.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.bundled import evaluate, training
from tools.bundled import model as clip
from tools.bundled.artwork import SEEN, Artwork
from tools.bundled.captions import Captions, Writer, vocabulary
from tools.bundled.compose import Composer
from tools.bundled.world import World, facts

SCENES = 100_000
_CHUNK = 256
SIMPLE = training.Settings.simple_last


@dataclass(frozen=True)
class Settings(training.Settings):
    """What the training of a text tower is. The table's size: that of token embeddings, as root mean square."""

    captions_from: int = 0
    falling: float = 0.5
    warmup: int = 100
    scale_until: int = 500
    width: int = 256
    heads: int = 4
    table_size: float = 0.15  # of the embeddings as they begin
    table_times: float = 5.0  # the embeddings' learning rate, against that of all else
    others: int = 960  # scenes of a step that captions are held against beside those they were written for
    loss: Literal["softmax", "sigmoid"] = "softmax"
    first_bias: float = -10.0  # of the sigmoid's scores, as in the paper


TOWERS = {
    256: Settings(steps=2500),
    # Embeddings end as small as those of OpenAI's models, or a little smaller.
    512: Settings(steps=2000, learning_rate=5e-4, width=512, heads=8, table_size=0.005, table_times=0.8),
}


class Bundled:
    """The model that comes with the package, and its pictures of the parts on which things are chosen."""

    def __init__(self, model_folder: Path, data: Path) -> None:
        self.model, self.preprocess, self.tokenizer = clip.load(model_folder)
        self.model.requires_grad_(False)
        self.data = data

    def fingerprint(self) -> str:
        """A hash of the image tower."""
        digest = hashlib.sha256()
        for name, value in self.model.visual.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()[:12]

    def validation(self) -> list[tuple[dict[str, Any], evaluate.Part]]:
        """Every data set, and the features of its validation pictures."""
        described = json.loads((self.data / "datasets.json").read_text())
        return [(d, evaluate.read_parts(self.model, self.preprocess, self.data, d, ("val",))["val"]) for d in described]


@dataclass(frozen=True)
class Pool:
    """Scenes whose images have been seen. features: (scenes, embed) float16, unit length; true: (scenes, facts) bool."""

    features: Tensor
    true: Tensor


def image_features(artwork: Callable[[], Artwork], bundled: Bundled, scenes: int, seed: int, folder: Path) -> Pool:
    """Features of scenes as the model itself was trained on; computed on the first call, later read from `folder`."""
    kept = folder / f"{bundled.fingerprint()}-{scenes}-{seed}.pt"
    if not kept.exists():
        seen = artwork().of_styles(SEEN)
        world, composer = World(seen), Composer(seen, vary=True)
        features, true = [], []
        for chunk in range(-(-scenes // _CHUNK)):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + chunk)
            drawn = world.draw(_CHUNK, generator, simple=SIMPLE)
            pixels = clip.prepared(composer(drawn, generator))
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                images = bundled.model.encode_image(pixels)
            features.append(F.normalize(images.float(), dim=-1).half())
            true.append(facts(drawn))
            if chunk % 50 == 0:
                print(f"features of {chunk * _CHUNK} scenes", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        torch.save({"features": torch.cat(features)[:scenes], "true": torch.cat(true)[:scenes]}, part)
        part.replace(kept)
    return Pool(**torch.load(kept, weights_only=True))


class TextRun(training.Loop):
    """The training of one text tower, in a folder of its own: checkpoint, log, and the model in open_clip's form."""

    settings: Settings

    def __init__(self, bundled: Bundled, pool: Pool, settings: Settings, folder: Path) -> None:
        self.bundled, self.pool, self.folder, self.writer = bundled, pool, folder, Writer()
        self.config = copy.deepcopy(clip.CONFIG)
        self.config["text_cfg"] |= {"width": settings.width, "heads": settings.heads}
        if settings.loss == "sigmoid":
            self.config["init_logit_bias"] = settings.first_bias
        model: Any = clip.create(settings.seed, settings.first_scale, self.config)
        model.visual.load_state_dict(bundled.model.visual.state_dict())
        model.visual.requires_grad_(False)
        with torch.no_grad():
            model.token_embedding.weight.mul_(settings.table_size / model.token_embedding.weight.square().mean().sqrt())
            model.positional_embedding.normal_(std=settings.table_size / 2)
        # In eight bits small embeddings would be hardly any.
        net = clip.TrainableText(model, vocabulary(self.writer), settings.table_size, torch.float16, parts=4)
        super().__init__(
            settings, net, training.optimiser(net, settings, settings.table_times), folder, folder / "log.jsonl"
        )
        self.validation = bundled.validation()

    def export(self) -> int:
        return clip.export(self.net.whole_state(), self.folder / "model", self.config, torch.float16)

    def one_step(self) -> dict[str, float]:
        self.set_rates()
        features, true, captions = self._batch()
        with self.precision():
            texts = self.net.encode_text(captions.tokens)
        scale = self.net.model.logit_scale.exp()
        logits = scale * features @ F.normalize(texts.float(), dim=-1).T
        matches = captions.truth(true).float()
        if self.settings.loss == "sigmoid":
            # Of each pair by itself; the sum is divided by the captions, as the paper's by the images of a batch.
            logits = logits + self.net.model.logit_bias
            loss = F.binary_cross_entropy_with_logits(logits, matches, reduction="sum") / logits.shape[1]
        else:
            told = matches.any(1)  # a scene of which no caption is true says nothing
            loss = (training.soft_loss(logits[told], matches[told]) + training.soft_loss(logits.T, matches.T)) / 2
        self.descend(loss)
        matched = matches.gather(0, logits.argmax(0, keepdim=True)).mean()
        seen = {"loss": loss.item(), "text_to_image": matched.item(), "scale": scale.item()}
        if self.settings.loss == "sigmoid":
            seen["bias"] = self.net.model.logit_bias.item()
        if (self.step + 1) % 250 == 0:
            seen |= self.check()
        return seen

    def _batch(self) -> tuple[Tensor, Tensor, Captions]:
        """Features and facts of this step's scenes, and captions of the first of them: a function of seed and step."""
        settings = self.settings
        seed = settings.seed * 1_000_003 + self.step
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(self.pool.true), (settings.batch + settings.others,), generator=generator)
        true = self.pool.true[chosen]
        return self.pool.features[chosen].float(), true, self.writer(true[: settings.batch], seed)

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Zero-shot accuracy on the validation parts (means over the data sets, in percent), and the embeddings' size."""
        sums = {"naive": 0.0, "hand": 0.0}
        for described, part in self.validation:
            for title, template in (("naive", evaluate.NAIVE), ("hand", described["prompt"])):
                tokens = self.bundled.tokenizer([template.format(c) for c in described["classes"]])
                classifier = F.normalize(self.net.encode_text(tokens), dim=-1)
                sums[title] += evaluate.accuracy(part, classifier) / len(self.validation)
        table = self.net.model.token_embedding.weight
        words = self.net.rows[torch.tensor(self.writer.encode("a photo of a"))]
        sizes = {"words": table[words].square().mean().sqrt().item(), "table": table.square().mean().sqrt().item()}
        return sums | sizes
