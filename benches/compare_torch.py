"""The engine beside PyTorch on the same cores: times, memory, and how far the outputs are apart.

    compare_torch.py all --full DIR --image PHOTO [--small DIR]      everything below, in turn
    compare_torch.py make --full DIR                                 a random checkpoint of the published dimensions
    compare_torch.py measure --rows image,text ... [--rounds 3]      adds rounds to the state file
    compare_torch.py check --rows text,click ...                     the outputs of both, compared
    compare_torch.py table ...                                       what the state file holds so far

PyTorch is `transformers` `Sam3Model` (`Sam3TrackerModel` for clicks) in f32 under `inference_mode`, with the attention
and the kernels (MKL, oneDNN) it chooses itself. Each side is a process of its own with the same number of threads, the
other waiting meanwhile. A round is PyTorch's runs and then the engine's; both have run once before, untimed. The table
has the median of all runs, and the least and the greatest ratio of one round.

What is timed, from the same decoded picture to the same answers:

    image    PyTorch: `get_vision_features` of ready pixel values. Engine: resize, image encoder, and both prompts'
             pyramids, of which PyTorch's side computes one
    text     phrase to masks at the picture's size, every query kept: tokens, text encoder, detector, 200 masks
    best     the same, the engine keeping the 10 best; PyTorch has no such choice, and makes all
    click    one click to one mask at the picture's size
    small    picture and phrase to masks on the model in --small, all threads; small-1 the same on one
    opening  the engine: `Model::open`; PyTorch: `from_pretrained`. Both with a warm page cache
    memory   greatest peak resident size of the image and text rows

Without --small the last two are left out. The state file keeps every sample, so that rows may be measured one by one
while the machine is quiet. Needs what tests/fixtures/README.md lists, and `cargo build --release`.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Times of the engine's report that make up a row, and the bar: the engine's median over PyTorch's.
CONCEPT = ("encode_text", "ground", "masks", "postprocess")
ROWS = {
    "image": dict(path="picture", stages=("resize", "encode_image"), bar=0.70, runs=1,
                  words="image encode, full size"),
    "text": dict(path="phrase", stages=CONCEPT, bar=0.50, runs=3, words="phrase to 200 masks, full size"),
    "best": dict(path="phrase", stages=CONCEPT, bar=0.50, runs=3, most=10, words="phrase to the 10 best masks, full size"),
    "click": dict(path="click", stages=("segment", "postprocess"), bar=0.30, runs=10,
                  words="click to mask, full size"),
    "small": dict(path="picture", stages=("resize", "encode_image", *CONCEPT), bar=0.50, runs=20, small=True,
                  words="small model, picture to masks"),
    "small-1": dict(path="picture", stages=("resize", "encode_image", *CONCEPT), bar=1.00, runs=20, small=True,
                    threads=1, words="small model, picture to masks, one thread"),
}
# Whose outputs show that a row computed the right thing.
ANSWERS = {"image": "text", "best": "text", "small-1": "small"}
OPENING_MS = 1500  # bar: until the first operation can run
OVER_WEIGHTS = 700e6  # bar: bytes of peak resident size beyond the weights as stored


# ------------------------------------------------------------------------------------------------------------ PyTorch


def worker(args):
    """PyTorch's side: a process that says when it is ready and then answers each line of its input with one of JSON."""
    sys.path.insert(0, str(ROOT / "tools"))
    import torch
    from PIL import Image
    from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Model, Sam3Processor
    from transformers import Sam3TrackerModel, Sam3TrackerProcessor

    from full_size import load, prompts

    torch.set_num_threads(args.threads)
    picture = Image.open(args.image).convert("RGB")
    size = [picture.size[::-1]]
    clicking = args.row == "click"
    start = time.perf_counter()
    model = load(Sam3TrackerModel if clicking else Sam3Model, args.model)
    opening = 1e3 * (time.perf_counter() - start)
    side = (model.config.vision_config if clicking else model.config).image_size
    images = Sam3ImageProcessor(size={"height": side, "width": side})
    if (args.model / "tokenizer.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(args.model)
    else:  # the model in the program has the program's
        sys.path.insert(0, str(ROOT / "tools/demo-model"))
        from vocabulary import make_tokenizer

        tokenizer = make_tokenizer(model.config.text_config.vocab_size - 514)
    concepts = Sam3Processor(images, tokenizer)
    clicks = Sam3TrackerProcessor(images)

    def answer(outputs):
        found = images.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=size)
        return {name: getattr(outputs, name) for name in TENSORS["concept"]}, found

    with torch.inference_mode():
        pixels = images(images=picture, return_tensors="pt").pixel_values
        if args.row == "image":
            run = lambda: model.get_vision_features(pixels)
        elif args.row.startswith("small"):
            run = lambda: answer(model(**drop(concepts(images=picture, text=args.text, return_tensors="pt"))))
        elif clicking:
            maps = model.get_image_embeddings(pixels)
            point = [[[prompts(*picture.size)[1]]]]

            # Upstream's processor wants the picture to scale the click; its resize is no part of a click.
            scaled = clicks(images=picture, input_points=point, input_labels=[[[1]]], return_tensors="pt")
            scaled = drop(scaled, "pixel_values")

            def run():
                outputs = model(image_embeddings=maps, multimask_output=False, **scaled)
                masks = clicks.post_process_masks(outputs.pred_masks, size)
                return {name: getattr(outputs, name) for name in TENSORS["click"]}, masks
        else:
            vision = model.get_vision_features(pixels)
            read = lambda: concepts.tokenizer(args.text, return_tensors="pt", padding="max_length", max_length=32)
            run = lambda: answer(model(vision_embeds=vision, **read()))
        last = run()
        peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"opening_ms": opening, "peak": peak(), "torch": torch.__version__}), flush=True)
        for line in sys.stdin:
            if line.startswith("save "):
                from safetensors.torch import save_file
                tensors = {name: t.float().contiguous() for name, t in last[0].items()}
                save_file(tensors, line.removeprefix("save ").strip())
                print("{}", flush=True)
                continue
            start = time.perf_counter()
            last = run()
            print(json.dumps({"ms": 1e3 * (time.perf_counter() - start), "peak": peak()}), flush=True)


