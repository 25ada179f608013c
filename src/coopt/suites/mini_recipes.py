"""The fast recipe against the paper's, offline: what the shortcut costs or gains in accuracy, and in seconds.

coopt suite run mini-recipes
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, HAND_MADE, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-recipes",
    title="Recipes: fast and the paper's",
    paper=f"after {COOP}, section 4.1",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(every=3, max_classes=6),
    entries=(
        HAND_MADE,
        coop("CoOp, fast recipe", "fast", n_ctx=16),
        coop("CoOp, paper's recipe", "paper", n_ctx=16),
    ),
    columns="shots",
    shots=(1, 4, 16),
    seeds=(1, 2),
    cost="about 4 minutes of one core",
)
