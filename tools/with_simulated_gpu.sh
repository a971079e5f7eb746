#!/usr/bin/env bash
# Runs any command with the kernels' simulator as its CUDA driver:
#   tools/with_simulated_gpu.sh target/debug/sam3 segment --device cuda ...
#   tools/with_simulated_gpu.sh cargo test --test ops cuda
# It needs a C++ compiler, once. SAM3_SIM_SANITIZE=1 builds the simulator with AddressSanitizer and
# UndefinedBehaviorSanitizer. What else can be set stands in kernels/sim/driver.cpp.
set -euo pipefail
if [ $# -eq 0 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
root="$(cd "$(dirname "$0")/.." && pwd)"
folder="$root/target/simulated-gpu${SAM3_SIM_SANITIZE:+-sanitized}"
mkdir -p "$folder"
flags=(-std=c++17 -O2 -fPIC -fno-strict-aliasing -ffp-contract=off -fvisibility=hidden -ftls-model=initial-exec
    -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi)
if [ -n "${SAM3_SIM_SANITIZE:-}" ]; then
    flags+=(-g -fsanitize=address,undefined -fno-omit-frame-pointer)
fi
library="$folder/libcuda.so.1"
build() {
    # Objects side by side: a file of kernels takes longest. Put in place whole, since others may be using the old one.
    local source objects=() jobs=()
    for source in "$root"/kernels/sim/*.cpp; do
        objects+=("$folder/$(basename "$source" .cpp).o")
        (cd "$root/kernels/sim" && "${CXX:-c++}" "${flags[@]}" -c "$source" -o "${objects[-1]}") & jobs+=($!)
    done
    for source in "${jobs[@]}"; do wait "$source"; done
    "${CXX:-c++}" "${flags[@]}" -shared "${objects[@]}" -o "$library.new" && mv "$library.new" "$library"
}
if [ ! -e "$library" ] || [ -n "$(find "$root/kernels" "$0" -newer "$library" -print -quit)" ]; then
    build >&2
fi
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# Tests that want a GPU then fail where they would skip.
export SAM3_REQUIRE_CUDA=1
if [ -n "${SAM3_SIM_SANITIZE:-}" ]; then
    # The command itself is not built with it; the driver keeps its blocks to the end.
    export LD_PRELOAD="$("${CXX:-c++}" -print-file-name=libasan.so):$("${CXX:-c++}" -print-file-name=libubsan.so)"
    export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}" UBSAN_OPTIONS="halt_on_error=1:${UBSAN_OPTIONS:-}"
fi
exec "$@"
