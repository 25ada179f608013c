"""Scenes to pixels: everything in a few batched tensor operations, on whatever device the artwork lies.

Axes: scenes, layers (the things of all scenes in one list), 64 x 64 pixels, colours premultiplied by alpha.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.bundled.artwork import SPRITE, Artwork
from tools.bundled.world import ARTS, CORNER, PAIR, QUALITIES, SEVERAL, SINGLE, Scenes

# Red, orange, yellow, green, blue, purple, pink, brown, black, white: the order of COLOURS.
_PALETTE_HEX = "d62828 f08219 f5d732 2d9b41 2d5fcd 7d37a5 f58cb9 784b28 19191c f8f8f8"
_PALETTE = torch.tensor([[int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)] for code in _PALETTE_HEX.split()])
_CORNERS = torch.tensor([[0.23, 0.23], [0.77, 0.23], [0.77, 0.77], [0.23, 0.77]])
_OFFSETS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [0.0, 0.0]])
_SIZES = torch.tensor([0.32, 0.50, 0.80])
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_FRAME_WIDTHS = torch.tensor([3.0, 7.0])
MAX_LAYERS = 6


class Composer:
    """Holds the artwork's pixels and draws scenes from them.

    With `vary` some things change their colours or become ink drawings: more looks than the artwork has, for training.
    """

    def __init__(self, artwork: Artwork, device: torch.device | str = "cpu", vary: bool = False) -> None:
        self.device, self.vary = torch.device(device), vary
        pixels = torch.from_numpy(artwork.pixels).permute(0, 3, 1, 2).float() / 255
        shapes = torch.from_numpy(artwork.shapes).permute(0, 3, 1, 2).float() / 255
        pixels = torch.cat([pixels, shapes])
        pixels[:, :3] *= pixels[:, 3:]
        self.first_shape = len(artwork.pixels)
        # Half-size copies: bilinear sampling alone would alias when a picture is drawn at a third of its size.
        self.levels = [pixels.to(self.device), F.avg_pool2d(pixels, 2).to(self.device)]

    def __call__(self, scenes: Scenes, generator: torch.Generator) -> Tensor:
        """(scenes, 3, 64, 64) uint8."""
        n = len(scenes)
        canvas = self._background(scenes, generator)
        layers = _place(scenes, generator, self.first_shape)
        tint = _colour(scenes.tint, generator, 0.04)
        badge = _colour(scenes.badge_colour, generator, 0.04)
        motif = _pattern(scenes.object_pattern, generator).to(self.device)
        for k in range(MAX_LAYERS):
            rows = torch.nonzero(layers["picture"][:, k] >= 0)[:, 0]
            if len(rows) == 0:
                continue
            drawn = self._sample({name: values[rows, k] for name, values in layers.items()})
            if k == MAX_LAYERS - 1:  # the badge
                drawn = _tinted(drawn, badge[rows].to(self.device))
            else:
                self._change(drawn, scenes.rows(rows), tint[rows], motif[rows.to(self.device)], generator)
            where = rows.to(self.device)
            canvas[where] = canvas[where] * (1 - drawn[:, 3:]) + drawn[:, :3]
        canvas = _framed(canvas, scenes, generator)
        canvas = _art(canvas, scenes.art.to(self.device))
        canvas = _quality(canvas, scenes.quality, generator)
        assert canvas.shape == (n, 3, SPRITE, SPRITE)
        return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)

    def _change(self, drawn: Tensor, scenes: Scenes, tint: Tensor, motif: Tensor, generator: torch.Generator) -> None:
        """Vary, tint and pattern those of the things that ask for it, in place."""
        if self.vary:
            dice = torch.rand(len(drawn), generator=generator)
            for share, change in ((dice < 0.3, _turned), (dice > 0.85, _inked)):
                rows = torch.nonzero(share)[:, 0].to(self.device)
                drawn[rows] = change(drawn[rows], generator)
        rows = torch.nonzero(scenes.tint >= 0)[:, 0]
        drawn[rows.to(self.device)] = _tinted(drawn[rows.to(self.device)], tint[rows].to(self.device))
        rows = torch.nonzero(scenes.object_pattern > 0)[:, 0].to(self.device)
        drawn[rows] = _patterned(drawn[rows], motif[rows])

    def _background(self, scenes: Scenes, generator: torch.Generator) -> Tensor:
        colour = _colour(scenes.background, generator, 0.05)
        # The second tone stays near the first, so that the background keeps one name for its colour.
        bright = (colour @ _LUMINANCE)[:, None] > 0.5
        other = torch.where(bright, colour * 0.72, colour + (1 - colour) * 0.35)
        mask = _pattern(scenes.background_pattern, generator)
        canvas = colour[:, :, None, None] * (1 - mask) + other[:, :, None, None] * mask
        return canvas.to(self.device)

    def _sample(self, layer: dict[str, Tensor]) -> Tensor:
        """One thing per row, drawn at its place, size and angle: (rows, 4, 64, 64)."""
        angle, scale, flip = layer["angle"], layer["scale"], layer["flip"]
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        x, y = layer["x"] * 2 - 1, layer["y"] * 2 - 1
        theta = torch.stack(
            [
                torch.stack([cos * flip, sin * flip, -(cos * x + sin * y) * flip], 1),
                torch.stack([-sin, cos, sin * x - cos * y], 1),
            ],
            1,
        ).to(self.device)
        grid = F.affine_grid(theta, [len(angle), 4, SPRITE, SPRITE], align_corners=False)
        drawn = torch.zeros(len(angle), 4, SPRITE, SPRITE, device=self.device)
        small = (scale < 0.6).to(self.device)
        picture = layer["picture"].to(self.device)
        for level, rows in ((0, ~small), (1, small)):
            if rows.any():
                drawn[rows] = F.grid_sample(self.levels[level][picture[rows]], grid[rows], align_corners=False)
        return drawn


def _spread(n: int, generator: torch.Generator, width: float) -> Tensor:
    return (torch.rand(n, generator=generator) * 2 - 1) * width


def _colour(index: Tensor, generator: torch.Generator, jitter: float) -> Tensor:
    """A shade of each named colour: (scenes, 3)."""
    shade = _PALETTE[index.clamp(min=0)]
    return (shade + (torch.rand(len(index), 3, generator=generator) * 2 - 1) * jitter * 2).clamp(0, 1)


def _place(scenes: Scenes, generator: torch.Generator, first_shape: int) -> dict[str, Tensor]:
    """Where every layer goes: picture (-1: none), x, y, scale, angle, flip, each (scenes, layers)."""
    n = len(scenes)
    picture = torch.full((n, MAX_LAYERS), -1)
    x, y, scale = (torch.full((n, MAX_LAYERS), v) for v in (0.5, 0.5, 0.8))
    picture[:, 0] = scenes.main_picture

    single, corner = scenes.layout == SINGLE, scenes.layout == CORNER
    pair, several = scenes.layout == PAIR, scenes.layout == SEVERAL
    size = _SIZES[scenes.size.clamp(min=0)]
    reach = (0.46 - size / 2)[:, None] * _OFFSETS[scenes.position.clamp(min=0)]
    away = (0.5 - _CORNERS[scenes.corner.clamp(min=0)]) * 0.24
    x[:, 0] += torch.where(single, reach[:, 0], torch.where(corner, away[:, 0], torch.where(pair, -0.23, 0.0)))
    y[:, 0] += torch.where(single, reach[:, 1], torch.where(corner, away[:, 1], 0.0))
    scale[:, 0] = torch.where(single, size, torch.where(corner, 0.64, torch.where(pair, 0.46, 0.32)))

    two = corner | pair
    picture[two, 1] = scenes.second_picture[two]
    spot = _CORNERS[scenes.corner.clamp(min=0)]
    x[:, 1] = torch.where(corner, spot[:, 0], 0.73)
    y[:, 1] = torch.where(corner, spot[:, 1], 0.5)
    scale[:, 1] = torch.where(corner, 0.44, 0.46)

    cells = torch.rand(n, 9, generator=generator).argsort(1)[:, :5]
    for k in range(5):
        more = several & (scenes.count > k)
        picture[more, k] = scenes.main_picture[more]
        x[more, k] = 0.2 + 0.3 * (cells[more, k] % 3)
        y[more, k] = 0.2 + 0.3 * (cells[more, k] // 3)
        scale[more, k] = 0.32

    x += _spread(n * MAX_LAYERS, generator, 0.03).view(n, -1)
    y += _spread(n * MAX_LAYERS, generator, 0.03).view(n, -1)
    scale *= 1 + _spread(n * MAX_LAYERS, generator, 0.08).view(n, -1)
    turn = torch.tensor([0.0, math.pi, -math.pi / 2, math.pi / 2])[scenes.orientation]
    angle = turn[:, None] + _spread(n * MAX_LAYERS, generator, 0.15).view(n, -1)
    flip = (torch.rand(n, MAX_LAYERS, generator=generator) < 0.5).float() * 2 - 1

    last = MAX_LAYERS - 1
    has = scenes.badge >= 0
    picture[has, last] = first_shape + scenes.badge[has]
    spot = _CORNERS[scenes.badge_corner] * 1.1 - 0.05
    x[:, last], y[:, last], scale[:, last], angle[:, last] = spot[:, 0], spot[:, 1], 0.32, 0.0
    return {"picture": picture, "x": x, "y": y, "scale": scale, "angle": angle, "flip": flip}


def _pattern(index: Tensor, generator: torch.Generator) -> Tensor:
    """0..1 masks of the patterns plain, striped, dotted, checkered: (scenes, 1, 64, 64)."""
    n = len(index)
    axis = torch.arange(SPRITE) / SPRITE
    angle = torch.rand(n, 1, 1, generator=generator) * math.pi
    wave = (4 + 2 * torch.rand(n, 1, 1, generator=generator)) * 2 * math.pi
    phase = torch.rand(n, 2, 1, 1, generator=generator) * 2 * math.pi
    x, y = axis[None, None, :], axis[None, :, None]
    stripes = torch.sin(wave * (x * torch.cos(angle) + y * torch.sin(angle)) + phase[:, 0])
    across, down = torch.sin(wave * x + phase[:, 0]), torch.sin(wave * y + phase[:, 1])
    dots = (across + down) - 1.0
    checks = torch.sin(wave / 2 * x + phase[:, 0]) * torch.sin(wave / 2 * y + phase[:, 1])
    plain = torch.full_like(stripes, -9.0)
    waves = torch.stack([plain, stripes, dots, checks * 2], 1)
    chosen = waves[torch.arange(n), index]
    return torch.sigmoid(chosen * 6)[:, None]


def _tinted(drawn: Tensor, colour: Tensor) -> Tensor:
    """Paint things in one colour each, keeping their light and shade."""
    light = torch.einsum("ncij,c->nij", drawn[:, :3], _LUMINANCE.to(drawn.device))[:, None]
    alpha = drawn[:, 3:]
    painted = colour[:, :, None, None] * (0.4 * alpha + 0.75 * light)
    return torch.cat([torch.minimum(painted, alpha), alpha], 1)


def _turned(drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the hues: the channels move along by a fraction; greys stay as they are."""
    turn = torch.rand(len(drawn), 1, 1, 1, generator=generator).to(drawn.device) * 2
    colour = drawn[:, :3]
    near, far = colour.roll(1, 1), colour.roll(2, 1)
    turned = torch.where(turn < 1, colour * (1 - turn) + near * turn, near * (2 - turn) + far * (turn - 1))
    return torch.cat([turned, drawn[:, 3:]], 1)


