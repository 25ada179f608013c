"""`coopt datasets`: the data sets that can be named, and what a folder has of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coopt.cli.group import Group
from coopt.cli.output import Output, command

if TYPE_CHECKING:
    from coopt.data.benchmarks.definitions import Benchmark
    from coopt.data.benchmarks.status import BenchmarkStatus


@command("list")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="COOPT_DATA_ROOT",
    metavar="DIR",
    help="Also say what this folder has of the papers' data sets, and what is missing.",
)
def listing(output: Output, root: Path | None) -> None:
    """List the data sets that coopt knows, and what a folder has of them.

    They are those of the papers, which lie below --root (or below what the variable COOPT_DATA_ROOT names) in the
    folders that are shown; the small ones that come with coopt; and those that other packages offer. Every command
    takes their names for DATA.

    `coopt datasets extract` writes one that comes with coopt as folders of images.

    \b
    Examples:
      coopt datasets
      coopt datasets --root DATA
      coopt datasets extract bundled:animals animals
    """
    from coopt.data.benchmarks.definitions import BENCHMARKS
    from coopt.data.benchmarks.status import benchmark_status
    from coopt.data.file_names import display_name
    from coopt.errors import DataError

    if root is not None and not root.is_dir():
        raise DataError(f"The root '{display_name(root)}' is not a folder. Expected the one that holds the data sets.")
    states = {one.name: None if root is None else benchmark_status(one, root) for one in BENCHMARKS}
    if root is None:
        _say_known(output, BENCHMARKS)
    else:
        _say_states(output, BENCHMARKS, states, root)
    output.say()
    smaller = [*_bundled(), *_registered()]
    output.table(
        ["more", "classes", "images", "hand-made prompt"],
        [
            [one["name"], *(_number(one[key]) for key in ("classes", "images")), one["template"] or ""]
            for one in smaller
        ],
        right=(1, 2),
    )
    documents = [_document(one, states[one.name]) for one in BENCHMARKS]
    output.result({"root": None if root is None else display_name(root), "datasets": [*documents, *smaller]})


@command("extract")
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def extract(output: Output, name: str, folder: Path) -> None:
    """Write a data set that comes with coopt, or a ZIP archive of images, as folders.

    Nothing needs it but people who want to look into folders: every command reads archives where they are. DIR must be
    new or empty; it is there when all of it is.

    \b
    Examples:
      coopt datasets extract bundled:animals animals
      coopt datasets extract photos.zip photos
    """
    from coopt.data.file_names import display_name
    from coopt.data.unpacking import archive_named, unpack_archive
    from coopt.wording import counted

    count = unpack_archive(archive_named(name), folder)
    output.say(f"{counted(count, 'file')} written to '{display_name(folder)}'.")
    output.result({"name": name, "out": display_name(folder), "files": count})


@click.pass_context
def _list_without_a_command(ctx: click.Context, **options: Any) -> None:
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, **options)


datasets = Group(
    "datasets",
    commands=[extract],
    callback=_list_without_a_command,
    params=listing.params,
    help=listing.help,
    invoke_without_command=True,
    subcommand_metavar="[extract NAME DIR]",
)


def _say_known(output: Output, benchmarks: tuple[Benchmark, ...]) -> None:
    output.table(
        ["data set", "classes", "images", "folder of the images", "hand-made prompt"],
        [
            [one.name, str(one.classes), str(one.size), f"{one.folder}/{one.images}".rstrip("/"), one.template]
            for one in benchmarks
        ],
        right=(1, 2),
    )
    output.say()
    output.say("`coopt datasets --root DIR` says which of them DIR has.")


def _say_states(
    output: Output, benchmarks: tuple[Benchmark, ...], states: dict[str, BenchmarkStatus | None], root: Path
) -> None:
    rows: list[list[str]] = []
    for one in benchmarks:
        status = states[one.name]
        assert status is not None
        count = "" if status.images == 0 else f"{status.images} of {one.size}"
        says = [f"missing: {'; '.join(status.missing)}"] if status.missing else []
        if status.split == "made":
            says.append(f"no {one.published_split}: a split is made ({one.rule_name})")
        rows.append([one.name, status.state, count, "; ".join(says)])
    output.table(["data set", "", "images", ""], rows, right=(2,))
    complete = sum(status is not None and status.state == "complete" for status in states.values())
    output.say()
    output.say(f"{complete} of {len(benchmarks)} data sets are complete in '{root}'.")


def _document(one: Benchmark, status: BenchmarkStatus | None) -> dict[str, Any]:
    known: dict[str, Any] = {
        "name": one.name,
        "kind": "benchmark",
        "title": one.title,
        "aliases": list(one.aliases),
        "classes": one.classes,
        "images": one.size,
        "template": one.template,
        "folder": one.folder,
        "image_folder": one.images,
        "split_file": one.published_split,
        "test_only": one.test_only,
    }
    if status is None:
        return known
    counts = {"classes": status.classes, "images": status.images, "split": status.split or None}
    return {**known, "state": status.state, "found": counts, "missing": list(status.missing)}


def _bundled() -> list[dict[str, Any]]:
    from coopt.data.bundled import PREFIX, bundled_datasets, hard_datasets
    from coopt.data.finding import find_images

    return [
        {
            "name": f"{PREFIX}{one.name}",
            "kind": "bundled",
            "classes": len(one.class_names),
            "images": sum(len(find_images(archive)) for archive in one.archives),
            "template": one.template,
        }
        for one in (*bundled_datasets(), *hard_datasets())
    ]


def _registered() -> list[dict[str, Any]]:
    """Their loaders may take long, so their classes and images are not counted."""
    from coopt.data.benchmarks.registry import registered_datasets

    return [
        {"name": one.name, "kind": "registered", "classes": None, "images": None, "template": one.template}
        for one in registered_datasets()
    ]


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
