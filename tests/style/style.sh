#!/bin/sh
# Checks that a compiler does not make: format, stray whitespace, includes between layers, file sizes.
# A test: exits non-zero and lists every violation; 77 without the right clang-format.
set -eu
cd "$(dirname "$0")/../.."
bad=0

complain() {
    bad=1
    printf '%s\n' "$1" | sed "s/^/  /"
    printf '^ %s\n' "$2"
}

expect_none() {
    [ -z "$1" ] || complain "$1" "$2"
}

sources() {
    find engine server shaders tests config deploy docs training .ci run meson.build README.md \
        CONTRIBUTING.md CHANGELOG.md SECURITY.md -type f \( -name '*.[ch]' -o -name '*.cpp' -o \
        -name '*.comp' -o -name '*.glsl' -o -name '*.py' -o -name '*.sh' -o -name '*.md' -o -name meson.build -o \
        -path run -o -path .ci/run \) ! -path '*/node_modules/*' ! -path '*/out/*' \
        ! -path tests/golden/README.md ! -name __init__.py 2>/dev/null
}

tab=$(printf '\t')
expect_none "$(sources | xargs grep -n "$tab" || true)" "tabs"
expect_none "$(sources | xargs grep -nE ' +$' || true)" "spaces at the end of a line"
expect_none "$(sources | xargs grep -LE '.' || true)" "empty files"
expect_none "$(sources | grep -E '\.(c|h|cpp|comp|glsl)$' | xargs grep -nE '(TODO|FIXME)' || true)" \
    "things left for later"
expect_none "$(find engine server tests shaders \( -name '*.[ch]' -o -name '*.comp' \) -exec \
    awk 'FNR == 1 && !/^(\/\/|#version)/ { print FILENAME }' {} +)" \
    "files that do not open with what lives there"
expect_none "$(find engine server -name '*.[ch]' -print0 | xargs -0 wc -l |
    awk '$2 != "total" && $1 > 650 { print $2 ": " $1 " lines" }')" "files that are too long"

# Which of our own headers a folder may include, by the folders that hold them.
layer() {
    folder=$1
    shift
    [ -d "$folder" ] || return 0
    allowed=$(for seen in "$@"; do
        if [ -f "$seen" ]; then
            printf ' %s' "${seen##*/}"
        elif [ -d "$seen" ]; then
            find "$seen" -maxdepth 1 -name '*.h' -printf ' %f'
        fi
    done)
    find "$folder" -maxdepth 1 -name '*.[ch]' -exec awk -v ours="$ours" -v allowed="$allowed" '
        BEGIN {
            n = split(ours, list, " ")
            for (i = 1; i <= n; i++) known[list[i]] = 1
            n = split(allowed, list, " ")
            for (i = 1; i <= n; i++) may[list[i]] = 1
        }
        /^#include "/ {
            header = $2
            gsub(/"|.*\//, "", header)
            if (header in known && !(header in may)) print FILENAME " includes " header
        }' {} +
}

ours=$(find engine server shaders -name '*.h' -printf ' %f')
base=engine/base picture=engine/picture
expect_none "$(
    layer engine/base $base
    layer engine/codec $base engine/codec
    layer $picture $base engine/codec/codec.h $picture
    layer engine/vulkan $base engine/vulkan
    layer engine/ops $base engine/vulkan engine/ops shaders/include
    layer engine/model $base engine/ops engine/model
    layer engine/pipeline $base $picture engine/codec/codec.h engine/ops engine/model \
        engine/pipeline engine/engine.h
    layer server/jobs $base $picture engine/codec/codec.h engine/engine.h server/jobs
    layer server/routes $base $picture engine/codec/codec.h server server/jobs server/routes server/web
)" "includes that look up"
expect_none "$(find engine server -name '*.[ch]' ! -path 'engine/codec/*' -print0 |
    xargs -0 grep -nE '^#include <(png|jpeglib|webp/.*)\.h>' || true)" \
    "image libraries outside engine/codec"

format=0
tests/style/format.sh || format=$?
[ "$format" = 0 ] || [ "$format" = 77 ] || bad=1
if command -v shellcheck >/dev/null 2>&1; then
    shellcheck run .ci/run tests/*/*.sh deploy/*.sh || bad=1
fi
[ "$bad" != 0 ] || exit "$format"
exit "$bad"
