"""CoOp's few-shot curves on eleven data sets (IJCV 2022, figure 3).

The figure's numbers are not in print. For ViT-B/16 later papers report means over the data sets (read off figures,
+-0.2). In RN50 the paper says that 16 shots gain about 15 points on average, and over 45 at most.
Cost: 2 x 11 x (1 + 5 x 15) runs; the ImageNet ones take hours each. Begin with `--only vit_b16 --only eurosat`.

    coopt suite run coop-few-shot --root DATA
"""

from coopt.suites.papers import COOP, ELEVEN, HAND_MADE, LINEAR_PROBE, RN50, VIT_B16, coop
from coopt.suites.suite import AVERAGE, Suite, published_row

SHOTS = (1, 2, 4, 8, 16)

SUITE = Suite(
    name="coop-few-shot",
    title="Few-shot learning",
    paper=f"{COOP}, figure 3",
    protocol="few-shot",
    models=(RN50, VIT_B16),
    datasets=ELEVEN,
    entries=(
        HAND_MADE,
        LINEAR_PROBE,
        coop("CoOp (M=16, end)", n_ctx=16),
        coop("CoOp (M=16, mid)", n_ctx=16, position="middle"),
        coop("CoOp (M=16, end, CSC)", n_ctx=16, csc=True),
        coop("CoOp (M=16, mid, CSC)", n_ctx=16, csc=True, position="middle"),
    ),
    columns="shots",
    shots=SHOTS,
    published=published_row(
        (67.5, 70.6, 74.0, 77.0, 79.9),
        "shots",
        SHOTS,
        backbone=VIT_B16.key,
        dataset=AVERAGE,
        method="CoOp (M=16, end)",
        target="test",
    ),
    published_note="ViT-B/16: means over the eleven data sets as later papers report them, read off figures, +-0.2. "
    "The paper's own figure is of RN50 and has no numbers in print.",
    cost="GPU days; a small data set takes minutes a run",
)
