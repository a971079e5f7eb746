#!/usr/bin/env bash
# Everything about the CUDA back end that only a GPU can show, with one command on a machine that has one and no Rust.
#
#   tools/gpu_check.sh pack DIR         here: builds, and puts all that is needed into DIR
#   DIR/gpu_check.sh                    there: checks and measures, and writes DIR/report/report.json and report.md
#   DIR/gpu_check.sh --dry-run          the same steps on the simulated GPU with a tiny model, which take minutes
#
# There it takes a driver and, for what is compared with PyTorch, `python3` with torch, transformers 5.23, safetensors and
# pillow; compute-sanitizer where it is on the path. What is missing is reported as not done. Parts by name:
#
#   DIR/gpu_check.sh --only conformance,goldens,sanitizer,kernels,model,full-size
#
# The card's settings are left as they are; its clocks are written down.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

pack() {
    local to="$1" root
    root="$(cd "$here/.." && pwd)"
    mkdir -p "$to"/{bin,sim} && to="$(cd "$to" && pwd)"
    cd "$root"
    # Flags for cargo; for a dry run, what `cargo test` makes is enough: SAM3_PACK_FLAGS=
    local flags
    read -ra flags <<< "${SAM3_PACK_FLAGS---release}"
    # Executables by what cargo says it built; the program is built for the tests.
    cargo test "${flags[@]}" --no-run --test ops --test golden --bench cuda --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable"): print(m["target"]["name"], m["executable"])' |
        while read -r name file; do
            cp "$file" "$to/bin/$name" && strip "$to/bin/$name"
        done
    for name in sam3 ops golden cuda; do
        [ -x "$to/bin/$name" ] || { echo "gpu_check.sh: cargo did not build $name" >&2 && exit 1; }
    done
    tools/with_simulated_gpu.sh true
    cp target/simulated-gpu/libcuda.so.1 "$to/sim/"
    cp tools/gpu_check.sh "$to/"
    mkdir -p "$to/tools" "$to/tests" "$to/assets"
    cp -r tools/gpu-check tools/full_size.py "$to/tools/"
    cp -r tests/fixtures "$to/tests/"
    cp -r assets/clip assets/photos "$to/assets/"
    # Tests look for their fixtures where they were built.
    echo "$root" > "$to/built-in"
    git rev-parse HEAD > "$to/commit" 2>/dev/null || echo unknown > "$to/commit"
    echo "packed: $(du -sh "$to" | cut -f 1) in $to"
}

if [ "${1:-}" = pack ]; then
    [ $# -eq 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
    pack "$2"
    exit
fi
[ -d "$here/bin" ] || { sed -n '2,16s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
exec python3 "$here/tools/gpu-check/run.py" "$@"
