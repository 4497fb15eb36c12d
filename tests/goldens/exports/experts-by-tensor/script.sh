#!/bin/sh
# glm-4.7-flash q4_K_M, 98304 tokens of context, KV cache f16, planned for NVIDIA GeForce RTX 4060 Ti
# written by glmplan from the plan of 2026-01-01T00:00:00Z for llama-server, machine 0123456789abcdef
#
# Needs a POSIX shell and llama.cpp's llama-server, nothing else.
# Checks before it starts: the program and its options, the model file and its size, the port.
set -eu

model=/models/GLM-4.7-Flash-Q4_K_M.gguf
model_name=GLM-4.7-Flash-Q4_K_M.gguf
min_bytes=18312339776
max_bytes=18312339776
host_mib=3
host=127.0.0.1
port=8080
alias=glm-4.7-flash
dry_run=no
any_file=no

usage() {
    cat <<'END'
usage: sh FILE [--model PATH] [--port N] [--any-file] [--dry-run] [--help]

Serves the model with llama-server in the foreground; Ctrl-C stops it.

  --model PATH  the model file, if it does not lie where the plan says
  --port N      listen on another port
  --any-file    accept a model file of another size than the plan's
  --dry-run     check everything, print the command, start nothing

LLAMA_SERVER=PATH names the program; without it, the llama-server on the PATH is taken.
END
}

fail() { # message, what to do, exit status
    printf 'error: %s\n  try: %s\n' "$1" "$2" >&2
    exit "$3"
}

problem() { # as fail; a dry run only mentions it
    if [ "$dry_run" = yes ]; then
        printf 'would fail: %s\n  try: %s\n' "$1" "$2" >&2
    else
        fail "$@"
    fi
}

while [ $# -gt 0 ]; do
    case $1 in
        --model | --port)
            [ $# -ge 2 ] || fail "$1 needs a value" "sh $0 --help" 2
            if [ "$1" = --model ]; then model=$2; else port=$2; fi
            shift
            ;;
        --any-file) any_file=yes ;;
        --dry-run) dry_run=yes ;;
        --help)
            usage
            exit 0
            ;;
        *) fail "unknown option: $1" "sh $0 --help" 2 ;;
    esac
    shift
done
case $port in
    '' | *[!0-9]* | ??????*) fail "not a port: $port" "--port N, from 1 to 65535" 2 ;;
esac
if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    fail "not a port: $port" "--port N, from 1 to 65535" 2
fi

# The program.
server=${LLAMA_SERVER:-llama-server}
case $server in
    */*)
        if ! [ -f "$server" ] || ! [ -x "$server" ]; then
            fail "LLAMA_SERVER names $server, which is not a program" "LLAMA_SERVER=/path/to/llama-server sh $0" 4
        fi
        ;;
    *)
        found=$(command -v "$server") ||
            fail "no $server on the PATH" "install llama.cpp, or LLAMA_SERVER=/path/to/llama-server sh $0" 4
        server=$found
        ;;
esac
libraries=$(dirname "$server")/../lib
for found in "$libraries"/libggml*; do
    if [ -e "$found" ]; then
        # Beside the program in wheels and archives; each system reads its own variable.
        export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        export DYLD_LIBRARY_PATH="$libraries${DYLD_LIBRARY_PATH:+:$DYLD_LIBRARY_PATH}"
    fi
    break
done

# The environment: settings of other launches would change this one; CUDA is to count GPUs as the plan does.
for name in $(env | sed -n 's/^\(LLAMA_ARG_[A-Z0-9_]*\)=.*/\1/p') LLAMA_API_KEY HF_TOKEN; do
    unset "$name" || true
done
export CUDA_DEVICE_ORDER="${CUDA_DEVICE_ORDER:-PCI_BUS_ID}"

# The options of this very build.
help=$("$server" --help 2>&1) ||
    fail "$server does not start: $(printf '%s\n' "$help" | tail -n 1)" "reinstall llama.cpp" 4
newline='
'
options=$newline$(
    printf '%s\n' "$help" | sed -n '/^-/{s/\([^ ,]\)   *[^- ].*$/\1/;p;}' |
        tr ',' ' ' | tr ' ' '\n' | grep '^--'
)$newline

has() { # option
    case $options in *"$newline$1$newline"*) return 0 ;; esac
    return 1
}

need() { # option, what for
    has "$1" || fail "this llama-server has no $1, which the plan needs for $2" "update llama.cpp: $server" 4
}

# The model file, all parts of a split one together.
size_of() { # file
    stat -L -c %s -- "$1" 2>/dev/null || stat -L -f %z -- "$1" 2>/dev/null || wc -c <"$1"
}

total_size() {
    case $model in
        *-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].gguf)
            stem=${model%-*-of-*.gguf}
            parts=${model##*-of-}
            parts=${parts%.gguf}
            set -- "$stem"-[0-9][0-9][0-9][0-9][0-9]-of-"$parts".gguf
            [ $# -eq "$parts" ] || return 1
            ;;
        *) set -- "$model" ;;
    esac
    bytes=0
    for part in "$@"; do
        bytes=$((bytes + $(size_of "$part")))
    done
}

