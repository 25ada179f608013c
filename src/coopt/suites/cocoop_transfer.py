"""CoCoOp's transfer from ImageNet to ten other data sets (CVPR 2022): ViT-B/16, 16 shots, M = 4.

Cost: 1 + 2 x 3 runs on ImageNet.

    coopt suite run cocoop-transfer --root DATA
"""

from coopt.suites.coop_domain import TABLE_1
from coopt.suites.papers import COCOOP, OTHERS, VIT_B16, cocoop, coop
from coopt.suites.suite import Entry, Published, Suite

# Zero-shot on ImageNet is the number of the other paper's table 1; other data sets' are not in print there.
ZERO_SHOT = TABLE_1[VIT_B16.key][0][0]

SUITE = Suite(
    name="cocoop-transfer",
    title="Cross-data-set transfer",
    paper=f"{COCOOP}, cross-data-set transfer",
    protocol="transfer",
    models=(VIT_B16,),
    datasets=("imagenet",),
    targets=OTHERS,
    entries=(
        Entry("a photo of a {}.", "zero_shot", {"templates": "a photo of a {}."}, "none"),
        coop("CoOp", init="a photo of a"),
        cocoop(),
    ),
    columns="targets",
    derived="shifted",
    shots=(16,),
    published=(Published(ZERO_SHOT, VIT_B16.key, "imagenet", "a photo of a {}.", 0, "imagenet"),),
    published_note="Zero-shot on ImageNet: IJCV 2022, table 1.",
    cost="GPU days",
)
