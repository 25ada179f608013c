"""What CoOp's context depends on, offline: its length, the class's position, class-specific vectors, how it begins.

After IJCV 2022, figures 3 and 5 and table 3.

    coopt suite run mini-context
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, HAND_MADE, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-context",
    title="Context length, position and beginning in miniature",
    paper=f"after {COOP}, figures 3 and 5 and table 3",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(every=3),
    entries=(
        HAND_MADE,
        coop("M=1", "fast", n_ctx=1),
        coop("M=4", "fast", n_ctx=4),
        coop("M=16", "fast", n_ctx=16),
        coop("M=16, mid", "fast", n_ctx=16, position="middle"),
        coop("M=16, front", "fast", n_ctx=16, position="front"),
        coop("M=16, CSC", "fast", n_ctx=16, csc=True),
        coop('"a photo of a"', "fast", init="a photo of a"),
    ),
    columns="shots",
    shots=(1, 4, 16),
    cost="about 4 minutes of one core",
)
