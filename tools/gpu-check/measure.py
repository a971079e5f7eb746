#!/usr/bin/env python3
"""PyTorch's side of tools/gpu_check.sh: one line of JSON per result.

    measure.py kernels [--tiny]                      cuBLAS, cuDNN and scaled_dot_product_attention at the encoder's shapes
    measure.py model DIR PICTURE                     upstream in bf16, eager and compiled
    measure.py compare DIR ENGINE PICTURE... [--tiny]   the engine's stages against upstream in f32, beside upstream in bf16

Events time the device, and the L2 cache is flushed before each run. With --tiny everything is on the CPU.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
RUNS = int(os.environ.get("SAM3_BENCH_RUNS", 30))
# How much further from f32 the engine may be than PyTorch's own bf16, what no stage is worse than in any case (rounding
# of one operand, see tests/golden.rs), and the IoU of masks.
MOST_RATIO, ALWAYS, LEAST_IOU = 1.5, 4e-3, 0.99


def say(name, **facts):
    print(json.dumps({"name": name, **facts}), flush=True)


class Clock:
    def __init__(self, tiny):
        self.cuda = not tiny
        self.device = "cuda" if self.cuda else "cpu"
        # Several times the largest L2 there is.
        self.flush = torch.ones(64 << 20 if self.cuda else 1, device=self.device)

    def measure(self, work):
        for _ in range(3 if self.cuda else 1):
            work()
        times = []
        for _ in range(RUNS):
            self.flush.mul_(1.0)
            if self.cuda:
                torch.cuda.synchronize()
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                end.synchronize()
                times.append(begin.elapsed_time(end))
            else:
                start = time.perf_counter()
                work()
                times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)


@torch.inference_mode()
def kernels(args):
    clock = Clock(args.tiny)
    grid, c, mlp, d, size = (8, 64, 160, 32, 4) if args.tiny else (72, 1024, 4736, 256, 24)
    t, heads = grid * grid, 2 if args.tiny else 16
    random = lambda *shape: torch.randn(*shape, device=clock.device, dtype=torch.bfloat16)  # noqa: E731
    for name, n, k, act, residual in [("qkv", 3 * c, c, None, False), ("proj", c, c, None, True),
                                      ("fc1", mlp, c, F.gelu, False), ("fc2", c, mlp, None, True)]:
        x, w, b, add = random(t, k), random(n, k) / k**0.5, random(n), random(t, n)
        product = clock.measure(lambda: F.linear(x, w, b))

        def whole():
            y = F.linear(x, w, b)
            y = act(y) if act else y
            return y + add if residual else y

        # cuBLAS alone, and what PyTorch takes for what the engine's kernel does.
        say(name, median_ms=product, whole_ms=clock.measure(whole))
    for scale in (1, 2, 4):
        side = grid * scale
        x = random(1, d, side, side).to(memory_format=torch.channels_last)
        w = random(d, d, 3, 3).to(memory_format=torch.channels_last) / (9 * d) ** 0.5
        say(f"conv3x3_{side}", median_ms=clock.measure(lambda: F.conv2d(x, w, padding=1)))
    head = c // heads
    for name, batch, queries, keys, h, width in [
            ("attention_windows", t // size**2, size**2, size**2, heads, head), ("attention_global", 1, t, t, heads, head),
            ("attention_cross", 1, 5 if args.tiny else 201, t, 2 if args.tiny else 8, d // (2 if args.tiny else 8))]:
        q, k, v = random(batch, h, queries, width), random(batch, h, keys, width), random(batch, h, keys, width)
        say(name, median_ms=clock.measure(lambda: F.scaled_dot_product_attention(q, k, v)))


def upstream(directory, dtype, device, attention):
    from transformers import (CLIPTokenizer, Sam3ImageProcessor, Sam3Model, Sam3Processor, Sam3TrackerModel,
                              Sam3TrackerProcessor)
    load = lambda cls: cls.from_pretrained(directory, dtype=dtype, attn_implementation=attention).eval().to(device)  # noqa: E731
    model, tracker = load(Sam3Model), load(Sam3TrackerModel)
    side = model.config.image_size
    images = Sam3ImageProcessor(size={"height": side, "width": side})
    return model, tracker, Sam3Processor(images, CLIPTokenizer.from_pretrained(directory)), Sam3TrackerProcessor(images)


@torch.inference_mode()
def model(args):
    from PIL import Image
    clock, picture = Clock(False), Image.open(args.picture).convert("RGB")
    net, tracker, processor, clicks = upstream(args.dir, torch.bfloat16, "cuda", "sdpa")
    inputs = processor(images=picture, text="cat", return_tensors="pt").to("cuda")
    pixels = inputs.pixel_values.bfloat16()
    phrase = {k: v for k, v in inputs.items() if k not in ("original_sizes", "pixel_values")}
    vision, maps = net.get_vision_features(pixels), tracker.get_image_embeddings(pixels)
    point = [[[[picture.width * 0.5, picture.height * 0.45]]]]
    click = clicks(images=picture, input_points=point, input_labels=[[[1]]], return_tensors="pt").to("cuda")
    click = {k: v for k, v in click.items() if k not in ("original_sizes", "pixel_values")}
    ways = {
        "encode/encode_image": lambda: net.get_vision_features(pixels),
        "picture": lambda: net(pixel_values=pixels, **phrase),
        "phrase": lambda: net(vision_embeds=vision, **phrase),
        "click": lambda: tracker(image_embeddings=maps, multimask_output=False, **click),
    }
    found = {name: {"eager_median_ms": clock.measure(way)} for name, way in ways.items()}
    for name, row in found.items():
        say(name, **row)
    try:
        net.vision_encoder = torch.compile(net.vision_encoder)
        for name in ("encode/encode_image", "picture"):
            found[name]["compiled_median_ms"] = clock.measure(ways[name])
            say(name, **found[name])
    except Exception as e:  # noqa: BLE001  a comparison that cannot be made is no failure of the engine
        say("compiled", error=repr(e)[:300])


class Moved:
    """A processor whose tensors go where the model is."""

    def __init__(self, inner, device, dtype):
        self.inner, self.device, self.dtype = inner, device, dtype

    def __call__(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        for key, value in out.items():
            if torch.is_tensor(value) and value.is_floating_point():
                # Prompts keep their precision, as upstream casts them where it needs to.
                out[key] = value.to(self.device, self.dtype)
            elif torch.is_tensor(value):
                out[key] = value.to(self.device)
        return out

    def __getattr__(self, name):
        return getattr(self.inner, name)


@torch.inference_mode()
def stages(args, dtype, device):
    """Upstream's stages of a phrase and a click on each picture; behind the first, of the answers alone."""
    models = upstream(args.dir, dtype, device, "eager" if args.tiny else "sdpa")
    for i, picture in enumerate(args.pictures):
        found = stages_of(picture, models, dtype, device)
        yield found if i == 0 else {k: v for k, v in found.items() if k.split("/")[0] in ("text", "point")}


