"""`coopt words`: the words nearest to learned context vectors."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coopt.cli.options import PROMPT, backbone_options
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name
from coopt.errors import ParameterError
from coopt.wording import counted

if TYPE_CHECKING:
    from coopt.prompts.words import NearestWord


@command("words")
@PROMPT
@click.option("--topk", type=click.IntRange(min=1), default=5, show_default=True, help="Words per vector.")
@click.option("--class", "class_name", metavar="NAME", help="Of a class-specific prompt: whose vectors.")
@backbone_options(None)
def words(output: Output, prompt: Path, topk: int, class_name: str | None, **options: Any) -> None:
    """Show the words nearest to learned context vectors.

    For each vector the entries of the model's vocabulary that lie closest to it, with their distances. They are
    neighbours and not a translation: the last line says how near is near.

    \b
    Example:
      coopt words coopt-photos --topk 3
    """
    from coopt.app.loading import load_prompt
    from coopt.app.requests import PromptOptions
    from coopt.methods.reference_checkpoint import is_reference_checkpoint
    from coopt.prompts.words import distance_scale

    names = _stand_ins(prompt) if is_reference_checkpoint(prompt) else None
    estimator = load_prompt(PromptOptions.of(prompt=prompt, **options), names)
    nearest_words = getattr(estimator, "nearest_words", None)
    if nearest_words is None:
        raise ParameterError(
            f"'{display_name(prompt)}' holds the method {estimator.method!r}, which has no context vectors. Expected a "
            "prompt that `coopt fit` learned with --method coop, cocoop, kgcoop, prograd or tcp."
        )
    scale = distance_scale(estimator.backbone_)
    near = nearest_words(topk)
    if isinstance(near, dict):
        chosen = _chosen_class(list(near), class_name)
        what = f"class {display_name(chosen)}"
        if class_name is None:
            what += f" (one of {len(near)}; choose with --class NAME)"
        output.say(f"Context vectors of {what}:")
        rows = near[chosen]
        near = near if class_name is None else {chosen: rows}
    elif class_name is not None:
        raise ParameterError("This prompt has one context for all classes: leave out --class.")
    else:
        rows = near
    _say_words(output, rows)
    output.say()
    output.say(
        f"Distances are Euclidean, between token embeddings. For scale: a random vector as training starts from lies "
        f"{scale['random_to_word']:.3f} from its nearest word, and a word {scale['word_to_word']:.3f} from the next "
        "word. Nearest words are neighbours of what was learned, not its meaning."
    )
    document: Any = (
        {name: [_plain(row) for row in some] for name, some in near.items()}
        if isinstance(near, dict)
        else [_plain(row) for row in near]
    )
    output.result({"prompt": display_name(prompt), "words": document, "scale": scale})


def _stand_ins(prompt: Path) -> list[str]:
    """Names for the classes of a reference checkpoint, which does not name them; for one shared context any will do."""
    from coopt.methods.reference_checkpoint import read_state

    context = read_state(prompt)["ctx"]
    return [f"class {i + 1}" for i in range(len(context) if context.ndim == 3 else 2)]


def _chosen_class(names: Sequence[str], name: str | None) -> str:
    if name is None:
        return names[0]
    if name not in names:
        close = get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It begins with {', '.join(names[:5])}."
        raise ParameterError(f"{name!r} is not among the prompt's {counted(len(names), 'class')}. {hint}")
    return name


def _say_words(output: Output, rows: Sequence[Sequence[NearestWord]]) -> None:
    output.table(
        ["vector", "nearest words (distance)"],
        [
            [str(i + 1), "   ".join(f"{display_name(one.word) or '?'} ({one.distance:.3f})" for one in row)]
            for i, row in enumerate(rows)
        ],
        right=(0,),
    )


def _plain(row: Sequence[NearestWord]) -> list[dict[str, Any]]:
    return [one._asdict() for one in row]
