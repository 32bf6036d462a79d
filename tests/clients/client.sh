#!/bin/sh
# Runs a client against a server: client.sh NAME PROGRAM. A test; 77 without Node.
set -eu
if ! command -v node >/dev/null 2>&1; then
    echo "skipped: there is no node"
    exit 77
fi
exec node "$(dirname "$0")/$1.mjs" "$2"
