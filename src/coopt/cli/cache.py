"""`coopt cache`: the cache of image features."""

from __future__ import annotations

import click

from coopt.cli.output import Output, command
from coopt.wording import size_of


@command("cache")
@click.option("--clear", is_flag=True, help="Delete all that is in it.")
def cache(output: Output, clear: bool) -> None:
    """Show or clear the cache of image features.

    Every image is encoded once per model, ever; clearing the cache loses time and nothing else. The variable
    COOPT_CACHE names another folder for it.
    """
    from coopt.data import FeatureCache, display_name

    features = FeatureCache()
    freed = features.clear() if clear else None
    size = features.size()
    if freed is not None:
        output.say(f"Cleared: {size_of(freed)} freed.")
    output.say(f"{display_name(features.folder)}: {size.entries} features, {size_of(size.bytes)}.")
    if size.per_backbone:
        output.say()
        rows = [
            [display_name(one.name or "?"), fingerprint[:12], str(one.entries), size_of(one.bytes)]
            for fingerprint, one in size.per_backbone.items()
        ]
        output.table(["backbone", "fingerprint", "features", "size"], rows, right=(2, 3))
    output.result(
        {
            "folder": display_name(features.folder),
            "entries": size.entries,
            "bytes": size.bytes,
            "freed": freed,
            "backbones": [
                {"fingerprint": fingerprint, "name": one.name, "entries": one.entries, "bytes": one.bytes}
                for fingerprint, one in size.per_backbone.items()
            ],
        }
    )
