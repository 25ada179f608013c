"""What the benchmarks write, and the page that is made of it. Nothing here is timed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import backbones, engines, measuring, memory, page, passes, report, scale, sections, speed
from benchmarks.method_step import MethodStep, profile
from benchmarks.recipe import Row, rows_of_runs, summary
from benchmarks.report import aligned, command
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from tests.models import small_open_clip

ROOT = Path(__file__).parents[1]


def test_the_page_is_made_of_the_committed_numbers() -> None:
    """`make benchmarks` brings docs/benchmarks.md up to date."""
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page.page(page.RESULTS)


def test_numbers_that_no_section_shows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sped.json").write_text("{}")
    with pytest.raises(ValueError, match=r"No section shows sped\.json"):
        page.page(tmp_path)


def test_without_numbers_there_are_no_sections(tmp_path: Path) -> None:
    assert "##" not in page.page(tmp_path)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("benchmarks/speed.py --repeats 3 --json speed.json", "python benchmarks/speed.py --repeats 3"),
        ("benchmarks/speed.py --json=/tmp/speed.json --batch 8", "python benchmarks/speed.py --batch 8"),
        (f"{ROOT}/benchmarks/parity.py {ROOT}/tests/golden", "python benchmarks/parity.py tests/golden"),
        (
            "benchmarks/features.py --clip-benchmark=/home/me/there",
            "python benchmarks/features.py --clip-benchmark=there",
        ),
    ],
)
def test_commands_as_one_would_type_them(typed: str, kept: str) -> None:
    assert command(typed.split()) == kept


def test_a_command_is_quoted_for_the_shell() -> None:
    assert command(["benchmarks/recipe.py", "--set", "fast: {}"]) == "python benchmarks/recipe.py --set 'fast: {}'"


def test_table_and_file_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "numbers.json"
    monkeypatch.setattr("sys.argv", ["benchmarks/some.py", "--json", str(file)])
    report.report({"answer": 42}, "the answer is 42", argparse.Namespace(json=file))
    assert capsys.readouterr().out == "the answer is 42\n"
    written = json.loads(file.read_text())
    assert written["answer"] == 42 and written["command"] == "python benchmarks/some.py"
    assert set(written["machine"]) == {"cores", "instructions", "memory_gb", "gpu", "torch", "threads"}
    assert list(file.parent.iterdir()) == [file]


def test_what_this_machine_is_slow_in_is_left_out_and_named(
    cost_of_bf16: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert measuring.precisions_here(["fp32", "bf16"]) == (["fp32", "bf16"], [])
    cost_of_bf16(27.0)
    kept, left_out = measuring.precisions_here(["fp32", "bf16"])
    assert (
        kept == ["fp32"] and "Left out: bf16, which takes about 27 times as long as fp32 on" in capsys.readouterr().err
    )
    assert measuring.precisions_here(["bf16"]) == (["bf16"], [])  # somebody wants to know
    monkeypatch.setattr("sys.argv", ["benchmarks/some.py"])
    report.report({"left_out": left_out}, "a table", argparse.Namespace(json=None))
    assert capsys.readouterr().out.startswith("a table\n\nLeft out: bf16, which takes about 27 times as long")
    (tmp_path / "scale.json").write_text(
        json.dumps({**json.loads((page.RESULTS / "scale.json").read_text()), "left_out": left_out})
    )
    assert "\n\nLeft out: bf16, which takes about 27 times" in page.page(tmp_path)


@pytest.mark.parametrize(("cost", "ways"), [(1.0, ["fp32", "bf16"]), (27.0, ["fp32"])])
def test_a_training_step_is_measured_where_it_is_not_slow_and_each_at_once(
    cost: float, ways: list[str], cost_of_bf16: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small tower, nothing of it compared with anything; memory, which takes processes, is made up."""
    cost_of_bf16(cost)
    monkeypatch.setattr(speed, "random_backbone", lambda model: small_open_clip())
    monkeypatch.setattr(speed, "peak_memory", lambda *_: 1.0)
    monkeypatch.setattr(speed, "matmul_peak", lambda dtype: 1e9)
    given = argparse.Namespace(model="small", classes=3, n_ctx=2, batch=2, batches="1,2", repeats=1)
    result = speed.measure_coop(given)
    assert list(result["ours_s"]) == list(result["matmul_peak_gflops"]) == ways
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("fp32: ") for line in lines) == 5 and lines[-1].endswith(" s")
    assert any(line.startswith("Left out: bf16") for line in lines) == (cost > 1)
    assert len(report.on_screen(sections.coop_step(result))) > 0
    conditional = speed.measure_cocoop(given)
    assert {row["precision"] for row in conditional["ours"]} == set(ways)
    assert len(report.on_screen(sections.cocoop_step(conditional))) > 0


