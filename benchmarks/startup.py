"""How long a command takes before it does anything: from its start to a first prediction, and to a refusal.

    python benchmarks/startup.py [--json FILE] [--before REVISION] [--repeats 5]

Every time is of a whole process, on the bundled model. `--before` names an earlier version in git: both take turns. Where the system lets it (Linux, as root), everything is measured once more with the
system's copies of all files forgotten before each start, as after the machine was switched on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import seconds, spread
from benchmarks.report import add_json_option, on_screen, report

SOURCE = Path(__file__).parents[1] / "src"
FORGET = Path("/proc/sys/vm/drop_caches")
COMMAND = "from coopt.cli import main; main()"


def tasks(prompt: Path, image: Path) -> dict[str, list[str]]:
    """What is started: arguments of Python by what the task is called."""
    return {
        "import torch": ["import torch"],
        "import torch, open_clip, sklearn.base": ["import torch, open_clip, sklearn.base"],
        "`coopt --help`": [COMMAND, "--help"],
        "`coopt fit photos --backbone ViT-B/61` to its refusal": [COMMAND, "fit", "photos", "--backbone", "ViT-B/61"],
        "`coopt predict PROMPT IMAGE`": [COMMAND, "predict", str(prompt), str(image), "--no-cache"],
    }


def started(source: Path, arguments: list[str], folder: Path) -> float:
    """Seconds of one process with the package at `source`, in a folder that has a data set `photos`."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    run = [sys.executable, "-c", *arguments]
    return seconds(lambda: subprocess.run(run, env=environment, cwd=folder, capture_output=True, check=False))


def prepared(folder: Path) -> tuple[Path, Path]:
    """A prompt, and an image; a data set `photos` beside them."""
    from coopt import ZeroShot
    from coopt.data.archives import read_bytes
    from coopt.data.bundled import find_bundled

    dataset = find_bundled("animals").load()
    assert dataset.test is not None
    prompt = ZeroShot().fit_classes(dataset.class_names).save(folder / "prompt")
    for path, label in zip(dataset.train.paths, dataset.train.labels, strict=True):
        copy = folder / "photos" / label / f"{path.parent.name}-{path.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(read_bytes(path))
    image = folder / "image.png"  # a file: earlier versions read no archives
    image.write_bytes(read_bytes(dataset.test.paths[0]))
    return prompt, image


def exported(revision: str, folder: Path) -> Path:
    """The source folder of an earlier version, as git has it."""
    archive = subprocess.run(["git", "archive", revision, "src"], cwd=SOURCE.parent, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "src"


def forgotten() -> bool:
    """Makes the system forget its copies of files; False where it does not let this process."""
    try:
        os.sync()
        FORGET.write_text("3")
        return True
    except OSError:
        return False


def measure(sources: dict[str, Path], repeats: int) -> list[dict[str, Any]]:
    """A row per task, and per task with an empty disk cache: times by version."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompt, image = prepared(folder)
        for cold in (False, True):
            for task, arguments in tasks(prompt, image).items():
                times: dict[str, list[float]] = {version: [] for version in sources}
                for repeat in range(repeats + 1):
                    for version, source in sources.items():
                        if cold and not forgotten():
                            return rows
                        taken = started(source, arguments, folder)
                        if repeat or cold:  # the first start reads files that the others find in memory
                            times[version].append(taken)
                row = {
                    "task": task,
                    "cold": cold,
                    **{version: spread(all_taken) for version, all_taken in times.items()},
                }
                print(task, "cold" if cold else "warm", {v: round(min(t), 2) for v, t in times.items()}, flush=True)
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--before", metavar="REVISION", help="an earlier version, as git names it")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = {"before": exported(arguments.before, Path(folder))} if arguments.before else {}
        result = {"rows": measure({**sources, "now": SOURCE}, arguments.repeats)}
    report(result, on_screen(sections.startup(result)), arguments)


if __name__ == "__main__":
    main()
