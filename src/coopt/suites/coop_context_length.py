"""How CoOp depends on the context length (IJCV 2022, figure 5, left): M = 4, 8, 16, mean over eleven data sets.

The figure's numbers are not in print; it is of RN50 here.
Cost: 11 x 3 x 5 x 3 runs.

    coopt suite run coop-context-length --root DATA
"""

from coopt.suites.papers import COOP, ELEVEN, RN50, coop
from coopt.suites.suite import Suite

SUITE = Suite(
    name="coop-context-length",
    title="Context length",
    paper=f"{COOP}, figure 5",
    protocol="few-shot",
    models=(RN50,),
    datasets=ELEVEN,
    entries=tuple(coop(f"CoOp (M={m})", n_ctx=m) for m in (4, 8, 16)),
    columns="shots",
    published_note="Figure 5 has no numbers in print.",
    cost="GPU days",
)