def stages_of(path, models, dtype, device):
    """By the hooks that the golden fixtures are made with."""
    import generate
    from PIL import Image

    # A threshold that splits the scores, and finite values, are matters of the fixtures.
    class Stages(dict):
        stability = []

        def put(self, name, value):
            self[name] = torch.as_tensor(value).detach().float().cpu()

    picture = Image.open(path).convert("RGB")
    net, tracker, processor, clicks = models
    found = Stages()
    move = lambda p: Moved(p, device, dtype)  # noqa: E731
    vision = net.vision_encoder
    modules = {f"layer.{i}": layer for i, layer in enumerate(vision.backbone.layers)}
    modules |= {"embed": vision.backbone.embeddings, "pre": vision.backbone.layer_norm}
    with generate.Recorder(modules) as seen:
        pixels = move(processor)(images=picture, return_tensors="pt").pixel_values
        out = vision(pixels)
    found.put("vit.embed", seen.out("embed")[0])
    for name in modules:
        if name != "embed":
            found.put(f"vit.{name}", seen.out(name)[0].flatten(0, 1))
    for level in range(3):
        found.put(f"neck.{level}", generate.rows(out.fpn_hidden_states[level]))
    del seen, out
    for name, value in zip(("s0", "s1", "top"), tracker.get_image_embeddings(pixels)):
        found.put(f"tracker.{name}", generate.rows(value))
    try:
        generate.concept_case(found, "text", net, move(processor), picture, text="cat", pixel_embed=False)
    except AssertionError:
        pass  # its last step, a threshold for the fixtures
    point = [[picture.width * 0.5, picture.height * 0.45]]
    generate.object_case(found, "point", tracker, move(clicks), picture, points=[point], labels=[[1]])
    return found


