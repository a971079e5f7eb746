# Sourced by scripts that start servers: `serve OPTIONS…` starts one on a free port of loopback, with $binary and $model,
# and leaves its address in $url and its process in $server. All of them end with the script; $desk is a folder that does, too.
desk=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait; rm -rf "$desk"' EXIT

serve() {
    local log
    log=$(mktemp "$desk/XXXXXX.out")
    "$binary" serve ${model:+--model "$model"} --addr 127.0.0.1:0 --quiet "$@" > "$log" 2> "$log.err" &
    server=$!
    servers+=("$server")
    for _ in $(seq 600); do
        url=$(sed -n 's/^sam3 listens on //p' "$log")
        [ -n "$url" ] && return
        sleep 0.1
    done
    cat "$log.err" >&2
    exit 1
}
