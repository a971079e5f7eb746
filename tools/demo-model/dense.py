"""Losses on every token and on clicks: what teaches the ViT to see before the detector asks it anything."""

import torch
import torch.nn.functional as F

from model import FORM
from prompts import means
from vocabulary import COLOURS, SHAPES


def token_targets(scenes, grid):
    """The object of each token, [B, T], -1 for ground; and which tokens are told apart clearly, [B, T] bool."""
    share = F.avg_pool2d(scenes.cover, scenes.cover.shape[-1] // grid).flatten(2)  # [B, K, T]
    most, which = share.max(1)
    return torch.where(most > 0.5, which, -1), (most > 0.5) | (share.sum(1) < 0.1)


def of_tokens(values, owner):
    """values [B, K, ...] of the object owning each token, [B, T, ...]; whatever for the ground."""
    index = owner.clamp(min=0)
    if values.dim() > 2:
        index = index[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, index)


def draw_phrases(phrases, pairs, strangers, things=None, generator=None):
    """Rows of all shapes and colours, then `pairs` pairs, each in any wording, then words that name nothing, then
    words for drawn things, if there are any among the objects `things` [B, K]."""
    device = phrases.ids.device
    shapes, colours = len(SHAPES), len(COLOURS)
    draw = lambda high, n: torch.randint(0, high, (n,), generator=generator, device=device)
    shape = torch.cat(
        [torch.arange(shapes, device=device), torch.full((colours,), -1, device=device), draw(shapes, pairs)]
    )
    colour = torch.cat(
        [torch.full((shapes,), -1, device=device), torch.arange(colours, device=device), draw(colours, pairs)]
    )
    rows = [phrases.table[shape, colour, draw(phrases.table.shape[2], len(shape))]]
    rows.append(phrases.things + draw(len(phrases.ids) - phrases.things, strangers))
    if things is not None and phrases.things > phrases.named:  # half of them of things that are there
        there = things[things >= 0]
        there = there[torch.randperm(len(there), generator=generator, device=device)[:pairs]]
        rows.append(phrases.names[there, draw(phrases.names.shape[1], len(there))])
        rows.append(phrases.named + draw(phrases.things - phrases.named, pairs))
    return torch.cat(rows)


def contrast(model, tokens, scenes, phrases, rows, text, text_mask):
    """Sigmoid contrast of tokens [B, T, D] with phrases, and the choice among shapes and among colours.

    The sigmoid form says yes or no to each phrase alone, as presence will; the two choices learn faster.
    """
    owner, clear = token_targets(scenes, model.preset.grid)
    shape, colour = of_tokens(scenes.shape, owner), of_tokens(scenes.colour, owner)
    on = owner >= 0
    tinted = on & (colour >= 0)
    weight = text_mask[..., None].float()
    words = (text.float() * weight).sum(1) / weight.sum(1)
    seen = F.normalize(model.aids.see(tokens.float()), dim=-1)
    logits = seen @ F.normalize(model.aids.read(words), dim=-1).T * model.aids.scale.exp()
    hit = of_tokens(means(phrases, rows.expand(len(owner), -1), scenes).transpose(1, 2), owner) & on[..., None]
    each = F.binary_cross_entropy_with_logits(logits + model.aids.bias, hit.float(), reduction="none")
    yes_no = (each * clear[..., None]).sum() / hit.sum().clamp(min=1)
    shapes, colours = len(SHAPES), len(COLOURS)
    named = on & (shape >= 0)
    by_shape = F.cross_entropy(logits[..., :shapes][named], shape[named])
    by_colour = F.cross_entropy(logits[..., shapes : shapes + colours][tinted], colour[tinted])
    with torch.no_grad():
        right = (logits[..., :shapes][named].argmax(-1) == shape[named]).float().mean()
        hue = (logits[..., shapes : shapes + colours][tinted].argmax(-1) == colour[tinted]).float().mean()
    return yes_no, by_shape, by_colour, right, hue


def token_boxes(model, tokens, scenes):
    """Every object token says the box of its object (relative to the picture)."""
    owner, _ = token_targets(scenes, model.preset.grid)
    on = owner >= 0
    said = model.aids.box(tokens.float())[on]
    return (said - of_tokens(scenes.boxes, owner)[on]).abs().sum(-1).mean()


def token_forms(model, tokens, scenes):
    """Every object token draws its object: the mask within its box. A hundred answers where the name is one in
    eleven, so shapes are told apart sooner."""
    owner, _ = token_targets(scenes, model.preset.grid)
    on = owner >= 0
    axis = (torch.arange(FORM, device=tokens.device) + 0.5) / FORM - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    boxes = scenes.boxes.flatten(0, 1)
    grid = boxes[:, None, None, :2] + torch.stack([x, y], -1) * boxes[:, None, None, 2:]
    form = F.grid_sample(scenes.cover.flatten(0, 1)[:, None], grid * 2 - 1, align_corners=False)[:, 0]
    form = form.unflatten(0, scenes.valid.shape).flatten(2)
    return F.binary_cross_entropy_with_logits(model.aids.form(tokens.float())[on], of_tokens(form, owner)[on])


def mask_losses(logits, cover):
    """Per mask: cell-wise error and dice error of logits [..., M, M] against covered shares in 0 to 1.

    The cell-wise error is cross entropy less its least possible value (cells on an edge are neither in nor out),
    weighted towards edges and towards what is wrong.
    """
    each = F.binary_cross_entropy_with_logits(logits, cover, reduction="none")
    floor = -torch.xlogy(cover, cover) - torch.xlogy(1 - cover, 1 - cover)
    p = logits.sigmoid()
    focus = (p - cover).detach().abs().clamp(min=0.05)
    cell = ((each - floor) * focus).mean((-1, -2)) * 4
    dice = 1 - (2 * (p * cover).sum((-1, -2)) + 1) / ((p * p).sum((-1, -2)) + (cover * cover).sum((-1, -2)) + 1)
    return cell, dice


def mask_iou(logits, cover):
    """IoU of thresholded masks on the cells, [...]."""
    a, b = logits > 0, cover > 0.5
    both = (a & b).sum((-1, -2)).float()
    return both / ((a | b).sum((-1, -2)).float()).clamp(min=1)