check_model() {
    bytes=0
    if [ -z "$model" ]; then
        problem "the plan names no model file" "sh $0 --model /path/to/$model_name" 2
    elif [ ! -f "$model" ]; then
        problem "the model file $model is not on this machine" "download $model_name, or sh $0 --model PATH" 2
    elif [ "$(dd if="$model" bs=4 count=1 2>/dev/null | tr -cd '[:upper:]')" != GGUF ]; then
        problem "$model is not a GGUF file" "sh $0 --model PATH of a GGUF file" 2
    elif ! total_size; then
        problem "parts of $model are missing" "download all parts into one folder" 2
    elif [ "$any_file" = no ] && [ "$bytes" -lt "$min_bytes" ]; then
        problem "$model is incomplete or another file: $bytes bytes, the plan's has $min_bytes or more" \
            "finish the download, or --any-file" 2
    elif [ "$any_file" = no ] && [ "$bytes" -gt "$max_bytes" ]; then
        problem "$model is another file than the plan's: $bytes bytes, not $max_bytes or less" \
            "take the planned file, or --any-file" 2
    fi
}

# The port, asked of whichever tool is here; llama-server itself says so too, before it loads anything.
port_is_taken() {
    if command -v ss >/dev/null 2>&1; then
        ss -ltn 2>/dev/null | awk '{ print $4 }' | grep -q "[.:]$port\$"
    elif command -v netstat >/dev/null 2>&1; then
        netstat -an 2>/dev/null | awk '/LISTEN/ { print $4 }' | grep -q "[.:]$port\$"
    elif command -v lsof >/dev/null 2>&1; then
        lsof -nP -iTCP:"$port" -sTCP:LISTEN >/dev/null 2>&1
    else
        return 1
    fi
}

check_port() {
    if port_is_taken; then
        problem "port $port is in use" "sh $0 --port N, or stop what listens there" 4
    fi
}

# Main memory, where Linux tells it: a warning, because other programs come and go.
check_memory() {
    [ -r /proc/meminfo ] || return 0
    free_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    if [ -n "$free_mib" ] && [ "$free_mib" -lt "$host_mib" ]; then
        printf 'warning: the plan needs %s MiB of main memory, %s MiB are available\n' "$host_mib" "$free_mib" >&2
    fi
}

check_model
check_port
check_memory

# The command: what the plan cannot do without is needed, the rest is taken where this build has it.
set --
need --model 'the model file'
set -- "$@" --model "$model"
if has --alias; then set -- "$@" --alias "$alias"; fi
need --host 'the address'
set -- "$@" --host "$host"
need --port 'the port'
set -- "$@" --port "$port"
if has --fit; then set -- "$@" --fit off; fi
need --ctx-size 'the context'
set -- "$@" --ctx-size 98304
if has --parallel; then set -- "$@" --parallel 1; fi
if has --kv-unified; then set -- "$@" --kv-unified; fi
need --batch-size 'the batch size'
set -- "$@" --batch-size 2048
need --ubatch-size 'the ubatch size'
set -- "$@" --ubatch-size 544
need --cache-type-k 'the KV cache type'
set -- "$@" --cache-type-k f16
need --cache-type-v 'the KV cache type'
set -- "$@" --cache-type-v f16
if has --cache-ram; then set -- "$@" --cache-ram 0; fi
if has --n-gpu-layers; then
    set -- "$@" --n-gpu-layers 48
else
    need --gpu-layers 'GPU offload'
    set -- "$@" --gpu-layers 48
fi
need --override-tensor 'expert offload'
set -- "$@" --override-tensor 'blk\.(1|2|3|4|7|10|13|16|19|22|25|28|31|34|37|40|41|42|43|45)\.ffn_(gate|up|down)_exps=CPU,blk\.(44)\.ffn_(down)_exps=CPU'
if has --load-mode; then
    set -- "$@" --load-mode none
else
    need --no-mmap 'loading without mmap'
    set -- "$@" --no-mmap
fi
need --threads 'the thread count'
set -- "$@" --threads 8
if has --threads-batch; then set -- "$@" --threads-batch 8; fi
need --flash-attn 'the flash attention setting'
set -- "$@" --flash-attn on
if has --jinja; then set -- "$@" --jinja; fi
if has --temp; then set -- "$@" --temp 1; fi
if has --top-p; then set -- "$@" --top-p 0.95; fi
if has --min-p; then set -- "$@" --min-p 0.01; fi
if has --repeat-penalty; then set -- "$@" --repeat-penalty 1; fi
if has --metrics; then set -- "$@" --metrics; fi
if has --offline; then set -- "$@" --offline; fi
if has --no-webui; then
    set -- "$@" --no-webui
else
    if has --no-ui; then set -- "$@" --no-ui; fi
fi
if has --cors-origins; then set -- "$@" --cors-origins localhost; fi
if [ "$dry_run" = yes ]; then
    line=
    for word in "$server" "$@"; do
        line="$line'$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")' "
    done
    printf '%s\n' "${line% }"
    exit 0
fi
printf '%s on http://%s:%s/v1\n' "$alias" "$host" "$port" >&2
exec "$server" "$@"
