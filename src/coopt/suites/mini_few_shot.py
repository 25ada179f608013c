"""Few-shot curves in miniature, offline: the bundled model on all bundled data sets (after IJCV 2022, figure 3).

coopt suite run mini-few-shot
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, HAND_MADE, LINEAR_PROBE, coop
from coopt.suites.suite import OWN_ENSEMBLE, Bundled, Entry, Suite

SUITE = Suite(
    name="mini-few-shot",
    title="Few-shot learning in miniature",
    paper=f"after {COOP}, figure 3",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(),
    entries=(
        Entry("naive prompt", "zero_shot", {}, "none"),
        HAND_MADE,
        Entry("prompt ensemble", "zero_shot", {"templates": OWN_ENSEMBLE}, "none"),
        LINEAR_PROBE,
        coop("CoOp", "fast"),
        coop("CoOp (M=16, random)", "fast", n_ctx=16),
    ),
    columns="shots",
    seeds=(1, 2, 3, 4, 5),
    cost="about 13 minutes of one core",
)
