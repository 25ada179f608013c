"""Recipes: how a method is trained, as one frozen object that API, command line, YAML and saved results share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from coopt.errors import ParameterError
from coopt.parameters import declared_in, parameter
from coopt.wording import on_command_line, subject


@dataclass(frozen=True)
class Recipe:
    """How the few parameters of a method are trained.

    Attributes:
        name: what the recipe is called.
        optimizer: "sgd" with momentum, or "adam" (decoupled weight decay).
        lr: the base learning rate.
        warmup_lr: the learning rate of the first epoch; None: `lr`.
        momentum: of SGD; Adam uses its usual (0.9, 0.999).
        weight_decay: on all trained parameters.
        batch_size: images in a step.
        epochs: how often the data is gone through; None: as many as `steps_per_shot` asks for, or 50, 100 or 200 by the number
            of shots, as in CoOp's paper.
        steps_per_epoch: batches in an epoch; None: all that the data has.
        views: cached views of each training image (the first is the test view, the others are augmented); 0 draws a
            fresh augmented view of every image in every epoch, as the paper does.
        beta1, beta2: of Adam.
        eps: of Adam: what is added to the size of gradients, so that smaller ones move less.
        embedding_rms: the size of the word embeddings (root mean square) for which `lr` is meant: where a text tower has
            others, the learning rate of vectors among them is in proportion. None: `lr` as it is.
        lbfgs: after the epochs, L-BFGS on all images for as long as halves of them agree (`coopt.training.refine`), up to
            so many text passes in all as this number times the square root of the images (a line search that has begun is
            ended); None: none.
        least_classes: with fewer classes there is no L-BFGS: on the bundled sets of 3 to 20 classes it gains nothing, and loses
            up to 10 points where test images differ from training images (docs/recipe.md); from 96 on it was measured.
        balance: an image of a class with n images counts n to the power of -`balance`: at 0 images count alike, at 1 classes.
        steps_per_shot: where `epochs` is None, so many steps for each image of the largest class, in whole epochs.
        last_lr: where the cosine of the learning rates would end, after the last epoch.
        average_mean: what was learned is a weighted mean of where each epoch, counted from 1, left it: an epoch weighs as much as
            a normal distribution of this mean and `average_std` is high there. None: it is where the last one left it.
        average_std: see `average_mean`.
        steps: at most so many epochs and steps of L-BFGS together; None: as many as the recipe says.
        seconds: at most so long; the learning rates fall in time for it. None: as long as it takes.
    """

    name: str = "fast"
    optimizer: Literal["sgd", "adam"] = parameter(
        default="adam", choices=("sgd", "adam"), help="SGD with momentum, or Adam with decoupled weight decay."
    )
    lr: float = parameter(
        default=0.05,
        low=0,
        option=True,
        metavar="RATE",
        shown_default=False,
        help="Learning rate, instead of the recipe's.",
    )
    warmup_lr: float | None = parameter(
        default=None, low=0, help="Learning rate of the first epoch; none: as in the others."
    )
    momentum: float = parameter(default=0.9, low=0, help="Of SGD.")
    weight_decay: float = parameter(default=5e-4, low=0, help="On all that is trained.")
    batch_size: int = parameter(default=4096, low=1, help="Images in a step.")
    epochs: int | None = parameter(
        default=16,
        low=1,
        option=True,
        metavar="N",
        shown_default=False,
        help="Rounds through the images, instead of the recipe's.",
    )
    steps_per_epoch: int | None = parameter(default=1, low=1, help="Batches in an epoch; none: all that the data has.")
    views: int = parameter(
        default=1,
        low=0,
        help="Cached views of each image, the first as in tests; 0: fresh augmented ones in every epoch.",
    )
    beta1: float = parameter(default=0.9, low=0, below=1, help="Of Adam: how long the mean of gradients remembers.")
    beta2: float = parameter(
        default=0.999, low=0, below=1, help="Of Adam: how long the mean of their squares remembers."
    )
    eps: float = parameter(default=1e-8, above=0, help="Of Adam: what is added to the size of gradients.")
    embedding_rms: float | None = parameter(
        default=None,
        above=0,
        help="The size of word embeddings that the learning rate is meant for; others get one in proportion.",
    )
    lbfgs: float | None = parameter(
        default=None,
        low=0,
        help="Go on with L-BFGS while halves of the images agree, up to so many text passes in all per square root of the "
        "images; none: end with the epochs.",
    )
    least_classes: int = parameter(default=50, low=2, help="No L-BFGS with fewer classes.")
    balance: float = parameter(
        default=0.0, low=0, high=1, help="Of uneven classes: 0 counts images alike, 1 counts classes alike."
    )
    steps_per_shot: int | None = parameter(
        default=None, low=1, help="Where epochs is none: steps for each image of the largest class."
    )
    last_lr: float = parameter(default=0.0, low=0, help="Where the learning rates end.")
    average_mean: float | None = parameter(
        default=None,
        help="The epoch that counts most in a mean over the epochs of what was learned; none: the last alone.",
    )
    average_std: float = parameter(default=1.0, above=0, help="How many epochs around that one count, as a deviation.")
    steps: int | None = parameter(
        default=None,
        low=1,
        option=True,
        metavar="N",
        shown_default=False,
        help="Learn in at most so many epochs and steps of L-BFGS together.",
    )
    seconds: float | None = parameter(default=None, above=0, help="Learn for at most so long.")

    def __post_init__(self) -> None:
        for one in declared_in(type(self)):
            value = getattr(self, one.name)
            one.require(value, _field(one.name))
            if one.kind == "int" and value is not None:  # NumPy's are as good, but JSON does not know them
                object.__setattr__(self, one.name, int(value))
            if one.kind == "number" and value is not None and not isinstance(value, int | float):
                object.__setattr__(self, one.name, float(value))

    def epochs_for(self, shots: int, images: int | None = None) -> int:
        """The number of epochs for `shots` images per class (Zhou et al., IJCV 2022, section 4.1).

        Args:
            shots: images of the largest class.
            images: of all classes; needed where `steps_per_shot` decides.
        """
        if self.epochs is not None:
            return self.epochs
        if self.steps_per_shot is not None and images is not None:
            return math.ceil(self.steps_per_shot * shots / self.steps_of(images))
        return 50 if shots <= 1 else 100 if shots <= 4 else 200

    def steps_of(self, images: int) -> int:
        """Steps of an epoch with so many images: an incomplete batch is dropped, unless it is the only one."""
        return min(max(1, images // self.batch_size), self.steps_per_epoch or images)

    def learning_rates(self, epochs: int) -> list[float]:
        """One learning rate per epoch: `warmup_lr` first, then half a cosine down from `lr` to `last_lr`."""
        first, above = self.lr if self.warmup_lr is None else self.warmup_lr, self.lr - self.last_lr
        cosine = [0.5 * (1 + math.cos(math.pi * (e - 1) / epochs)) for e in range(1, epochs)]
        return [first, *(self.last_lr + above * one for one in cosine)]

    def share_of(self, epoch: int) -> float:
        """What an epoch, counted from 1, counts in the mean over it and those before it."""
        assert self.average_mean is not None
        heights = [-(((e - self.average_mean) / self.average_std) ** 2) / 2 for e in range(1, epoch + 1)]
        return 1 / sum(math.exp(min(one - heights[-1], 700.0)) for one in heights)

    def goes_on(self, images: int, classes: int) -> bool:
        """Whether L-BFGS may follow the epochs."""
        return self.lbfgs is not None and images >= LEAST_IMAGES and classes >= self.least_classes

    def most_passes(self, images: int) -> int:
        """How many text passes there may be with L-BFGS, for so many images."""
        assert self.lbfgs is not None
        return min(MOST_PASSES, round(self.lbfgs * math.sqrt(images)))

    def to_dict(self) -> dict[str, Any]:
        """What makes the recipe, ready for JSON or YAML: the fields that all recipes have, and those of others that do
        something here, so that records from before there were these stay what they are."""
        return {name: value for name, value in asdict(self).items() if name in ALWAYS or value != USUAL[name]}

    @classmethod
    def of(cls, value: Recipe | str | dict[str, Any], named: Mapping[str, Recipe] | None = None) -> Recipe:
        """A recipe from a recipe, a name, or a mapping whose "name" may be that of the recipe it changes.

        Args:
            value: what was given.
            named: what names mean, for a method that has recipes of its own; "fast" must be among them.

        Raises:
            ParameterError: an unknown name or field, or a field out of its range.
        """
        if isinstance(value, Recipe):
            return value
        named = RECIPES if named is None else named
        if isinstance(value, str):
            if value not in named:
                raise ParameterError(
                    f"{subject('recipe', 'a method')} must be one of {', '.join(named)}. Got {value!r} instead."
                )
            return named[value]
        if not isinstance(value, dict):
            raise ParameterError(
                f"{subject('recipe', 'a method')} must be a name, a mapping or a Recipe. Got {value!r} instead."
            )
        known = [f.name for f in fields(cls)]
        unknown = [name for name in value if name not in known]
        if unknown:
            close = get_close_matches(str(unknown[0]), known, n=2)
            hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise ParameterError(f"A recipe has no field {unknown[0]!r}. {hint}Its fields are {', '.join(known)}.")
        base = value.get("name", "fast")
        if not isinstance(base, str) or (
            base not in named and not set(value) >= ALWAYS
        ):  # a recipe with a name of its own is known by all its fields
            raise ParameterError(
                f"The name of a recipe that is changed must be one of {', '.join(named)}. Got {base!r} instead; give "
                "all fields to call it by another name."
            )
        if set(value) >= ALWAYS:  # as `to_dict` wrote it: what is not there does nothing
            return cls(**value)
        return replace(named.get(base, named["fast"]), **value)


def _field(name: str) -> str:
    """A field as the subject of a message."""
    return subject(f"recipe.{name}", "a method") if on_command_line() else subject(name, "a recipe")


ALWAYS = frozenset(
    (
        "name",
        "optimizer",
        "lr",
        "warmup_lr",
        "momentum",
        "weight_decay",
        "batch_size",
        "epochs",
        "steps_per_epoch",
        "views",
    )
)
"""Fields that every record of a recipe has."""

USUAL = {f.name: getattr(Recipe, f.name, None) for f in fields(Recipe)}

EMBEDDING_RMS = 0.0763
"""Of "a photo of a" in the bundled model, on which the learning rates were chosen."""

LEAST_IMAGES = 100
"""Of fewer images halves say nothing reliable, and what a recipe's epochs reach is not improved on."""

