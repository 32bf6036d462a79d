#!/bin/sh
# Every header compiles alone, and when included twice: it includes what it needs and has a guard.
# headers.sh [CC...]. A test.
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- cc
headers=$(find engine server shaders/include -name '*.h' | LC_ALL=C sort)
# Its own folder comes first, as for the compiler; base before the others because a name occurs twice.
folders=$(printf '%s\n' engine/base "$headers" | sed 's|/[^/]*\.h$||' | awk '!seen[$0]++ { print "-I" $0 }')
flags=$(pkg-config --cflags jansson vulkan libuv libmicrohttpd)
# Optional, see meson_options.txt.
if pkg-config --exists libpq; then
    flags="$flags $(pkg-config --cflags libpq)"
else
    headers=$(printf '%s\n' "$headers" | grep -v '/pg[_.a-z]*$')
fi
bad=0
for header in $headers; do
    # shellcheck disable=SC2086 # lists of flags
    printf '#include "%s"\n#include "%s"\n' "${header##*/}" "${header##*/}" |
        "$@" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only \
            "-I${header%/*}" $folders $flags -x c - || {
        echo "$header does not compile alone"
        bad=1
    }
done
exit "$bad"
