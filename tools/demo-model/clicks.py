"""Training the tracker part: clicks, boxes and masks on single pictures, with rounds of correction.

Points and boxes are in pixels of the model's square input, as the processor hands them over: a click on pixel (x, y) is
(x, y), and the prompt encoder itself moves it by half a pixel to the middle. Boxes are corners.
"""

import torch
import torch.nn.functional as F

from dense import mask_iou, mask_losses
from model import size_loss

PAD = -10  # label of a point that is not there


def choose_objects(scenes, count, generator=None):
    """`count` objects of the batch, large and small alike: (picture [n], object [n])."""
    found = scenes.objects
    order = torch.randperm(len(found), generator=generator, device=found.device)[:count]
    picked = found[order.sort().values]
    return picked[:, 0], picked[:, 1]


def click_in(region, size, generator=None):
    """A random pixel [n, 2] of each region [n, M, M] of cell weights; the middle of the picture if it is empty."""
    n, cells = region.shape[0], region.shape[-1]
    weight = region.flatten(1)
    empty = weight.sum(1) <= 0
    # What `multinomial` does for one draw, without its checks, for which a GPU has to be waited for.
    cell = ((weight + empty[:, None]) / torch.empty_like(weight).exponential_(generator=generator)).argmax(1)
    jitter = torch.rand(n, 2, generator=generator, device=region.device)
    at = torch.stack([cell % cells, cell // cells], -1) + jitter
    return (at * (size / cells)).floor().clamp(0, size - 1)


def corner_boxes(boxes, size, wobble=0.0, generator=None):
    """Corner boxes [n, 4] in pixels, each edge moved by up to `wobble` of the side."""
    middle, side = boxes[:, :2], boxes[:, 2:]
    edges = torch.cat([middle - side / 2, middle + side / 2], 1)
    if wobble:
        noise = torch.rand(len(boxes), 4, generator=generator, device=boxes.device) * 2 - 1
        edges = edges + noise * wobble * side.repeat(1, 2)
    return (edges * size).clamp(0, size)


def damaged(cover, generator=None):
    """Mask prompts [n, 1, M, M] in logits: the right mask grown, shrunk, shifted or blurred."""
    n = len(cover)
    rand = lambda *s: torch.rand(*s, generator=generator, device=cover.device)
    blurred = F.avg_pool2d(cover[:, None], 5, 1, 2)
    spoiled = torch.where(rand(n, 1, 1, 1) < 0.5, blurred, cover[:, None])
    threshold = rand(n, 1, 1, 1) * 0.6 + 0.2
    return ((spoiled - threshold) * 20).clamp(-10, 10)


def mask_objective(found, iou, score, cover, alternatives):
    """Loss per prompt of all masks a round gives: found [n, 4, M, M], predicted IoU [n, 4], object score [n].

    The single mask learns always; of the three alternatives the best learns most, and only where a lone click may mean
    several things (`alternatives` [n] bool). All learn: the one that is rated best is answered, and ratings err.
    """
    cell, dice = mask_losses(found, cover[:, None].expand_as(found))
    # Errors count by the size of the object, as they do for IoU, and not by that of the picture.
    cell = cell * (cover[0].numel() / 4 / (cover.sum((1, 2)) + 400))[:, None]
    each = 2 * cell + dice
    best = 0.5 * each[:, 1:].min(1).values + 0.5 * each[:, 1:].mean(1)
    truth = mask_iou(found.detach(), cover[:, None])
    rating = (iou - truth).abs()
    rating = rating[:, 0] + torch.where(alternatives, rating[:, 1:].mean(1), 0)
    exists = F.binary_cross_entropy_with_logits(score, torch.ones_like(score), reduction="none")
    masks = each[:, 0] + torch.where(alternatives, best, 0)
    return masks + rating + 0.02 * exists, truth[:, 0]


def first_prompts(scenes, pictures, objects, size, generator=None):
    """Starting prompts of one kind for all objects: one click half of the time, else a box, or a mask.

    One kind a step, since every call costs the same few hundred small operations whatever its batch. Returns the
    keyword arguments of `Demo.track` and whether alternatives may be asked for.
    """
    n, device = len(pictures), pictures.device
    kind = float(torch.rand(1, generator=generator))
    cover = scenes.cover[pictures, objects]
    if kind < 0.5:
        inner = (cover > 0.9).float() + 1e-3 * (cover > 0.5).float()
        points = click_in(inner, size, generator)[:, None]
        return dict(points=points, labels=torch.ones(n, 1, dtype=torch.long, device=device)), True
    if kind < 0.85:
        return dict(boxes=corner_boxes(scenes.boxes[pictures, objects], size, 0.06, generator)), False
    return dict(masks=damaged(cover, generator)), False


def nowhere(n, device):
    """The point that upstream puts in for n prompts that are masks alone: at no place, labelled -1."""
    return dict(points=torch.zeros(n, 1, 2, device=device), labels=torch.full((n, 1), -1, device=device))


def correct(found, cover, prompt, size, generator=None):
    """The prompt of the next round: the last mask as a mask prompt, and a click where it is most wrong.

    Wrong cells are weighted by how deep they lie within the error, as a user would click its middle.
    """
    missing = ((cover > 0.5) & (found <= 0)).float()
    extra = ((cover <= 0.5) & (found > 0)).float()
    deep = lambda m: m * F.avg_pool2d(m[:, None], 5, 1, 2)[:, 0] ** 2
    inside, outside = deep(missing), deep(extra)
    positive = inside.sum((1, 2)) >= outside.sum((1, 2))
    region = torch.where(positive[:, None, None], inside, outside)
    fine = region.sum((1, 2)) <= 0  # nothing is wrong: another click well inside
    region = torch.where(fine[:, None, None], (cover > 0.9).float(), region)
    point = click_in(region, size, generator)[:, None]
    label = torch.where(positive | fine, 1, 0)[:, None]
    following = dict(prompt, masks=found[:, None].detach().clamp(-32, 32))
    if "points" in prompt:
        following["points"] = torch.cat([prompt["points"], point], 1)
        following["labels"] = torch.cat([prompt["labels"], label], 1)
    else:
        following["points"], following["labels"] = point, label
    return following


def track_loss(model, levels, scenes, count, rounds=0, generator=None):
    """Mean loss of `count` objects over a first prompt and `rounds` corrections, and the IoU after each, by name."""
    size = model.preset.size
    pictures, objects = choose_objects(scenes, count, generator)
    if not len(pictures):
        return levels[0].sum() * 0, {}
    prompt, several = first_prompts(scenes, pictures, objects, size, generator)
    name = "click" if several else "box" if "boxes" in prompt else "mask"
    cover = scenes.cover[pictures, objects]
    total, ious = 0.0, {}
    for turn in range(rounds + 1):
        alone = nowhere(len(cover), cover.device) if prompt.keys() == {"masks"} else {}
        found, iou, score = model.track(levels, pictures, **prompt, **alone)
        alternatives = torch.full((len(cover),), several and turn == 0, device=cover.device)
        loss, truth = mask_objective(found, iou, score, cover, alternatives)
        total = total + loss.mean() / (rounds + 1)
        ious[f"{name}_iou" if turn == 0 else f"round{turn}_iou"] = truth.mean().detach()
        if turn < rounds:
            prompt = correct(found[:, 0], cover, prompt, size, generator)
    return total, ious


def click_step(model, phrases, scenes, args, autocast):
    """One step of stage `click`: the click decoder and its neck, on a ViT that stands still with the detector on it."""
    with torch.no_grad(), autocast():
        plane = model.plane(scenes.pixels)
    with autocast():
        levels = model.track_levels(plane)
        tracked, ious = track_loss(model, levels, scenes, args.shown * len(scenes.pixels), args.rounds)
    sizes = size_loss(levels)
    return tracked + 0.1 * sizes, dict(track=tracked, sizes=sizes, **ious)