MOST_PASSES = 128
"""Text passes after which L-BFGS ends with any number of images: with 1,448 classes and 16 images of each, the accuracy on
other images is at its highest after 48 to 128, and lower after 192 (docs/recipe.md)."""

PAPER = Recipe(
    name="paper",
    optimizer="sgd",
    lr=0.002,
    warmup_lr=1e-5,
    momentum=0.9,
    weight_decay=5e-4,
    batch_size=32,
    epochs=None,
    steps_per_epoch=None,
    views=0,
)
"""What CoOp's paper did: SGD, batch 32, a fresh augmented view of every image in every epoch."""

FAST = Recipe(name="fast", beta1=0.7, beta2=0.9, embedding_rms=EMBEDDING_RMS, lbfgs=3.0, balance=0.5)
"""For people's own data: a step costs one text pass whatever its batch, so batches are large and steps few; larger problems go on
with L-BFGS for as long as it pays.

Chosen on the validation parts of the bundled data sets and of two hard problems (docs/recipe.md). Augmented views are not
taken there: the paper's crops (down to 8% of an image) cut frames and positions off. For photographs `views` may help."""

RECIPES: dict[str, Recipe] = {"fast": FAST, "paper": PAPER}

CSC_RECIPES: dict[str, Recipe] = {
    **RECIPES,
    "fast": replace(FAST, lr=0.003, epochs=50, beta1=0.9, beta2=0.999, lbfgs=None),
}
"""Their meaning for class-specific contexts: each class learns from its own few images alone, so its words are changed less,
in more steps. Chosen in the same way, for contexts that begin as words and for random ones."""

