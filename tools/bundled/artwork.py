"""Fetch the artwork from npm and turn every picture of a concept into pixels, once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tools.bundled.concepts import CONCEPTS

SPRITE = 64  # pixels; as large as a whole scene, so that no picture is ever enlarged


@dataclass(frozen=True)
class Source:
    """One artwork package: the style's short name, its npm package and version, licence and home."""

    style: str
    package: str
    version: str
    licence: str
    home: str
    held_out: bool = False


SOURCES: tuple[Source, ...] = (
    Source("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0", "https://github.com/googlefonts/noto-emoji"),
    Source("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "https://github.com/googlefonts/noto-emoji"),
    Source("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "https://github.com/mozilla/fxemoji"),
    Source("fluent", "@iconify-json/fluent-emoji", "1.2.7", "MIT", "https://github.com/microsoft/fluentui-emoji"),
    Source(
        "fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "https://github.com/microsoft/fluentui-emoji"
    ),
    Source(
        "fluent-mono",
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "MIT",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "https://github.com/jdecked/twemoji", True),
    Source("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "https://github.com/EmojiTwo/emojitwo", True),
    Source(
        "emojione-mono",
        "@iconify-json/emojione-monotone",
        "1.2.1",
        "CC-BY-4.0",
        "https://github.com/EmojiTwo/emojitwo",
        True,
    ),
)
STYLES: tuple[str, ...] = tuple(s.style for s in SOURCES)
SEEN: tuple[str, ...] = tuple(s.style for s in SOURCES if not s.held_out)
UNSEEN: tuple[str, ...] = tuple(s.style for s in SOURCES if s.held_out)

# Small flat shapes, drawn by us: the badges that some scenes carry.
SHAPES: dict[str, str] = {
    "circle": '<circle cx="32" cy="32" r="28" fill="#888"/>',
    "square": '<rect x="6" y="6" width="52" height="52" fill="#888"/>',
    "triangle": '<path d="M32 5 60 58H4z" fill="#888"/>',
    "star": '<path d="M32 3 40 24 62 25 44 39 51 61 32 48 13 61 20 39 2 25 24 24z" fill="#888"/>',
    "heart": '<path d="M32 59 6 32C-6 14 18-4 32 16 46-4 70 14 58 32z" fill="#888"/>',
    "cross": '<path d="M23 4h18v19h19v18H41v19H23V41H4V23h19z" fill="#888"/>',
}


@dataclass(frozen=True)
class Artwork:
    """All pictures as pixels.

    pixels: (pictures, 64, 64, 4) uint8, RGBA, straight alpha. concept, style: (pictures,) int, indices into
    CONCEPTS and STYLES. shapes: (shapes, 64, 64, 4), in the order of SHAPES.
    """

    pixels: np.ndarray
    concept: np.ndarray
    style: np.ndarray
    shapes: np.ndarray

    def of_styles(self, styles: tuple[str, ...]) -> Artwork:
        """Only the pictures of these styles: what a stage may see."""
        keep = np.isin(self.style, [STYLES.index(s) for s in styles])
        return Artwork(self.pixels[keep], self.concept[keep], self.style[keep], self.shapes)


def fetch(work: Path) -> None:
    """Download every package at its pinned version into `work`/npm; what is there already stays."""
    folder = work / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        archive = _archive(work, source)
        if not archive.exists():
            print(f"fetching {source.package}@{source.version}", flush=True)
            command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def load(work: Path) -> Artwork:
    """The artwork as pixels; rasterised on the first call, from the cache later."""
    # Named after what it holds: a changed table of concepts draws everything anew.
    wanted = hashlib.sha256(repr((CONCEPTS, SOURCES, SHAPES)).encode()).hexdigest()[:12]
    cache = work / f"artwork-{wanted}.npz"
    if not cache.exists():
        _rasterise(work, cache)
    with np.load(cache) as arrays:
        return Artwork(arrays["pixels"], arrays["concept"], arrays["style"], arrays["shapes"])


def _archive(work: Path, source: Source) -> Path:
    return work / "npm" / f"{source.package[1:].replace('/', '-')}-{source.version}.tgz"


def _icons(archive: Path) -> tuple[dict[str, dict], int]:
    """Every icon of one package by slug (aliases resolved), and the set's default side length."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member is not None
        data = json.load(member)
    icons = dict(data["icons"])
    for slug, alias in data.get("aliases", {}).items():
        if alias["parent"] in icons and not ({"rotate", "hFlip", "vFlip"} & set(alias)):
            icons[slug] = icons[alias["parent"]]
    return icons, data.get("height", 16)


def _draw(body: str, left: float, top: float, width: float, height: float) -> np.ndarray:
    import resvg_py

    side = max(width, height)  # pictures that are not square are centred in a square
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    # Monochrome sets paint with "currentColor": a dark grey keeps them apart from black backgrounds.
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{SPRITE}" height="{SPRITE}" color="#3a3a3a"'
    svg = f"<svg {head}>{body}</svg>"
    drawn = Image.open(BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)))).convert("RGBA")
    return np.asarray(
        drawn.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS) if drawn.size != (SPRITE, SPRITE) else drawn
    )


def _rasterise(work: Path, cache: Path) -> None:
    began = time.time()
    pixels, concept, style = [], [], []
    for s, source in enumerate(SOURCES):
        icons, side = _icons(_archive(work, source))
        for c, thing in enumerate(CONCEPTS):
            bodies: set[str] = set()
            for slug in thing.slugs:
                icon = icons.get(slug)
                if icon is None or icon["body"] in bodies:
                    continue
                bodies.add(icon["body"])
                width, height = icon.get("width", side), icon.get("height", side)
                pixels.append(_draw(icon["body"], icon.get("left", 0), icon.get("top", 0), width, height))
                concept.append(c)
                style.append(s)
    shapes = [_draw(body, 0, 0, 64, 64) for body in SHAPES.values()]
    np.savez(cache, pixels=np.stack(pixels), concept=np.array(concept), style=np.array(style), shapes=np.stack(shapes))
    print(f"rasterised {len(pixels)} pictures in {time.time() - began:.0f} s", flush=True)
