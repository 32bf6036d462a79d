#!/bin/sh
# Check the C format against .clang-format, or apply it: format.sh [--fix]. Called by `./run format`
# and by the test "style".
set -eu
cd "$(dirname "$0")/../.."
mode='--dry-run -Werror'
[ "${1:-}" != --fix ] || mode=-i
# shellcheck disable=SC2086 # options
find engine server tests \( -name '*.[ch]' -o -name '*.cpp' \) -print0 |
    xargs -0 clang-format --style=file $mode