TENSORS = {"concept": ("pred_logits", "pred_boxes", "presence_logits", "pred_masks", "semantic_seg"),
           "click": ("pred_masks", "iou_scores", "object_score_logits")}


def drop(inputs, *names):
    """Without what the model does not take."""
    return {k: v for k, v in inputs.items() if k not in ("original_sizes", *names)}


class Torch:
    """The worker, from the side that measures."""

    def __init__(self, args, row):
        model, threads = place(args, row)
        command = [sys.executable, __file__, "worker", "--row", row, "--model", model, "--image", args.image,
                   "--threads", threads, "--text", args.text]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment)
        self.ready = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("PyTorch's side ended early; see its message above")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


# ------------------------------------------------------------------------------------------------------------- engine


def place(args, row):
    """Model and threads of a row."""
    spec = ROWS[row]
    return (args.small if spec.get("small") else args.full), spec.get("threads", args.threads)


def click(args):
    sys.path.insert(0, str(ROOT / "tools"))
    from PIL import Image

    width, height = Image.open(args.image).size
    return f"{round(width * 0.5)},{round(height * 0.45)}"  # as `prompts` of tools/full_size.py


def engine(args, row):
    """One `sam3 bench`: the row's time of every run, and the report."""
    spec = ROWS[row]
    model, threads = place(args, row)
    # The first answer warms the picture path up; the others have it behind them and warm up their own.
    warmup = 0 if row == "image" else 1
    command = [args.binary, "bench", args.image, "--model", model, "--device", "cpu", "--threads", threads,
               "--paths", spec["path"], "--warmup", warmup, "--runs", spec["runs"], "--threshold", 0,
               "--text", args.text, "--point", click(args), "--format", "json"]
    command += ["--max-masks", spec["most"]] if "most" in spec else []
    report = json.loads(subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE).stdout)
    (path,) = report["paths"]
    stages = {stage["name"]: stage["time"]["samples"] for stage in path["stages"]}
    missing = [name for name in spec["stages"] if name not in stages]
    if missing:
        raise SystemExit(f"{row}: the report has no stages {missing}")
    return [sum(times) for times in zip(*(stages[name] for name in spec["stages"]))], report


