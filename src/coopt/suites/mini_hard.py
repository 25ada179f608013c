"""The two hard problems in miniature: all bundled data sets as one, and many similar classes with wrong labels.

Both are beside the 19 bundled data sets and in no mean over them (docs/miniature.md). Tested in the art style of the training
images and in two others. At 60 shots all training images are used: no class has more. Without the linear probe: with 121
classes its search for a regularisation takes minutes a run, hours in all, where the rest takes three minutes.

coopt suite run mini-hard
"""

from coopt.data.bundled import PREFIX
from coopt.suites.mini_few_shot import SUITE as FEW_SHOT
from coopt.suites.papers import BUNDLED_MODEL, LINEAR_PROBE
from coopt.suites.suite import Suite

SUITE = Suite(
    name="mini-hard",
    title="Hard problems in miniature",
    paper="not published",
    protocol="domain",
    models=BUNDLED_MODEL,
    datasets=(f"{PREFIX}mixed", f"{PREFIX}fleet"),
    entries=tuple(entry for entry in FEW_SHOT.entries if entry != LINEAR_PROBE),
    columns="targets",
    derived="shifted",
    shots=(1, 4, 16, 60),
    seeds=(1, 2, 3, 4, 5),
    cost="about 8 minutes of one core",
)
