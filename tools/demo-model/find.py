"""Losses of the detector: set prediction in the manner of DETR and MaskFormer, with three aids for a short training.

1. Noised boxes: the same decoder also starts from shaken boxes of every object of the picture, and must say of each
   whether the phrase means it, where its box is and what its mask. This teaches words and refinement without matching.
2. Every query of a phrase that is there also moves towards its nearest answer, matched or not.
3. The losses of stage `see` go on at a lower weight (`--aids`, 0 where weights begin without these heads).

Masks cost most and are computed for `--masked` prompts of a picture; boxes, scores and presence for all.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from clicks import track_loss
from dense import contrast, draw_phrases, mask_iou, mask_losses, token_boxes, token_forms
from model import size_loss
from prompts import ask, prompt_features

FAR = 1e4  # cost of an object that is no answer


def corners(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def box_overlap(a, b):
    """IoU and generalised IoU of boxes given by centre and size, broadcast over leading dimensions."""
    a, b = corners(a), corners(b)
    size = lambda c: (c[..., 2:] - c[..., :2]).clamp(min=0).prod(-1)
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    either = size(a) + size(b) - both
    around = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = both / either.clamp(min=1e-6)
    return iou, iou - (around - either) / around.clamp(min=1e-6)


@torch.no_grad()
def match(out, boxes, cover, hit, masked):
    """Queries for answers: numpy indices (prompt, query, object), each [m], of the cheapest assignment per prompt.

    Costs are those of DETR; where masks were computed (`masked`, indices of prompts), their dice error too.
    """
    p = out["scores"][-1].sigmoid()
    score = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
    found = out["boxes"][-1]
    cost = (
        2 * score[..., None]
        + 5 * torch.cdist(found, boxes, p=1)
        - 2 * box_overlap(found[:, :, None], boxes[:, None])[1]
    )
    m, c = out["masks"].float().sigmoid().flatten(2), cover[masked].flatten(2)
    dice = 1 - (2 * m @ c.transpose(1, 2) + 1) / ((m * m).sum(2)[..., None] + (c * c).sum(2)[:, None] + 1)
    cost[masked] += 5 * dice
    cost, truth = torch.where(hit[:, None], cost, FAR).cpu().numpy(), hit.cpu().numpy()
    triples = [np.zeros((3, 0), int)]
    for n in truth.any(1).nonzero()[0]:
        query, target = linear_sum_assignment(cost[n])
        triples.append(np.stack([np.full_like(query, n), query, target])[:, truth[n, target]])
    return np.concatenate(triples, 1)


def shake(boxes, valid):
    """Noised boxes [N, K, 4]; random ones where there is no object."""
    noise = torch.rand_like(boxes) * 2 - 1
    middle = boxes[..., :2] + 0.35 * noise[..., :2] * boxes[..., 2:]
    side = boxes[..., 2:] * torch.exp(0.5 * noise[..., 2:])
    anywhere = torch.rand_like(boxes) * 0.6 + 0.2
    return torch.where(valid[..., None], torch.cat([middle, side], -1), anywhere).clamp(0.02, 0.98)


def score_loss(scores, target, present, answers):
    """Binary cross entropy of scores [N, Q]; a miss counts fully, a false alarm by its confidence.

    Where nothing is present the presence score carries the answer; scores there are only held down lightly.
    """
    each = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    weight = torch.where(target > 0, 1.0, scores.detach().sigmoid() ** 2)
    weight = weight * torch.where(present, 1.0, 0.1)[:, None]
    return (each * weight).sum() / answers


def box_loss(found, wanted):
    """L1 and generalised IoU, [m] each."""
    return (found - wanted).abs().sum(-1), 1 - box_overlap(found, wanted)[1]


def layer_losses(out, layer, boxes, hit, matched, quality, answers):
    """Scores, boxes and presence of one decoder layer against one matching."""
    n, q, k = matched
    present = hit.any(1)
    target = torch.zeros_like(out["scores"][layer])
    # A matched query aims at one half plus half its IoU: over the threshold at once, and ranked by quality.
    target[n, q] = 0.5 + 0.5 * quality
    scores = score_loss(out["scores"][layer], target, present, answers)
    l1, giou = box_loss(out["boxes"][layer][n, q], boxes[n, k])
    presence = F.binary_cross_entropy_with_logits(out["presence"][layer], present.float())
    # Aid 2: all queries move to the nearest answer.
    far = torch.where(hit[:, None], torch.cdist(out["boxes"][layer].detach(), boxes, p=1), FAR)
    nearest = boxes.gather(1, far.argmin(2)[..., None].expand(-1, -1, 4))
    drift_l1, drift_giou = box_loss(out["boxes"][layer], nearest)
    drift = (5 * drift_l1 + 2 * drift_giou).mean(1)
    drift = (drift * present).sum() / present.sum().clamp(min=1)
    return scores, l1.sum() / answers, giou.sum() / answers, presence, drift


def noised_losses(extra, boxes, hit, answers):
    """Aid 1 over all layers; noised query k belongs to object k. A weighted sum."""
    total, present = 0.0, hit.any(1)
    for layer in range(len(extra["scores"])):
        found = extra["boxes"][layer]
        l1, giou = box_loss(found, boxes)
        quality = box_overlap(found.detach(), boxes)[0]
        total = total + 2 * score_loss(extra["scores"][layer], (0.5 + 0.5 * quality) * hit, present, answers)
        total = total + ((5 * l1 + 2 * giou) * hit).sum() / answers
    return total / len(extra["scores"])


def find_losses(out, boxes, cover, valid, hit, masked):
    """All losses of the detector for N prompts: boxes [N, K, 4], cover [N, K, M, M], hit [N, K] bool."""
    answers = hit.sum().clamp(min=1).float()
    matched = match(out, boxes, cover, hit, masked)
    # Which of the matched have masks is found on the CPU, where the matching was made.
    place = np.full(len(hit), -1)
    place[masked.cpu().numpy()] = np.arange(len(masked))
    drawn = (place[matched[0]] >= 0).nonzero()[0]
    on_device = lambda indices: torch.from_numpy(indices).to(hit.device).unbind(0)
    (drawn_n, drawn_q, drawn_k) = on_device(matched[:, drawn])
    (slot, drawn), (n, q, k) = on_device(np.stack([place[matched[0, drawn]], drawn])), on_device(matched)
    masks, wanted = out["masks"][slot, drawn_q].float(), cover[drawn_n, drawn_k]
    last = len(out["scores"]) - 1
    total, parts = 0.0, {}
    for layer in range(last + 1):
        quality = box_overlap(out["boxes"][layer][n, q].detach(), boxes[n, k])[0]
        if layer == last:
            quality[drawn] = mask_iou(masks.detach(), wanted)
        scores, l1, giou, presence, drift = layer_losses(out, layer, boxes, hit, (n, q, k), quality, answers)
        total = total + (1.0 if layer == last else 0.6) * (2 * scores + 5 * l1 + 2 * giou + 2 * presence + 0.3 * drift)
    parts.update(scores=scores, l1=l1, giou=giou, presence=presence)
    cell, dice = mask_losses(masks, wanted)
    parts["found_iou"] = mask_iou(masks.detach(), wanted).mean() if len(wanted) else torch.zeros(())
    parts["dice"] = dice.mean() if len(dice) else torch.zeros(())
    total = total + 2 * (2 * cell + dice).sum() / max(len(cell), 1)

    area = (cover[masked] * hit[masked][..., None, None]).amax(1)
    cell, dice = mask_losses(out["area"].float(), area)
    there = hit[masked].any(1)
    total = total + 2 * cell.mean() + (dice * there).sum() / there.sum().clamp(min=1)
    parts["area_dice"] = (dice * there).sum() / there.sum().clamp(min=1)

    if "extra" in out:
        shaken = noised_losses(out["extra"], boxes, hit, answers)
        slot, k = hit[masked].nonzero(as_tuple=True)
        cell, dice = mask_losses(out["extra"]["masks"][slot, k].float(), cover[masked[slot], k])
        total = total + 0.7 * shaken + 2 * (2 * cell + dice).sum() / max(len(cell), 1)
        parts["noised"] = shaken
        parts["noised_dice"] = dice.mean() if len(dice) else torch.zeros(())
    with torch.no_grad():
        parts["presence_right"] = ((out["presence"][-1] > 0) == hit.any(1)).float().mean()
    return total, parts


def aid_losses(model, phrases, scenes, seen, autocast):
    """Aid 3, weighted, and its parts by name."""
    with autocast():
        rows = draw_phrases(phrases, pairs=24, strangers=8, things=scenes.thing)
        text, text_mask = model.read(phrases.ids[rows], phrases.mask[rows])
    tokens = seen[2].flatten(2).transpose(1, 2)
    yes_no, by_shape, by_colour, right, hue = contrast(model, tokens, scenes, phrases, rows, text, text_mask)
    on_tokens, forms = token_boxes(model, tokens, scenes), token_forms(model, tokens, scenes)
    total = 0.5 * (yes_no + by_shape + by_colour) + 2 * on_tokens + 2 * forms
    return total, dict(shape_right=right, colour_right=hue, token_box=on_tokens, token_form=forms)


def find_step(model, phrases, scenes, args, autocast):
    """One step of stage `find`."""
    batch, per = len(scenes.pixels), args.prompts
    asked = ask(phrases, scenes, per, args.exemplars)
    hit = asked.hit.flatten(0, 1)
    rep = lambda t: t.repeat_interleave(per, 0)
    boxes, cover, valid = rep(scenes.boxes), rep(scenes.cover), rep(scenes.valid)
    # Masks for prompts that have answers first.
    order = (torch.rand(batch, per, device=hit.device) + asked.hit.any(2)).topk(args.masked, 1).indices
    masked = (torch.arange(batch, device=hit.device)[:, None] * per + order).flatten()
    with autocast():
        seen, places, levels = model.look(scenes.pixels)
        prompt, prompt_mask = prompt_features(model, phrases, asked, scenes, seen, places)
        out = model.detect(seen, places, prompt, prompt_mask, per, extra=shake(boxes, valid), masks_for=masked)
    loss, parts = 0.0, {}
    if args.aids:
        total, parts = aid_losses(model, phrases, scenes, seen, autocast)
        loss = args.aids * total
    with autocast():
        tracked, ious = track_loss(model, levels, scenes, args.shown * batch, args.rounds)
    sizes = size_loss([*seen, *levels])
    parts.update(track=tracked, sizes=sizes, **ious)
    # Last, for matching waits for the device, which has all of the above to do meanwhile.
    found, more = find_losses(out, boxes, cover, valid, hit, masked)
    return found + loss + args.clicks * tracked + 0.1 * sizes, {**parts, **more}
