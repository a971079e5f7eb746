"""Full-size checks without the gated weights: a random checkpoint of the published dimensions, and upstream's answers.

    full_size.py make DIR                      config.json, model.safetensors, tokenizer.json; weights are random
    full_size.py reference DIR IMAGE OUT       upstream's outputs for four prompts, as OUT-<case>.safetensors
    full_size.py check DIR IMAGE OUT           the same prompts through the engine, compared with those files
    full_size.py compare REFERENCE OTHER       relative L2 of every tensor and IoU of masks; exit status 1 if too far

Weights, tokenizer and version pins come from tests/fixtures, whose README tells what to install.
"""

import argparse
import contextlib
import gc
import json
import pathlib
import resource
import subprocess
import sys
import time

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    CLIPTokenizer,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    Sam3VideoConfig,
    Sam3VideoModel,
)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"))
import checkpoints  # noqa: E402
from generate import rows  # noqa: E402

DTYPES = {"f32": (torch.float32, "F32", "float32"), "bf16": (torch.bfloat16, "BF16", "bfloat16")}
RELATIVE_L2, MASK_IOU = 1e-3, 0.999

# Six decoder layers pull 200 queries together, where two or three of the tiny fixtures do not: larger queries, gentler
# boxes and sharper attention to the picture keep their masks apart.
GAINS = {**checkpoints.GAINS, "query_embed.weight": 4.0, "box_head.layer3.weight": 0.3,
         "vision_cross_attn.q_proj.weight": 2.0, "box_rpb_embed_x.layer2.weight": 3.0,
         "box_rpb_embed_y.layer2.weight": 3.0}


# -------------------------------------------------------------------------------------------------------------- make