# ------------------------------------------------------------------------------------------------------------ measure


def state(args):
    return json.loads(args.state.read_text()) if args.state.exists() else {"rows": {}, "errors": {}}


def keep(args, found):
    part = args.state.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.rename(args.state)


def measure(args):
    for row in args.rows:
        with Torch(args, row) as torch:
            for _ in range(args.rounds):
                theirs = [torch.ask("run") for _ in range(ROWS[row]["runs"])]
                ours, report = engine(args, row)
                found = state(args)
                entry = found["rows"].setdefault(row, {"rounds": []})
                entry["rounds"].append({
                    "torch_ms": [answer["ms"] for answer in theirs], "sam3_ms": ours,
                    "torch_peak": theirs[-1]["peak"], "sam3_peak": report["memory"]["peak"],
                    "torch_opening_ms": torch.ready["opening_ms"], "sam3_opening_ms": report["opening_ms"],
                    "stored": report["model"]["bytes"], "device": report["model"]["device"],
                    "program": report["program"], "load_average": report["machine"]["load_average"],
                })
                found.update(cpu=report["machine"]["cpu"], torch=torch.ready["torch"], time=report["unix_time"])
                keep(args, found)
                print(f"{row}: PyTorch {statistics.median(a['ms'] for a in theirs):.2f} ms, "
                      f"engine {statistics.median(ours):.2f} ms", flush=True)


