"""CoOp against other ways of fine-tuning, on ImageNet with RN50 and 16 shots (IJCV 2022, table 5).

Expected: zero-shot 58.18, linear probe 55.87, image encoder 18.28, text transformation 58.86, text bias 60.93, CoOp 62.95.
Cost: 1 + 5 x 3 runs on ImageNet; the image encoder is trained in three of them.

    coopt suite run coop-fine-tuning --root DATA
"""

from coopt.suites.papers import COOP, HAND_MADE, LINEAR_PROBE, RN50, coop
from coopt.suites.suite import Entry, Published, Suite

PUBLISHED = {
    HAND_MADE.name: 58.18,
    LINEAR_PROBE.name: 55.87,
    "image encoder": 18.28,
    "text transformation": 58.86,
    "text bias": 60.93,
    "CoOp": 62.95,
}

SUITE = Suite(
    name="coop-fine-tuning",
    title="Other ways of fine-tuning",
    paper=f"{COOP}, table 5",
    protocol="few-shot",
    models=(RN50,),
    datasets=("imagenet",),
    entries=(
        HAND_MADE,
        LINEAR_PROBE,
        Entry("image encoder", "image_tuning", {"recipe": "paper"}),
        Entry("text transformation", "text_transformation", {"recipe": "paper"}),
        Entry("text bias", "text_bias", {"recipe": "paper"}),
        coop("CoOp", n_ctx=16),
    ),
    columns="datasets",
    shots=(16,),
    published=tuple(
        Published(value, RN50.key, "imagenet", method, 0 if method == HAND_MADE.name else 16, "test")
        for method, value in PUBLISHED.items()
    ),
    published_note="Table 5.",
    cost="GPU days",
)
