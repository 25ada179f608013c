"""What there is to say of each benchmark's numbers, on the screen and in docs/benchmarks.md, drawn from them alone.

A section is a list of paragraphs. The first says what is measured; on the page the command and the machine follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

Result = Mapping[str, Any]


class Table(NamedTuple):
    """A heading and rows of cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Paragraphs = list[str | Table]

TIMES = ("fastest", "median", "slowest")

LONGER = ", ImageNet's names"
"""What a way is called that runs with the first names of ImageNet, which are longer than Caltech101's."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [[f" {cell} " if cell else " " for cell in row] for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)


def prose(text: str) -> str:
    """Lines of the width that documents have here."""
    return fill(text, 125, break_long_words=False, break_on_hyphens=False)


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def parity(result: Result) -> Paragraphs:
    """Errors against recorded numbers."""
    trainings = {name: paths for name, paths in result["cases"].items() if "loss_err" in next(iter(paths.values()))}
    shown = ("loss_err", "context_err", "logits_err", "meta_net_err", "batch_err")
    rows = [
        [name, path, *(f"{errors[what]:.1e}" if what in errors else "" for what in shown)]
        for name, paths in trainings.items()
        for path, errors in paths.items()
    ]
    header = ["training", "text path", "losses", "context", "logits", "meta-net", "batch against its images"]
    flat = [errors for paths in result["cases"].values() for errors in paths.values()]
    unequal = sum(value for errors in flat for what, value in errors.items() if what.endswith("mismatches"))
    pixels = max((errors["pixel_err"] for errors in flat if "pixel_err" in errors), default=0.0)
    failed = f"Not reproduced: {listed(result['failed'])}." if result["failed"] else "Everything is reproduced."
    ties = sum(errors.get("tie_flips", 0) for errors in flat)
    moved = f" {ties:.0f} of the linear probe's test images, near-ties, changed sides." if ties else ""
    about = (
        f"{len(trainings)} whole trainings recorded from the reference implementation, on the reference path and on the fast "
        "path; zero-shot, linear probe, few-shot sampling, tokens, learning rates and the test transform besides. Errors are "
        "relative to the largest recorded value of the same array."
    )
    conclusion = (
        f"{failed} The worst relative error of all is {result['worst_err']:.1e}. Of what must be identical (tokens, samples, "
        f"halves, nearest words) {unequal:.0f} differ. Pixels of the test transform are within {pixels:.1e} of their range "
        f"(the recorded ones are float16).{moved}"
    )
    return [about, Table(header, rows), conclusion]


def coop_step(result: Result) -> Paragraphs:
    """One step of CoOp."""
    longer, peak = result["with_imagenet_names"], result["peak_memory_gb"]
    rows = [["reference way", *times_of(result, "reference"), "1", "", f"{peak['reference']:.2f}"]]
    for name in result["ours_s"]:
        share = f"{result['matmul_peak_shares'][name]:.0%}"
        rows.append(
            [f"ours, {name}", *times_of(result, name), f"{result['ratio'][name]:.1f}", share, f"{peak[name]:.2f}"]
        )
    for name in longer["ours_s"]:
        way, share = name + LONGER, f"{longer['matmul_peak_shares'][name]:.0%}"
        rows.append([f"ours, {way}", *times_of(result, way), f"{longer['ratio'][name]:.1f}", share, ""])
    header = ["", "fastest s", "median s", "slowest s", "ratio", "of the matrix-product peak", "peak GB"]
    tokens = result["tokens"]
    about = (
        f"{result['what']}, random weights. The reference way runs all 77 tokens of every prompt and encodes the images anew; "
        "ours runs the fast text path on cached image features."
    )
    conclusion = (
        f"Ours passes {tokens['ours']:,} tokens through the tower instead of {tokens['reference']:,}, and {longer['tokens']:,} "
        f"with as many of ImageNet's names (the last rows). {_agreement(result)}"
    )
    return [about, Table(header, rows), conclusion]


def cocoop_step(result: Result) -> Paragraphs:
    """One step of CoCoOp."""
    one = result["reference"]
    numbers = f"{one['step_s']:.3f}", "1", "", f"{one['peak_memory_gb']:.2f}"
    rows = [["reference way", "1", *times_of(result, "reference"), *numbers]]
    for row in result["ours"]:
        times = times_of(result, f"{row['precision']}, batch {row['batch']}")
        numbers = f"{row['image_s']:.3f}", f"{row['ratio']:.1f}", f"{row['matmul_peak_share']:.0%}"
        rows.append([f"ours, {row['precision']}", str(row["batch"]), *times, *numbers, f"{row['peak_memory_gb']:.2f}"])
    header = ["", "batch", "fastest s", "median s", "slowest s", "s / image", "ratio per image"]
    header += ["of the matrix-product peak", "peak GB"]
    about = (
        f"{result['what']}, random weights. Every image of a batch costs a text pass of its own; the reference way takes one "
        "image in a step."
    )
    return [about, Table(header, rows), _agreement(result)]


def method_step(result: Result) -> Paragraphs:
    """One step of a method by its paper's recipe."""
    peak = result["peak_memory_gb"]
    rows = [["plain way", *times_of(result, "reference"), "1", f"{peak['reference']:.2f}"]]
    for name in result["ours_s"]:
        rows.append([f"ours, {name}", *times_of(result, name), f"{result['ratio'][name]:.1f}", f"{peak[name]:.2f}"])
    header = ["", "fastest s", "median s", "slowest s", "ratio", "peak GB"]
    about = (
        f"{result['what']}, random weights. "
        + (
            "Both ways pass the images of the batch through the changed image tower; the plain way "
            if result["both_towers"]
            else "The plain way passes the images of the batch through the image tower, and ours has them cached; it "
        )
        + "encodes every prompt at full length, ours takes the quickest exact path."
    )
    parts = listed([f"{name} {time:.3f} s" for name, time in result["parts_s"].items()])
    operators = listed([f"{name} {share:.0%}" for name, share in result["profile"].items()])
    return [
        about,
        Table(header, rows),
        f"By themselves, forward and backward, take (fp32): {parts}. Of a step the operators take: {operators}. The gradient "
        f"differs from the plain way's by {result['gradient_rel_err']:.1e} (relative, fp32).",
    ]


