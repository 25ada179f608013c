"""The words nearest to learned context vectors, offline (after IJCV 2022, table 4).

coopt suite run mini-words
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-words",
    title="Nearest words in miniature",
    paper=f"after {COOP}, table 4",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(every=5),
    entries=(coop("CoOp", "fast"), coop("CoOp (CSC)", "fast", csc=True)),
    columns="datasets",
    shots=(16,),
    seeds=(1,),
    words=3,
    cost="half a minute",
)
