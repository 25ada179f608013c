"""`coopt backbones`: the models that prompts can be learned for."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from coopt.backbones import BackboneInfo, list_backbones, local_backbones
from coopt.cli.output import Output, command, percent
from coopt.wording import size_of


@command("backbones")
@click.option("--filter", "part", metavar="TEXT", help="Only names and tags that hold this text.")
@click.option("--all", "everything", is_flag=True, help="Also those that cannot be used, and why.")
@click.option("--local", is_flag=True, help="Only published models whose weights are on this machine, best first.")
def backbones(output: Output, part: str | None, everything: bool, local: bool) -> None:
    """List the models that prompts can be learned for.

    A name is MODEL and one of its tags: --backbone openclip:ViT-B-16/openai. Weights that are not on this machine yet
    are fetched with --download; --local lists those that are.

    \b
    Others are named by where they are:
      bundled                          the small model that comes with coopt
      openai:/path/ViT-B-16.pt         one of OpenAI's original files
      openclip:MODEL/./weights.pt      a file with weights for MODEL
      openclip:local-dir:/path         a folder in open_clip's layout
      openclip:hf-hub:ORG/NAME         the same on the Hugging Face hub
      transformers:/path               a folder in transformers' format
      transformers:ORG/NAME            the same on the Hugging Face hub

    Other packages may bring models of their own (docs/backbones.md).
    """
    if local:
        _list_local(output, part)
        return
    rows = list_backbones()
    matching = [row for row in rows if part == row.scheme or _matches(part, row.name, *row.tags)]
    listed = [row for row in matching if everything or row.supported]
    for i, scheme in enumerate(dict.fromkeys(row.scheme for row in listed)):
        if i:
            output.say()
        _table(output, scheme, [row for row in listed if row.scheme == scheme])
    left_out = len(matching) - len(listed)
    if not listed:
        more = f" {left_out} unsupported ones do; --all shows them." if left_out else ""
        output.say(f"None of the {len(rows)} models has {part!r} in its name or tags.{more}")
    elif not everything:
        more = f"; {left_out} that cannot be used are left out (--all shows them)" if left_out else ""
        output.say()
        output.say(f"{len(listed)} models{more}.")
    _explain_paths(output, listed)
    output.say("Also: bundled, and files and folders of your own; see `coopt backbones --help`.")
    output.result({"backbones": [asdict(row) for row in listed]})


def _table(output: Output, scheme: str, rows: list[BackboneInfo]) -> None:
    """The models of one source; the last column is there for tags, and for reasons."""
    tagged = any(row.tags for row in rows)
    columns = 4 if tagged or not all(row.supported for row in rows) else 3
    head = [f"model ({scheme}:MODEL{'/TAG' if tagged else ''})", "tokens", "text path", "tags" if tagged else ""]
    output.table(
        head[:columns],
        [[row.name, str(row.context_length or ""), row.text_path, _last(row, tagged)][:columns] for row in rows],
        right=(1,),
    )


def _explain_paths(output: Output, rows: list[BackboneInfo]) -> None:
    """What the text paths are, and why some models do not take the fast one."""
    if not any(row.text_path for row in rows):
        return
    output.say("Text path: fast; packed, each prompt at its own length; or reference, all prompts at the full length.")
    for (path, why), count in Counter((row.text_path, row.why) for row in rows if row.why).items():
        output.say(f"  {path:9} {count:3}: {why}")


def _list_local(output: Output, part: str | None) -> None:
    rows = [row for row in local_backbones() if _matches(part, row.name)]
    if rows:
        output.table(
            ["--backbone", "size", "ImageNet", "weights"],
            [
                [row.name, size_of(row.bytes), "" if row.imagenet is None else percent(row.imagenet), str(row.path)]
                for row in rows
            ],
            right=(1, 2),
        )
        output.say()
        output.say("ImageNet: published accuracy of hand-made prompts, in percent.")
    else:
        with_part = f" with {part!r} in its name" if part else ""
        output.say(
            f"No published model{with_part} is in the caches of Hugging Face and of CLIP on this machine. Name one with "
            "--backbone and add --download to fetch it, such as --backbone openclip:ViT-B-16/openai."
        )
    output.say("Also: bundled, and files and folders of your own; see `coopt backbones --help`.")
    output.result({"backbones": [{**asdict(row), "path": str(row.path)} for row in rows]})


def _last(row: BackboneInfo, tagged: bool) -> str:
    if not row.supported:
        return f"cannot be used: {row.reason}"
    return ", ".join(row.tags) or ("(no published weights)" if tagged else "")


def _matches(part: str | None, *texts: str) -> bool:
    return part is None or any(part.lower() in text.lower() for text in texts)