def test_columns_are_aligned() -> None:
    assert aligned([["", "s"], ["ours", "10.5"], ["theirs", ""]]) == "           s\nours    10.5\ntheirs"
    assert sections.markdown(["", "s"], [["ours", ""]]) == "| | s |\n| --- | --- |\n| ours | |"


@pytest.mark.parametrize(
    ("promise", "held", "kept"),
    [("250M", 250.0, True), ("250M", 250.1, False), ("auto", 200.1, False), ("1T", 200.0, True)],
)
def test_a_broken_promise_is_seen(promise: str, held: float, kept: bool) -> None:
    """A number promises itself, all else the estimate of 200 MB."""
    row = memory.judged({"estimate_mb": 200.0, "above_model_mb": held}, promise)
    assert row["kept"] == kept and row["promised_mb"] == (250 if promise == "250M" else 200)


def test_a_broken_promise_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"1T": 900.0, "1G": 990.0, "500M": 510.0}

    def measured(classes: int, precision: str, given: argparse.Namespace) -> dict[str, Any]:
        row = {"precision": precision, "classes": classes, "chunks": 1, "step_s": 1.0, "estimate_mb": 950.0}
        return {**row, "above_model_mb": held[given.memory]}

    monkeypatch.setattr(memory, "in_own_process", measured)
    for promises, status in (("1G", 0), ("1G,500M", 1)):
        monkeypatch.setattr("sys.argv", ["benchmarks/memory.py", "--memory", promises])
        assert memory.main() == status


def test_a_row_of_scale_says_what_was_held() -> None:
    """A small tower in this process; what is held is not compared with anything here."""
    given = argparse.Namespace(
        method="coop", model="RN50", text_width=64, text_layers=2, batch=2, memory="auto", repeats=1
    )
    row = scale.measure(3, "fp32", given)
    assert row["chunks"] == 1
    # Megabytes are rounded to doubles of their own, so the two quotients may differ in the last bit.
    assert row["overshoot"] == pytest.approx(row["above_model_mb"] / row["estimate_mb"], rel=1e-12)


def rows_of(candidate: str, passes: int, accuracies: dict[tuple[int, int], float]) -> list[Row]:
    return [Row(candidate, "pets", shots, seed, value, passes) for (shots, seed), value in accuracies.items()]


def test_recipes_are_compared_by_the_committed_runs() -> None:
    rows, parameters = rows_of_runs(ROOT / "results" / "mini-recipes")
    committed = json.loads((page.RESULTS / "recipe-test.json").read_text())
    assert [asdict(row) for row in rows] == committed["rows"]
    assert parameters == {"CoOp, fast recipe": {}, "CoOp, paper's recipe": {"recipe": "paper"}}
    # 14 classes: one batch at one shot, for 50 epochs; seven of the 14 x 16 images at 16 shots, for 200.
    passes = {(r.candidate, r.shots): r.text_passes for r in rows if r.dataset == "animals" and r.seed == 1}
    assert passes["CoOp, paper's recipe", 1] == 50 and passes["CoOp, paper's recipe", 16] == 200 * 7
    assert {passes["CoOp, fast recipe", shots] for shots in (1, 4, 16)} == {16}


def test_a_candidate_is_summed_up_over_seeds() -> None:
    rows = rows_of("fast", 16, {(1, 1): 60.0, (1, 2): 70.0, (2, 1): 80.0, (2, 2): 94.0})
    (one,) = summary(rows, {"fast": {}})
    assert one["accuracy"] == {"mean": 76.0, "std": 6.0} and one["parameters"] == {}
    assert one["by_shots"] == {"1": {"mean": 65.0, "std": 5.0}, "2": {"mean": 87.0, "std": 7.0}}
    assert one["text_passes"] == {"total": 64, "mean": 16.0}


def test_end_to_end_is_the_product_of_steps_and_seconds() -> None:
    rows = rows_of("fast", 16, {(1, 1): 80.0}) + rows_of("paper", 400, {(1, 1): 79.0})
    recipes = {"data_sets": 1, "candidates": summary(rows, {"fast": {}, "paper": {"recipe": "paper"}})}
    speed = {"what": "some model", "reference_s": 10.0, "ours_s": {"fp32": 0.25}}
    about, table, conclusion = sections.end_to_end(speed, recipes)
    assert "some model" in about and "| 4,000.0 |" in table and "| 4.0 |" in table
    assert "costs 1,000 times as much: 40.0 times for the step and 25.0 times" in conclusion


