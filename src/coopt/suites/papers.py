"""What the papers' suites share: models, data sets and methods."""

from __future__ import annotations

from coopt.suites.suite import OWN_ENSEMBLE, OWN_TEMPLATE, Entry, Model

COOP = "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models. IJCV 2022"
COCOOP = "Zhou, Yang, Loy, Liu: Conditional Prompt Learning for Vision-Language Models. CVPR 2022"

RN50 = Model("rn50", "RN50", "openclip:RN50/openai")
RN101 = Model("rn101", "RN101", "openclip:RN101/openai")
VIT_B32 = Model("vit_b32", "ViT-B/32", "openclip:ViT-B-32/openai")
VIT_B16 = Model("vit_b16", "ViT-B/16", "openclip:ViT-B-16/openai")
MODELS = (RN50, RN101, VIT_B32, VIT_B16)
BUNDLED_MODEL = (Model("bundled", "bundled model", "bundled"),)

OTHERS = (
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
"""The ten data sets besides ImageNet."""
ELEVEN = ("imagenet", *OTHERS)
SHIFTED = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")

NAIVE = Entry("naive prompt", "zero_shot", {}, "none")
ENSEMBLED = Entry("prompt ensemble", "zero_shot", {"templates": OWN_ENSEMBLE}, "none")
HAND_MADE = Entry("hand-made prompt", "zero_shot", {"templates": OWN_TEMPLATE}, "none")
LINEAR_PROBE = Entry("linear probe", "linear_probe", {}, "linear-probe")

IMAGENET_RUN = (
    "One run on ImageNet took later papers 8.8 hours with CoOp's code and 26 hours with CoCoOp's, on one GPU that they "
    "do not name."
)
"""For scale."""


def coop(name: str, recipe: str = "paper", **parameters: object) -> Entry:
    """CoOp with these parameters."""
    return Entry(name, "coop", {"recipe": recipe, **parameters})


def cocoop(name: str = "CoCoOp", recipe: str = "paper", **parameters: object) -> Entry:
    """CoCoOp with these parameters, and the papers' "a photo of a" unless they say otherwise."""
    return Entry(name, "cocoop", {"init": "a photo of a", "recipe": recipe, **parameters})
