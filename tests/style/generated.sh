#!/bin/sh
# docs/configuration.md and config/imagend.conf match what the program prints:
# generated.sh IMAGEND [--fix]. A test.
set -eu
program=$(readlink -f "$1")
cd "$(dirname "$0")/../.."
want=$(mktemp)
trap 'rm -f "$want"' EXIT
"$program" config table >"$want"
if [ "${2:-}" = --fix ]; then
    awk -v table="$want" '
        /^<!-- options end -->/ { inside = 0 }
        !inside { print }
        /^<!-- options -->/ { inside = 1; while ((getline line < table) > 0) print line }
    ' docs/configuration.md >"$want.new"
    cat "$want.new" >docs/configuration.md
    rm -f "$want.new"
    "$program" config file >config/imagend.conf
fi
stale() {
    echo "$1 is not what $program prints; tests/style/generated.sh $program --fix"
    exit 1
}
sed -n '/^<!-- options -->/,/^<!-- options end -->/p' docs/configuration.md | sed '1d;$d' | diff - "$want" ||
    stale docs/configuration.md
"$program" config file | diff config/imagend.conf - || stale config/imagend.conf
# What the file says is what holds without it, with every line switched on.
sed 's/^#\([a-z]\)/\1/' config/imagend.conf >"$want"
"$program" config show >"$want.shown"
"$program" config show --config "$want" | diff "$want.shown" - || stale config/imagend.conf
rm -f "$want.shown"
