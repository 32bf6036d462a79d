#!/bin/sh
# Tests and measures this machine's Vulkan device in at most nine minutes and writes report.json and
# report.md into the current folder: gpu.sh [--small] [--out FOLDER]; see gpu.py. Part of the bundle.
here=$(dirname "$(readlink -f "$0")")
command -v python3 >/dev/null 2>&1 || {
    echo "gpu.sh: python3 is not installed; \"bin/imagend devices\" and the programs in bin run without it" >&2
    exit 1
}
exec python3 -B "$here/gpu.py" "$@"
