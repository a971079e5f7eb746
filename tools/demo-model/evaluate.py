"""The bars, measured on scenes no training run draws (seeds from 900,000,000 up): a table of what the model can do.

    python evaluate.py RUN/find-224.pt --scenes 300

Answers are judged at full resolution after the post-processing of upstream's processors: masks are interpolated as
logits and cut at zero, an answer counts from a score (its own times presence) of `--threshold`. No suppression of
doubles: a second answer for one object is a false one.
"""

import argparse
import json
import pathlib

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from atlas import styles, unpack
from clicks import choose_objects, click_in, corner_boxes, correct, damaged, nowhere
from config import PRESETS, at_size
from model import Demo
from prompts import ask, prompt_features
from scenes import Composer
from vocabulary import Phrases

HELD_OUT = 900_000_000
BARS = {
    "phrases F1": 0.9,
    "phrases mean IoU": 0.85,
    "absent answered": 0.05,
    "click IoU": 0.85,
    "3 clicks IoU": 0.92,
    "box IoU": 0.9,
}


def load(path, device="cpu"):
    """The averaged model of a checkpoint, in evaluation mode, and the checkpoint's facts."""
    saved = torch.load(path, map_location=device, weights_only=False)
    model = Demo(at_size(PRESETS[saved["preset"]], saved["size"])).to(device)
    model.load_state_dict(saved["ema"])
    return model.eval(), {k: saved.get(k) for k in ("preset", "size", "images", "minutes", "most", "span")}


def overlaps(found, truth):
    """IoU [a, b] of masks [a, S, S] and [b, S, S], both bool."""
    a, b = found.flatten(1).float(), truth.flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1)[None] - both).clamp(min=1)


class Tally:
    """Matches, answers and truths of many prompts; prompts without a truth count for `absent`."""

    def __init__(self):
        self.matched = self.answers = self.truths = self.absent = self.answered = 0
        self.iou = 0.0

    def add(self, found, truth):
        if not len(truth):
            self.absent += 1
            self.answered += len(found) > 0
            self.answers += len(found)
            return
        self.answers, self.truths = self.answers + len(found), self.truths + len(truth)
        if len(found):
            iou = overlaps(found, truth).cpu()
            rows, columns = linear_sum_assignment(-iou.numpy())
            good = iou[rows, columns]
            good = good[good >= 0.5]
            self.matched, self.iou = self.matched + len(good), self.iou + float(good.sum())

    def report(self, name):
        share = lambda a, b: round(float(a) / b, 4) if b else None
        out = {
            f"{name} F1": share(2 * self.matched, self.answers + self.truths),
            f"{name} precision": share(self.matched, self.answers),
            f"{name} recall": share(self.matched, self.truths),
            f"{name} mean IoU": share(self.iou, self.matched),
        }
        if self.absent:
            out["absent answered" if name == "phrases" else f"{name} absent answered"] = share(
                self.answered, self.absent
            )
        return out


def picture_masks(logits, size):
    """Logits [n, M, M] as masks [n, S, S]."""
    return F.interpolate(logits[:, None].float(), size=(size, size), mode="bilinear", align_corners=False)[:, 0] > 0


@torch.no_grad()
def detect(model, phrases, composer, scenes, threshold, exemplars, generator, per=4, batch=16):
    """Tallies by kind of prompt."""
    tallies = {}
    for start in range(0, scenes, batch):
        drawn = composer(min(batch, scenes - start), keep_masks=True)
        asked = ask(phrases, drawn, per, exemplars, generator)
        seen, places, _ = model.look(drawn.pixels, tracker=False)
        prompt, prompt_mask = prompt_features(model, phrases, asked, drawn, seen, places, generator)
        out = model.detect(seen, places, prompt, prompt_mask, per)
        score = out["scores"][-1].sigmoid() * out["presence"][-1].sigmoid()[:, None]
        for n in range(len(score)):
            b, p = divmod(n, per)
            found = picture_masks(out["masks"][n][score[n] > threshold], composer.size)
            truth = drawn.masks[b][asked.hit[b, p]]
            row = asked.rows[b, p]
            kind = "exemplars" if asked.exemplar[b, p] >= 0 else "phrases"
            tallies.setdefault(kind, Tally()).add(found, truth)
            if kind == "phrases" and len(truth):
                said = (
                    "things"
                    if phrases.named <= row < phrases.things
                    else ("shape" if phrases.shape[row] >= 0 else "") + ("colour" if phrases.colour[row] >= 0 else "")
                )
                tallies.setdefault(said, Tally()).add(found, truth)
    return tallies


