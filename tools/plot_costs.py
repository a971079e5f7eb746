"""Costs as work grows, measured by `sam3 bench` and drawn from its JSON.

    plot_costs.py make CHECKPOINT                                      a random one, of a narrower image encoder
    plot_costs.py measure DIR --model CHECKPOINT [--only size,...]     reports of each series into DIR, missing ones only
    plot_costs.py draw DIR OUT.svg                                     the figure

Times do not depend on the values of weights, and how they grow depends little on the image encoder's width: with the
checkpoint of `make`, whose image and text encoders are narrow and whose other parts have the published dimensions, the
measurement takes a minute or two instead of half an hour. The figure names the dimensions. Any other checkpoint will do
too. Other picture sizes are the same weights under a configuration of another `image_size`: no tensor's shape depends on
it. Series, each named by the prefix of its files:

    size      side of the model's picture, 336 to 1008: all three paths
    prompts   1 to 32 prompts in a call, phrases and clicks, the 10 best masks kept
    masks     1 to 200 masks kept of one phrase
    threads   1 to all cores: all three paths

The last three are measured at 504 pixels. `make` needs what tests/fixtures/README.md lists, the rest Python alone.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = (336, 504, 672, 840, 1008)  # multiples of the patch, 14, from the grid of the position embeddings on
SMALL = 504
PROMPTS = (1, 2, 4, 8, 16, 32)
MASKS = (1, 10, 25, 50, 100, 200)


# --------------------------------------------------------------------------------------------------------------- make


def make(args):
    """A checkpoint for the shape of growth: image encoder of 8 layers of 256, text encoder of 6 layers of 256."""
    sys.path.insert(0, str(ROOT / "tools"))
    import full_size
    from transformers import Sam3VideoConfig

    plain = Sam3VideoConfig().to_dict()
    narrow = dict(hidden_size=256, intermediate_size=1184, num_hidden_layers=8, num_attention_heads=4,
                  global_attn_indexes=[1, 3, 5, 7])  # heads of 64 as published; every other layer sees everything
    for part in ("detector_config", "tracker_config"):
        plain[part]["vision_config"]["backbone_config"].update(narrow)
    text = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4)
    plain["detector_config"]["text_config"].update(text)
    args.folder.mkdir(parents=True, exist_ok=True)
    shape = args.folder / "shape.json"
    shape.write_text(json.dumps(plain))
    full_size.make(argparse.Namespace(dir=args.folder, dtype="f32", seed=3, config=str(shape), merges=args.merges))


# ------------------------------------------------------------------------------------------------------------ measure


def sized(model, size, place):
    """The checkpoint under a configuration of another picture size; its weights stay where they are."""
    folder = place / f"model-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())

    def walk(part):
        for key, value in part.items():
            if isinstance(value, dict):
                walk(value)
            elif key == "image_size" and value is not None:
                part[key] = size

    walk(config)
    (folder / "config.json").write_text(json.dumps(config))
    for file in model.iterdir():
        if file.name != "config.json" and not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def jobs(cores):
    """Name of the report, picture size and further words of each measurement."""
    for size in SIZES:
        yield f"size-{size}", size, ["--threshold", "0", "--max-masks", "10", "--warmup", "0", "--runs", "3"]
    for n in PROMPTS:
        yield f"prompts-{n}", SMALL, ["--paths", "phrase,click", "--prompts", n, "--threshold", "0", "--max-masks", "10",
                                      "--warmup", "1", "--runs", "3"]
    for n in MASKS:
        yield f"masks-{n}", SMALL, ["--paths", "phrase", "--threshold", "0", "--max-masks", n, "--warmup", "1",
                                    "--runs", "7"]
    for n in (1, 2, 4, 8, 16, 32, 64):  # all cores are the point of that size in the first series
        if n < cores:
            yield f"threads-{n}", SMALL, ["--threads", n, "--threshold", "0", "--max-masks", "10", "--warmup", "0",
                                          "--runs", "3"]


def measure(args):
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, size, words in jobs(args.threads):
        report = args.folder / f"{name}.json"
        if report.exists() or args.only and name.split("-")[0] not in args.only:
            continue
        command = [args.binary, "bench", "--model", sized(args.model, size, args.folder), "--device", "cpu",
                   *([] if "--threads" in words else ["--threads", args.threads]), *words, "--format", "json"]
        command += ["--", args.image] if args.image else []
        start = time.monotonic()
        done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
        part = report.with_suffix(".part")
        part.write_bytes(done.stdout)
        part.rename(report)  # a report is there whole or not at all
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    same, other = args.folder / f"size-{SMALL}.json", args.folder / f"threads-{args.threads}.json"
    if same.exists() and not other.exists():
        other.write_bytes(same.read_bytes())


# --------------------------------------------------------------------------------------------------------------- read


def series(folder, prefix):
    """Reports of a series by their number, rising."""
    found = {}
    for path in folder.glob(f"{prefix}-*.json"):
        report = json.loads(path.read_text())
        if (report.get("schema"), report.get("version")) != ("sam3.bench", 1):
            raise SystemExit(f"{path}: expected a report of sam3 bench, version 1")
        found[int(path.stem.rsplit("-", 1)[1])] = report
    return sorted(found.items())


def median(report, name, stage=None):
    """Median of a path, or of one of its stages, in ms; None where the report has none."""
    for path in report["paths"]:
        if path["name"] == name:
            parts = {s["name"]: s["time"]["median"] for s in path["stages"]}
            return parts.get(stage) if stage else path["total"]["median"]
    return None


def beyond_weights(report):
    """Peak resident MB without the pages of mapped files, of which the checkpoint is nearly all."""
    memory = report["memory"]
    if memory["peak"] is None or memory["file_backed"] is None:
        return None
    return (memory["peak"] - memory["file_backed"]) / 1e6


def lines(rows, **readers):
    """The points of each named line."""
    out = {}
    for name, read in readers.items():
        points = [(x, read(report)) for x, report in rows]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            out[name.replace("_", " ")] = points
    return out


# --------------------------------------------------------------------------------------------------------------- draw

WIDTH, HEIGHT = 1080, 760
LEFT, TOP, GAP_X, GAP_Y, FOOT = 64, 84, 82, 112, 112
PANEL_W = (WIDTH - LEFT - 2 * GAP_X - 24) / 3
PANEL_H = (HEIGHT - TOP - GAP_Y - FOOT) / 2
# Colours that are told apart with any colour vision (after Okabe and Ito), one set on light and one on dark; marks
# differ in shape as well.
STYLE = """
 .card { fill: #ffffff } text { fill: #24292f; font: 12px system-ui, sans-serif } .title { font-weight: 600 }
 .head { font-size: 16px; font-weight: 600 } .faint { fill: #57606a } .grid { stroke: #d0d7de; stroke-width: 1 }
 .line { fill: none; stroke-width: 2 } .s0 { stroke: #0072b2 } .s1 { stroke: #b34700 } .s2 { stroke: #007a5a }
 .s3 { stroke: #8a3ffc } .f0 { fill: #0072b2 } .f1 { fill: #b34700 } .f2 { fill: #007a5a } .f3 { fill: #8a3ffc }
 @media (prefers-color-scheme: dark) {
  .card { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d }
  .s0 { stroke: #58a6ff } .s1 { stroke: #ff9d57 } .s2 { stroke: #3fcf9b } .s3 { stroke: #c297ff }
  .f0 { fill: #58a6ff } .f1 { fill: #ff9d57 } .f2 { fill: #3fcf9b } .f3 { fill: #c297ff }
 }
"""


def escape(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Axis:
    """Where a value lies between two ends of a panel, and the values that are labelled."""

    def __init__(self, values, begin, end, log, ticks=None):
        self.log, self.begin, self.end = log, begin, end
        if log:
            self.low, self.high = min(values) / 1.25, max(values) * 1.25
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if math.log10(self.high / self.low) < 2.2 else (1,)
            self.ticks = ticks or [s * 10.0**p for p in powers for s in steps]
        else:
            # Sizes begin near the smallest; a bar of nothing is where costs begin.
            self.low = max(0.0, 2 * min(values) - values[1]) if ticks and len(values) > 1 else 0.0
            self.high = max(values) + 0.1 * (max(values) - self.low)
            step = 10.0 ** math.floor(math.log10(self.high / 2))
            step *= next(f for f in (0.5, 1, 2, 5, 10) if self.high / (f * step) <= 6)
            self.ticks = ticks or [i * step for i in range(int(self.high / step) + 1)]
        self.ticks = [t for t in self.ticks if self.low <= t <= self.high]

    def __call__(self, value):
        share = math.log(value / self.low) / math.log(self.high / self.low) if self.log else (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def mark(shape, x, y):
    """A point; the shape tells the line without its colour."""
    if shape == 0:
        return f'<circle class="f0" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    if shape == 1:
        return f'<rect class="f1" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    sides = [(0, -4.5), (4.5, 3.5), (-4.5, 3.5)] if shape == 2 else [(0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in sides)
    return f'<polygon class="f{shape}" points="{points}"/>'


def panel(column, row, title, x_label, y_label, data, log_x, log_y):
    """One chart with its axes; each line is named at the top, beside its mark."""
    x0, y0 = LEFT + column * (PANEL_W + GAP_X), TOP + row * (PANEL_H + GAP_Y)
    out = [f'<text class="title" x="{x0}" y="{y0 - 30}">{escape(title)}</text>']
    if not data:
        return out + [f'<text class="faint" x="{x0}" y="{y0 + 20}">not measured</text>']
    xs = sorted({x for points in data.values() for x, _ in points})
    across = Axis(xs, x0, x0 + PANEL_W, log_x, xs)
    up = Axis([y for points in data.values() for _, y in points], y0 + PANEL_H, y0, log_y)
    for tick in up.ticks:
        y = up(tick)
        out.append(f'<line class="grid" x1="{x0}" y1="{y:.1f}" x2="{x0 + PANEL_W}" y2="{y:.1f}"/>')
        out.append(f'<text class="faint" x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,.15g}</text>')
    last = -math.inf
    for tick in xs:
        x = across(tick)
        if x - last >= 26:
            out.append(f'<text class="faint" x="{x:.1f}" y="{y0 + PANEL_H + 18}" text-anchor="middle">{tick}</text>')
            last = x
    middle = x0 + PANEL_W / 2
    out.append(f'<line class="grid" x1="{x0}" y1="{y0 + PANEL_H}" x2="{x0 + PANEL_W}" y2="{y0 + PANEL_H}"/>')
    out.append(f'<text x="{middle}" y="{y0 + PANEL_H + 38}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text x="{x0 - 44}" y="{y0 + PANEL_H / 2}" text-anchor="middle" '
               f'transform="rotate(-90 {x0 - 44} {y0 + PANEL_H / 2})">{escape(y_label)}</text>')
    name_x = x0
    for i, (name, points) in enumerate(data.items()):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        out.append(f'<polyline class="line s{i}" points="{path}"/>')
        out += [mark(i, across(x), up(y)) for x, y in points]
        out += [mark(i, name_x + 4, y0 - 15), f'<text x="{name_x + 13}" y="{y0 - 11}">{escape(name)}</text>']
        name_x += 26 + 6.6 * len(name)
    return out


def draw(args):
    size, prompts, masks, threads = (series(args.folder, s) for s in ("size", "prompts", "masks", "threads"))
    reports = [report for rows in (size, prompts, masks, threads) for _, report in rows]
    if not reports:
        raise SystemExit(f"{args.folder}: no reports; run measure first")
    seconds = lambda name, stage=None: lambda r: None if median(r, name, stage) is None else median(r, name, stage) / 1e3
    plain = lambda name, stage=None: lambda r: median(r, name, stage)
    paths = dict(new_picture=seconds("picture"), new_phrase=seconds("phrase"), click=seconds("click"))
    side = sorted({r["model"]["image_size"] for _, r in prompts + masks + threads})
    at = f"at {side[0]} px" if len(side) == 1 else ""
    body = panel(0, 0, "Time, by the model's picture size", "side of the model's picture, px", "seconds",
                 lines(size, **paths), False, True)
    body += panel(1, 0, "Memory, by the model's picture size", "side of the model's picture, px",
                  "peak MB beyond mapped weights", lines(size, all_paths=beyond_weights), False, False)
    body += panel(2, 0, f"Time, by threads {at}", "threads", "seconds", lines(threads, **paths), True, True)
    body += panel(0, 1, f"Time of a call, by prompts {at}", "prompts in the call", "seconds",
                  lines(prompts, phrases=seconds("phrase"), clicks=seconds("click")), True, True)
    body += panel(1, 1, f"Time of a phrase, by masks kept {at}", "masks kept", "ms",
                  lines(masks, whole=plain("phrase"), masks=plain("phrase", "masks"),
                        postprocess=plain("phrase", "postprocess")), False, False)
    body += panel(2, 1, f"Memory, by prompts, masks {at}", "prompts in the call, or masks kept",
                  "peak MB beyond mapped weights",
                  {**lines(prompts, prompts=beyond_weights), **lines(masks, masks_kept=beyond_weights)}, True, False)
    first = min(reports, key=lambda r: r["unix_time"])
    day = time.strftime("%Y-%m-%d", time.gmtime(first["unix_time"]))
    cpu, device = first["machine"]["cpu"] or "unknown processor", max(r["model"]["device"] for r in reports)
    model, picture = first["model"], first["settings"]["image"]
    weights = ("random" if model["random"] else "given") + " weights"
    runs = sorted({r["settings"]["runs"] for r in reports})
    counts = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    feet = [
        f"{day}, {cpu}, {device}. Medians of {counts} runs; picture of {picture['width']}×{picture['height']}.",
        f"Model: image encoder of {model['layers']} layers of {model['width']} (the published one: 32 of 1024), "
        f"{', '.join(model['precision'])}, {weights}.",
        "Unless the axis says otherwise: one prompt, the 10 best masks kept. Drawn from sam3 bench by tools/plot_costs.py.",
    ]
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
           "<title>Costs of sam3 as work grows</title>", f"<style>{STYLE}</style>",
           f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
           '<text class="head" x="20" y="28">Costs as work grows</text>', *body,
           *(f'<text class="faint" x="20" y="{HEIGHT - 48 + 17 * i}">{escape(foot)}</text>' for i, foot in enumerate(feet)),
           "</svg>"]
    args.out.write_text("\n".join(svg) + "\n")
    print(f"{args.out}: {len(reports)} reports")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sub = commands.add_parser("make", help="write a random checkpoint")
    sub.add_argument("folder", type=pathlib.Path)
    sub.add_argument("--merges", help="bpe_simple_vocab_16e6.txt.gz; open_clip's by default")
    sub.set_defaults(run=make)
    sub = commands.add_parser("measure", help="run the bench for every point that is not there yet")
    sub.add_argument("folder", type=pathlib.Path)
    sub.add_argument("--model", type=pathlib.Path, required=True)
    sub.add_argument("--image", type=pathlib.Path, help="the bench's own picture by default")
    sub.add_argument("--only", type=lambda text: text.split(","), help="some of size, prompts, masks, threads")
    sub.add_argument("--threads", type=int, default=cores)
    sub.add_argument("--binary", default=ROOT / "target/release/sam3")
    sub.set_defaults(run=measure)
    sub = commands.add_parser("draw", help="make the figure from the reports")
    sub.add_argument("folder", type=pathlib.Path)
    sub.add_argument("out", type=pathlib.Path)
    sub.set_defaults(run=draw)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