def times_of(result: Result, way: str) -> list[str]:
    """The cells under `TIMES`, in seconds."""
    return [f"{result['spread'][way][name]:.3f}" for name in TIMES]


def _agreement(result: Result) -> str:
    peaks = listed([f"{peak:,.0f} GFLOP/s in {name}" for name, peak in result["matmul_peak_gflops"].items()])
    return (
        f"The gradient differs from the reference path's by {result['gradient_rel_err']:.1e} (relative, fp32). The "
        f"matrix-product peak is that of one 2048 x 2048 x 2048 product: {peaks}. Peak memory is that of a whole process."
    )


def scale(result: Result) -> Paragraphs:
    """Ever more classes."""
    rows = []
    for row in result["rows"]:
        times = f"{row['plan_s']:.2f}", f"{row['step_s']:.2f}", f"{row['class_ms']:.2f}", str(row["chunks"])
        sizes = f"{row['estimate_mb']:,.0f}", f"{row['above_model_mb']:,.0f}", f"{row['overshoot']:.2f}"
        rows.append([row["precision"], f"{row['classes']:,}", *times, *sizes])
    header = ["", "classes", "planning s", "s / step", "ms / class", "chunks"]
    header += ["estimated MB", "above the model MB", "held / estimated"]
    about = (
        f'{result["model"]}, {result["method"]}, `memory="{result["memory"]}"`, random weights, a process for each row. "Above '
        'the model" is what the process held at most beyond what it held before the encoder was made; "estimated" is what '
        "was said before the first step. Beyond 100 classes names are ImageNet's, numbered on after the first 1,000."
    )
    held = [row["overshoot"] for row in result["rows"]]
    return [
        about,
        Table(header, rows),
        f"Processes held {min(held):.2f} to {max(held):.2f} times what was estimated. {_price_of_chunks(result)}".strip(),
    ]


def _price_of_chunks(result: Result) -> str:
    """What computing twice costs each class, in the precision measured first."""
    mine = [row for row in result["rows"] if row["precision"] == result["rows"][0]["precision"]]
    whole, cut = ([row for row in mine if (row["chunks"] > 1) == chunked] for chunked in (False, True))
    if not whole or not cut:
        return ""
    first = min(cut, key=lambda row: row["classes"])
    most = max(whole, key=lambda row: row["classes"])
    return (
        f"With {first['classes']:,} classes they run in {first['chunks']} chunks, most of whose activations are computed twice: "
        f"{first['class_ms']:.2f} ms for each class, where the {most['classes']:,} in one piece take {most['class_ms']:.2f} "
        f"({first['precision']})."
    )


