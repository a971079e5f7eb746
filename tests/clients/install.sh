#!/usr/bin/env bash
# Installs the clients that others wrote: install.sh [DIR], by default target/clients. Wants python3 with venv, and npm.
#
# Python packages go into DIR/venv, by uv, which takes a fifth of pip's time; those of Node.js into DIR/node_modules.
# What is there already is left alone.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=$(realpath -m "${1:-${CARGO_TARGET_DIR:-$root/target}/clients}")
wanted=$(cat "$0" "$here/requirements.txt" "$here/package.json" | sha256sum)
[ "$(cat "$dir/installed" 2>/dev/null || true)" != "$wanted" ] || exit 0
mkdir -p "$dir"
rm -f "$dir/installed"

[ -x "$dir/venv/bin/uv" ] || { python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" install --quiet uv; }
uv() { "$dir/venv/bin/uv" pip install --quiet --python "$dir/venv/bin/python" "$@"; }
uv -r "$here/requirements.txt"
# The program's code alone: its windows, and what draws them, take 1.2 GB.
uv --no-deps x-anylabeling-cvhub==4.2.1

cp "$here/package.json" "$dir/"
npm install --prefix "$dir" --no-package-lock --no-audit --no-fund --loglevel=error
echo "$wanted" > "$dir/installed"