def _inked(drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Leave only what is darker than the thing's mean, as ink of a dark or a light grey."""
    alpha = drawn[:, 3:]
    light = torch.einsum("ncij,c->nij", drawn[:, :3], _LUMINANCE.to(drawn.device))[:, None]
    middle = light.sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp(min=1)
    ink = alpha * torch.sigmoid((middle * alpha - light) * 12)
    grey = (torch.rand(len(drawn), 1, 1, 1, generator=generator) < 0.2).float() * 0.7 + 0.2
    return torch.cat([(ink * grey.to(drawn.device)).expand(-1, 3, -1, -1), ink], 1)


def _patterned(drawn: Tensor, mask: Tensor) -> Tensor:
    """Lay a pattern over a thing: dark marks on light things, light marks on dark ones."""
    alpha = drawn[:, 3:]
    light = torch.einsum("ncij,c->n", drawn[:, :3], _LUMINANCE.to(drawn.device)) / alpha.sum((1, 2, 3)).clamp(min=1)
    ink = torch.where(light > 0.45, 0.1, 0.95)[:, None, None, None]
    strength = 0.65 * mask
    return torch.cat([drawn[:, :3] * (1 - strength) + strength * ink * alpha, alpha], 1)


def _framed(canvas: Tensor, scenes: Scenes, generator: torch.Generator) -> Tensor:
    axis = torch.arange(SPRITE, dtype=torch.float32)
    edge = torch.minimum(axis, SPRITE - 1 - axis)
    distance = torch.minimum(edge[None, :], edge[:, None])
    width = torch.where(scenes.frame >= 0, _FRAME_WIDTHS[scenes.frame_width.clamp(min=0)], 0.0)
    inside = (distance[None] < width[:, None, None])[:, None].to(canvas.device)
    colour = _colour(scenes.frame, generator, 0.05)[:, :, None, None].to(canvas.device)
    return torch.where(inside, colour, canvas)


def _light(canvas: Tensor) -> Tensor:
    return torch.einsum("ncij,c->nij", canvas, _LUMINANCE.to(canvas.device))[:, None].expand_as(canvas)


def _art(canvas: Tensor, art: Tensor) -> Tensor:
    """The ways a picture can be made: line drawing, pixel art, black and white, ..."""
    for k, name in enumerate(ARTS):
        rows = art == k
        if not rows.any():
            continue
        part = canvas[rows]
        light = _light(part)
        if name == "line drawing":
            across = F.pad(light[..., 1:] - light[..., :-1], (0, 1))
            down = F.pad(light[..., 1:, :] - light[..., :-1, :], (0, 0, 0, 1))
            made = 1 - 3 * (across.square() + down.square() + 1e-9).sqrt()
        elif name == "pixel art":
            made = F.interpolate(F.avg_pool2d(part, 4), scale_factor=4, mode="nearest")
        elif name == "black and white":
            made = light
        elif name == "sepia":
            made = light * torch.tensor([1.07, 0.86, 0.62], device=part.device)[:, None, None]
        elif name == "negative":
            made = 1 - part
        else:
            made = 0.5 + 1.2 * (light - F.pad(light, (1, 0, 1, 0), mode="replicate")[..., :-1, :-1])
        canvas[rows] = made.clamp(0, 1)
    return canvas


def _quality(canvas: Tensor, quality: Tensor, generator: torch.Generator) -> Tensor:
    """The ways a picture can be bad: blurry, noisy, dark, faded."""
    for k, name in enumerate(QUALITIES):
        rows = torch.nonzero(quality == k)[:, 0]
        if name == "clear" or len(rows) == 0:
            continue
        where = rows.to(canvas.device)
        part = canvas[where]
        if name == "blurry":
            made = part
            for _ in range(3):
                made = F.avg_pool2d(F.pad(made, (2, 2, 2, 2), mode="replicate"), 5, 1)
        elif name == "noisy":
            made = part + 0.2 * torch.randn(part.shape, generator=generator).to(part.device)
        elif name == "dark":
            made = part * 0.3
        else:
            made = 0.62 + 0.28 * part
        canvas[where] = made
    return canvas