KGCOOP_RECIPES: dict[str, Recipe] = {**RECIPES, "fast": replace(FAST, epochs=100)}
"""KgCoOp's: what holds its prompts near hand-made ones keeps more steps from learning the images by heart. Chosen among 16, 50 and
100 epochs on the validation parts of the bundled data sets, by the harmonic mean of base and new classes."""

COCOOP_RECIPES: dict[str, Recipe] = {
    "fast": Recipe(lr=0.005, warmup_lr=1e-5, batch_size=8, epochs=100, embedding_rms=EMBEDDING_RMS, balance=0.5),
    "paper": replace(PAPER, batch_size=1, epochs=10),
}
"""CoCoOp's meaning of the same names: there every image of a batch costs a text pass of its own.

"fast" takes 100 steps of 8 images, however many there are: 800 text passes, where the paper's recipe takes 10 for every
image. Chosen among five settings on the validation parts of bundled data sets, by the harmonic mean of base and new classes.
"paper" is what its paper did (Zhou et al., CVPR 2022, section 4): CoOp's SGD, but batch 1 and 10 epochs."""

MAPLE_RECIPES: dict[str, Recipe] = {
    "fast": Recipe(
        optimizer="sgd", lr=0.0035, warmup_lr=1e-5, batch_size=4, epochs=5, steps_per_epoch=None, balance=0.5
    ),
    "paper": replace(PAPER, lr=0.0035, batch_size=4, epochs=5),
}
"""MaPLe's: "paper" is what its paper did. "fast" takes the same steps on the images as tests see them, without augmentation."""