@torch.no_grad()
def clicks(model, composer, scenes, generator, batch=16):
    """Mean IoU at full resolution of one click, three clicks, a box, a spoiled mask; all objects alike."""
    sums, size = {}, composer.size
    for start in range(0, scenes, batch):
        drawn = composer(min(batch, scenes - start), keep_masks=True)
        _, _, levels = model.look(drawn.pixels)
        pictures, objects = choose_objects(drawn, 3 * batch, generator)
        if not len(pictures):
            continue
        cover, truth = drawn.cover[pictures, objects], drawn.masks[pictures, objects]

        def note(name, logits):
            masks = picture_masks(logits, size)
            iou = (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2)).clamp(min=1)
            sums.setdefault(name, []).append(iou)

        inner = (cover > 0.9).float() + 1e-3 * (cover > 0.5).float()
        prompt = dict(
            points=click_in(inner, size, generator)[:, None],
            labels=torch.ones(len(cover), 1, dtype=torch.long, device=cover.device),
        )
        found, iou, _ = model.track(levels, pictures, **prompt)
        best = 1 + iou[:, 1:].argmax(1)  # as upstream: the best rated of three for a lone click
        chosen = found[torch.arange(len(found), device=found.device), best]
        note("click IoU", chosen)
        note("click IoU, single mask", found[:, 0])
        for turn in (2, 3):
            prompt = correct(chosen, cover, prompt, size, generator)
            found, _, _ = model.track(levels, pictures, **prompt)
            chosen = found[:, 0]
            note(f"{turn} clicks IoU", chosen)
        found, _, _ = model.track(levels, pictures, boxes=corner_boxes(drawn.boxes[pictures, objects], size))
        note("box IoU", found[:, 0])
        found, _, _ = model.track(
            levels, pictures, masks=damaged(cover, generator), **nowhere(len(cover), cover.device)
        )
        note("mask IoU", found[:, 0])
    return {name: round(float(torch.cat(v).mean()), 4) for name, v in sums.items()}


def evaluate(model, phrases, scenes, most, span, thresholds=(0.5,), seed=HELD_OUT, drawings=None):
    """All figures as {threshold: {name: value}}; clicks under "clicks"."""
    device = next(model.parameters()).device
    compose = lambda s: Composer(
        model.preset.size, model.preset.cells, most, span, seed=s, device=device, drawings=drawings
    )
    results = {}
    for threshold in thresholds:
        composer = compose(seed)
        generator = torch.Generator(device).manual_seed(seed + 1)
        tallies = detect(model, phrases, composer, scenes, threshold, 0.15, generator)
        results[str(threshold)] = {
            k: v
            for name in sorted(tallies, key="phrases exemplars shape colour shapecolour things".split().index)
            for k, v in tallies[name].report(name).items()
        }
    results["clicks"] = clicks(model, compose(seed + 2), scenes, torch.Generator(device).manual_seed(seed + 3))
    return results


def table(results):
    """Markdown, with the bars beside the figures they judge."""
    lines = ["| figure | value | bar |", "|---|---|---|"]
    for part, figures in results.items():
        for name, value in figures.items():
            bar = BARS.get(name)
            against = "" if bar is None else f"{'<=' if name == 'absent answered' else '>='} {bar}"
            lines.append(f"| {name}{'' if part == 'clicks' else ' @ ' + part} | {value} | {against} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--most", type=int, help="objects per scene; as trained by default")
    parser.add_argument("--span", type=float, nargs=2, help="object diameters in pixels; as trained by default")
    parser.add_argument("--atlas", type=pathlib.Path, help="scenes with drawings of this file as well")
    parser.add_argument("--style", help="one style of drawings only, e.g. the held-out one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, facts = load(args.checkpoint, args.device)
    drawings, names = None, ()
    if args.atlas:
        tiles, shows, names = unpack(args.atlas, 96, styles(args.style))
        drawings = (tiles, shows)
    phrases = Phrases(model.preset, names).to(args.device)
    results = evaluate(
        model,
        phrases,
        args.scenes,
        args.most or facts["most"],
        args.span or facts["span"],
        args.threshold,
        drawings=drawings,
    )
    print(facts)
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(dict(facts=facts, results=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
