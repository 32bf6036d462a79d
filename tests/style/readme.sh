#!/bin/sh
# The README's option table is what the program prints: readme.sh IMAGEND [--fix]. A test.
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
    ' README.md >"$want.new"
    cat "$want.new" >README.md
    rm -f "$want.new"
fi
sed -n '/^<!-- options -->/,/^<!-- options end -->/p' README.md | sed '1d;$d' | diff - "$want" || {
    echo "README.md is not what $program config table prints; tests/style/readme.sh $program --fix"
    exit 1
}
