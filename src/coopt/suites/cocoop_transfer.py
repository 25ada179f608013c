"""CoCoOp's transfer from ImageNet to ten other data sets (CVPR 2022, table 2): ViT-B/16, 16 shots, M = 4.

Expected on ImageNet, and on average over the ten others: CoOp 71.51 and 63.88, CoCoOp 71.02 and 65.74.
Cost: 1 + 2 x 3 runs on ImageNet.

    coopt suite run cocoop-transfer --root DATA
"""

from coopt.suites.coop_domain import TABLE_1
from coopt.suites.papers import COCOOP, OTHERS, VIT_B16, cocoop, coop
from coopt.suites.suite import Entry, Published, Suite, published_row

# Zero-shot on ImageNet is the number of the other paper's table 1; other data sets' are not in print there.
ZERO_SHOT = TABLE_1[VIT_B16.key][0][0]

# ImageNet, then the other data sets in the order of `OTHERS`, then their mean.
TABLE_2 = {
    "CoOp": (71.51, 93.70, 89.14, 64.51, 68.71, 85.30, 18.47, 64.15, 41.92, 46.39, 66.55, 63.88),
    "CoCoOp": (71.02, 94.43, 90.14, 65.32, 71.88, 86.06, 22.94, 67.36, 45.73, 45.37, 68.21, 65.74),
}


def _row(method: str) -> tuple[Published, ...]:
    at = {"backbone": VIT_B16.key, "dataset": "imagenet", "method": method, "shots": 16}
    return published_row(TABLE_2[method], "targets", ("imagenet", *OTHERS, "shifted"), **at)


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
    published=(
        Published(ZERO_SHOT, VIT_B16.key, "imagenet", "a photo of a {}.", 0, "imagenet"),
        *_row("CoOp"),
        *_row("CoCoOp"),
    ),
    published_note="Table 2; zero-shot on ImageNet: IJCV 2022, table 1.",
    cost="GPU days",
)
