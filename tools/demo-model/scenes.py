"""Scenes of coloured shapes with exact masks, composed in batches on any device from one seeded generator.

Objects are painted back to front. An object's visible mask is what later objects leave of it; one that keeps under a
quarter of itself, or under MIN_AREA pixels, stays in the picture but is nobody's answer.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F

from outlines import REACH, tiles
from vocabulary import COLOURS, SHAPES

MIN_AREA = 40  # pixels; about three mask cells
MIN_VISIBLE = 0.25
MOST_ASPECT = (16 / 9) ** 2  # from 9:16 to 16:9


@dataclasses.dataclass
class Scenes:
    """A batch: B pictures of S x S pixels with up to K objects; masks on M x M cells."""

    pixels: torch.Tensor  # [B, 3, S, S] in [-1, 1], as the processor gives them
    cover: torch.Tensor  # [B, K, M, M] visible share of each cell, 0 to 1
    boxes: torch.Tensor  # [B, K, 4] centre x, centre y, width, height of the visible mask, relative to the picture
    valid: torch.Tensor  # [B, K] bool
    objects: torch.Tensor  # [n, 2] picture and object of each valid one: counted once, for a GPU is waited for at that
    shape: torch.Tensor  # [B, K] index into SHAPES, -1 without a name
    colour: torch.Tensor  # [B, K] index into COLOURS, -1 for several colours
    thing: torch.Tensor  # [B, K] index of a drawn thing, -1 for shapes
    masks: torch.Tensor | None  # [B, K, S, S] bool, on request


class Composer:
    """Draws scenes. `span` is the range of object diameters in pixels, `most` the largest number of objects.

    `hard` in 0 to 1 is the share of scenes that are more than flat upright shapes on a plain ground. `drawings` are
    RGBA tiles [n, 4, t, t] of bytes and the thing each shows [n]; `drawn` is the share of objects taken from them.

    For pictures larger than the model's: `look` is the side at which they look like those trained on (patterns,
    outlines, smallest area), `wide` the width by the height of the picture that the square will be stretched to.
    """

    def __init__(self, size, cells, most=6, span=(18, 80), seed=0, device="cpu", hard=1.0, drawings=None, drawn=0.6,
                 look=None, wide=None):  # fmt: skip
        self.unit, self.wide = size / (look or size), wide
        self.size, self.cells, self.most, self.span, self.hard = size, cells, most, span, hard
        self.device = torch.device(device)
        self.drawn = drawn if drawings is not None else 0.0
        if drawings is not None:
            self.drawings, self.shows = (torch.as_tensor(t).to(self.device) for t in drawings)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.tiles, self.names = (t.to(self.device) for t in tiles())
        ranges = torch.tensor([[*h, *s, *v] for h, s, v in COLOURS.values()], device=self.device)
        self.colour_low, self.colour_high = ranges[:, 0::2].float(), ranges[:, 1::2].float()
        first = [int((self.names == i).nonzero()[0]) for i in range(len(SHAPES))]
        self.first = torch.tensor(first, device=self.device)
        self.per_shape = first[1] - first[0]
        strangers = (self.names == -1).nonzero()[:, 0]
        self.stranger, self.strangers = int(strangers[0]), len(strangers)
        axis = (torch.arange(size, device=self.device) + 0.5) / size * 2 - 1
        self.grid_y, self.grid_x = torch.meshgrid(axis, axis, indexing="ij")

    # ------------------------------------------------------------------------------------------------- randomness

    def _rand(self, *shape, low=0.0, high=1.0):
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def _int(self, high, *shape):
        return torch.randint(0, high, shape, generator=self.generator, device=self.device)

    def _normal(self, *shape):
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _paint(self, colour):
        """RGB drawn from the range of each named colour; `colour` of any shape, RGB last."""
        low, high = self.colour_low[colour], self.colour_high[colour]
        return hsv_to_rgb(low + (high - low) * self._rand(*colour.shape, 3))

    # --------------------------------------------------------------------------------------------------- grounds

    def _noise(self, batch):
        """Soft noise of several scales, about unit spread, [B, 3, S, S]; half of the pictures get grey noise."""
        total = torch.zeros(batch, 3, self.size, self.size, device=self.device)
        for cells in (3, 7, 16, 40):
            weight = self._rand(batch, 1, 1, 1) * (self._rand(batch, 1, 1, 1) < 0.6)
            coarse = self._normal(batch, 3, cells, cells)
            grey = (self._rand(batch, 1, 1, 1) < 0.5).float()
            coarse = coarse * (1 - grey) + coarse[:, :1] * grey
            total += weight * F.interpolate(coarse, size=self.size, mode="bilinear", align_corners=False)
        return total

    def _ground(self, batch):
        """Grounds and the two colours each is made of: plain, gradient, noisy, patterned in about equal parts."""
        anchors = hsv_to_rgb(
            torch.stack(
                [self._rand(batch, 2, high=360), self._rand(batch, 2) ** 1.5, self._rand(batch, 2, low=0.1)], -1
            )
        )
        near = (self._rand(batch, 1) < 0.6).float()  # mostly two shades of one colour, else any two
        shade = (anchors[:, 0] + self._normal(batch, 3) * 0.12).clamp(0, 1)
        one, two = anchors[:, 0], anchors[:, 1] * (1 - near) + shade * near
        angle = self._rand(batch, 1, 1, high=2 * math.pi)
        along = self.grid_x * angle.cos() + self.grid_y * angle.sin()
        across = self.grid_y * angle.cos() - self.grid_x * angle.sin()
        pitch = self._rand(batch, 1, 1, low=2, high=14) * (self.size / self.unit / 112)
        waves = torch.sin(along * pitch * 2)
        checks = waves * torch.sin(across * pitch * 2)
        kind = self._rand(batch, 1, 1) * (self._rand(batch, 1, 1) < self.hard)  # under 0.25: plain
        pattern = torch.where(self._rand(batch, 1, 1) < 0.5, waves, checks)
        pattern = torch.where(self._rand(batch, 1, 1) < 0.5, (pattern > 0).float(), pattern * 0.5 + 0.5)
        mix = torch.where(kind < 0.5, along * 0.5 + 0.5, pattern)
        mix = torch.where((kind < 0.25) | ((kind >= 0.5) & (kind < 0.75)), torch.zeros_like(mix), mix).clamp(0, 1)
        ground = one[:, :, None, None] + (two - one)[:, :, None, None] * mix[:, None]
        rough = torch.where(
            (kind >= 0.5) & (kind < 0.75), self._rand(batch, 1, 1, high=0.25), self._rand(batch, 1, 1, high=0.03)
        )
        ground = ground + self._noise(batch) * rough[:, None] * self.hard
        return ground.clamp(0, 1), torch.stack([one, two], 1)

    # --------------------------------------------------------------------------------------------------- objects

    def _places(self, batch, radius, here):
        """Centres in pixels, [B, K, 2]: mostly apart, one in four wherever it falls (touching, hiding, cut off)."""
        tries, size = 8, self.size
        reach = (size / 2 - radius * 0.8).clamp(min=size * 0.1)
        spot = (self._rand(batch, self.most, tries, 2) * 2 - 1) * reach[:, :, None, None] + size / 2
        loose = self._rand(batch, self.most) < 0.25
        chosen = torch.zeros(batch, self.most, 2, device=self.device)
        for k in range(self.most):
            if k == 0:
                chosen[:, 0] = spot[:, 0, 0]
                continue
            gap = (
                (spot[:, k, :, None] - chosen[:, None, :k]).norm(dim=-1)
                - radius[:, None, :k]
                - radius[:, k, None, None]
            )
            gap = torch.where(here[:, None, :k], gap, torch.full_like(gap, size)).amin(-1)  # [B, tries]
            best = torch.where(loose[:, k], torch.zeros_like(loose[:, k], dtype=torch.long), gap.argmax(1))
            chosen[:, k] = spot[torch.arange(batch, device=self.device), k, best]
        return chosen

    def _layout(self, batch):
        """Which objects there are [B, K], their radii [B, K] and centres [B, K, 2] in pixels."""
        here = torch.arange(self.most, device=self.device)[None] < 1 + self._int(self.most, batch, 1)
        low, high = (math.log(v / 2) for v in self.span)
        radius = torch.exp(self._rand(batch, self.most, low=low, high=high))
        return here, radius, self._places(batch, radius, here)

    def _choose(self, batch, ground):
        """Shape, tile, colour and RGB of every object. Later objects often repeat the first one's shape or colour,
        or both, so that phrases of two words need both words and answers of several objects are common."""
        most = self.most
        shape, colour = self._int(len(SHAPES), batch, most), self._int(len(COLOURS), batch, most)
        echo = self._rand(batch, most)
        echo[:, 0] = 1
        shape = torch.where(echo < 0.3, shape[:, :1], shape)
        colour = torch.where((echo < 0.12) | ((echo > 0.3) & (echo < 0.48)), colour[:, :1], colour)
        rgb = self._paint(colour)
        for _ in range(3):  # away from the ground's colours
            close = (rgb[:, :, None] - ground[:, None]).abs().amax(-1).amin(-1) < 0.22
            other = self._int(len(COLOURS), batch, most)
            colour = torch.where(close, other, colour)
            rgb = torch.where(close[..., None], self._paint(other), rgb)
        tile = self.first[shape] + self._int(self.per_shape, batch, most)
        stranger = self._rand(batch, most) < 0.1
        tile = torch.where(stranger, self.stranger + self._int(self.strangers, batch, most), tile)
        return torch.where(stranger, -1, shape), tile, colour, rgb

    def __call__(self, batch, keep_masks=False):
        size, most = self.size, self.most
        ground, anchors = self._ground(batch)
        here, radius, place = self._layout(batch)
        shape, tile, colour, rgb = self._choose(batch, anchors)

        # Every object there is, [n], and which of them are the j-th of their pictures: counted on the CPU, since a GPU would
        # have to be waited for at every count.
        b, k = here.cpu().nonzero(as_tuple=True)
        layers = [(k == j).nonzero()[:, 0] for j in range(most)]
        layers = [(rows.to(self.device), b[rows].to(self.device)) for rows in layers]
        b, k = b.to(self.device), k.to(self.device)
        angle = self._rand(len(b), high=2 * math.pi)
        turned = self._rand(len(b)) < 0.7 * self.hard
        angle = torch.where(turned, angle, self._normal(len(b)) * 0.08)
        squeeze = torch.exp(self._normal(len(b)) * 0.04)
        # The processor makes pictures square, so those of 4:3 or 9:16 squeeze all of their objects alike.
        wide = torch.exp(self._rand(batch, low=-0.5, high=0.5) * math.log(MOST_ASPECT))
        wide = torch.where(self._rand(batch) < 0.7 * self.hard, wide, torch.ones_like(wide))[b]
        if self.wide:
            wide = torch.full_like(wide, self.wide)
        distance = self._distance(tile[b, k], place[b, k], radius[b, k], angle, squeeze, wide)  # pixels
        colour_here, edge = self._shade(b, k, rgb, distance, radius[b, k])
        # Outlines and soft edges: alpha is the covered share of a pixel.
        alpha = (0.5 - distance).clamp(0, 1)
        stroke = (distance + edge["width"][:, None, None]).clamp(-0.5, 0.5) + 0.5
        painted = colour_here + (edge["rgb"][:, :, None, None] - colour_here) * stroke[:, None]
        thing = torch.full_like(shape, -1)
        if self.drawn:
            thing = self._draw_over(b, k, place, radius, wide, shape, colour, painted, alpha, thing)
        solid = alpha > 0.5

        picture = ground
        taken = torch.zeros(batch, size, size, dtype=torch.bool, device=self.device)
        visible = torch.zeros(batch, most, size, size, dtype=torch.bool, device=self.device)
        full = torch.zeros(batch, most, device=self.device)
        full[b, k] = solid.flatten(1).sum(1).float()
        for rows, at in layers:
            picture[at] += (painted[rows] - picture[at]) * alpha[rows][:, None]
        for j, (rows, at) in reversed(list(enumerate(layers))):
            visible[at, j] = solid[rows] & ~taken[at]
            taken[at] |= solid[rows]
        grain = self._rand(batch, 1, 1, 1, high=0.06) * (self._rand(batch, 1, 1, 1) < 0.5) * self.hard
        light = 1 + (self._rand(batch, 1, 1, 1) - 0.5) * 0.12
        picture = (picture * light + self._normal(*picture.shape) * grain).clamp(0, 1)
        return self._pack(picture, visible, full, here, shape, colour, thing, keep_masks)

    def _draw_over(self, b, k, place, radius, wide, shape, colour, painted, alpha, thing):
        """Replaces some objects by drawings, in place; some repeat the first object's thing in another drawing."""
        swap = self._rand(len(b)) < self.drawn
        at = swap.nonzero()[:, 0]
        if not len(at):
            return thing
        which = self._int(len(self.drawings), *shape.shape)
        which = torch.where(self._rand(*shape.shape) < 0.25, which[:, :1], which)
        rows, columns = b[at], k[at]
        tile = which[rows, columns]
        tilt = self._normal(len(at)) * 0.22
        flip = torch.where(self._rand(len(at)) < 0.5, 1.0, -1.0)
        stretch = torch.exp(self._normal(len(at)) * 0.06)
        x, y = (place[rows, columns] / self.size * 2 - 1).unbind(1)
        scale = self.size / 2 / radius[rows, columns]
        theta = turn(x, y, tilt, scale, stretch, wide[at]) * torch.stack([flip, torch.ones_like(flip)], 1)[..., None]
        grid = F.affine_grid(theta, (len(at), 4, self.size, self.size), align_corners=False)
        rgba = self.drawings[tile].float() / 255
        rgba[:, :3] *= rgba[:, 3:]  # averages of colours are weighted by cover
        found = F.grid_sample(rgba, grid, align_corners=False)
        alpha[at] = found[:, 3]
        tint = (1 + self._normal(len(at), 3) * 0.07)[:, :, None, None]
        painted[at] = (found[:, :3] / found[:, 3:].clamp(min=1e-3) * tint).clamp(0, 1)
        shape[rows, columns], colour[rows, columns] = -1, -1
        thing[rows, columns] = self.shows[tile]
        return thing

    def _distance(self, tile, place, radius, angle, squeeze, wide):
        """Signed distance to each object's outline in pixels (of a picture not squeezed), [n, S, S]."""
        size = self.size
        x, y = place[:, 0] / size * 2 - 1, place[:, 1] / size * 2 - 1
        scale = size / 2 / radius / REACH  # picture coordinates to tile coordinates
        grid = F.affine_grid(turn(x, y, angle, scale, squeeze, wide), (len(tile), 1, size, size), align_corners=False)
        # Beyond the tile the border value repeats: positive, which is all that is asked there.
        found = F.grid_sample(self.tiles[tile], grid, padding_mode="border", align_corners=False)[:, 0]
        return found * radius[:, None, None]

    def _shade(self, b, k, rgb, distance, radius):
        """Fill colours [n, 3, S, S] (flat, shaded or grainy) and the outline strokes, of no width for most objects."""
        n = len(b)
        slope = self._rand(n, 1, 1, high=0.13) * (self._rand(n, 1, 1) < 0.5)
        angle = self._rand(n, 1, 1, high=2 * math.pi)
        span = (self.size / 2 / radius)[:, None, None]
        light = 1 + slope * ((self.grid_x * angle.cos() + self.grid_y * angle.sin()) * span).clamp(-1, 1)
        base = rgb[b, k]
        fill = base[:, :, None, None] * light[:, None]
        wide = (radius * self._rand(n, low=0.06, high=0.2)).clamp(self.unit, 7 * self.unit)
        has = self._rand(n) < 0.3 * self.hard
        tone = self._int(3, n)
        dark, pale = base * 0.35, base + (1 - base) * 0.7
        stroke = torch.where(
            (tone == 0)[:, None], dark, torch.where((tone == 1)[:, None], pale, torch.zeros_like(base))
        )
        # A stroke of no width lies outside the object, where alpha is zero.
        return fill.clamp(0, 1), dict(width=torch.where(has, wide, torch.full_like(wide, -2.0)), rgb=stroke)

    def _pack(self, picture, visible, full, here, shape, colour, thing, keep_masks):
        size = self.size
        area = visible.flatten(2).sum(-1)
        valid = here & (area >= MIN_AREA * self.unit**2) & (area >= MIN_VISIBLE * full)
        rows, columns = visible.any(3).int(), visible.any(2).int()
        y0, y1 = rows.argmax(2), size - rows.flip(2).argmax(2)
        x0, x1 = columns.argmax(2), size - columns.flip(2).argmax(2)
        boxes = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0).float(), (y1 - y0).float()], -1) / size
        boxes = torch.where(valid[..., None], boxes, torch.full_like(boxes, 0.5))
        batch, most = valid.shape
        cover = F.interpolate(visible.float(), size=self.cells, mode="area") if size != self.cells else visible.float()
        return Scenes(
            picture * 2 - 1,
            cover * valid[..., None, None],
            boxes,
            valid,
            valid.nonzero(),
            shape,
            colour,
            thing,
            visible if keep_masks else None,
        )


def hsv_to_rgb(hsv):
    """Hue in degrees (any turn), saturation and value in 0 to 1; last dimension is the colour."""
    hue, saturation, value = hsv.unbind(-1)
    steps = torch.stack([(n + hue / 60) % 6 for n in (5, 3, 1)], -1)
    ramp = torch.minimum(steps, 4 - steps).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)


def turn(x, y, angle, scale, squeeze, wide):
    """Affine maps [n, 2, 3] from the picture, where an object lies at (x, y), to its tile.

    The picture is first stretched back to its own shape (`wide` is its width by its height), then turned by `angle`,
    then scaled, and `squeeze`d along the tile's axes.
    """
    across, down = wide.sqrt(), 1 / wide.sqrt()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    first = torch.stack([cos * across, sin * down, -(cos * across * x + sin * down * y)], -1) * squeeze[:, None]
    second = torch.stack([-sin * across, cos * down, sin * across * x - cos * down * y], -1) / squeeze[:, None]
    return torch.stack([first, second], 1)
