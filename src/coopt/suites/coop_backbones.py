"""How CoOp depends on the backbone (IJCV 2022, figure 5, right): mean over eleven data sets, M = 16, 16 shots.

The figure's numbers are not in print, but for the mean with ViT-B/16, which later papers report (read off figures, +-0.2).
Cost: 4 x 11 x (1 + 3) runs.

    coopt suite run coop-backbones --root DATA
"""

from coopt.suites.papers import COOP, ELEVEN, HAND_MADE, MODELS, VIT_B16, coop
from coopt.suites.suite import AVERAGE, Published, Suite

SUITE = Suite(
    name="coop-backbones",
    title="Backbones",
    paper=f"{COOP}, figure 5",
    protocol="few-shot",
    models=MODELS,
    datasets=ELEVEN,
    entries=(HAND_MADE, coop("CoOp", n_ctx=16)),
    columns="backbones",
    shots=(16,),
    published=(Published(79.9, VIT_B16.key, AVERAGE, "CoOp", 16, "test"),),
    published_note="ViT-B/16: as later papers report it, read off figures, +-0.2. The figure has no numbers in print.",
    cost="GPU days",
)