def backbones(result: Result) -> Paragraphs:
    """Families of backbones."""
    rows = []
    for name, row in result["families"].items():
        errors = f"{row['feature_error']:.0e}", f"{row['gradient_error']:.0e}"
        times = f"{1e3 * row['reference_s']:,.0f}", f"{1e3 * row['ours_s']:,.0f}", f"{row['ratio']:.1f}"
        rows.append([name, row["package"], row["path"], str(row["length"]), f"{row['tokens']:.1f}", *errors, *times])
    header = ["", "made by", "text path", "full length", "tokens of a prompt", "error of features", "of the gradient"]
    header += ["reference way, ms", "ours, ms", "times as fast"]
    about = (
        f"One small random model for each family (text width {result['width']}, {result['layers']} layers), "
        f"{result['classes']:,} of ImageNet's names, M={result['n_ctx']}, fp32, on cached image features. The reference way sends "
        "every prompt through the tower's own forward at its full length. Features are held against the model's own "
        "`encode_text` or `get_text_features`, the context's gradient against the reference way."
    )
    ratios: dict[str, list[float]] = {}
    for row in result["families"].values():
        ratios.setdefault(row["path"], []).append(row["ratio"])
    spans = [f"{path} {min(of_path):.1f} to {max(of_path):.1f} times" for path, of_path in ratios.items()]
    worst = max(row["feature_error"] for row in result["families"].values())
    return [about, Table(header, rows), f"By text path: {listed(spans)}. The worst error of features is {worst:.0e}."]


def memory(result: Result) -> Paragraphs:
    """Promises and what was held."""
    rows = []
    for row in result["rows"]:
        sizes = f"{row['promised_mb']:,.0f}", f"{row['estimate_mb']:,.0f}", f"{row['above_model_mb']:,.0f}"
        numbers = str(row["chunks"]), f"{row['step_s']:.2f}", f"{row['times_unbounded']:.2f}"
        rows.append([row["precision"], row["memory"], *sizes, *numbers, "yes" if row["kept"] else "**no**"])
    header = ["", "`memory`", "promised MB", "estimated MB", "above the model MB", "chunks", "s / step"]
    header += ["times the unbounded step", "kept"]
    about = (
        f"{result['model']}, {result['classes']:,} classes, {result['method']}, random weights, a process for each row. A "
        'number bounds what the process may hold above the model; "auto" bounds the activations alone, and what is promised is '
        "the estimate, as it is without a bound (1T)."
    )
    broken = [f"{row['memory']} ({row['precision']})" for row in result["rows"] if not row["kept"]]
    least = min(result["rows"], key=lambda row: row["promised_mb"])
    conclusion = (
        f"{f'Not kept: {listed(broken)}.' if broken else 'Every promise was kept.'} The tightest, {least['memory']}, takes "
        f"{least['times_unbounded']:.2f} times as long as a step without a bound, in {least['chunks']} chunks ({least['precision']})."
    )
    return [about, Table(header, rows), conclusion]


def whole(result: Result) -> Paragraphs:
    """A whole run of many classes."""
    rows = [
        [
            row["precision"],
            f"{row['seconds']:.1f}",
            f"{row['steps']:.0f}",
            f"{row['step_s']:.2f}",
            f"{row['above_model_mb']:,.0f}",
        ]
        for row in result["rows"]
    ]
    header = ["", "seconds", "text passes", "s / pass", "above the model MB"]
    about = (
        f"{result['what']}: all that `CoOp.fit` does with its default recipe, from class names to the learned context, on random "
        "image features and a model with random weights."
    )
    return [about, Table(header, rows)]


