#!/usr/bin/env python3
"""Compiles kernels/sm80.cu and kernels/sm90a.cu for every architecture to kernels/prebuilt/.

The compiler is NVRTC of one pinned version, since its output is the same bytes everywhere:

    pip install nvidia-cuda-nvrtc-cu12==12.9.86

12.9 writes code that drivers from 525 on load. Registers, stack and spills of every kernel are printed and gated.

    tools/build_kernels.py           writes kernels/prebuilt/
    tools/build_kernels.py --check   compares with what is there and writes nothing
"""
import argparse
import ctypes
import pathlib
import re
import sys
import sysconfig

VERSION = (12, 9)
ROOT = pathlib.Path(__file__).resolve().parent.parent / "kernels"
# sm_90a runs on 9.0 and nothing else. sm_80 also runs on 8.6, 8.7 and 8.9; compute_80 is the text that drivers compile for everything else.
TARGETS = ["sm_80", "sm_90a", "sm_120", "compute_80"]
# NVRTC labels its text with the newest PTX version, which older drivers refuse; the instructions used are of 7.0.
PTX_VERSION = "7.0"
# A block of 256 threads with more registers leaves room for fewer than two per multiprocessor.
MOST_REGISTERS = {512: 128, 256: 128, 128: 255}


def nvrtc():
    folder = pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cuda_nvrtc" / "lib"
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


def compile(lib, source, target):
    options = [f"--gpu-architecture={target}", "--std=c++17", "--define-macro=INFINITY=__int_as_float(0x7f800000)"]
    if target.startswith("sm_"):
        options.append("--ptxas-options=-v")
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
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


def gate(source, target, log):
    """Prints what each kernel needs; true if one needs too much."""
    threads = {name: int(n) for n, name in re.findall(r"KERNEL void LAUNCH_BOUNDS\((\d+)[^)]*\)\s+(\w+)\(", source)}
    bad = False
    seen = set()
    # C7508: setmaxnreg is ignored; C7510 and its neighbours: wgmma is waited for one by one.
    for line in log.splitlines():
        if "C75" in line:
            print(f"{target}: {line}")
            bad = True
    pattern = r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers"
    for name, stack, spill, registers in re.findall(pattern, log, re.S):
        seen.add(name)
        over = int(spill) > 0 or int(registers) > MOST_REGISTERS.get(threads[name], 255)
        bad |= over
        print(f"{target:7} {name:28} {registers:>3} registers, stack {stack}, spill {spill}{'  TOO MUCH' if over else ''}")
    missing = set(threads) - seen
    if missing:
        print(f"{target}: nothing is known of {sorted(missing)}")
    return bad or bool(missing)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare and write nothing")
    check = arguments.parse_args().check
    lib, bad = nvrtc(), False
    for target in TARGETS:
        source = flat(ROOT / ("sm90a.cu" if target == "sm_90a" else "sm80.cu"), set())
        binary, log = compile(lib, source, target)
        file = ROOT / "prebuilt" / (target + (".cubin" if target.startswith("sm_") else ".ptx"))
        if target.startswith("sm_"):
            bad |= gate(source, target, log)
        if not check:
            file.write_bytes(binary)
        elif not file.exists() or file.read_bytes() != binary:
            print(f"{file.name}: not what the sources compile to; run tools/build_kernels.py")
            bad = True
    sys.exit(bad)


if __name__ == "__main__":
    main()