def make(args):
    """Writes the checkpoint tensor by tensor, so that memory holds one at a time."""
    dtype, code, name = DTYPES[args.dtype]
    args.dir.mkdir(parents=True, exist_ok=True)
    config = Sam3VideoConfig.from_pretrained(args.config) if args.config else Sam3VideoConfig()
    text = config.detector_config.text_config
    text.bos_token_id, text.eos_token_id, text.pad_token_id = text.vocab_size - 2, *[text.vocab_size - 1] * 2
    with torch.device("meta"):  # names and shapes of everything published, without a byte of weights
        shapes = {key: tuple(t.shape) for key, t in Sam3VideoModel(config).state_dict().items()}
    plain = {**config.to_dict(), "architectures": ["Sam3VideoModel"], "dtype": name}
    plain["sam3_origin"] = f"random, seed {args.seed}"  # what the engine tells its users
    (args.dir / "config.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    checkpoints.make_tokenizer(checkpoints.clip_merges(args.merges)[: text.vocab_size - 514], args.dir)

    header, offset, size = {"__metadata__": {"format": "pt"}}, 0, torch.empty(0, dtype=dtype).element_size()
    for key, shape in shapes.items():
        end = offset + size * torch.Size(shape).numel()
        header[key] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(args.dir / "model.safetensors", "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for key, shape in shapes.items():
            tensor = checkpoints.draw(args.seed, key, shape, GAINS).to(dtype).contiguous()
            tensor.view(torch.uint8).numpy().tofile(file)
        assert file.tell() == 8 + len(raw) + offset
    print(f"{len(shapes)} tensors, {offset / 1e9:.2f} GB, peak memory {peak_gb():.1f} GB")


# --------------------------------------------------------------------------------------------------------- reference


def peak_gb():
    """Peak resident size so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextlib.contextmanager
def timed(what):
    start = time.perf_counter()
    yield
    print(f"{what:28} {time.perf_counter() - start:8.2f} s   peak {peak_gb():.1f} GB", flush=True)


def load(cls, directory):
    """`from_pretrained`, refusing what upstream would quietly make up."""
    model, info = cls.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"{cls.__name__}: {info}")
    return model.eval()


def save(out, case, tensors, prompt=""):
    tensors = {name: value.float().contiguous() for name, value in tensors.items()}
    save_file(tensors, f"{out}-{case}.safetensors", metadata={"prompt": prompt})
    brief = ", ".join(f"{k} {tuple(v.shape)} std {v.std(correction=0):.3g}" for k, v in tensors.items())
    print(f"{case}: {prompt}\n    {brief}", flush=True)


def finite(case, value):
    if not torch.isfinite(value).all():
        raise SystemExit(f"{case}: not finite")
    return value


def prompts(width, height):
    """A box and a click somewhere in the middle, pixels."""
    box = [round(width * 0.25), round(height * 0.2), round(width * 0.7), round(height * 0.8)]
    return box, [round(width * 0.5), round(height * 0.45)]


@torch.inference_mode()
def reference(args):
    picture = Image.open(args.image).convert("RGB")
    box, click = prompts(*picture.size)

    with timed("load Sam3Model"):
        model = load(Sam3Model, args.dir)
    side = {"height": model.config.image_size, "width": model.config.image_size}
    images = Sam3ImageProcessor(size=side)
    processor = Sam3Processor(images, CLIPTokenizer.from_pretrained(args.dir))
    pixels = processor(images=picture, return_tensors="pt").pixel_values
    with timed("detector image encoder"):
        vision = model.get_vision_features(pixels)
    stages = {"pixels": pixels[0], "vit": finite("vit", vision.last_hidden_state[0])}
    stages.update({f"neck.{i}": rows(vision.fpn_hidden_states[i]) for i in range(3)})
    save(args.out, "stages", stages, "stages of the detector's image encoder, token-major")
    cases = {"text": dict(text=args.text), "exemplar": dict(input_boxes=[[box]], input_boxes_labels=[[1]])}
    for case, prompt in cases.items():
        inputs = processor(images=picture, return_tensors="pt", **prompt)
        inputs = {k: v for k, v in inputs.items() if k not in ("original_sizes", "pixel_values")}
        with timed(case):
            out = model(vision_embeds=vision, **inputs)
        names = ("pred_logits", "pred_boxes", "presence_logits", "pred_masks", "semantic_seg")
        save(args.out, case, {name: finite(case, getattr(out, name)[0]) for name in names}, str(prompt))
    del model, vision, out
    gc.collect()

    with timed("load Sam3TrackerModel"):
        tracker = load(Sam3TrackerModel, args.dir)
    with timed("tracker image encoder"):
        maps = tracker.get_image_embeddings(pixels)
    names = ("tracker.s0", "tracker.s1", "tracker.top")
    save(args.out, "tracker-stages", {n: rows(m) for n, m in zip(names, maps)}, "maps that clicks read")
    clicks = Sam3TrackerProcessor(images)
    cases = {"click": dict(input_points=[[[click]]], input_labels=[[[1]]]), "box": dict(input_boxes=[[box]])}
    for case, prompt in cases.items():
        inputs = clicks(images=picture, return_tensors="pt", **prompt)
        inputs = {k: v for k, v in inputs.items() if k not in ("original_sizes", "pixel_values")}
        with timed(case):
            out = tracker(image_embeddings=maps, multimask_output=case == "click", **inputs)
        names = ("pred_masks", "iou_scores", "object_score_logits")
        save(args.out, case, {name: finite(case, getattr(out, name)[0]) for name in names}, str(prompt))


# ----------------------------------------------------------------------------------------------------------- compare


def squeezed(tensor):
    """Without leading dimensions of one: a batch of one picture may be kept or dropped."""
    while tensor.dim() > 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    return tensor.double()


def fail(line):
    print(line, "  TOO FAR")
    return False


def differ(reference, other):
    """Prints each tensor's distance; whether all are near enough."""
    good = True
    with safe_open(reference, "pt") as ours, safe_open(other, "pt") as theirs:
        for name in sorted(ours.keys()):
            if name not in theirs.keys():
                good = fail(f"{name:24} missing")
                continue
            a, b = squeezed(ours.get_tensor(name)), squeezed(theirs.get_tensor(name))
            if a.shape != b.shape:
                good = fail(f"{name:24} {tuple(a.shape)} against {tuple(b.shape)}")
                continue
            error = ((a - b).norm() / a.norm().clamp_min(1e-30)).item()
            verdict = error <= RELATIVE_L2  # false for NaN
            line = f"{name:24} relative L2 {error:.3e}"
            if "masks" in name or name == "semantic_seg":
                a, b = a > 0, b > 0
                both, either = (a & b).flatten(-2).sum(-1), (a | b).flatten(-2).sum(-1)
                iou = torch.where(either > 0, both / either, 1.0)
                pooled = (both.sum() / either.sum().clamp_min(1)).item() if either.sum() else 1.0
                verdict &= pooled >= MASK_IOU
                line += f"   IoU {pooled:.6f}, worst mask {iou.min().item():.6f}"
            print(line, "" if verdict else "  TOO FAR")
            good &= verdict
    return good


def compare(args):
    sys.exit(0 if differ(args.reference, args.other) else 1)


# ------------------------------------------------------------------------------------------------------------- check


def check(args):
    """The four cases of `reference` through the engine's command line, each against upstream's file."""
    width, height = Image.open(args.image).size
    box, click = prompts(width, height)
    spell = lambda numbers: ",".join(map(str, numbers))
    cases = {
        "text": ["--text", args.text], "exemplar": ["--exemplar", spell(box)],
        "click": ["--point", spell(click), "--multimask"], "box": ["--box", spell(box)],
    }
    good = True
    for case, prompt in cases.items():
        found = f"{args.out}-{case}-engine.safetensors"
        command = [args.binary, "segment", args.image, "--model", args.dir, *prompt, "--tensors", found, "--json", "-"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        times = json.loads(done.stdout)["timings_ms"]
        print(f"{case}: {', '.join(f'{name} {t / 1000:.2f} s' for name, t in times.items())}; peak so far {peak:.1f} GB")
        good &= differ(f"{args.out}-{case}.safetensors", found)
    sys.exit(0 if good else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("make", help="write a random checkpoint")
    sub.add_argument("dir", type=pathlib.Path)
    sub.add_argument("--dtype", choices=DTYPES, default="f32")
    sub.add_argument("--seed", type=int, default=3)
    sub.add_argument("--config", help="a Sam3VideoConfig to follow instead of the published dimensions")
    sub.add_argument("--merges", help="bpe_simple_vocab_16e6.txt.gz; open_clip's by default")
    sub.set_defaults(run=make)
    sub = commands.add_parser("reference", help="run upstream")
    sub.add_argument("dir", type=pathlib.Path)
    sub.add_argument("image", type=pathlib.Path)
    sub.add_argument("out", help="prefix of the files to write")
    sub.add_argument("--text", default="cat")
    sub.set_defaults(run=reference)
    sub = commands.add_parser("compare", help="measure two files of outputs")
    sub.add_argument("reference")
    sub.add_argument("other")
    sub.set_defaults(run=compare)
    sub = commands.add_parser("check", help="run the engine and compare with the files of `reference`")
    sub.add_argument("dir", type=pathlib.Path)
    sub.add_argument("image", type=pathlib.Path)
    sub.add_argument("out", help="prefix given to `reference`")
    sub.add_argument("--binary", default="target/release/sam3")
    sub.add_argument("--text", default="cat")
    sub.set_defaults(run=check)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
