#!/bin/bash
# Trains for some minutes on a machine with a GPU, PyTorch and numpy, and nothing else: no network, no Pillow, no
# sentencepiece. The folder that this lies in (as code/) is made by `gpu.py pack`; with all nouns and --side 128 it has 64 MB.
#
#   code/gpu.sh base 9 OUT [WAVES]       # or sr256, sr1024; OUT/base.pt is what to bring back
#
# Back on the first machine, python3 gpu.py merge base.pt out/base: the run in out/base goes on from it.
set -eu
stage=$1 minutes=$2 out=$(realpath -m "$3") waves=${4:-} python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
mkdir -p "$out"
runs=$out/runs
"$python" gpu.py unpack .. "$runs"
cores=$(nproc)
device=${DEVICE:-cuda}
common=(--out "$runs/$stage" --text "$runs/text" --atlas "$runs/atlas" --mix "config/${MIX:-world}.json" --device "$device"
    --samples 1000000000 --save-minutes 2)
[ -z "$waves" ] || common+=(--waves $waves)
train() { # SCRIPT OPTIONS...: recorded as a CUDA graph; step by step for the time that is left should that fail
    local from=$SECONDS
    "$python" "$@" --minutes "$minutes" --graph "${GRAPH:-1}" && return
    local left=$((${minutes%.*} - (SECONDS - from + 59) / 60))
    [ "${GRAPH:-1}" = 1 ] && [ "$left" -ge 1 ] || return 1
    echo "gpu.sh: the run with a CUDA graph failed; $left minutes without it" >&2
    "$python" "$@" --minutes "$left" --graph 0
}

if [ "$stage" = base ]; then
    train train_base.py "${common[@]}" --workers 1 --batch "${BATCH:-128}" --composers $((cores > 4 ? cores - 4 : 1)) \
        --reuse "${REUSE:-8}" --pool "${POOL:-120000}" --rate "${RATE:-1.5e-3}" --warmup 20000 --muon-every 1 --ema .9995
else
    below=("$runs/base")
    more=()
    if [ "$stage" = sr1024 ]; then
        below+=("$runs/sr256")
        more=(--low 256 --high 1024 --crop 128 --degrade 0.6 --drawn-share .3)
    fi
    train train_sr.py "${common[@]}" "${more[@]}" --net "config/$stage.json" --below "${below[@]}" \
        --workers 1 --batch "${BATCH:-64}" --pool "${POOL:-16384}" --reuse "${REUSE:-6}" --rate "${RATE:-1e-3}"
fi
"$python" gpu.py small "$runs/$stage" "$out/$stage.pt"
ls -la "$out/$stage.pt"
