"""Ways to run a frozen image tower on a CPU, and what each can make of the processor.

    python benchmarks/engines.py [--model ViT-B-16] [--batch 16] [--threads 1] [--repeats 5] [--json FILE]

Pixels to features, without decoding. All ways run the same tower with random weights and take turns in one process. Seconds are
of the processor and not of the clock, so that other processes matter less. The product peak is what one large matrix product
reaches in the same run, in turn with the ways; a way's share of it is its floating-point operations (convolutions and matrix
products, as torch counts them) at its rate, by that peak. Ways that need a
package take part where it is installed: onnxruntime and onnxscript, openvino (`pip install onnxruntime onnxscript openvino`).

"int8" is onnxruntime's dynamic quantisation. What bf16 and int8 do to answers is measured on the bundled model and data sets:
zero-shot accuracy, and that of CoOp learned from 16 images per class, both on features made that way.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import precisions_here, say
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.steps import random_backbone
from coopt import CoOp, ZeroShot, load_backbone
from coopt.backbones import Backbone
from coopt.data import few_shot
from coopt.data.bundled import bundled_datasets
from coopt.data.encoding import ImageEncoder
from coopt.data.images import open_image
from coopt.runtime import Runtime

Run = Callable[[Tensor], Tensor]
"""Pixels (n, 3, h, w) to features (n, D)."""

CLIP_VOCABULARY = 49408
PEAK_SIZE = 2048
SETS_SKIPPED = 3
"""Every third bundled data set is asked for accuracies."""


def model_of(name: str) -> Backbone:
    """The architecture with random weights; its text tower, which does nothing here, takes CLIP's tokens."""
    import open_clip

    text = open_clip.get_model_config(name)["text_cfg"]
    fits = text.get("vocab_size", CLIP_VOCABULARY) >= CLIP_VOCABULARY
    return random_backbone(name, None if fits else {"vocab_size": CLIP_VOCABULARY, "width": text["width"]})


