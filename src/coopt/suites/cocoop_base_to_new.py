"""CoCoOp's generalisation from base to new classes (CVPR 2022, table 1 and figure 3): ViT-B/16, 16 shots.

Expected mean over eleven data sets, base / new / harmonic mean: zero-shot 69.34 / 74.22 / 71.70, CoOp 82.69 / 63.22 /
71.66, CoCoOp 80.47 / 71.69 / 75.83. The paper gives CoOp, too, four context vectors that begin as "a photo of a". CoOp's
accuracy on new classes depends on the recipe: 63.2 to 70.0 are in print.
Cost: 11 x (1 + 2 x 3) runs.

    coopt suite run cocoop-base-to-new --root DATA --only eurosat
"""

from coopt.suites.papers import COCOOP, ELEVEN, HAND_MADE, VIT_B16, cocoop, coop
from coopt.suites.suite import AVERAGE, Published, Suite, published_row


def _row(method: str, shots: int, *values: float) -> tuple[Published, ...]:
    names = ("base", "new", "harmonic")
    return published_row(values, "targets", names, backbone=VIT_B16.key, dataset=AVERAGE, method=method, shots=shots)


SUITE = Suite(
    name="cocoop-base-to-new",
    title="From base to new classes",
    paper=f"{COCOOP}, base-to-new generalisation",
    protocol="base-to-new",
    models=(VIT_B16,),
    datasets=ELEVEN,
    entries=(
        HAND_MADE,
        coop("CoOp", init="a photo of a"),
        coop("CoOp (M=16)", n_ctx=16),
        cocoop(),
    ),
    columns="targets",
    derived="harmonic",
    shots=(16,),
    published=(
        *_row(HAND_MADE.name, 0, 69.34, 74.22, 71.70),
        *_row("CoOp", 16, 82.69, 63.22, 71.66),
        *_row("CoCoOp", 16, 80.47, 71.69, 75.83),
    ),
    published_note="CoOp's accuracy on new classes is between 63.2 and 70.0 in print, by epochs, context length and init.",
    cost="GPU days",
)
