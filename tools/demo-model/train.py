"""Training, in stages that share one loop: seeded, resumable, logged.

    python train.py --stage see  --size 96 --images 40000 --out RUN          # dense: tokens, words, clicks
    python train.py --stage find --size 96 --images 60000 --out RUN --init RUN/see-96.pt
    python train.py --stage find --size 192 --images 60000 --out RUN --init RUN/find-96.pt
    python train.py --stage click --size 192 --images 20000 --out RUN --init RUN/find-192.pt   # the click decoder alone

A stage writes RUN/<stage>-<size>.pt every `--save` minutes and at the end, and goes on from that file if it is there;
RUN/<stage>-<size>.csv is the log. SIGTERM saves and ends; any other end loses at most the minutes since the last save.
"""

import argparse
import contextlib
import csv
import itertools
import os
import pathlib
import signal
import time

import torch
from safetensors.torch import load_file

from clicks import click_step, track_loss
from config import PRESETS, at_size
from dense import contrast, draw_phrases, token_boxes, token_forms
from model import Demo, size_loss
from muon import Muon
from scenes import Composer
from vocabulary import Phrases


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", default="shapes", choices=PRESETS)
    add("--stage", required=True, choices=("see", "find", "click"))
    add("--size", type=int, default=96, help="picture side in this stage, a multiple of the patch side")
    add("--images", type=int, required=True, help="pictures of the whole stage, counted over all resumptions")
    add("--minutes", type=float, default=1e9, help="stop this run after so long; the stage goes on at the next run")
    add("--within", type=float, default=1e9, help="minutes for the stage, all runs together: ends and slows down by them")
    add("--batch", type=int, default=32)
    add("--rate", type=float, default=1e-3)
    add("--decay", type=float, default=0.25, help="last share of the stage over which the rate falls to nothing")
    add("--most", type=int, default=6, help="objects per scene at most")
    add("--span", type=float, nargs=2, default=(18, 80), help="smallest and largest object diameter in pixels")
    add("--look", type=int, help="side at which strokes and patterns look as wide as they do here, if not --size")
    add("--ease", type=int, default=0, help="pictures over which grounds and outlines go from plain to all kinds")
    add("--prompts", type=int, default=6, help="phrases per picture (find)")
    add("--masked", type=int, default=2, help="of these, prompts that draw masks, the dearest part (find)")
    add(
        "--exemplars", type=float, default=0.12, help="share of prompts that show a box instead of saying a word (find)"
    )
    add("--rounds", type=int, default=0, help="rounds of correction clicks")
    add("--shown", type=int, default=2, help="objects per picture that are clicked at, boxed or masked")
    add("--clicks", type=float, default=2.0, help="weight of the click decoder's loss beside the detector's (find)")
    add("--aids", type=float, default=1.0, help="weight of the heads that exist only while training; 0 leaves them out (find)")
    add("--out", type=pathlib.Path, required=True)
    add("--init", type=pathlib.Path, help="weights to begin the stage with: a checkpoint, or a directory that export.py wrote")
    add("--export", type=pathlib.Path, help="write the files of export.py there, unchecked, with every checkpoint")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--adamw", action="store_true", help="AdamW for matrices, too")
    add("--full-precision", action="store_true", help="no bfloat16")
    add("--atlas", type=pathlib.Path, help="drawings made by atlas.py; without them there are only shapes")
    add("--drawn", type=float, default=0.6, help="share of objects that are drawings")
    add("--average", type=float, default=0.998, help="how much a step keeps of the weights' average")
    add("--save", type=float, default=3.0, help="minutes between checkpoints")
    add("--seed", type=int, default=1)
    return parser.parse_args()


class Average:
    """Exponential average of the weights: what is evaluated and exported."""

    def __init__(self, model, decay):
        self.decay, self.steps = decay, 0
        self.values = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in model.parameters()], 1 - keep)

    def state(self, model):
        names = [name for name, _ in model.named_parameters()]
        return {**model.state_dict(), **dict(zip(names, self.values))}