def ways_of(backbone: Backbone, batch: Tensor, threads: int, folder: Path) -> tuple[dict[str, Run], list[str]]:
    """All ways that can run here, and why others cannot."""
    precisions, left_out = precisions_here(("fp32", "bf16"))
    ways: dict[str, Run] = {f"coopt {one}": _ours(backbone, one, len(batch)) for one in precisions}
    tower = backbone.image_tower().requires_grad_(False)

    def usual(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return backbone.model.encode_image(pixels)  # type: ignore[operator]

    def last(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return channels_last(pixels.to(memory_format=torch.channels_last))

    channels_last = backbone.image_tower().requires_grad_(False).to(memory_format=torch.channels_last)
    ways |= {"open_clip fp32": usual, "channels last": last}
    for make, name in ((_compiled, "torch.compile"), (_onnx, "onnxruntime"), (_openvino, "openvino")):
        try:
            ways |= make(tower, batch, threads, folder, precisions)
        except ImportError as error:
            left_out.append(f"{name} ({error.name} is not installed)")
        except Exception as error:  # a compiler or an exporter that cannot do this architecture
            left_out.append(f"{name} ({type(error).__name__})")
            say(f"{name}: {error}")
    return ways, left_out


def _ours(backbone: Backbone, precision: Any, batch: int) -> Run:
    encoder = ImageEncoder(backbone, precision, batch)
    return lambda pixels: encoder(list(pixels))


def _compiled(
    tower: torch.nn.Module, batch: Tensor, threads: int, folder: Path, precisions: list[str]
) -> dict[str, Run]:
    compiled = torch.compile(tower)

    def run(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return compiled(pixels)

    run(batch)
    return {"torch.compile": run}


def _exported(tower: torch.nn.Module, batch: Tensor, folder: Path) -> Path:
    file = folder / "tower.onnx"
    if not file.exists():
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]

        with contextlib.redirect_stdout(sys.stderr):
            torch.onnx.export(tower, (batch,), dynamo=True).save(str(file))  # type: ignore[union-attr]
    return file


def _onnx(tower: torch.nn.Module, batch: Tensor, threads: int, folder: Path, precisions: list[str]) -> dict[str, Run]:
    import onnxruntime  # pyright: ignore[reportMissingImports]
    from onnxruntime.quantization import QuantType, quantize_dynamic  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1

    def session(file: Path) -> Run:
        made = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        name = made.get_inputs()[0].name
        return lambda pixels: torch.from_numpy(made.run(None, {name: pixels.numpy()})[0])

    file, small = _exported(tower, batch, folder), folder / "int8.onnx"
    ways = {"onnxruntime": session(file)}
    logging.disable(logging.WARNING)
    quantize_dynamic(file, small, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)
    return {**ways, "onnxruntime int8": session(small)}


def _openvino(
    tower: torch.nn.Module, batch: Tensor, threads: int, folder: Path, precisions: list[str]
) -> dict[str, Run]:
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    model = core.read_model(str(_exported(tower, batch, folder)))

    def compiled(hint: str) -> Run:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1}
        made = core.compile_model(model, "CPU", settings)
        return lambda pixels: torch.from_numpy(made(pixels.numpy())[0])

    hints = {"openvino": "f32", **({"openvino bf16": "bf16"} if "bf16" in precisions else {})}
    return {name: compiled(hint) for name, hint in hints.items()}


def operations_of(backbone: Backbone, batch: Tensor) -> int:
    """Floating-point operations of convolutions and matrix products for one image."""
    tower = backbone.image_tower()
    counter = FlopCounterMode(display=False)
    # With gradients and without a fused kernel, attention is made of products that are counted.
    with counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        tower(batch[:1])
    return counter.get_total_flops()


def peak_of(product: Tensor) -> float:
    """Floating-point operations of one large matrix product per second of the processor."""
    began = time.process_time()
    product @ product
    return 2 * PEAK_SIZE**3 / (time.process_time() - began)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, in one run."""
    torch.set_num_threads(arguments.threads)
    backbone = model_of(arguments.model)
    batch = torch.randn(arguments.batch, 3, *backbone.preprocessing.size)
    with tempfile.TemporaryDirectory() as folder:
        ways, left_out = ways_of(backbone, batch, arguments.threads, Path(folder))
        expected = ways["coopt fp32"](batch)
        cosines = {name: _least_cosine(run(batch), expected) for name, run in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        product, peaks = torch.randn(PEAK_SIZE, PEAK_SIZE), []
        peak_of(product)
        for _ in range(arguments.repeats):
            peaks += [peak_of(product) for _ in range(3)]
            for name, run in ways.items():
                began = time.process_time()
                run(batch)
                times[name].append(time.process_time() - began)
                say(f"{name}: {len(batch) / times[name][-1]:.2f} images / s")
        operations, peak = operations_of(backbone, batch), statistics.median(peaks)
    rows = [
        {
            "way": name,
            "images_per_s": {"median": len(batch) / statistics.median(one), "fastest": len(batch) / min(one)},
            "share_of_peak": operations * len(batch) / statistics.median(one) / peak,
            "least_cosine": cosines[name],
        }
        for name, one in times.items()
    ]
    what = f"{arguments.model}, batch {arguments.batch}, threads: {arguments.threads}"
    done = {"what": what, "left_out": left_out, "operations": operations, "peak": peak, "rows": rows}
    return done | ({"answers": answers(arguments.threads)} if arguments.answers else {})


def _least_cosine(features: Tensor, expected: Tensor) -> float:
    return float(torch.cosine_similarity(features.float(), expected.float()).min())


def answers(threads: int) -> list[dict[str, Any]]:
    """Accuracy on features that were made in several ways, in percent, mean over bundled data sets."""
    backbone = load_backbone("bundled")
    datasets = bundled_datasets()[::SETS_SKIPPED]
    test = backbone.preprocessing.test
    pixels = torch.stack([test(open_image(datasets[0].load().train.paths[0]))] * 32)
    with tempfile.TemporaryDirectory() as folder:
        ways, _ = ways_of(backbone, pixels, threads, Path(folder))
        kept = [name for name in ("coopt fp32", "coopt bf16", "onnxruntime int8") if name in ways]
        accuracies: dict[str, list[tuple[float, float]]] = {name: [] for name in kept}
        for described in datasets:
            data = described.load()
            sample = few_shot(data, 16, 1).train
            assert data.test is not None
            for name in kept:
                train, tested = (_features(ways[name], part.paths, test) for part in (sample, data.test))
                names, labels = list(data.class_names), list(data.test.labels)
                zero = ZeroShot(backbone, templates=described.template).fit_classes(names)
                coop = CoOp(backbone, class_names=names, runtime=Runtime(verbose=False)).fit(train, list(sample.labels))
                accuracies[name].append((100 * zero.score(tested, labels), 100 * coop.score(tested, labels)))
                say(f"{described.name}, {name}: {accuracies[name][-1]}")
    means = {name: [statistics.mean(column) for column in zip(*rows, strict=True)] for name, rows in accuracies.items()}
    return [
        {"way": name, "zero_shot": zero, "coop": coop, "data_sets": len(datasets)}
        for name, (zero, coop) in means.items()
    ]


def _features(run: Run, paths: Any, test: Callable[[Any], Tensor]) -> Tensor:
    """Features of images in batches of 32, the last one filled up."""
    parts = []
    for start in range(0, len(paths), 32):
        some = [test(open_image(path)) for path in paths[start : start + 32]]
        parts.append(run(torch.stack(some + [some[-1]] * (32 - len(some))))[: len(some)])
    return torch.cat(parts).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--answers", action="store_true", help="also what bf16 and int8 do to answers (minutes)")
    arguments = parser.parse_args()
    result = measure(arguments)
    report(result, on_screen(sections.engines(result)), arguments)


if __name__ == "__main__":
    main()
