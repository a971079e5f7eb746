"""The test set: pictures, truths and prompts that no training run draws, the same whoever answers them.

Four groups of pictures. `scenes`: the distribution trained on, from seeds of its own. `layout`: rows and grids with
more objects than trained. `grounds`: kinds of ground that `scenes.py` never draws. `style`: drawings of a held-out set,
or without drawings shapes as with a felt pen (unsteady outlines, hatched, dark contours).

Pictures are 8-bit RGB of several aspects, 1.4 to 2.4 times the model's side. They are composed as squares of the longer
side, as the processor would see them, and stretched to their aspect, so objects have their true proportions there.
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from prompts import ask, means
from scenes import Composer, hsv_to_rgb
from vocabulary import COLOURS, SHAPES

HELD_OUT = 900_000_000  # first seed; training stays far below
GROUPS = ("scenes", "layout", "grounds", "style")
ASPECTS = {"4:3": 4 / 3, "16:9": 16 / 9, "1:1": 1.0, "9:16": 9 / 16}
PHRASES = 5  # asked of each picture at most
SHOWN = 3  # objects clicked at in each picture at most


@dataclasses.dataclass
class Question:
    """One concept: a phrase, a box round an example (corners in pixels), or both; `truth` indexes `Case.masks`."""

    text: str | None
    box: tuple | None
    truth: list
    kind: str  # shape, colour, shape and colour, things; exemplars


@dataclasses.dataclass
class Target:
    """One object to be shown: its index into `Case.masks`, first clicks (x, y), a box, how a mask prompt of it is
    spoiled (see `evaluate.spoiled`)."""

    index: int
    inner: tuple  # a random inner point
    deepest: tuple
    box: tuple
    blurred: bool
    cut: float


@dataclasses.dataclass
class Case:
    """A picture [H, W, 3] of bytes, its objects' visible masks [K, H, W], what each is called, and what is asked."""

    group: str
    aspect: str
    pixels: np.ndarray
    masks: np.ndarray
    names: list  # (colour, shape) or ("", thing) of each mask; "" where it has none
    questions: list
    targets: list


class Rows(Composer):
    """Objects of one size in rows and columns, some missing."""

    def _layout(self, batch):
        size, most = self.size, self.most
        here = torch.zeros(batch, most, dtype=torch.bool, device=self.device)
        radius, place = torch.ones(batch, most, device=self.device), torch.zeros(batch, most, 2, device=self.device)
        across, down = math.sqrt(self.wide or 1), 1 / math.sqrt(self.wide or 1)
        for b in range(batch):
            room = lambda columns, rows: min(size * across / columns, size * down / rows) / 2 * 0.86
            kinds = [
                (c, r)
                for c in range(1, most + 1)
                for r in range(1, most + 1)
                if 4 <= c * r <= most and 2 * room(c, r) >= self.span[0]
            ] or [(2, 2)]
            columns, rows = kinds[int(self._int(len(kinds), 1))]
            count = columns * rows
            x = (torch.arange(columns, device=self.device) + 0.5).repeat(rows) * size / columns
            y = (torch.arange(rows, device=self.device) + 0.5).repeat_interleave(columns) * size / rows
            place[b, :count] = torch.stack([x, y], -1) + self._normal(count, 2) * 0.01 * size
            radius[b, :count] = room(columns, rows) * self._rand(1, low=0.75, high=1.0)
            here[b, :count] = self._rand(count) > 0.15
            here[b, 0] = True
        return here, radius.clamp(min=self.span[0] / 2), place


