#!/usr/bin/env python3
"""The parts of tools/gpu_check.sh, each in a process of its own, and the one report of them. No part stops another."""

import argparse
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = HERE / "bin"
TINY = HERE / "tests" / "fixtures" / "tiny-a"
PARTS = ["machine", "conformance", "goldens", "sanitizer", "kernels", "model", "full-size"]
SANITIZERS = ["memcheck", "racecheck", "initcheck", "synccheck"]
# What the engine is to reach on an H200 at the published size, milliseconds.
BARS = {"encode/encode_image": 12.0, "picture": 18.0, "phrase": 5.0, "click": 1.2}
CUBLAS, FLASH = 0.80, 0.75  # shares of PyTorch's rate in the same run
MEMORY = 2.6e9


class Report:
    """What was done, in `report.json` after every step, so that a machine that is taken away leaves what there was."""

    def __init__(self, folder):
        self.folder, self.parts, self.lines = folder, {}, []
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, part, **facts):
        self.parts.setdefault(part, {}).update(facts)
        text = json.dumps({"commit": (HERE / "commit").read_text().strip(), "parts": self.parts}, indent=1)
        (self.folder / "report.json").write_text(text + "\n")

    def line(self, text=""):
        self.lines.append(text)
        print(text, flush=True)
        (self.folder / "report.md").write_text("\n".join(self.lines) + "\n")


