"""Domain generalisation in miniature, offline: learned in one art style, tested in others (after IJCV 2022, table 1).

coopt suite run mini-domain
"""

from coopt.suites.papers import BUNDLED_MODEL, COCOOP, COOP, HAND_MADE, LINEAR_PROBE, NAIVE, cocoop, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-domain",
    title="Domain generalisation in miniature",
    paper=f"after {COOP}, table 1, and {COCOOP}",
    protocol="domain",
    models=BUNDLED_MODEL,
    datasets=Bundled(),
    entries=(
        NAIVE,
        HAND_MADE,
        LINEAR_PROBE,
        coop("CoOp", "fast"),
        coop("CoOp (M=16, random)", "fast", n_ctx=16),
        cocoop(recipe="fast"),
    ),
    columns="targets",
    derived="shifted",
    shots=(16,),
    seeds=(1, 2, 3, 4, 5),
    cost="about 8 minutes of one core",
)
