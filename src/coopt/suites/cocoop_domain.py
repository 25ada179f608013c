"""CoCoOp's domain generalisation from ImageNet (CVPR 2022): ViT-B/16, 16 shots, M = 4.

Expected for zero-shot, as in CoOp's table 1: 66.73, then V2 60.83, Sketch 46.15, A 47.77, R 73.96.
Cost: 1 + 2 x 3 runs on ImageNet.

    coopt suite run cocoop-domain --root DATA
"""

from coopt.suites.coop_domain import table_1
from coopt.suites.papers import COCOOP, HAND_MADE, SHIFTED, VIT_B16, cocoop, coop
from coopt.suites.suite import Suite

SUITE = Suite(
    name="cocoop-domain",
    title="Domain generalisation of conditional prompts",
    paper=f"{COCOOP}, domain generalisation",
    protocol="domain",
    models=(VIT_B16,),
    datasets=("imagenet",),
    targets=SHIFTED,
    entries=(HAND_MADE, coop("CoOp", init="a photo of a"), cocoop()),
    columns="targets",
    derived="shifted",
    shots=(16,),
    published=table_1(VIT_B16.key, HAND_MADE.name),
    published_note="Zero-shot: IJCV 2022, table 1.",
    cost="GPU days",
)
