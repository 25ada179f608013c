"""CoOp against hand-made prompts and their ensemble on ImageNet (IJCV 2022, table 2).

Expected with ViT-B/16: one prompt 66.73, seven 68.74, CoOp 71.92.
Cost: 4 x (2 + 3) runs on ImageNet.

    coopt suite run coop-ensembles --root DATA --only vit_b16
"""

from coopt.suites.papers import COOP, MODELS, coop
from coopt.suites.suite import OWN_ENSEMBLE, OWN_TEMPLATE, Entry, Published, Suite, published_row


def _row(method: str, shots: int, *values: float) -> tuple[Published, ...]:
    keys = [model.key for model in MODELS]
    return published_row(values, "backbones", keys, dataset="imagenet", method=method, shots=shots, target="test")


SUITE = Suite(
    name="coop-ensembles",
    title="Prompt engineering and ensembling",
    paper=f"{COOP}, table 2",
    protocol="few-shot",
    models=MODELS,
    datasets=("imagenet",),
    entries=(
        Entry("prompt engineering", "zero_shot", {"templates": OWN_TEMPLATE}, "none"),
        Entry("prompt ensembling", "zero_shot", {"templates": OWN_ENSEMBLE}, "none"),
        coop("CoOp", n_ctx=16),
    ),
    columns="backbones",
    shots=(16,),
    published=(
        *_row("prompt engineering", 0, 58.18, 61.26, 62.05, 66.73),
        *_row("prompt ensembling", 0, 60.41, 62.54, 63.71, 68.74),
        *_row("CoOp", 16, 62.95, 66.60, 66.85, 71.92),
    ),
    published_note="Table 2; its RN101 prompt engineering differs from table 1's zero-shot (61.26 and 61.62).",
    cost="GPU days for CoOp, minutes for the others",
)
