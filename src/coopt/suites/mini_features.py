"""Methods that learn from image features alone, in miniature, offline: few-shot curves on seven bundled data sets.

Beside them CoOp, which they are compared with in their papers, each in its own protocol (mini-few-shot has the linear probe).
Numbers that papers choose on validation images are chosen here on training images that are held out.

coopt suite run mini-features
"""

from coopt.suites.papers import BUNDLED_MODEL, HAND_MADE, coop
from coopt.suites.suite import OWN_TEMPLATE, Bundled, Entry, Suite

TEXT = {"templates": OWN_TEMPLATE}

SUITE = Suite(
    name="mini-features",
    title="Learning from image features alone, in miniature",
    paper="after the few-shot tables of GDA (ICLR 2024), LP++ and CLAP (CVPR 2024), and ProKeR (CVPR 2025)",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(every=2, first=7),
    entries=(
        HAND_MADE,
        Entry("Tip-Adapter", "tip_adapter", TEXT),
        Entry("Tip-Adapter-F", "tip_adapter", {**TEXT, "finetune": True}),
        Entry("GDA", "gda", TEXT),
        Entry("ProKeR", "proker", TEXT),
        Entry("LP++", "lp_plus_plus", TEXT),
        Entry("CLAP", "clap", {**TEXT, "recipe": "fast"}),
        Entry("TaskRes", "taskres", {**TEXT, "recipe": "fast"}),
        Entry("ProLIP", "prolip", {**TEXT, "recipe": "fast"}),
        coop("CoOp", "fast"),
    ),
    columns="shots",
    seeds=(1, 2, 3, 4, 5),
    cost="about 8 minutes of one core",
)