def distances(ours, theirs):
    """Relative L2 of each tensor that both files have; all that PyTorch wrote must be there."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = load_file(ours), load_file(theirs)
    found = {}
    for name, expected in theirs.items():
        got = ours[name].double().flatten()
        expected = expected.double().flatten()
        if got.shape != expected.shape:
            raise SystemExit(f"{name}: {tuple(theirs[name].shape)} against {tuple(ours[name].shape)}")
        found[name] = ((got - expected).norm() / expected.norm().clamp_min(1e-30)).item()
    return found


def check(args):
    """The outputs behind each row: those of a phrase, of a click, of the small model. Of a PNG, for decoders of JPEG differ."""
    from PIL import Image

    lossless = args.state.with_suffix(".png")
    Image.open(args.image).convert("RGB").save(lossless)
    args.image = lossless
    for row in sorted({ANSWERS.get(row, row) for row in args.rows}):
        model, threads = place(args, row)
        prefix = args.state.with_suffix("")
        ours, theirs = f"{prefix}-{row}-sam3.safetensors", f"{prefix}-{row}-torch.safetensors"
        with Torch(args, row) as torch:
            torch.ask(f"save {theirs}")
        prompt = ["--point", click(args)] if row == "click" else ["--text", args.text]
        command = [args.binary, "segment", args.image, "--model", model, "--device", "cpu", "--threads", threads,
                   *prompt, "--tensors", ours]
        subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
        found = state(args)
        found["errors"][row] = distances(ours, theirs)
        keep(args, found)
        print(row, {name: f"{error:.1e}" for name, error in found["errors"][row].items()}, flush=True)


# -------------------------------------------------------------------------------------------------------------- table


def milliseconds(value):
    return f"{value / 1e3:.2f} s" if value >= 1e3 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def table(args):
    found = state(args)
    if not found["rows"]:
        raise SystemExit(f"{args.state}: nothing measured yet")
    rounds = [r for row in found["rows"].values() for r in row["rounds"]]
    day = time.strftime("%Y-%m-%d", time.gmtime(found["time"]))
    devices = ", ".join(sorted({r["device"] for r in rounds}))
    print(f"{day}, {found.get('cpu')}; engine on {devices}; PyTorch {found['torch']}\n")
    print("| what | engine | PyTorch | ratio | of single rounds | bar | | outputs apart |")
    print("|---|--:|--:|--:|--:|--:|---|--:|")
    for row, spec in ROWS.items():
        entry = found["rows"].get(row)
        if not entry:
            continue
        middle = lambda key, rounds: statistics.median(t for r in rounds for t in r[key])
        ours, theirs = middle("sam3_ms", entry["rounds"]), middle("torch_ms", entry["rounds"])
        ratios = [middle("sam3_ms", [r]) / middle("torch_ms", [r]) for r in entry["rounds"]]
        verdict = "reached" if ours / theirs <= spec["bar"] else "MISSED"
        errors = found["errors"].get(ANSWERS.get(row, row))
        apart = f"{max(errors.values()):.1e}" if errors else "not checked"
        print(f"| {spec['words']} | {milliseconds(ours)} | {milliseconds(theirs)} | {ours / theirs:.2f} "
              f"| {min(ratios):.2f}–{max(ratios):.2f} | {spec['bar']:.2f} | {verdict} | {apart} |")
    full = [r for row in ("image", "text", "best", "click") for r in found["rows"].get(row, {"rounds": []})["rounds"]]
    if full:
        ours, theirs = (statistics.median(r[key] for r in full) for key in ("sam3_opening_ms", "torch_opening_ms"))
        verdict = "reached" if ours <= OPENING_MS else "MISSED"
        print(f"| opening, full size | {milliseconds(ours)} | {milliseconds(theirs)} | {ours / theirs:.2f} | "
              f"| {milliseconds(OPENING_MS)} | {verdict} | |")
    detector = [r for row in ("image", "text") for r in found["rows"].get(row, {"rounds": []})["rounds"]]
    if detector and all(r["sam3_peak"] for r in detector):
        ours, theirs = (max(r[key] for r in detector) for key in ("sam3_peak", "torch_peak"))
        stored = detector[0]["stored"]
        verdict = "reached" if ours <= stored + OVER_WEIGHTS else "MISSED"
        print(f"| peak resident, full size | {ours / 1e6:.0f} MB | {theirs / 1e6:.0f} MB | {ours / theirs:.2f} | "
              f"| {(stored + OVER_WEIGHTS) / 1e6:.0f} MB | {verdict} | |")
    print("\nOutputs apart: the greatest relative L2 distance of a raw output "
          "(masks, boxes, scores) of the same picture and prompt.")


# --------------------------------------------------------------------------------------------------------------- main


def make(args):
    sys.path.insert(0, str(ROOT / "tools"))
    import full_size

    if not (args.full / "model.safetensors").exists():
        full_size.make(argparse.Namespace(dir=args.full, dtype="f32", seed=3, config=None, merges=args.merges))


def everything(args):
    make(args)
    measure(args)
    check(args)
    table(args)


def rows(text):
    names = text.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(ROWS)}, found {', '.join(unknown)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name, run in dict(all=everything, make=make, measure=measure, check=check, table=table).items():
        sub = commands.add_parser(name)
        sub.add_argument("--full", type=pathlib.Path, help="the checkpoint of the published dimensions")
        sub.add_argument("--small", type=pathlib.Path, help="the small model, from tools/demo-model/export.py")
        sub.add_argument("--image", type=pathlib.Path, default=ROOT / "assets/photos/chelsea.jpg")
        sub.add_argument("--text", default="cat")
        sub.add_argument("--threads", type=int, default=cores)
        sub.add_argument("--rows", type=rows, help=f"of {', '.join(ROWS)}; all that there are models for by default")
        sub.add_argument("--rounds", type=int, default=3)
        sub.add_argument("--state", type=pathlib.Path, default=pathlib.Path("compare_torch.json"))
        sub.add_argument("--binary", default=ROOT / "target/release/sam3")
        sub.add_argument("--merges", help="for make: bpe_simple_vocab_16e6.txt.gz; open_clip's by default")
        sub.set_defaults(run=run)
    sub = commands.add_parser("worker")
    for name, kind in dict(row=str, model=pathlib.Path, image=pathlib.Path, threads=int, text=str).items():
        sub.add_argument(f"--{name}", type=kind, required=True)
    sub.set_defaults(run=worker)
    args = parser.parse_args()
    if args.run in (everything, measure, check):
        if args.rows is None:
            args.rows = [r for r, spec in ROWS.items() if (args.small if spec.get("small") else args.full)]
        if not args.rows or any(place(args, row)[0] is None for row in args.rows):
            parser.error("name the models of the rows with --full and --small")
    if args.run in (everything, make) and args.full is None:
        parser.error("name the checkpoint with --full")
    args.run(args)


if __name__ == "__main__":
    main()
