"""From base to new classes with the methods that came after CoOp: ViT-B/16, eleven data sets, 16 shots.

coopt suite run relatives-base-to-new --root DATA --only eurosat
"""

from coopt.suites.papers import ELEVEN, HAND_MADE, VIT_B16
from coopt.suites.relatives import BASE_TO_NEW, BOTH_TOWERS, FEATURES, PROMPTS
from coopt.suites.suite import AVERAGE, Suite, published_row

TARGETS = ("base", "new", "harmonic")

SUITE = Suite(
    name="relatives-base-to-new",
    title="From base to new classes with the methods that came after CoOp",
    paper="the base-to-new tables of the methods' papers",
    protocol="base-to-new",
    models=(VIT_B16,),
    datasets=ELEVEN,
    entries=(HAND_MADE, *(one for one in FEATURES if one.name in BASE_TO_NEW), *PROMPTS, *BOTH_TOWERS),
    columns="targets",
    derived="harmonic",
    shots=(16,),
    published=tuple(
        one
        for method, values in BASE_TO_NEW.items()
        for one in published_row(
            values,
            "targets",
            TARGETS,
            backbone=VIT_B16.key,
            dataset=AVERAGE,
            method=method,
            shots=0 if method == HAND_MADE.name else 16,
        )
    ),
    published_note="Means over the eleven data sets as the methods' papers and later ones report them.",
    cost="GPU weeks",
)
