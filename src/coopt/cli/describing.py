"""`coopt words` and `coopt info`: what is in a learned prompt."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coopt.cli.loading import Where, load_prompt
from coopt.cli.output import Output, percent, percent_interval, size_of
from coopt.data import display_name
from coopt.errors import ParameterError
from coopt.evaluation.metrics import accuracy_interval
from coopt.methods.cocoop import CoCoOp
from coopt.methods.coop import CoOp
from coopt.methods.reference_checkpoint import checkpoint_file, is_reference_checkpoint, read_state
from coopt.methods.saving import JSON_NAME, TENSORS_NAME, describe
from coopt.prompts.words import NearestWord, distance_scale
from coopt.training.recipe import RECIPES, Recipe
from coopt.wording import counted


def run_words(prompt: Path, topk: int, class_name: str | None, where: Where, output: Output) -> None:
    """Shows the nearest words of each context vector.

    Raises:
        CooptError: the prompt cannot be loaded, has no context vectors, or not this class.
    """
    estimator = load_prompt(prompt, where, _stand_ins(prompt) if is_reference_checkpoint(prompt) else None)
    if not isinstance(estimator, CoOp | CoCoOp):
        raise ParameterError(
            f"'{display_name(prompt)}' holds the method {estimator.method!r}, which has no context vectors. Expected a "
            "prompt that `coopt fit` learned with --method coop, cocoop or kgcoop."
        )
    scale = distance_scale(estimator.backbone_)
    near = estimator.nearest_words(topk)
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


def run_info(prompt: Path, output: Output) -> None:
    """Shows what a saved prompt says of itself; its backbone is not loaded.

    Raises:
        SavedFileError: there is none, or it is damaged.
    """
    if is_reference_checkpoint(prompt):
        _reference_info(prompt, output)
        return
    about = describe(prompt)
    folder = prompt.parent if prompt.name == JSON_NAME else prompt
    size = sum(file.stat().st_size for name in (JSON_NAME, TENSORS_NAME) if (file := folder / name).is_file())
    names, backbone = about["class_names"], about["backbone"]
    shown = ", ".join(display_name(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    rows = [
        ["method", about["method"]],
        ["backbone", f"{display_name(backbone['name'])} ({str(backbone.get('fingerprint'))[:12]})"],
        ["classes", f"{len(names)}: {shown}"],
    ]
    rows += [
        [key.replace("_", " "), _short(value)]
        for key, value in about["parameters"].items()
        if value not in (None, False)
    ]
    rows += _history(about)
    rows.append(["size", f"{size_of(size)}, saved by coopt {about.get('coopt_version', '?')}"])
    output.table(["Prompt", display_name(prompt)], rows)
    output.result({"prompt": display_name(prompt), "bytes": size, **about})


def _history(about: dict[str, Any]) -> list[list[str]]:
    rows = []
    learned_from, accuracy = about.get("learned_from"), about.get("accuracy")
    if isinstance(learned_from, dict):
        shots, images = learned_from.get("shots"), learned_from.get("images")
        text = f"{learned_from.get('dataset')}: {counted(images, 'image') if isinstance(images, int) else images}"
        text += f", {counted(shots, 'shot')}" if isinstance(shots, int) else ""
        rows.append(["learned from", display_name(text)])
    if not isinstance(accuracy, dict):
        return rows
    kind = "image"
    if isinstance(learned_from, dict):
        kind = "held-out image" if learned_from.get("held_out_made") else "test image"
    for key, name in (("zero_shot", "zero-shot"), ("learned", "learned")):
        value, images = accuracy.get(key), accuracy.get("images")
        if isinstance(value, int | float) and isinstance(images, int) and 0 <= value <= 100 and images > 0:
            interval = percent_interval(accuracy_interval(value, images))
            of = f"of {counted(images, kind)} (95% interval {interval})"
            rows.append([f"{name} accuracy", f"{percent(value)} % {of}"])
    return rows


def _short(value: Any) -> str:
    if isinstance(value, dict):  # a recipe
        usual = RECIPES.get(str(value.get("name")), Recipe()).to_dict()
        changed = [f"{key.replace('_', ' ')} {one}" for key, one in value.items() if one != usual.get(key)]
        return display_name(", ".join([str(value.get("name")), *changed]))
    return display_name(str(value))


def _reference_info(prompt: Path, output: Output) -> None:
    file = checkpoint_file(prompt)
    state = read_state(prompt)
    shape = tuple(state["ctx"].shape)
    method = "cocoop" if any(name.startswith("meta_net.") for name in state) else "coop"
    classes = f"class-specific, {counted(shape[0], 'class')}" if len(shape) == 3 else "one for all classes"
    rows = [
        ["kind", "a checkpoint of CoOp's reference implementation"],
        ["method", method],
        ["context", f"{counted(shape[-2], 'vector')} of width {shape[-1]}, {classes}"],
        ["backbone", "not said; give it with --backbone"],
        ["size", size_of(file.stat().st_size)],
    ]
    output.table(["Prompt", display_name(file)], rows)
    output.result(
        {
            "prompt": display_name(file),
            "kind": "reference checkpoint",
            "method": method,
            "context_shape": list(shape),
            "bytes": file.stat().st_size,
        }
    )