def run(report, name, command, timeout, env=None):
    """Runs a command, keeps what it says under its name; its output, or None if it failed."""
    start = time.monotonic()
    try:
        done = subprocess.run(list(map(str, command)), env={**os.environ, **(env or {})}, timeout=timeout, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        code, out = done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        code, out = "timeout", (e.stdout or b"").decode(errors="replace")
    except OSError as e:
        code, out = "not started", str(e)
    (report.folder / f"{name}.log").write_text(out)
    seconds = round(time.monotonic() - start, 1)
    report.put("steps", **{name: {"exit": code, "seconds": seconds}})
    if code != 0:
        report.line(f"- {name}: FAILED ({code}) after {seconds} s: {out.strip().splitlines()[-1:] or ['no output']}")
        return None
    return out


def rows(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def machine(report, args):
    query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,persistence_mode"
    if shutil.which("nvidia-smi"):
        out = run(report, "nvidia-smi", ["nvidia-smi", f"--query-gpu={query}", "--format=csv"], 60)
        report.put("machine", nvidia_smi=out)
    info = run(report, "info", [BIN / "sam3", "info"], 120)
    report.put("machine", info=info)
    report.line(f"```\n{(info or 'the program does not start').strip()}\n```")


def tests(report, name, executable, words, env=None, timeout=580):
    out = run(report, name, [BIN / executable, *words, "--nocapture"], timeout, env)
    counts = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed", out or "")
    passed = int(counts[-1][0]) if counts else 0
    report.put("tests", **{name: {"passed": passed, "ok": out is not None and passed > 0}})
    report.line(f"- {name}: {passed} passed" + ("" if out is not None and passed else ", NOT ALL"))


def conformance(report, args):
    tests(report, "conformance", "ops", ["cuda"])


def goldens(report, args):
    tests(report, "goldens", "golden", ["cuda_"])


def sanitizer(report, args):
    tool = shutil.which("compute-sanitizer") or next(
        (str(p) for p in pathlib.Path("/usr/local").glob("cuda*/bin/compute-sanitizer")), None)
    if args.dry_run or not tool:
        report.put("sanitizer", done=False)
        return report.line("- compute-sanitizer: not done" + (" in a dry run" if args.dry_run else ", not found"))
    for kind in SANITIZERS:
        command = [tool, "--tool", kind, "--error-exitcode", "9", BIN / "golden", "--exact", "cuda_published_layout"]
        out = run(report, f"sanitizer-{kind}", command, 580)
        report.put("sanitizer", **{kind: out is not None})
        report.line(f"- compute-sanitizer {kind}: {'clean' if out is not None else 'NOT CLEAN'}")


def torch_rows(report, args, name, words, timeout=580):
    """What PyTorch takes, by measure.py; empty without PyTorch."""
    flags = ["--tiny"] if args.dry_run else []
    out = run(report, name, [sys.executable, HERE / "tools/gpu-check/measure.py", *words, *flags], timeout)
    return {row["name"]: row for row in rows(out or "")}


def table(report, title, ours, theirs, bars):
    report.line(f"\n{title}\n\n| what | engine ms | TFLOP/s | PyTorch ms | share of PyTorch's rate |\n|---|--:|--:|--:|--:|")
    for row in ours:
        other, flop = theirs.get(row["name"], {}), row["facts"].get("flop")
        rate = f"{flop / row['median_ms'] / 1e9:.1f}" if flop else ""
        best = min((v for k, v in other.items() if k.endswith("median_ms")), default=None)
        share = best / row["median_ms"] if best else None
        row["share"] = share
        bar = {"gemm": CUBLAS, "attention": FLASH}.get(row["facts"].get("kind")) if bars else None
        verdict = "" if not (share and bar) else (" reached" if share >= bar else f" MISSED, bar {bar}")
        report.line(f"| {row['name']} | {row['median_ms']:.3f} | {rate} | {f'{best:.3f}' if best else ''} | "
                    f"{f'{share:.2f}{verdict}' if share else ''} |")


def kernels(report, args):
    out = run(report, "kernels", [BIN / "cuda", "kernels"], 580)
    ours, theirs = rows(out or ""), torch_rows(report, args, "torch-kernels", ["kernels"])
    table(report, "Kernels at the encoder's shapes, L2 flushed", ours, theirs, bars=not args.dry_run)
    report.put("kernels", engine=ours, torch=list(theirs.values()))


def checkpoint(report, args):
    """The model that is measured: full size, random, made once."""
    if args.dry_run:
        return TINY
    folder = args.work / "model"
    if not (folder / "model.safetensors").exists():
        script = HERE / "tools/full_size.py"
        # The list of merges in the form that full_size.py reads: packed, behind a line that is skipped.
        merges = args.work / "merges.txt.gz"
        args.work.mkdir(parents=True, exist_ok=True)
        lines = (HERE / "assets/clip/merges.txt").read_text().splitlines()
        lines = [line for line in lines if not line.startswith("#version")]
        merges.write_bytes(gzip.compress("\n".join(["", *lines]).encode()))
        words = [sys.executable, script, "make", folder, "--dtype", "f32", "--merges", merges]
        if run(report, "make-checkpoint", words, 580) is None:
            return None
    return folder


def photograph():
    return next(iter(sorted((HERE / "assets/photos").glob("*.jpg"))), TINY / "input.png")


def lossless(args):
    """All photographs and their mirror images as PNG: decoders of JPEG differ in last bits, which is no matter of the engine's."""
    from PIL import Image, ImageOps

    args.work.mkdir(parents=True, exist_ok=True)
    paths = []
    for photo in sorted((HERE / "assets/photos").glob("*.jpg")):
        picture = Image.open(photo).convert("RGB")
        for name, image in ((photo.stem, picture), (f"{photo.stem}-mirrored", ImageOps.mirror(picture))):
            paths.append(args.work / f"{name}.png")
            image.save(paths[-1])
    return paths


def model(report, args):
    folder = checkpoint(report, args)
    if folder is None:
        return
    picture = TINY / "input.png" if args.dry_run else photograph()
    ours = rows(run(report, "model", [BIN / "cuda", "model", folder, picture], 580) or "")
    theirs = {} if args.dry_run else torch_rows(report, args, "torch-model", ["model", folder, picture])
    report.line("\nThe model, batch 1, L2 flushed\n\n| what | engine ms | bar (H200) | PyTorch bf16 eager | compiled |\n"
                "|---|--:|--:|--:|--:|")
    for row in ours:
        if row["name"] == "memory":
            continue
        # What the simulator takes says nothing.
        other, bar = theirs.get(row["name"], {}), None if args.dry_run else BARS.get(row["name"])
        verdict = "" if bar is None else f"{bar} {'reached' if row['median_ms'] <= bar else 'MISSED'}"
        cell = lambda key: f"{other[key]:.2f}" if other.get(key) else ""  # noqa: E731
        report.line(f"| {row['name']} | {row['median_ms']:.3f} | {verdict} | {cell('eager_median_ms')} | "
                    f"{cell('compiled_median_ms')} |")
    memory = next((row["facts"]["bytes"] for row in ours if row["name"] == "memory"), None)
    if memory and not args.dry_run:
        report.line(f"\nDevice memory {memory / 1e9:.2f} GB, bar {MEMORY / 1e9} GB"
                    f" {'reached' if memory <= MEMORY else 'MISSED'}")
    report.put("model", engine=ours, torch=list(theirs.values()))


def full_size(report, args):
    folder = checkpoint(report, args)
    if folder is None:
        return
    pictures = [TINY / "input.png"] if args.dry_run else lossless(args)
    out = args.work / "engine.safetensors"
    args.work.mkdir(parents=True, exist_ok=True)
    if run(report, "stages", [BIN / "cuda", "stages", folder, out, *pictures], 580) is None:
        return
    words = [sys.executable, HERE / "tools/gpu-check/measure.py", "compare", folder, out, *pictures]
    text = run(report, "compare", words + (["--tiny"] if args.dry_run else []), 580)
    if text is None:
        text = (report.folder / "compare.log").read_text()
    found = rows(text)
    report.put("full-size", stages=found)
    report.line("\nStages against PyTorch in f32, relative L2\n\n| stage | engine | PyTorch bf16 | ratio | |\n|---|--:|--:|--:|---|")
    for row in found:
        report.line(f"| {row['name']} | {row['engine']:.2e} | {row['torch_bf16']:.2e} | {row['ratio']:.2f} | "
                    f"{'' if row['ok'] else 'TOO FAR'} {row.get('iou', '')} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on the simulated GPU, with a tiny model")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by name, with commas")
    parser.add_argument("--report", type=pathlib.Path, default=HERE / "report", help="where the report goes")
    parser.add_argument("--work", type=pathlib.Path, default=HERE / "work", help="where 4 GB of weights go")
    args = parser.parse_args()
    os.environ.pop("SAM3_MODEL", None)
    os.environ["SAM3_REQUIRE_CUDA"] = "1"
    os.environ["SAM3_FIXTURES"] = str(HERE / "tests/fixtures")
    # Some machines keep the driver's library where the loader does not look.
    folders = [str(HERE / "sim")] if args.dry_run else ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"]
    paths = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, folders + paths if args.dry_run else paths + folders))
    if args.dry_run:
        os.environ |= {"SAM3_BENCH_RUNS": "1", "SAM3_BENCH_TINY": "1"}
    wanted = args.only.split(",")
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        parser.error(f"--only: expected some of {', '.join(PARTS)}, found {', '.join(unknown)}")
    report = Report(args.report)
    report.line(f"# GPU check{' (dry run on the simulator)' if args.dry_run else ''}, commit "
                f"{(HERE / 'commit').read_text().strip()[:12]}, {time.strftime('%Y-%m-%d %H:%M')}\n")
    work = {"machine": machine, "conformance": conformance, "goldens": goldens, "sanitizer": sanitizer,
            "kernels": kernels, "model": model, "full-size": full_size}
    for part in ["machine", *[part for part in PARTS[1:] if part in wanted]]:
        try:
            work[part](report, args)
        except Exception as e:  # noqa: BLE001  one part must not cost the others
            report.put("errors", **{part: repr(e)})
            report.line(f"- {part}: ERROR {e!r}")
    failed = [name for name, step in report.parts.get("steps", {}).items() if step["exit"] != 0]
    far = [row["name"] for row in report.parts.get("full-size", {}).get("stages", []) if not row["ok"]]
    report.line(f"\n{'all steps ran' if not failed else 'failed: ' + ', '.join(failed)}"
                + (f"; too far: {', '.join(far)}" if far else ""))
    sys.exit(bool(failed or far or report.parts.get("errors")))


if __name__ == "__main__":
    main()
