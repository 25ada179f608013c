"""Few-shot curves in miniature, offline: the bundled model on all bundled data sets (after IJCV 2022, figure 3).

coopt suite run mini-few-shot
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, ENSEMBLED, HAND_MADE, LINEAR_PROBE, NAIVE, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-few-shot",
    title="Few-shot learning in miniature",
    paper=f"after {COOP}, figure 3",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(),
    entries=(
        NAIVE,
        HAND_MADE,
        ENSEMBLED,
        LINEAR_PROBE,
        coop("CoOp", "fast"),
        coop("CoOp (M=16, random)", "fast", n_ctx=16),
    ),
    columns="shots",
    seeds=(1, 2, 3, 4, 5),
    cost="about 13 minutes of one core",
)