def compare(args):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cpu" if args.tiny else "cuda"
    with open(os.devnull, "w") as nowhere:  # generate.py tells of its cases
        out, sys.stdout = sys.stdout, nowhere
        try:
            exact = list(stages(args, torch.float32, device))
            if device == "cuda":
                torch.cuda.empty_cache()
            half = list(stages(args, torch.bfloat16, device))
        finally:
            sys.stdout = out
    # By stage, over all pictures: squares of the engine's and of PyTorch's distance and of the right values, and pixels
    # that both masks have and that either has.
    sums = {}
    for i, (right_of, torch_of) in enumerate(zip(exact, half)):
        with safe_open(f"{args.engine}.{i}", "pt") as engine:
            for key in sorted(engine.keys()):
                case, name = key.split("/", 1)
                raw = name.removeprefix("out.")
                known = next((k for k in (f"{case}/{raw}", f"{case}/single/{raw}", raw) if k in right_of), None)
                if known is None or (case == "point" and raw.split(".")[0] in ("vit", "neck")):
                    continue
                ours, right, torchs = engine.get_tensor(key), right_of[known].flatten(), torch_of[known].flatten()
                if ours.numel() != right.numel():
                    continue
                square = lambda t: t.double().square().sum().item()  # noqa: E731
                row = [square(ours - right), square(torchs - right), square(right), 0, 0]
                if "masks" in raw or raw == "semantic_seg":
                    a, b = ours > 0, right > 0
                    row[3:] = (a & b).sum().item(), (a | b).sum().item()
                sums[key] = [x + y for x, y in zip(sums.get(key, [0] * 5), row)]
    good = True
    for key, (ours, torchs, right, both, either) in sums.items():
        row = {"engine": (ours / max(right, 1e-60)) ** 0.5, "torch_bf16": (torchs / max(right, 1e-60)) ** 0.5}
        row["ratio"] = row["engine"] / max(row["torch_bf16"], 1e-12)
        row["ok"] = row["engine"] <= max(MOST_RATIO * row["torch_bf16"], ALWAYS)
        if either:
            row["iou"] = round(both / either, 4)
            row["ok"] &= row["iou"] >= LEAST_IOU
        say(key, **row)
        good &= row["ok"]
    if len(sums) < 10:
        sys.exit(f"only {len(sums)} stages of the engine have a counterpart")
    sys.exit(not good)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, words in [("kernels", kernels, []), ("model", model, ["dir", "picture"]),
                             ("compare", compare, ["dir", "engine", "pictures"])]:
        sub = commands.add_parser(name)
        for word in words:
            sub.add_argument(word, type=pathlib.Path, nargs="+" if word == "pictures" else None)
        sub.add_argument("--tiny", action="store_true")
        sub.set_defaults(run=run)
    args = parser.parse_args()
    torch.manual_seed(0)
    args.run(args)


if __name__ == "__main__":
    main()
