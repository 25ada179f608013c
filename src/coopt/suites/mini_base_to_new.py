"""From base to new classes in miniature, offline, with CoCoOp and later methods (after CVPR 2022, table 1).

coopt suite run mini-base-to-new
"""

from coopt.suites.papers import BUNDLED_MODEL, COCOOP, HAND_MADE, cocoop, coop
from coopt.suites.suite import OWN_TEMPLATE, Bundled, Entry, Suite

SUITE = Suite(
    name="mini-base-to-new",
    title="From base to new classes in miniature",
    paper=f"after {COCOOP}, base-to-new generalisation",
    protocol="base-to-new",
    models=BUNDLED_MODEL,
    datasets=Bundled(min_classes=6),
    entries=(
        HAND_MADE,
        coop("CoOp (M=16)", "fast", n_ctx=16),
        coop('CoOp ("a photo of a")', "fast", init="a photo of a"),
        cocoop(recipe="fast"),
        Entry("KgCoOp", "kgcoop", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("ProGrad", "prograd", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("TCP", "tcp", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
        Entry("GDA", "gda", {"templates": OWN_TEMPLATE}),
        Entry("ProLIP", "prolip", {"templates": OWN_TEMPLATE, "recipe": "fast"}),
    ),
    columns="targets",
    derived="harmonic",
    shots=(16,),
    cost="about 6 minutes of one core",
)
