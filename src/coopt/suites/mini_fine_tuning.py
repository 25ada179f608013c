"""Other ways of fine-tuning in miniature, offline (after IJCV 2022, table 5).

coopt suite run mini-fine-tuning
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, HAND_MADE, LINEAR_PROBE, coop
from coopt.suites.suite import OWN_TEMPLATE, Bundled, Entry, Suite

SUITE = Suite(
    name="mini-fine-tuning",
    title="Other ways of fine-tuning in miniature",
    paper=f"after {COOP}, table 5",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(every=4),
    entries=(
        HAND_MADE,
        LINEAR_PROBE,
        Entry("image encoder", "image_tuning", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("text transformation", "text_transformation", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("text bias", "text_bias", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("Tip-Adapter", "tip_adapter", {"templates": OWN_TEMPLATE}),
        Entry("Tip-Adapter-F", "tip_adapter", {"templates": OWN_TEMPLATE, "finetune": True}),
        coop("CoOp", "fast", n_ctx=16),
    ),
    columns="datasets",
    shots=(16,),
    cost="about 6 minutes of one core, nearly all of it for the image encoder",
)
