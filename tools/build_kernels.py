#!/usr/bin/env python3
"""Compiles kernels/ for every architecture to kernels/prebuilt/.

The compiler is NVRTC of one pinned version, since its output is the same bytes everywhere:

    pip install nvidia-cuda-nvrtc-cu12==12.9.86

12.9 writes code that drivers from 525 on load. Beside the binaries, compressed, stands `kernels.txt`: a hash of all sources,
and what each kernel needs on each architecture, which tests/kernels.rs compares with the binaries themselves.

    tools/build_kernels.py           writes kernels/prebuilt/
    tools/build_kernels.py --check   compares with what is there and writes nothing
"""
import argparse
import concurrent.futures
import ctypes
import pathlib
import re
import sys
import sysconfig
import zlib

VERSION = (12, 9)
ROOT = pathlib.Path(__file__).resolve().parent.parent / "kernels"
PREBUILT = ROOT / "prebuilt"
# Why these and no others: kernels/README.md.
TARGETS = ["sm_80", "sm_90a", "sm_100", "sm_120", "compute_80"]
# What an architecture is compiled from, if not from sm80.cu; a file that is not there is not asked for.
UNITS = {"sm_90a": "sm90a.cu"}
# NVRTC labels its text with the newest PTX version, which older drivers refuse; the instructions used are of 7.0.
PTX_VERSION = "7.0"


def sources():
    """All files that the binaries depend on, in the order in which they are hashed."""
    return sorted(p for p in ROOT.rglob("*.cu*") if p.suffix in (".cu", ".cuh") and "sim" not in p.parts)


def fingerprint():
    """FNV-1a, 64 bits, of the names and texts of all sources."""
    h = 0xCBF29CE484222325
    for path in sources():
        for byte in path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0":
            h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def nvrtc():
    folder = pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cuda_nvrtc" / "lib"
    if not folder.is_dir():
        sys.exit("expected the package nvidia-cuda-nvrtc-cu12==12.9.86 in this Python, found none")
    # The library looks for this one by name and has no path of its own.
    ctypes.CDLL(str(next(folder.glob("libnvrtc-builtins.so.*"))), mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(folder / "libnvrtc.so.12"))
    major, minor = ctypes.c_int(), ctypes.c_int()
    lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    if (major.value, minor.value) != VERSION:
        sys.exit(f"expected NVRTC {VERSION}, found {major.value}.{minor.value}")
    return lib


def flat(path, seen):
    """The source with its includes in place, so that no path of this machine gets into the output."""
    text = []
    for line in path.read_text().splitlines():
        include = re.match(r'#include "(.*)"', line)
        if include:
            file = (path.parent / include[1]).resolve()
            if file not in seen and "sim" not in file.parts[-2:-1]:
                seen.add(file)
                text.append(flat(file, seen))
        elif line != "#pragma once":
            text.append(line)
    return "\n".join(text) + "\n"


def unit(target):
    """The file that a target is compiled from."""
    file = ROOT / UNITS.get(target, "sm80.cu")
    return file if file.exists() else ROOT / "sm80.cu"


def compile(target):
    """The binary and the compiler's log."""
    lib, file = nvrtc(), unit(target)
    source = flat(file, {file})
    options = [f"--gpu-architecture={target}", "--std=c++17", "--define-macro=INFINITY=__int_as_float(0x7f800000)"]
    if target.startswith("sm_"):
        options.append("--ptxas-options=-v")
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), file.name.encode(), 0, None, None)
    failed = lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*[o.encode() for o in options]))

    def get(size, content):
        n = ctypes.c_size_t()
        size(program, ctypes.byref(n))
        data = ctypes.create_string_buffer(n.value)
        content(program, data)
        return data.raw

    log = get(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog).decode()
    if failed:
        sys.exit(f"{target}: {log}")
    if target.startswith("sm_"):
        return get(lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN), log
    text = get(lib.nvrtcGetPTXSize, lib.nvrtcGetPTX).decode()
    return re.sub(r"\.version \d+\.\d+", f".version {PTX_VERSION}", text, count=1).encode(), log


def needs(target, log):
    """Lines of the table: what each kernel needs, as the compiler tells it."""
    pattern = (r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill "
               r"loads.*?Used (\d+) registers([^\n]*)")
    rows = []
    for name, stack, stores, loads, registers, rest in re.findall(pattern, log, re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        spill = int(stores) + int(loads)
        rows.append((name, f"{target:7} {name:32} registers {registers:>3} shared {shared[1] if shared else 0:>5} "
                           f"stack {stack} spill {spill}"))
    return [row for _, row in sorted(rows)]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare and write nothing")
    check = arguments.parse_args().check
    nvrtc()
    with concurrent.futures.ProcessPoolExecutor() as pool:
        compiled = dict(zip(TARGETS, pool.map(compile, TARGETS)))
    rows = [row for target in TARGETS if target.startswith("sm_") for row in needs(target, compiled[target][1])]
    spilled = [row for row in rows if not row.endswith("spill 0")]
    table = "\n".join([f"compiler NVRTC {VERSION[0]}.{VERSION[1]}", f"sources {fingerprint()}", *rows]) + "\n"
    wrong = [f"spills: {row}" for row in spilled]
    # C7508: setmaxnreg is ignored; C7510 and its neighbours: wgmma is waited for one by one.
    wrong += [f"{t}: {line}" for t in TARGETS for line in compiled[t][1].splitlines() if "C75" in line]
    files = {"kernels.txt": table.encode()}
    files |= {t + (".cubin" if t.startswith("sm_") else ".ptx") + ".zlib": compiled[t][0] for t in TARGETS}
    for name, content in files.items():
        file, packed = PREBUILT / name, name.endswith(".zlib")
        if not check:
            PREBUILT.mkdir(exist_ok=True)
            file.write_bytes(zlib.compress(content, 9) if packed else content)
            continue
        # Compressors differ from version to version, what they hold does not.
        there = file.read_bytes() if file.exists() else b""
        if (zlib.decompress(there) if packed and there else there) != content:
            wrong.append(f"{name}: not what the sources compile to; run tools/build_kernels.py")
    for file in PREBUILT.iterdir():
        if file.name not in files:
            if check:
                wrong.append(f"{file.name}: nothing makes it")
            else:
                file.unlink()
    print("\n".join([*rows, *wrong]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
