"""`coopt fit --config` of a YAML file written for CoOp's reference implementation (`TRAINER:`, `OPTIM:` ...).

What is known becomes an option, as if it stood in a file of ours; what changes nothing here is left aside by name; what
would change the result and cannot be done is refused by name. Where a file is silent, the paper's recipe holds and the
context is that of the reference: 16 vectors that begin at random.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from coopt.errors import ParameterError

SECTIONS = {"TRAINER", "OPTIM", "DATALOADER", "INPUT", "DATASET", "MODEL", "TRAIN", "TEST"}
"""A file with one of them at its top is taken for the reference implementation's."""

TRAINERS = {"CoOp": "coop", "CoCoOp": "cocoop", "KgCoOp": "kgcoop"}
_ZERO_SHOT = ("ZeroshotCLIP", "ZeroshotCLIP2")
_DATASETS = {
    "ImageNet": "imagenet",
    "Caltech101": "caltech101",
    "OxfordPets": "oxford_pets",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers",
    "Food101": "food101",
    "FGVCAircraft": "fgvc_aircraft",
    "SUN397": "sun397",
    "DescribableTextures": "dtd",
    "EuroSAT": "eurosat",
    "UCF101": "ucf101",
}
_SIZES = {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336px": 336}

# Entry to option.
_OPTIONS = {
    "DATASET.ROOT": "root",
    "TRAINER.COOP.N_CTX": "n-ctx",
    "TRAINER.COOP.CSC": "csc",
    "TRAINER.COOP.CLASS_TOKEN_POSITION": "position",
    "TRAINER.COCOOP.N_CTX": "n-ctx",
}
# Entry to field of the recipe.
_RECIPE = {
    "DATALOADER.TRAIN_X.BATCH_SIZE": "batch_size",
    "OPTIM.LR": "lr",
    "OPTIM.MAX_EPOCH": "epochs",
    "OPTIM.MOMENTUM": "momentum",
    "OPTIM.WEIGHT_DECAY": "weight_decay",
    "OPTIM.WARMUP_CONS_LR": "warmup_lr",
}
# Entry to the only values with which coopt does the same.
_FIXED: dict[str, tuple[Any, ...]] = {
    "DATALOADER.TRAIN_X.SAMPLER": ("RandomSampler",),
    "DATALOADER.K_TRANSFORMS": (1,),
    "DATASET.SUBSAMPLE_CLASSES": ("all",),
    "INPUT.INTERPOLATION": ("bicubic",),
    "INPUT.NO_TRANSFORM": (False,),
    "INPUT.PIXEL_MEAN": ((0.48145466, 0.4578275, 0.40821073),),
    "INPUT.PIXEL_STD": ((0.26862954, 0.26130258, 0.27577711),),
    "INPUT.RRCROP_SCALE": ((0.08, 1.0),),
    "MODEL.INIT_WEIGHTS": ("",),
    "OPTIM.LR_SCHEDULER": ("cosine",),
    "OPTIM.SGD_DAMPNING": (0,),
    "OPTIM.SGD_NESTEROV": (False,),
    "OPTIM.STAGED_LR": (False,),
    "OPTIM.WARMUP_EPOCH": (1,),
    "OPTIM.WARMUP_TYPE": ("constant",),
}
_TRANSFORMS = {"random_resized_crop", "random_flip", "normalize"}
# They concern printing, speed, measuring, or something that is switched off by the entries above.
_ASIDE = (
    *("TEST.", "TRAIN.", "DATALOADER.TEST.", "DATALOADER.TRAIN_U.", "DATALOADER.TRAIN_X.", "DATALOADER.NUM_WORKERS"),
    *("DATALOADER.RETURN_IMG0", "DATASET.", "INPUT.", "MODEL.HEAD.", "MODEL.BACKBONE.PRETRAINED", "OPTIM.ADAM_"),
    *("OPTIM.RMSPROP_", "OPTIM.STEPSIZE", "OPTIM.GAMMA", "OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT", "OPTIM.WARMUP_"),
    *("OUTPUT_DIR", "RESUME", "USE_CUDA", "VERBOSE", "VERSION"),
)


def is_reference_config(content: Mapping[Any, Any]) -> bool:
    """Whether a YAML file's content is in the form of the reference implementation."""
    return not SECTIONS.isdisjoint(key for key in content if isinstance(key, str))


def options_of(content: Mapping[Any, Any], shown: str) -> tuple[dict[str, Any], list[str]]:
    """The content as options of `coopt fit`, and what is to be said about it.

    Args:
        content: of the file.
        shown: the file's name in messages.

    Raises:
        ParameterError: an entry asks for something that cannot be done.
    """
    return _Reader(shown, dict(_entries(content))).read()


def _entries(content: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The entries by their full names; texts that stand for a number or a tuple are read as such, as there."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{above}{key}.")
            continue
        if isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval(value)
        yield f"{above}{key}", tuple(value) if isinstance(value, list) else value


class _Reader:
    """Takes the entries of a file one group after the other; what is left then is unknown."""

    def __init__(self, shown: str, entries: dict[str, Any]) -> None:
        self.shown, self.entries = shown, entries
        self.options: dict[str, Any] = {}
        self.recipe: dict[str, Any] = {"name": "paper"}
        self.notes: list[str] = []

    def read(self) -> tuple[dict[str, Any], list[str]]:
        """See `options_of`."""
        self._method()
        self._context()
        self._data()
        self._backbone()
        self._images()
        self._recipe()
        for name, option in _OPTIONS.items():
            if (value := self._take(name)) is not None:
                self.options[option] = value
        for name, allowed in _FIXED.items():
            value = self._take(name)
            if value is not None and value not in allowed:
                raise self._refused(name, value, f"only {allowed[0]!r} can be done here")
        self._rest()
        return {**self.options, "recipe": self.recipe}, self.notes

    def _take(self, name: str) -> Any:
        return self.entries.pop(name, None)

    def _refused(self, name: str, value: Any, why: str) -> ParameterError:
        return ParameterError(
            f"'{self.shown}', a configuration of CoOp's reference implementation, has {name}: {value!r}; {why}. "
            "Change or delete that line."
        )

    def _method(self) -> None:
        name = self._take("TRAINER.NAME")
        if name in _ZERO_SHOT:
            raise self._refused("TRAINER.NAME", name, "nothing is learned there, see `coopt zero-shot --ensemble`")
        if name and name not in TRAINERS:
            raise self._refused("TRAINER.NAME", name, f"coopt knows {', '.join(TRAINERS)}")
        sections = {key.split(".")[1] for key in self.entries if key.startswith("TRAINER.") and key.count(".") > 1}
        used = (
            "COCOOP" if name == "CoCoOp" or (not name and "COCOOP" in sections and "COOP" not in sections) else "COOP"
        )
        self.options["method"] = TRAINERS[name] if name else "cocoop" if used == "COCOOP" else "coop"
        for key in [
            key for key in self.entries if key.startswith("TRAINER.") and not key.startswith(f"TRAINER.{used}.")
        ]:
            del self.entries[key]  # a complete file has those of all trainers
        self.used = used

    def _context(self) -> None:
        words = self._take(f"TRAINER.{self.used}.CTX_INIT")
        if words:
            self.options["init"] = str(words)
            self._take(f"TRAINER.{self.used}.N_CTX")  # the words decide, as there
        elif f"TRAINER.{self.used}.N_CTX" not in self.entries:
            self.options["n-ctx"] = 16
            self.notes.append(
                f"'{self.shown}' says neither N_CTX nor CTX_INIT: 16 context vectors that begin at random, as in the "
                "reference implementation. (--n-ctx or --init say otherwise.)"
            )
        precision = self._take(f"TRAINER.{self.used}.PREC")
        if precision not in (None, "fp32"):
            self.notes.append(
                f"'{self.shown}' has PREC: {precision!r}; here it is learned in fp32, or see --precision."
            )
        weight = self._take("TRAINER.COOP.W")
        if weight is not None:
            if self.options["method"] != "kgcoop":
                raise self._refused("TRAINER.COOP.W", weight, "it is for TRAINER.NAME: KgCoOp")
            self.options["set"] = [f"guide_weight={weight}"]

    def _data(self) -> None:
        name = self._take("DATASET.NAME")
        if name in _DATASETS:
            self.options["data"] = _DATASETS[name]
        elif name:
            self.notes.append(
                f"'{self.shown}' has DATASET.NAME: {name!r}, which is left aside: DATA is what was typed."
            )
        for entry, option, least in (("DATASET.NUM_SHOTS", "shots", 1), ("SEED", "seed", 0)):
            value = self._take(entry)
            if value is not None and not isinstance(value, int):
                raise self._refused(entry, value, "a whole number is expected")
            if value is not None and value >= least:  # below, it means all images, or any seed
                self.options[option] = value

    def _backbone(self) -> None:
        name = self._take("MODEL.BACKBONE.NAME")
        size = self._take("INPUT.SIZE")
        if name:
            model = str(name).replace("/", "-").replace("@336px", "-336")
            self.options["backbone"] = f"openclip:{model}/openai"
        expected = _SIZES.get(str(name), 224)
        if size is not None and size not in ((expected, expected), expected):
            raise self._refused("INPUT.SIZE", size, f"the backbone sees images of {expected}x{expected} pixels")

    def _images(self) -> None:
        transforms = self._take("INPUT.TRANSFORMS")
        if transforms is not None and set(transforms) != _TRANSFORMS:
            raise self._refused("INPUT.TRANSFORMS", list(transforms), f"training images get {sorted(_TRANSFORMS)}")

    def _recipe(self) -> None:
        optimizer = self._take("OPTIM.NAME")
        if optimizer not in (None, "sgd", "adamw"):
            raise self._refused("OPTIM.NAME", optimizer, "coopt has sgd and adamw")
        if optimizer == "adamw":
            self.recipe["optimizer"] = "adam"  # its weight decay is decoupled
        for name, field in _RECIPE.items():
            if (value := self._take(name)) is not None:
                self.recipe[field] = value

    def _rest(self) -> None:
        known = [name for name in self.entries if name.startswith(_ASIDE)]
        unknown = [name for name in self.entries if name not in known]
        if unknown:
            raise self._refused(unknown[0], self.entries[unknown[0]], "coopt does not know what that is")
        if known:
            self.notes.append(
                f"'{self.shown}': left aside, as they change nothing that is learned: {', '.join(known)}."
            )
