"""What the suites of later methods share: the methods as their papers set them, and their published numbers.

From the tables of the methods' own papers and of later ones that measured several alike, ViT-B/16, eleven data sets. Numbers of one
method differ by up to a point from table to table.
"""

from __future__ import annotations

from coopt.suites.papers import coop
from coopt.suites.suite import OWN_TEMPLATE, Entry

TEXT = {"templates": OWN_TEMPLATE}

FEATURES = (
    Entry("Tip-Adapter-F", "tip_adapter", {**TEXT, "finetune": True}),
    Entry("GDA", "gda", TEXT),
    Entry("ProKeR", "proker", TEXT),
    Entry("LP++", "lp_plus_plus", TEXT),
    Entry("CLAP", "clap", {**TEXT, "recipe": "paper"}),
    Entry("TaskRes", "taskres", {**TEXT, "recipe": "paper"}),
    Entry("ProLIP", "prolip", {"recipe": "paper"}),
)
"""Those that learn from image features alone."""

PROMPTS = (
    coop("CoOp", n_ctx=16),
    Entry("KgCoOp", "kgcoop", {**TEXT, "recipe": "paper"}),
    Entry("ProGrad", "prograd", {**TEXT, "recipe": "paper"}),
    Entry("TCP", "tcp", {**TEXT, "recipe": "paper"}),
)
"""Those that learn words, or what stands in their places inside the text tower."""

BOTH_TOWERS = (
    Entry("MaPLe", "maple", {"recipe": "paper"}),
    Entry("PromptSRC", "promptsrc", {"recipe": "paper"}),
    Entry("MMRL", "mmrl", {"template": OWN_TEMPLATE, "recipe": "paper"}),
    Entry("2SFS", "two_stage", {"template": OWN_TEMPLATE, "recipe": "paper"}),
    Entry("CLIP-LoRA", "clip_lora", {"template": OWN_TEMPLATE, "recipe": "paper"}),
)
"""Those that change both towers."""

FEW_SHOT: dict[str, tuple[float, ...]] = {
    "CoOp": (68.09, 70.13, 73.59, 76.45, 79.01),
    "KgCoOp": (69.51, 71.57, 74.48, 75.82, 77.26),
    "ProGrad": (68.20, 71.78, 74.21, 77.93, 79.20),
    "TCP": (70.63, 73.59, 76.07, 78.39, 80.98),
    "GDA": (69.39, 73.09, 76.24, 79.71, 81.70),
    "ProKeR": (71.32, 73.74, 76.23, 79.84, 82.01),
    "LP++": (70.35, 72.93, 75.77, 77.94, 80.32),
    "Tip-Adapter-F": (70.62, 73.08, 75.75, 78.51, 81.15),
    "MaPLe": (69.27, 72.58, 75.37, 78.89, 81.79),
    "CLIP-LoRA": (72.20, 75.41, 77.32, 80.10, 82.89),
}
"""Mean accuracy over the eleven data sets at 1, 2, 4, 8 and 16 shots."""

BASE_TO_NEW: dict[str, tuple[float, float, float]] = {
    "hand-made prompt": (69.34, 74.22, 71.70),
    "CoOp": (82.69, 63.22, 71.66),
    "KgCoOp": (80.73, 73.60, 77.00),
    "ProGrad": (82.48, 70.75, 76.16),
    "TCP": (84.13, 75.36, 79.51),
    "GDA": (83.96, 74.53, 78.97),
    "ProLIP": (83.90, 74.78, 79.08),
    "MaPLe": (82.28, 75.14, 78.55),
    "PromptSRC": (84.26, 76.10, 79.97),
    "MMRL": (85.68, 77.16, 81.20),
    "2SFS": (85.55, 75.48, 80.20),
}
"""Mean accuracy on base classes and on new ones, and their harmonic mean, at 16 shots."""
