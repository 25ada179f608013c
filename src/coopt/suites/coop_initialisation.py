"""Random against word initialisation of four context vectors (IJCV 2022, table 3).

Expected mean over the eleven data sets: 72.65 with either. The table does not name its backbone and number of shots; RN50
and 16 shots are assumed here.
Cost: 11 x 2 x 3 runs, three pairs of them on ImageNet.

    coopt suite run coop-initialisation --root DATA
"""

from coopt.suites.papers import COOP, ELEVEN, RN50, coop
from coopt.suites.suite import AVERAGE, Published, Suite

SUITE = Suite(
    name="coop-initialisation",
    title="Random against word initialisation",
    paper=f"{COOP}, table 3",
    protocol="few-shot",
    models=(RN50,),
    datasets=ELEVEN,
    entries=(coop("[V]1[V]2[V]3[V]4", n_ctx=4), coop('"a photo of a"', init="a photo of a")),
    columns="datasets",
    shots=(16,),
    published=tuple(
        Published(72.65, RN50.key, AVERAGE, method, 16, "test") for method in ("[V]1[V]2[V]3[V]4", '"a photo of a"')
    ),
    published_note="Table 3, which does not name backbone and shots: RN50 and 16 shots are assumed.",
    cost="GPU hours without ImageNet, days with it",
)
