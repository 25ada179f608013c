"""Cross-data-set transfer in miniature, offline: learned on the first bundled data set, tested on all (after CVPR 2022).

coopt suite run mini-transfer
"""

from coopt.suites.papers import BUNDLED_MODEL, COCOOP, cocoop, coop
from coopt.suites.suite import Bundled, Entry, Suite

SUITE = Suite(
    name="mini-transfer",
    title="Cross-data-set transfer in miniature",
    paper=f"after {COCOOP}, cross-data-set transfer",
    protocol="transfer",
    models=BUNDLED_MODEL,
    datasets=Bundled(first=1),
    entries=(
        Entry("a photo of a {}.", "zero_shot", {}, "none"),
        coop("CoOp", "fast", init="a photo of a"),
        cocoop(recipe="fast"),
    ),
    columns="targets",
    derived="shifted",
    shots=(16,),
    cost="about 1 minute of one core",
)
