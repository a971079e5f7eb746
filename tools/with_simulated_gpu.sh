#!/usr/bin/env bash
# Runs any command with the kernels' simulator as its CUDA driver:
#   tools/with_simulated_gpu.sh target/debug/sam3 segment --device cuda ...
# SAM3_SIM_SANITIZE=1 builds the simulator with AddressSanitizer and UndefinedBehaviorSanitizer. What else can be set
# stands in kernels/sim/driver.cpp.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
folder="$root/target/simulated-gpu${SAM3_SIM_SANITIZE:+-sanitized}"
mkdir -p "$folder"
flags=(-std=c++17 -O2 -fPIC -shared -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -ftls-model=initial-exec)
if [ -n "${SAM3_SIM_SANITIZE:-}" ]; then
    flags+=(-g -fsanitize=address,undefined -fno-omit-frame-pointer)
fi
if [ ! -e "$folder/libcuda.so.1" ] || [ -n "$(find "$root/kernels" -newer "$folder/libcuda.so.1" -print -quit)" ]; then
    (cd "$root/kernels/sim" && "${CXX:-c++}" "${flags[@]}" driver.cpp block.cpp hopper.cpp instructions.cpp -o "$folder/libcuda.so.1")
fi
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ -n "${SAM3_SIM_SANITIZE:-}" ]; then
    # The command itself is not built with it; the driver keeps its blocks to the end.
    export LD_PRELOAD="$("${CXX:-c++}" -print-file-name=libasan.so):$("${CXX:-c++}" -print-file-name=libubsan.so)"
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="halt_on_error=1:${UBSAN_OPTIONS:-}"
fi
exec "$@"
