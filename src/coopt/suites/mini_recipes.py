"""The fast recipe against the paper's, offline: what the shortcut costs or gains in accuracy, and in seconds.

coopt suite run mini-recipes
"""

from coopt.suites.papers import BUNDLED_MODEL, COOP, HAND_MADE, NAIVE, coop
from coopt.suites.suite import Bundled, Suite

SUITE = Suite(
    name="mini-recipes",
    title="Recipes: fast and the paper's",
    paper=f"after {COOP}, section 4.1",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(),
    entries=(
        NAIVE,
        HAND_MADE,
        coop("CoOp, fast recipe", "fast"),
        coop("CoOp, paper's recipe", "paper"),
    ),
    columns="shots",
    shots=(1, 4, 16),
    cost="about 80 minutes of one core, nearly all of it for the paper's fresh views of every image in every epoch",
)
