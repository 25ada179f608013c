"""`coopt info`: what a learned prompt says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coopt.cli.options import PROMPT
from coopt.cli.output import Output, command, percent, percent_interval
from coopt.data.file_names import display_name
from coopt.wording import counted, size_of


@command("info")
@PROMPT
def info(output: Output, prompt: Path) -> None:
    """Show what a learned prompt says of itself.

    Its backbone need not be on this machine.

    \b
    Example:
      coopt info coopt-photos
    """
    from coopt.methods.reference_checkpoint import is_reference_checkpoint
    from coopt.methods.saving import JSON_NAME, TENSORS_NAME, describe

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
    from coopt.evaluation.metrics import accuracy_interval

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
    from coopt.training.recipe import RECIPES, Recipe

    if isinstance(value, dict):  # a recipe
        usual = RECIPES.get(str(value.get("name")), Recipe()).to_dict()
        changed = [f"{key.replace('_', ' ')} {one}" for key, one in value.items() if one != usual.get(key)]
        return display_name(", ".join([str(value.get("name")), *changed]))
    return display_name(str(value))


def _reference_info(prompt: Path, output: Output) -> None:
    from coopt.methods.reference_checkpoint import checkpoint_file, read_state

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