class Grounds(Composer):
    """Radial gradients, stripes of three colours, notebook lines, blurred blobs, bricks."""

    def _ground(self, batch):
        pictures, colours = [], []
        for _ in range(batch):
            hsv = torch.stack([self._rand(3, high=360), self._rand(3) ** 1.5, self._rand(3, low=0.15)], -1)
            rgb = hsv_to_rgb(hsv)
            x, y = self.grid_x, self.grid_y
            kind = int(self._int(5, 1))
            angle = float(self._rand(1, high=math.pi))
            along = x * math.cos(angle) + y * math.sin(angle)
            if kind == 0:
                middle = self._rand(2, low=-0.6, high=0.6)
                mix = (
                    ((x - middle[0]) ** 2 + (y - middle[1]) ** 2).sqrt() / float(self._rand(1, low=0.8, high=1.6))
                ).clamp(0, 1)
                rgb = rgb[:2]
                picture = rgb[0][:, None, None] * (1 - mix) + rgb[1][:, None, None] * mix
            elif kind == 1:
                which = ((along + 2) * float(self._rand(1, low=1.5, high=6))).floor().long() % 3
                picture = rgb[which].permute(2, 0, 1)
            elif kind == 2:  # paper, ruled or squared, with a margin
                paper = torch.tensor([0.97, 0.96, 0.9], device=self.device) - self._rand(3, high=0.05)
                ink = hsv_to_rgb(torch.tensor([210.0, 0.35, 0.85], device=self.device))
                pitch, line = float(self._rand(1, low=0.1, high=0.2)), 1.5 * 2 / self.size * self.unit
                ruled = ((y + 1) % pitch < line) | ((x + 1) % pitch < line) & bool(self._rand(1) < 0.5)
                margin = (x + 0.75).abs() < line
                rgb = torch.stack([paper, ink])
                picture = torch.where(ruled, ink[:, None, None], paper[:, None, None])
                picture = torch.where(margin, torch.tensor([0.9, 0.5, 0.5])[:, None, None].to(picture), picture)
            elif kind == 3:
                weight = torch.zeros(3, *x.shape, device=self.device)
                for i in range(12):
                    px, py = self._rand(2, low=-1, high=1)
                    spread = float(self._rand(1, low=0.15, high=0.4))
                    weight[i % 3] += torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * spread**2))
                weight = weight + 1e-3
                picture = torch.einsum("kc,khw->chw", rgb, weight / weight.sum(0))
            else:
                rows = (y + 1) * float(self._rand(1, low=2.5, high=5))
                columns = (x + 1) * float(self._rand(1, low=1.5, high=3)) + rows.floor() % 2 / 2
                joint = (rows % 1 < 0.1) | (columns % 1 < 0.06)
                rgb = rgb[:2]
                picture = torch.where(joint, rgb[1][:, None, None], rgb[0][:, None, None])
            pictures.append(picture)
            colours.append(F.pad(rgb, (0, 0, 0, 3 - len(rgb)), value=-9.0))  # a colour that nothing is near
        return torch.stack(pictures).clamp(0, 1), torch.stack(colours)


class FeltPen(Composer):
    """Shapes with unsteady outlines, hatched in two tones, with dark contours."""

    def _distance(self, tile, place, radius, angle, squeeze, wide):
        found = super()._distance(tile, place, radius, angle, squeeze, wide)
        shake = F.interpolate(self._normal(len(found), 1, 24, 24), size=self.size, mode="bicubic")[:, 0]
        return found + shake * 0.035 * radius[:, None, None]

    def _shade(self, b, k, rgb, distance, radius):
        n, base = len(b), rgb[b, k]
        angle, pitch = self._rand(n, 1, 1, high=2 * math.pi), self._rand(n, 1, 1, low=0.16, high=0.3)
        along = (self.grid_x * angle.cos() + self.grid_y * angle.sin()) * self.size / 2 / radius[:, None, None]
        tone = torch.where(along % pitch < pitch * 0.45, 0.78, 1.0)
        width = (radius * 0.1).clamp(1.2 * self.unit, 5 * self.unit)
        return base[:, :, None, None] * tone[:, None], dict(width=width, rgb=base * 0.4)


def depth(mask):
    """How far each pixel [H, W] of a mask lies from its outline or the picture's edge, in pixels."""
    return distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def deepest(mask):
    """The pixel (x, y) farthest inside, the first of equals, and how deep it lies."""
    deep = depth(mask)
    y, x = divmod(int(deep.argmax()), mask.shape[1])
    return (x, y), float(deep[y, x])


