"""What accuracy costs, in miniature, offline: every method at 16 shots, with the seconds that its runs take.

`coopt suite show mini-cost --figures DIR` draws accuracy against seconds. MaPLe, PromptSRC and others that put something between the
blocks of a transformer are not in it: the bundled model's image tower is a ResNet.

coopt suite run mini-cost --threads 1
"""

from coopt.suites.mini_features import SUITE as FEATURES
from coopt.suites.mini_text import SUITE as IN_TEXT
from coopt.suites.papers import BUNDLED_MODEL, LINEAR_PROBE, cocoop
from coopt.suites.suite import OWN_TEMPLATE, Entry, Suite

NAMES = [entry.name for entry in FEATURES.entries]

SUITE = Suite(
    name="mini-cost",
    title="What accuracy costs, in miniature",
    paper="not published",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=FEATURES.datasets,
    entries=(
        *FEATURES.entries,
        LINEAR_PROBE,
        *(entry for entry in IN_TEXT.entries if entry.name not in NAMES),
        cocoop(recipe="fast"),
        Entry("text bias", "text_bias", {"recipe": "fast", "templates": OWN_TEMPLATE}),
    ),
    columns="datasets",
    shots=(16,),
    seeds=(1, 2, 3, 4, 5),
    cost_figure=True,
    cost="about 25 minutes of one core",
)