def fit(state, model):
    """A state dict for another picture side: only the ViT's positions depend on it, and they stretch."""
    key = "video.detector_model.vision_encoder.backbone.embeddings.position_embeddings"
    old, new = state[key], model.state_dict()[key]
    if old.shape != new.shape:
        side, grid = round(old.shape[1] ** 0.5), round(new.shape[1] ** 0.5)
        plane = old.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        plane = torch.nn.functional.interpolate(plane, size=grid, mode="bicubic", align_corners=False)
        state = {**state, key: plane.permute(0, 2, 3, 1).reshape(new.shape)}
    return state


def beginning(path, device):
    """Weights to begin with: a checkpoint's average, or an exported model's, which has no aids (they start anew)."""
    if path.is_dir():
        state = load_file(path / "model.safetensors", device=str(device))
        return {f"video.{name}": tensor.float() for name, tensor in state.items()}
    return torch.load(path, map_location=device, weights_only=False)["ema"]


class Optimiser:
    """Muon with weight decay for matrices, AdamW without for tables of embeddings, patch filters, norms and biases."""

    TABLES = ("embed", "token", "position", "reference_points")

    def __init__(self, model, rate, decay=0.02, muon=True, dtype=torch.bfloat16):
        heavy, light = [], []
        for name, p in model.named_parameters():
            if p.requires_grad:
                (heavy if p.dim() >= 2 and not any(t in name for t in self.TABLES) else light).append(p)
        adamw = [dict(params=light, weight_decay=0.0)]
        if muon:
            self.parts = [Muon([dict(params=heavy, weight_decay=decay)], rate, dtype=dtype)]
        else:
            self.parts = []
            adamw.append(dict(params=heavy, weight_decay=decay))
        self.parts.append(torch.optim.AdamW(adamw, rate, betas=(0.9, 0.98), fused=True))

    def step(self, rate):
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state(self):
        return [part.state_dict() for part in self.parts]

    def load(self, state):
        for part, values in zip(self.parts, state, strict=True):
            part.load_state_dict(values)


def see_step(model, phrases, scenes, args, autocast):
    """Stage `see`: the ViT learns words, boxes and masks densely; the detector proper does not run."""
    with autocast():
        seen, _, levels = model.look(scenes.pixels, fine=False)
        rows = draw_phrases(phrases, pairs=40, strangers=8, things=scenes.thing)
        text, text_mask = model.read(phrases.ids[rows], phrases.mask[rows])
    tokens = seen[2].flatten(2).transpose(1, 2)
    yes_no, by_shape, by_colour, right, hue = contrast(model, tokens, scenes, phrases, rows, text, text_mask)
    boxes, forms = token_boxes(model, tokens, scenes), token_forms(model, tokens, scenes)
    with autocast():
        tracked, ious = track_loss(model, levels, scenes, args.shown * len(scenes.pixels), args.rounds)
    sizes = size_loss([*seen, *levels])
    loss = yes_no + by_shape + by_colour + 4 * boxes + 4 * forms + tracked + 0.1 * sizes
    return loss, dict(
        yes_no=yes_no,
        shape_loss=by_shape,
        colour_loss=by_colour,
        shape_right=right,
        colour_right=hue,
        token_box=boxes,
        token_form=forms,
        track=tracked,
        sizes=sizes,
        **ious,
    )


class Log:
    """Means over an interval, one CSV row each. Columns are fixed; what did not occur stays empty. Sums stay on the device
    until they are written."""

    COLUMNS = (
        "images minutes rate loss norm yes_no shape_loss colour_loss shape_right colour_right token_box token_form "
        "track sizes click_iou box_iou mask_iou round1_iou round2_iou round3_iou scores l1 giou presence "
        "presence_right found_iou dice area_dice noised noised_dice"
    ).split()

    def __init__(self, path):
        self.path, self.sums, self.counts = path, {}, {}

    def add(self, values):
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + torch.as_tensor(value).detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def write(self, **head):
        row = {**head, **{name: round(float(total) / self.counts[name], 5) for name, total in self.sums.items()}}
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
        self.sums, self.counts = {}, {}


def progress(args, images, minutes):
    """How far the stage is, 0 to 1, by pictures or by time, whichever ends first."""
    return max(images / args.images, minutes / args.within)


