#!/bin/sh
# Checks the C format against .clang-format, or applies it: format.sh [--fix]. Called by `./run format`
# and by the test "style"; exits with 77 if the required version of clang-format is missing.
set -eu
cd "$(dirname "$0")/../.."
# Versions disagree about some macros and casts. Debian 12 and 13 both have this one.
version=19
for tool in "clang-format-$version" clang-format ''; do
    case $("${tool:-true}" --version 2>/dev/null) in
    *"version $version."*) break ;;
    esac
done
if [ -z "$tool" ]; then
    echo "skipped: clang-format $version is not installed, and other versions disagree with it"
    exit 77
fi
mode='--dry-run -Werror'
[ "${1:-}" != --fix ] || mode=-i
# shellcheck disable=SC2086 # options
find engine server tests training/nets \( -name '*.[ch]' -o -name '*.cpp' \) -print0 |
    xargs -0 "$tool" --style=file $mode
