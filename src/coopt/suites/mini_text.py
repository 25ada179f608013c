"""Methods that learn in the text tower, in miniature, offline: few-shot curves on seven bundled data sets.

DeKg is TCP with `divergence`. Each method begins as in its paper, with its recipe "fast".

coopt suite run mini-text
"""

from coopt.suites.mini_features import SUITE as FEATURES
from coopt.suites.papers import BUNDLED_MODEL, HAND_MADE, coop
from coopt.suites.suite import OWN_TEMPLATE, Entry, Suite

TEXT = {"templates": OWN_TEMPLATE, "recipe": "fast"}

SUITE = Suite(
    name="mini-text",
    title="Learning in the text tower, in miniature",
    paper="after the few-shot tables of ProGrad (ICCV 2023), TCP (CVPR 2024) and DeKg (ICLR 2025)",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=FEATURES.datasets,
    entries=(
        HAND_MADE,
        coop("CoOp", "fast"),
        Entry("KgCoOp", "kgcoop", TEXT),
        Entry("ProGrad", "prograd", TEXT),
        Entry("TCP", "tcp", TEXT),
        Entry("DeKg", "tcp", {**TEXT, "divergence": 1.0}),
        Entry("ensemble of 3 prompts", "prompt_ensemble", {"recipe": "fast"}),
    ),
    columns="shots",
    seeds=(1, 2, 3, 4, 5),
    cost="about 25 minutes of one core",
)