def test_classes_that_go_backwards() -> None:
    norms = torch.tensor([4.0, 1.0, 3.0, 0.0])
    assert passes.largest(norms, 1 / 26).tolist() == [0, 2]
    assert passes.largest(norms, 0.01).tolist() == [0, 2, 1]
    assert torch.allclose(passes.probabilities(norms, 2.0), torch.tensor([1.0, 0.25, 0.75, 0.0]))
    assert torch.allclose(passes.probabilities(norms, 1.0), norms / 8)


def test_features_of_some_classes_and_their_gradient() -> None:
    backbone = small_open_clip()
    encoder = TextEncoder(backbone, context_prompts(backbone, ["cat", "grey heron", "ant", "sea horse"], 2))
    context = torch.randn(2, backbone.text.width, requires_grad=True)
    chosen = torch.tensor([3, 0])
    some, all_classes = passes.some_classes(encoder, chosen, context), encoder(context)[chosen]
    assert torch.allclose(some, all_classes, atol=1e-5)
    ours, expected = (torch.autograd.grad(one.square().sum(), context)[0] for one in (some, all_classes))
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_families_are_held_to_themselves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each text path, small; seconds are compared with nothing."""
    arguments = ["--classes=6", "--width=32", "--layers=2", "--repeats=1", "--only=CLIP,CLIPA,CoCa,BiomedCLIP (BERT)"]
    monkeypatch.setattr("sys.argv", ["benchmarks/backbones.py", *arguments])
    assert backbones.main() == 0
    said = capsys.readouterr()
    assert [line.split(" s, ")[1].split()[0] for line in said.err.splitlines()] == [
        "fast",
        "padded",
        "reference",
        "packed",
    ]
    assert "By text path: fast" in said.out
    off = {"feature_error": 1e-4, "gradient_error": 0.0}
    assert backbones.inexact({"one": off, "two": {**off, "feature_error": 0.0}}) == ["one"]
    assert backbones.inexact({"one": {"feature_error": 0.0, "gradient_error": float("nan")}}) == ["one"]


def test_operations_of_an_image_tower_are_those_of_its_products() -> None:
    """VISION of tests/models.py: 4 patches of 16 x 16 x 3 and a class token, one block of width 64, projected to 32."""
    tokens, width, dim = 5, 64, 32
    patches = 4 * 16 * 16 * 3 * width
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    backbone = small_open_clip()
    counted = engines.operations_of(backbone, torch.randn(3, 3, 32, 32))
    assert counted == 2 * (patches + block + width * dim)


def test_ways_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(engines, "_compiled", lambda *given: {"torch.compile": lambda pixels: backbone.image(pixels)})
    backbone, batch = small_open_clip(), torch.randn(2, 3, 32, 32)
    ways, left_out = engines.ways_of(backbone, batch, 1, tmp_path)
    assert {"onnxruntime (onnxruntime is not installed)", "openvino (openvino is not installed)"} <= set(left_out)
    features = {name: run(batch) for name, run in ways.items() if "bf16" not in name}
    assert set(features) == {"coopt fp32", "open_clip fp32", "channels last", "torch.compile"}
    assert all(torch.allclose(one, features["coopt fp32"], atol=1e-5) for one in features.values())


@pytest.mark.parametrize("method", speed.OTHERS)
def test_steps_of_other_methods(method: str) -> None:
    step = MethodStep(method, small_open_clip(), ["cat", "forest road", "old red car"], 2)
    theirs, ours = step.way("reference")(), step.way("fp32")()
    assert (theirs - ours).norm() < 1e-4 * theirs.norm() and theirs.norm() > 0
    parts = step.parts("fp32")
    assert list(parts) == ["text pass", "image pass"][: 2 - (method == "tcp")]
    for run in parts.values():
        run()
    shares = profile(step.way("fp32"), most=3)
    assert len(shares) == 3 and 0 < sum(shares.values()) <= 1
    result = {
        "what": method,
        "both_towers": method != "tcp",
        "ours_s": {"fp32": 1.0},
        "ratio": {"fp32": 3.5},
        "spread": {name: measuring.spread([1.0, 3.5]) for name in ("reference", "fp32")},
        "parts_s": dict.fromkeys(parts, 0.5),
        "profile": shares,
        "gradient_rel_err": 1e-6,
        "peak_memory_gb": {"reference": 2.0, "fp32": 1.0},
    }
    said = report.on_screen(sections.method_step(result))
    assert "3.5" in said and f"{list(parts)[-1]} 0.500 s" in said