def rate_at(args, done, steps):
    """Warm up over 60 steps, level, then straight down to a fiftieth over the last `decay` of the stage."""
    return args.rate * min(1.0, (steps + 1) / 60) * max(0.02, min(1.0, (1 - done) / args.decay))


def main():
    """Trains a stage; whether it was left to end by itself."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.stage}-{args.size}.pt"
    preset = at_size(PRESETS[args.preset], args.size)
    model = Demo(preset).to(args.device)
    drawings, facts = None, ()
    if args.atlas:
        from atlas import styles, unpack

        tiles, shows, facts = unpack(args.atlas, 96, styles())
        drawings = (tiles, shows)
    phrases = Phrases(preset, facts).to(args.device)
    scene = dict(most=args.most, span=args.span, device=args.device, drawings=drawings, drawn=args.drawn, look=args.look)
    images = steps = 0
    spent = 0.0
    kind = torch.float32 if args.full_precision else torch.bfloat16
    step = see_step
    if args.stage == "find":
        from find import find_step as step
    elif args.stage == "click":
        step = click_step
        for p in itertools.chain(model.video.detector_model.parameters(), model.aids.parameters()):
            p.requires_grad_(False)
    optimiser = Optimiser(model, args.rate, muon=not args.adamw, dtype=kind)
    average = None
    if path.exists():
        saved = torch.load(path, map_location=args.device, weights_only=False)
        model.load_state_dict(saved["model"])
        optimiser.load(saved["optimiser"])
        average = Average(model, args.average)
        average.values, average.steps = [v.to(args.device) for v in saved["average"]], saved["average_steps"]
        images, steps, spent = saved["images"], saved["steps"], saved["minutes"]
        print(f"going on from {path}: {images} pictures, {spent:.1f} minutes", flush=True)
    elif args.init:
        missing = model.load_state_dict(fit(beginning(args.init, args.device), model), strict=False)
        print(
            f"beginning with {args.init}; new: {missing.missing_keys}, dropped: {missing.unexpected_keys}", flush=True
        )
    else:
        model.whiten(Composer(args.size, preset.cells, seed=args.seed, **scene)(256).pixels)
    average = average or Average(model, args.average)
    composer = Composer(args.size, preset.cells, seed=args.seed * 1_000_003 + steps, **scene)
    torch.manual_seed(args.seed * 7919 + steps)

    def autocast():
        if args.full_precision:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(args.device).type, dtype=torch.bfloat16)

    def save():
        state = dict(
            model=model.state_dict(),
            optimiser=optimiser.state(),
            average=average.values,
            average_steps=average.steps,
            ema=average.state(model),
            images=images,
            steps=steps,
            minutes=spent + (time.monotonic() - begun) / 60,
            preset=args.preset,
            size=args.size,
            most=args.most,
            span=tuple(args.span),
        )
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
        if args.export:
            from export import write

            video = {name.removeprefix("video."): t for name, t in state["ema"].items() if name.startswith("video.")}
            write(video, preset, args.export)

    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    log = Log(path.with_suffix(".csv"))
    begun = written = saved_at = time.monotonic()
    while not stopped:
        now = (time.monotonic() - begun) / 60
        done = progress(args, images, spent + now)
        if done >= 1 or now > args.minutes:
            break
        composer.hard = min(1.0, images / max(args.ease, 1))
        loss, parts = step(model, phrases, composer(args.batch), args, autocast)
        model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step(rate_at(args, done, steps))
            average.update(model)
        images, steps = images + args.batch, steps + 1
        log.add(dict(loss=loss.detach(), norm=norm, **parts))
        now = time.monotonic()
        if now - written > 30:
            minutes = round(spent + (now - begun) / 60, 2)
            log.write(images=images, minutes=minutes, rate=round(rate_at(args, done, steps), 6))
            written = now
        if (now - saved_at) / 60 > args.save:
            save()
            saved_at = now
    save()
    print(
        f"stage {args.stage} at {args.size}: {images} pictures in {spent + (time.monotonic() - begun) / 60:.1f} minutes"
    )
    return not stopped


if __name__ == "__main__":
    main()
