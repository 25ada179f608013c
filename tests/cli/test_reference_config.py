"""`coopt fit --config` of the reference implementation's YAML: what is taken over, left aside and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import run
from .test_config import settings  # noqa: F401 - a fixture

TRAINER = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 16
  TEST:
    BATCH_SIZE: 100
  NUM_WORKERS: 8
INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  NAME: "sgd"
  LR: 2e-3
  MAX_EPOCH: 50
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5
TRAIN:
  PRINT_FREQ: 5
MODEL:
  BACKBONE:
    NAME: "ViT-B/16"
"""

Settings = dict[str, Any]


@pytest.fixture
def fit(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """Runs `coopt fit` with the trainer's file, changed by `entries`; returns what would be done and what was said."""

    monkeypatch.setattr("coopt.backbones.check_backbone_name", lambda *_: None)  # weights are not here

    def run_with(*typed: Any, base: str = TRAINER, **entries: Any) -> tuple[Settings, str]:
        content = yaml.safe_load(base) or {}
        for name, value in entries.items():
            *above, last = name.split("__")
            place = content
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
        (tmp_path / "reference.yaml").write_text(yaml.safe_dump(content))
        settings.clear()
        result = run("fit", "--config", tmp_path / "reference.yaml", *typed)
        return dict(settings), " ".join(result.stderr.split())

    return run_with


def test_a_trainers_file(fit: Any) -> None:
    found, said = fit("photos")
    assert found["recipe"] == {"name": "paper", "batch_size": 16, "lr": 0.002, "epochs": 50, "warmup_lr": 1e-5}
    assert (found["method"], found["backbone"]) == ("coop", "openclip:ViT-B-16/openai")
    assert (found["n_ctx"], found["init"], found["csc"], found["position"]) == (16, None, False, "end")
    assert "says neither N_CTX nor CTX_INIT: 16 context vectors that begin at random" in said
    assert (
        "left aside, as they change nothing that is learned: DATALOADER.NUM_WORKERS, DATALOADER.TEST.BATCH_SIZE" in said
    )


def test_a_complete_file(fit: Any) -> None:
    found, said = fit(
        TRAINER__NAME="CoOp",
        TRAINER__COOP={"N_CTX": 4, "CSC": True, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "middle", "PREC": "fp16"},
        TRAINER__COCOOP={"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"},
        TRAINER__CDAC={"CLASS_LR_MULTI": 10},
        DATASET={"NAME": "DescribableTextures", "ROOT": "/data", "NUM_SHOTS": 8, "SUBSAMPLE_CLASSES": "all"},
        SEED=3,
        OUTPUT_DIR="output",
        OPTIM__MOMENTUM=0.8,
        OPTIM__SGD_NESTEROV=False,
        OPTIM__ADAM_BETA1=0.9,
    )
    assert (found["n_ctx"], found["csc"], found["position"], found["init"]) == (4, True, "middle", None)
    assert (str(found["data"]), found["root"], found["shots"], found["seed"]) == ("dtd", Path("/data"), 8, 3)
    assert found["recipe"]["momentum"] == 0.8
    assert "has PREC: 'fp16'; here it is learned in fp32" in said and "OUTPUT_DIR" in said


def test_other_methods(fit: Any) -> None:
    found, _ = fit("photos", TRAINER__COCOOP={"N_CTX": 4, "CTX_INIT": "a photo of a", "PREC": "fp32"})
    assert (found["method"], found["init"], found["n_ctx"]) == ("cocoop", "a photo of a", None)
    found, _ = fit("photos", TRAINER__NAME="KgCoOp", TRAINER__COOP={"W": 4.0, "N_CTX": 4})
    assert (found["method"], found["guide_weight"], found["n_ctx"]) == ("kgcoop", 4.0, 4)


def test_what_is_typed_wins(fit: Any) -> None:
    found, _ = fit("photos", "--init", "a picture of a", "--backbone", "bundled", "--recipe", "fast", "--shots", 2)
    assert (found["init"], found["n_ctx"]) == ("a picture of a", None)
    assert (found["backbone"], found["recipe"], found["shots"]) == ("bundled", "fast", 2)
    found, _ = fit("photos", "--n-ctx", 8, TRAINER__COOP={"CTX_INIT": "a photo of a"})
    assert (found["init"], found["n_ctx"]) == (None, 8)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"OPTIM__LR_SCHEDULER": "single_step"}, "OPTIM.LR_SCHEDULER: 'single_step'; only 'cosine' can be done here."),
        ({"OPTIM__NAME": "adam"}, "OPTIM.NAME: 'adam'; coopt has sgd and adamw."),
        ({"OPTIM__WARMUP_EPOCH": 5}, "OPTIM.WARMUP_EPOCH: 5; only 1 can be done here."),
        ({"OPTIM__NONSENSE": 5}, "OPTIM.NONSENSE: 5; coopt does not know what that is."),
        ({"INPUT__SIZE": "(288, 288)"}, "INPUT.SIZE: (288, 288); the backbone sees images of 224x224 pixels."),
        ({"INPUT__PIXEL_MEAN": [0.5, 0.5, 0.5]}, "INPUT.PIXEL_MEAN: (0.5, 0.5, 0.5); only (0.48145466, 0.4578275,"),
        ({"INPUT__TRANSFORMS": ["random_translation"]}, "INPUT.TRANSFORMS: ['random_translation']; training images"),
        ({"DATASET__SUBSAMPLE_CLASSES": "base"}, "DATASET.SUBSAMPLE_CLASSES: 'base'; only 'all' can be done here."),
        ({"DATASET__NUM_SHOTS": "many"}, "DATASET.NUM_SHOTS: 'many'; a whole number is expected."),
        ({"TRAINER__NAME": "MaPLe"}, "TRAINER.NAME: 'MaPLe'; coopt knows CoOp, CoCoOp, KgCoOp."),
        ({"TRAINER__NAME": "ZeroshotCLIP"}, "nothing is learned there, see `coopt zero-shot --ensemble`."),
        ({"TRAINER__COOP": {"W": 8.0}}, "TRAINER.COOP.W: 8.0; it is for TRAINER.NAME: KgCoOp."),
        ({"MODEL__INIT_WEIGHTS": "x.pth"}, "MODEL.INIT_WEIGHTS: 'x.pth'; only '' can be done here."),
        ({"n_ctx": 4}, "has n_ctx: 4; coopt does not know what that is."),
    ],
)
def test_what_would_change_the_result_is_refused(fit: Any, entries: dict[str, Any], message: str) -> None:
    found, said = fit("photos", **entries)
    assert found == {}
    assert message in said and "reference.yaml', a configuration of CoOp's reference implementation, has" in said


def test_other_backbones_see_other_sizes(fit: Any) -> None:
    found, _ = fit("photos", MODEL__BACKBONE__NAME="ViT-L/14@336px", INPUT__SIZE="(336, 336)")
    assert found["backbone"] == "openclip:ViT-L-14-336/openai"


def test_a_data_set_of_ones_own(fit: Any) -> None:
    found, said = fit("photos", DATASET__NAME="Mine")
    assert str(found["data"]) == "photos"
    assert "has DATASET.NAME: 'Mine', which is left aside: DATA is what was typed." in said