def features(result: Result) -> Paragraphs:
    """Images to features, and to pixels."""
    rates, rows = result["images_per_s"], []
    for name, rate in rates.items():
        peak = f"{result['peak_memory_gb'][name]:.2f}" if result["peak_memory_gb"] else ""
        per_cpu, same = f"{result['images_per_processor_s'][name]:.1f}", f"{result['least_cosine'][name]:.6f}"
        rows.append([name, *_rates(rate), per_cpu, same, peak])
    header = [
        "",
        "images / s, slowest",
        "median",
        "fastest",
        "per CPU second",
        "least cosine to open_clip in fp32",
        "peak GB",
    ]
    decoding = [[name, *_rates(rate)] for name, rate in result["decoded_images_per_s"].items()]
    usual = rates["open_clip fp32"]["median"]
    fp32 = rates["coopt fp32"]["median"] / usual
    bf16 = f", and {rates['coopt bf16']['median'] / usual:.2f} times in bf16" if "coopt bf16" in rates else ""
    about = (
        f"{result['what']}, random weights. open_clip is its own usual loop: its transform in a DataLoader with a worker for each "
        "core. `cold` and `warm` are coopt with its feature cache, empty and full. CLIP_benchmark takes part after "
        "`pip install --target DIR --no-deps clip-benchmark`."
    )
    return [
        about,
        Table(header, rows),
        f"By the medians coopt makes {fp32:.2f} times as many features as open_clip in fp32{bf16}.",
        "Decoding and transforming alone, without a model:",
        Table(["", "images / s, slowest", "median", "fastest"], decoding),
    ]


def engines(result: Result) -> Paragraphs:
    """Ways to run an image tower."""
    rows = [
        [
            row["way"],
            *(f"{row['images_per_s'][name]:,.2f}" for name in ("median", "fastest")),
            f"{row['share_of_peak']:.2f}",
            f"{row['least_cosine']:.6f}",
        ]
        for row in result["rows"]
    ]
    header = [
        "",
        "images / processor s, median",
        "fastest",
        "share of the product peak",
        "least cosine to coopt in fp32",
    ]
    usual = {row["way"]: row["images_per_s"]["median"] for row in result["rows"]}
    full = {name: rate for name, rate in usual.items() if "bf16" not in name and "int8" not in name}
    best = max(full, key=lambda name: full[name])
    about = (
        f"{result['what']}, random weights, pixels to features. One image takes {result['operations'] / 1e9:.1f}e9 floating-point "
        f"operations, a large matrix product in fp32 runs at {result['peak'] / 1e9:,.0f}e9 a second of one core here. What is faster "
        "than that computes in another precision."
    )
    ratio = full["coopt fp32"] / full[best]
    parts: Paragraphs = [
        about,
        Table(header, rows),
        f"In fp32 {best} is the fastest; coopt runs at {ratio:.2f} of its rate, and at "
        f"{full['coopt fp32'] / full['open_clip fp32']:.2f} times open_clip's own.",
    ]
    if "answers" in result:
        head = ["features", "zero-shot, %", "CoOp at 16 shots, %"]
        table = [[row["way"], f"{row['zero_shot']:.2f}", f"{row['coop']:.2f}"] for row in result["answers"]]
        of = result["answers"][0]["data_sets"]
        parts += [
            f"Answers of the bundled model, mean over the test parts of {of} bundled data sets:",
            Table(head, table),
        ]
    return parts


def _rates(rate: Mapping[str, float]) -> list[str]:
    return [f"{rate[name]:,.1f}" for name in ("slowest", "median", "fastest")]


def recipe(result: Result) -> Paragraphs:
    """Candidates over all data sets."""
    fitted = [one for one in result["candidates"] if "by_shots" in one]
    best = max(fitted, key=lambda one: one["accuracy"]["mean"])
    rows = []
    for one in fitted:
        cells = [_accuracy(one["by_shots"][str(shots)]) for shots in result["shots"]]
        name = f"{one['name']} (the defaults)" if one["parameters"] == {} else one["name"]
        rows.append([name, *cells, _accuracy(one["accuracy"]), f"{one['text_passes']['mean']:.0f}"])
    header = ["", *(f"{k} shot{'s' * (k > 1)}" for k in result["shots"]), "mean", "text passes for a fit"]
    seeds = len(result["seeds"])
    part = {"val": "validation", "test": "test"}[result["on"]]
    about = (
        f"Mean accuracy in % over the *{part}* parts of {result['data_sets']} bundled data sets over {seeds} "
        f"seed{'s' * (seeds > 1)}, ± its standard deviation over seeds."
    )
    by_hand = [f"{one['name']} {one['accuracy']['mean']:.1f}" for one in result["candidates"] if "by_shots" not in one]
    conclusion = f"The best mean is that of {best['name']!r}, {best['accuracy']['mean']:.1f}."
    if by_hand:
        conclusion += f" For scale, prompts that were not learned: {listed(by_hand)}."
    taken = next((one for one in fitted if one["parameters"] == {}), best)
    if taken is not best:
        conclusion += (
            f" The defaults are {best['accuracy']['mean'] - taken['accuracy']['mean']:.1f} below the best, with "
            f"{taken['text_passes']['mean']:.0f} text passes instead of {best['text_passes']['mean']:.0f}."
        )
    return [about, Table(header, rows), conclusion]


