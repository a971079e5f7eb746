"""Shapes as signed-distance tiles: one tile per variant, drawn once, sampled under any rotation and size.

A tile covers [-REACH, REACH]^2 of a shape whose farthest point from the middle lies at 1; its value is the distance to
the outline in the same unit, negative inside. Fill, outline stroke and soft edge are all thresholds of that distance.
"""

import functools
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from vocabulary import SHAPES

REACH = 1.25
SIDE = 96  # tile side; one step is 0.026, well under a pixel for objects up to 80 pixels across
OVERSAMPLE = 4
VARIANTS = 6  # per named shape
STRANGERS = 60  # tiles of shapes without a name: distractors for phrases, objects for clicks


def _ngon(n, radius=1.0, start=-90.0):
    return [
        (radius * math.cos(math.radians(start + 360 * i / n)), radius * math.sin(math.radians(start + 360 * i / n)))
        for i in range(n)
    ]


def _circle(radius=1.0, x=0.0, y=0.0):
    return [(x + px, y + py) for px, py in _ngon(160, radius)]


def _outline(name, rng):
    """Polygons of a named shape: filled ones, then holes."""
    if name == "circle":
        return [_circle()], []
    if name == "ring":
        return [_circle()], [_circle(rng.uniform(0.5, 0.7))]
    if name == "crescent":
        bite = rng.uniform(0.78, 0.92)
        return [_circle()], [_circle(bite, x=rng.uniform(0.42, 0.55))]
    if name == "square":
        return [_ngon(4, start=-45)], []
    if name == "rectangle":
        angle = math.atan(rng.uniform(0.32, 0.6))
        x, y = math.cos(angle), math.sin(angle)
        return [[(-x, -y), (x, -y), (x, y), (-x, y)]], []
    if name == "triangle":
        points = _ngon(3)
        stretch = rng.uniform(0.8, 1.2)
        return [_fit([(x * stretch, y) for x, y in points])], []
    if name == "pentagon":
        return [_ngon(5)], []
    if name == "hexagon":
        return [_ngon(6)], []
    if name == "star":
        inner = rng.uniform(0.38, 0.5)
        pairs = zip(_ngon(5), _ngon(5, inner, -54))
        return [[p for pair in pairs for p in pair]], []
    if name == "cross":
        half = rng.uniform(0.22, 0.36)
        x = math.sqrt(1 - half * half)
        arms = [[(-x, -half), (x, -half), (x, half), (-x, half)], [(-half, -x), (half, -x), (half, x), (-half, x)]]
        return arms, []
    if name == "heart":
        t = np.linspace(0, 2 * math.pi, 160, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        return [_fit(list(zip(x * rng.uniform(0.92, 1.08), y)))], []
    raise ValueError(f"no outline for {name}")


def _stranger(rng):
    """An outline that none of the names fits: a wavy blob, an arrow, a half disc, a bolt or a letter-like form."""
    kind = rng.integers(6)
    if kind < 2:  # blob: a circle whose radius swings
        t = np.linspace(0, 2 * math.pi, 160, endpoint=False)
        radius = 1 + sum(rng.uniform(0.08, 0.3) * np.cos(k * t + rng.uniform(0, 7)) for k in rng.integers(2, 6, 3))
        radius = np.maximum(radius, 0.25)
        return [_fit(list(zip(radius * np.cos(t), radius * np.sin(t))))], []
    if kind == 2:
        w, n = rng.uniform(0.15, 0.3), rng.uniform(0.0, 0.3)
        return [_fit([(-1, -w), (n, -w), (n, -0.65), (1, 0), (n, 0.65), (n, w), (-1, w)])], []
    if kind == 3:
        cut = rng.uniform(-0.2, 0.3)
        return [_fit([(x, max(y, cut)) for x, y in _circle()])], []
    if kind == 4:  # an L or a T
        w, k = rng.uniform(0.25, 0.45), rng.uniform(-0.7, 0.7)
        return [
            [(-0.7, 0.7 - w), (0.7, 0.7 - w), (0.7, 0.7), (-0.7, 0.7)],
            [(k - w / 2, -0.7), (k + w / 2, -0.7), (k + w / 2, 0.6), (k - w / 2, 0.6)],
        ], []
    points = [(0.3, -1), (-0.6, 0.15), (-0.05, 0.1), (-0.35, 1), (0.6, -0.25), (0.05, -0.2)]  # a bolt
    return [_fit([(x * rng.uniform(0.9, 1.1), y * rng.uniform(0.9, 1.1)) for x, y in points])], []


def _fit(points):
    """Centred on its bounding box, farthest point at 1."""
    p = np.asarray(points, float)
    p = p - (p.min(0) + p.max(0)) / 2
    return [tuple(q) for q in p / np.linalg.norm(p, axis=1).max()]


def _tile(filled, holes):
    side = SIDE * OVERSAMPLE
    to_pixels = lambda points: [((x / REACH + 1) * side / 2 - 0.5, (y / REACH + 1) * side / 2 - 0.5) for x, y in points]
    picture = Image.new("1", (side, side))
    draw = ImageDraw.Draw(picture)
    for points in filled:
        draw.polygon(to_pixels(points), fill=1)
    for points in holes:
        draw.polygon(to_pixels(points), fill=0)
    inside = np.asarray(picture)
    # Distances between cell centres overestimate by half a cell on either side.
    distance = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    distance = distance.reshape(SIDE, OVERSAMPLE, SIDE, OVERSAMPLE).mean((1, 3))
    return distance.astype(np.float32) * (2 * REACH / side)


@functools.cache
def tiles():
    """Tiles [n, 1, SIDE, SIDE] and the shape of each (index into SHAPES, -1 without a name)."""
    rng = np.random.default_rng(20)
    drawn, names = [], []
    for index, name in enumerate(SHAPES):
        for _ in range(VARIANTS):
            drawn.append(_tile(*_outline(name, rng)))
            names.append(index)
    for _ in range(STRANGERS):
        drawn.append(_tile(*_stranger(rng)))
        names.append(-1)
    return torch.from_numpy(np.stack(drawn))[:, None], torch.tensor(names)