CLIP_LORA_RECIPES: dict[str, Recipe] = {
    "fast": Recipe(
        lr=5e-4, warmup_lr=None, weight_decay=1e-2, batch_size=32, epochs=30, steps_per_epoch=None, balance=0.5
    ),
    "paper": Recipe(
        name="paper",
        lr=2e-4,
        weight_decay=1e-2,
        batch_size=32,
        epochs=None,
        steps_per_epoch=None,
        views=0,
        steps_per_shot=500,
        last_lr=1e-6,
    ),
}
"""CLIP-LoRA's: "paper" is what its paper did, 500 steps for each image of a class. "fast" takes 30 epochs on the images as tests
see them."""

PROMPTSRC_RECIPES: dict[str, Recipe] = {
    "fast": replace(MAPLE_RECIPES["fast"], lr=0.0025, epochs=10, average_mean=8.0),
    "paper": replace(PAPER, lr=0.0025, batch_size=4, epochs=20, average_mean=15.0),
}
"""PromptSRC's: "paper" is what its paper did for base and new classes. "fast" takes half as many epochs, on the images as tests see
them."""

TWO_STAGE_RECIPES: dict[str, Recipe] = {
    "fast": replace(CLIP_LORA_RECIPES["fast"], lr=1e-3),
    "paper": replace(CLIP_LORA_RECIPES["paper"], steps_per_shot=300),
}
"""2SFS's: "paper" takes its paper's 300 steps for each image of a class; optimiser, learning rate and batches are CLIP-LoRA's. "fast"
takes 30 epochs on the images as tests see them."""

MMRL_RECIPES: dict[str, Recipe] = {
    "fast": Recipe(lr=1e-3, warmup_lr=1e-5, batch_size=4, epochs=10, steps_per_epoch=None, balance=0.5),
    "paper": Recipe(name="paper", lr=1e-3, warmup_lr=1e-5, batch_size=4, epochs=10, steps_per_epoch=None, views=0),
}
"""MMRL's: "paper" is what its paper did for base and new classes. "fast" takes the same steps on the images as tests see them."""
