"""`coopt eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coopt.cli.options import (
    CACHE,
    DATA,
    PROMPT,
    ROOT,
    SPLIT,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
)
from coopt.cli.output import MEASURES, Output, command, measures, say_mistakes
from coopt.wording import counted


@command("eval")
@PROMPT
@DATA
@ROOT
@SPLIT
@backbone_options(None)
@click.option(
    "--position", type=click.Choice(["end", "middle", "front"]), help="Of the class name in a reference checkpoint."
)
@click.option(
    "--preprocess",
    type=click.Choice(["standard", "reference-2021-09"]),
    help="How images are prepared; the second is CoOp's way before October 2021.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the mistakes (CSV) and the confusion matrix (CSV and PNG) into DIR.",
)
@data_reading
@on_bad_image("fail")
@CACHE
@precision(None)
def eval(output: Output, **options: Any) -> None:
    """Measure a learned prompt on labelled images.

    PROMPT is a folder written by `coopt fit`, or a checkpoint of CoOp's reference implementation (then --backbone is
    needed, and the classes are those of DATA). DATA is a folder, a CSV file or a name as for `coopt fit`.

    When DATA has classes that the prompt does not know, the prompt is applied to the classes of DATA instead.

    \b
    Examples:
      coopt eval coopt-photos photos
      coopt eval coopt-photos other-photos --split all --out mistakes
      coopt eval output/prompt_learner imagenet_a --root DATA --backbone openai:RN50.pt
    """
    from coopt.app.evaluating import evaluate
    from coopt.app.requests import EvaluateRequest

    result = evaluate(EvaluateRequest.of(**options))
    evaluation = result.evaluation
    output.say()
    output.table(
        [f"On {counted(evaluation.n, 'image')}, %", *MEASURES],
        [[result.prompt, *measures(evaluation)]],
        right=(1, 2, 3, 4),
    )
    say_mistakes(output, evaluation)
    if result.out is not None:
        from coopt.app.evaluation_files import CONFUSION, EVALUATION, MISTAKES, PICTURE
        from coopt.data.file_names import display_name

        mistakes = counted(sum(one.count for one in evaluation.confusions), "mistake")
        output.say()
        output.say(
            f"In '{display_name(result.out)}': {MISTAKES} ({mistakes}, the surest first), {CONFUSION}, {PICTURE}, "
            f"{EVALUATION}."
        )
    output.result(result.to_dict())