def sigmoid(result: Result) -> Paragraphs:
    """Losses to train a text tower with, and to learn prompts with."""
    about, *rest = recipe(result)
    intro = (
        "Two text towers of width 256 were trained on the same captions of the same scenes for the bundled images "
        "(`python -m tools.bundled towers`, and with `--loss sigmoid`), one with CLIP's loss and one with SigLIP's. CoOp learns "
        "on each with the cross-entropy of a softmax, and on the second also with the sigmoid loss and the tower's bias. "
    )
    return [intro + str(about), *rest]


def choosing(result: Result) -> Paragraphs:
    """The method that a comparison takes, beside each by itself."""
    seeds = result["seeds"]
    about = (
        f"Means over {result['data_sets']} bundled data sets and {len(seeds)} seeds ({listed(list(map(str, seeds)))}) on the *test* parts, in %, ± the "
        "standard deviation over seeds. Methods are compared on the sample alone; each then learns from all of it. "
        "`Most accurate` takes the first line of the table that `coopt compare` prints, whatever it is. The rule was made with the "
        "samples of seeds 1 to 3 at 4 and 16 shots of the same data sets; 16 shots are all training images that there are, so at "
        "these seeds differ in folds and learning alone."
    )
    by_shots = result["by_shots"]
    header = ["", *(f"{shots} shots" for shots in by_shots)]
    rows = [["taken (`--method auto`)", *(_accuracy(one["taken"]) for one in by_shots.values())]]
    rows += [["most accurate", *(_accuracy(one["most_accurate"]) for one in by_shots.values())]]
    titles = sorted(
        next(iter(by_shots.values()))["methods"],
        key=lambda title: -sum(one["methods"][title]["mean"] for one in by_shots.values()),
    )
    rows += [[title, *(_accuracy(one["methods"][title]) for one in by_shots.values())] for title in titles]
    rows += [["best in hindsight, set by set", *(_accuracy(one["best_in_hindsight"]) for one in by_shots.values())]]
    said = []
    for shots, one in by_shots.items():
        often = ", ".join(f"{title} {count}" for title, count in one["how_often"].items())
        said.append(
            f"At {shots} shots the one furthest below the hand-made prompt is on {one['worst']['dataset']} ({one['worst']['gain']:+.1f}); "
            f"taken were {often}; a comparison took {one['seconds']['mean']:.0f} s on the mean, {one['seconds']['max']:.0f} s at most."
        )
    return [about, Table(header, rows), " ".join(said)]


def _accuracy(one: Mapping[str, float]) -> str:
    return f"{one['mean']:.1f} ± {one['std']:.1f}"


def end_to_end(speed: Result, recipes: Result) -> list[str]:
    """The paper's recipe in the reference way against the fast one in ours; computed, not timed."""
    by_parameters = {str(one["parameters"]): one for one in recipes["candidates"] if "by_shots" in one}
    fast, paper = by_parameters.get("{}"), by_parameters.get(str({"recipe": "paper"}))
    if fast is None or paper is None:
        return []
    ways = (
        ("paper, reference way", paper, speed["reference_s"]),
        ("fast, ours in fp32", fast, speed["ours_s"]["fp32"]),
    )
    costs = [one["text_passes"]["mean"] * step for _, one, step in ways]
    rows = [
        [name, f"{one['text_passes']['mean']:.0f}", f"{step:.3f}", f"{cost:,.1f}", _accuracy(one["accuracy"])]
        for (name, one, step), cost in zip(ways, costs, strict=True)
    ]
    header = [
        "recipe and way",
        "text passes for a fit, mean",
        "s / step",
        "seconds for a fit, computed",
        "mean accuracy",
    ]
    about = (
        f"Computed, not timed: the steps of a fit, counted on the bundled data sets (mean over {recipes['data_sets']} data sets, "
        f"all shots and seeds), times the fastest step measured above ({speed['what']}). Accuracies are those of the test parts, "
        "with the bundled model."
    )
    conclusion = (
        f"The paper's recipe in the reference way costs {costs[0] / costs[1]:,.0f} times as much: "
        f"{ways[0][2] / ways[1][2]:.1f} times for the step and {costs[0] / costs[1] / ways[0][2] * ways[1][2]:.1f} times for the "
        "number of steps. Left out on ours: encoding every image once, before the first step; on the paper's: reading and "
        "augmenting the images, at every step."
    )
    return [about, markdown(header, rows), conclusion]