def bounds(mask):
    """Corners of a mask's box, pixels, the right and lower ones exclusive."""
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def compose(group, aspect, spec, seed, rng):
    """A scene of one picture: (`Scenes` of a square, picture [H, W, 3] bytes, visible masks [K, H, W])."""
    wide = ASPECTS[aspect]
    longer = round(spec.look * rng.uniform(1.4, 2.4))
    width, height = (longer, round(longer / wide)) if wide >= 1 else (round(longer * wide), longer)
    kind = {"layout": Rows, "grounds": Grounds, "style": Composer if spec.held_out else FeltPen}.get(group, Composer)
    composer = kind(
        longer,
        longer,
        most=spec.most + spec.most // 2 if group == "layout" else spec.most,
        span=[v * longer / spec.look for v in spec.span],
        seed=seed,
        drawings=spec.held_out if group == "style" else spec.drawings,
        look=spec.look,
        wide=wide,
    )
    scenes = composer(1, keep_masks=True)
    resize = lambda t: F.interpolate(t, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    picture = ((resize(scenes.pixels)[0] + 1) * 127.5).round().clamp(0, 255).byte()
    masks = resize(scenes.masks.float())[0] > 0.5
    return scenes, picture.permute(1, 2, 0).contiguous().numpy(), masks.numpy()


def questions(phrases, scenes, masks, keep, generator, rng):
    """Concepts to ask. Those that fit something too hidden to be an answer are left out: neither yes nor no would be
    right."""
    place = {int(k): i for i, k in enumerate(keep)}
    scenes.valid = torch.zeros_like(scenes.valid)
    scenes.valid[0, keep] = True
    hidden = torch.from_numpy(masks.any((1, 2)))[None] & ~scenes.valid
    every = dataclasses.replace(scenes, valid=hidden)
    found, said = [], set()
    asked = ask(phrases, scenes, PHRASES, 0.0, generator)
    unclear = means(phrases, asked.rows, every).any(-1)[0]
    for p, row in enumerate(asked.rows[0].tolist()):
        text = phrases.rows[row][0]
        if text in said or unclear[p]:
            continue
        said.add(text)
        words = [w for w, t in (("shape", phrases.shape), ("colour", phrases.colour)) if t[row] >= 0]
        kind = " and ".join(words) or ("things" if phrases.named <= row < phrases.things else "strangers")
        found.append(Question(text, None, [place[k] for k in asked.hit[0, p].nonzero()[:, 0].tolist()], kind))
    asked = ask(phrases, scenes, 1, 1.0, generator)
    k = int(asked.exemplar[0, 0])
    twin = (scenes.shape[0] == scenes.shape[0, k]) & (scenes.colour[0] == scenes.colour[0, k])
    twin &= scenes.thing[0] == scenes.thing[0, k]
    if k >= 0 and not (twin & hidden[0]).any():
        height, width = masks.shape[1:]
        x0, y0, x1, y1 = bounds(masks[k])
        moved = np.array([x0, y0, x1, y1]) + rng.uniform(-0.05, 0.05, 4) * np.array([x1 - x0, y1 - y0] * 2)
        box = tuple(round(float(v), 1) for v in np.clip(moved, 0, [width, height] * 2))
        text = None if asked.speechless[0, 0] else phrases.rows[int(asked.rows[0, 0])][0]
        found.append(Question(text, box, [place[j] for j in asked.hit[0, 0].nonzero()[:, 0].tolist()], "exemplars"))
    return found


def targets(masks, look, rng):
    """Objects to show, large and small alike. A random inner point lies at least a pixel of the model's own picture
    inside, or half as deep as there is."""
    found = []
    for index in sorted(rng.permutation(len(masks))[:SHOWN].tolist()):
        deep = depth(masks[index])
        pixel = max(masks.shape[1:]) / look
        inner = np.argwhere(deep >= min(pixel + 0.5, deep.max() / 2))
        y, x = inner[rng.integers(len(inner))].tolist()
        blurred, cut = bool(rng.random() < 0.5), float(rng.uniform(0.2, 0.8))
        found.append(Target(index, (x, y), deepest(masks[index])[0], bounds(masks[index]), blurred, cut))
    return found


@dataclasses.dataclass
class Spec:
    """What the test set is made of: the model's side, the trained number and size of objects, drawings of the trained
    styles and of the held-out one (`Composer`'s `drawings`, or None) and the names of the things they show."""

    look: int
    most: int
    span: tuple
    drawings: tuple | None = None
    held_out: tuple | None = None
    labels: tuple = ()


def cases(spec, phrases, count, groups=GROUPS, first=0):
    """`count` pictures, groups and aspects by turns; picture i is a function of `spec`, `groups` and i alone."""
    for i in range(first, first + count):
        group, aspect = groups[i % len(groups)], list(ASPECTS)[i // len(groups) % len(ASPECTS)]
        rng = np.random.default_rng(HELD_OUT + i)
        generator = torch.Generator().manual_seed(HELD_OUT + i)
        scenes, pixels, masks = compose(group, aspect, spec, HELD_OUT + i, rng)
        keep = [k for k in scenes.valid[0].nonzero()[:, 0].tolist() if masks[k].any()]
        if not keep:
            continue
        asked = questions(phrases, scenes, masks, keep, generator, rng)
        name = lambda k: (
            ("", spec.labels[scenes.thing[0, k]])
            if scenes.thing[0, k] >= 0
            else (list(COLOURS)[scenes.colour[0, k]], SHAPES[scenes.shape[0, k]] if scenes.shape[0, k] >= 0 else "")
        )
        kept = masks[keep]
        yield Case(group, aspect, pixels, kept, [name(k) for k in keep], asked, targets(kept, spec.look, rng))
