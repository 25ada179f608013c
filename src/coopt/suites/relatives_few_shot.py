"""Few-shot curves of the methods that came after CoOp: ViT-B/16, eleven data sets.

The methods that change both towers encode every image in every step, and need a GPU.

    coopt suite run relatives-few-shot --root DATA --only eurosat
"""

from coopt.suites.papers import ELEVEN, HAND_MADE, LINEAR_PROBE, VIT_B16
from coopt.suites.relatives import BOTH_TOWERS, FEATURES, FEW_SHOT, PROMPTS
from coopt.suites.suite import AVERAGE, Suite, published_row

SHOTS = (1, 2, 4, 8, 16)

SUITE = Suite(
    name="relatives-few-shot",
    title="Few-shot learning with the methods that came after CoOp",
    paper="the few-shot tables of the methods' papers",
    protocol="few-shot",
    models=(VIT_B16,),
    datasets=ELEVEN,
    entries=(HAND_MADE, LINEAR_PROBE, *FEATURES, *PROMPTS, *BOTH_TOWERS),
    columns="shots",
    shots=SHOTS,
    published=tuple(
        one
        for method, values in FEW_SHOT.items()
        for one in published_row(
            values, "shots", SHOTS, backbone=VIT_B16.key, dataset=AVERAGE, method=method, target="test"
        )
    ),
    published_note="Means over the eleven data sets as the methods' papers and later ones report them; those of one method differ "
    "by up to a point from table to table.",
    cost="GPU weeks; one data set without ImageNet a day",
)