def tried(result: Result) -> Paragraphs:
    """Alternatives against ours."""
    parts = [
        f"{result['what']}, random weights; alternatives that the code does not take, so that the decision can be taken again. The "
        "ways take turns in one process, and ratios are those of the fastest. Some need operations that are not everywhere."
    ]
    for name, what in TRIED.items():
        if name in result:
            rows = [[f"{row['way']}, {row['precision']}", *_tried(row)] for row in result[name]]
            header = ["", "fastest ms", "median ms", "slowest ms", "times ours", EXTRA[name]]
            parts += [f"**{what}**", Table(header, rows)]
    if "trie" in result:
        rows = [
            [row["names"], f"{row['tail_tokens']:,}", f"{row['in_a_tree']:,}", f"{row['saved']:.1%}"]
            for row in result["trie"]
        ]
        parts += [
            "**A tree over the class names' tokens**, which would compute common beginnings once: the tokens it would save.",
            Table(["class names", "tail tokens", "in a tree", "saved"], rows),
        ]
    return parts


TRIED = {
    "compile": "`torch.compile` of the second half of each block (projection, LayerNorm, feed-forward), in a whole step.",
    "attention": "`scaled_dot_product_attention`, for one layer's bins, forward and backward.",
    "packed": "Weights packed beforehand, for all linear layers of the tower, forward and backward.",
}

EXTRA = {"compile": "first call s", "attention": "relative difference", "packed": "more MB"}


def _tried(row: Result) -> list[str]:
    if "skipped" in row:
        return [f"left out: {row['skipped']}", "", "", "", ""]
    extra = {"first_s": ".1f", "extra_mb": ".0f", "difference": ".0e"}
    last = next((format(row[name], how) for name, how in extra.items() if name in row), "")
    return [*(f"{1e3 * row[name]:.2f}" for name in TIMES), f"{row['ratio']:.2f}", last]


def startup(result: Result) -> Paragraphs:
    """From a command's start to its answer."""
    versions = [version for version in ("before", "now") if version in result["rows"][0]]
    parts: Paragraphs = [
        "Seconds from the start of a process to its end, on the bundled model, as median (fastest to slowest); nothing is kept "
        "from one to the next but what the system keeps of files. "
        + ("*Before* is an earlier version of the package." if "before" in versions else "")
    ]
    for cold, what in (
        (False, "Files in memory, as from the second start on."),
        (True, "Every file read from the disk."),
    ):
        rows = [
            [row["task"], *(_seconds_spread(row[version]) for version in versions)]
            for row in result["rows"]
            if row["cold"] == cold
        ]
        if rows:
            parts += [what, Table(["", *versions], rows)]
    return parts


def _seconds_spread(times: Mapping[str, float]) -> str:
    return f"{times['median']:.2f} ({times['fastest']:.2f} to {times['slowest']:.2f})"


def beside(result: Result) -> Paragraphs:
    """One fit alone and beside busy processes."""
    others = f"{result['busy']} busy process{'es' * (result['busy'] > 1)}"
    rows = [
        [
            row["way"],
            " or ".join(map(str, row["threads"])),
            _seconds_spread(row["alone"]),
            _seconds_spread(row["beside"]),
            f"{row['beside']['median'] / row['alone']['median']:.1f}",
        ]
        for row in result["rows"]
    ]
    about = (
        f"{result['what']}, random weights and features, fp32: seconds of the steps as median (fastest to slowest), alone and "
        f"beside {others} (counting in Python). Ways take turns."
    )
    header = ["", "threads", "alone", f"beside {others}", "times as long"]
    best, usual = rows[-1], rows[0]
    conclusion = (
        f"Beside {others} a fit with torch's default takes {usual[-1]} times as long as alone, as the command line runs it "
        f"{rows[1][-1]} times, and with as many threads as there are idle cores {best[-1]} times."
    )
    return [about, Table(header, rows), conclusion]
