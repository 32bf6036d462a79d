#!/bin/sh
# The operator, golden and engine suites on one Vulkan driver, and images that must equal lavapipe's:
# driver.sh lavapipe|swiftshader BUILD [all]. A test; 77 if the driver is not installed. Without `all`
# it draws images only, and if TEST_CASES is `all`, as with ./run test --slow, also runs a part of the
# suites: each operator with the driver's default kernels, the smallest fixtures, one stage; what these do not
# reach runs in a small U-Net that prefers it. Suites end with the coverage of the kernel table, and it fails if
# the driver could run a row but no suite did. Also called by roots.sh.
set -eu
driver=$1
build=$2
all=${3:-}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
golden=$here/../golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    printf 'driver %s: %s\n' "$driver" "$*" >&2
    exit 1
}

# find_icd NAME: the driver's JSON file, wherever Debian, its derivatives and Chrome put it.
find_icd() {
    case $1 in
    lavapipe) set -- /usr/share/vulkan/icd.d/lvp_icd*.json /etc/vulkan/icd.d/lvp_icd*.json ;;
    swiftshader)
        set -- /usr/lib/chromium/vk_swiftshader_icd.json \
            /usr/lib/chromium-browser/vk_swiftshader_icd.json \
            /opt/google/chrome/vk_swiftshader_icd.json
        ;;
    *) die "unknown driver; lavapipe or swiftshader" ;;
    esac
    for icd in "$@"; do
        [ ! -r "$icd" ] || printf '%s\n' "$icd"
    done | head -n 1
}

# on ICD COMMAND...: with this driver and no other. Loaders before 1.3.207 know the second name only.
on() {
    icd=$1
    shift
    VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd "$@"
}

began=$(date +%s)
step() {
    now=$(date +%s)
    printf '%4d s  %s\n' "$((now - began))" "$*"
}

check() {
    what=$1
    shift
    IMAGEND_KERNEL_LOG=$work/kernels.${what%%[ _]*} on "$own" "$@" >"$work/log" 2>&1 || {
        tail -n 40 "$work/log"
        die "$what failed"
    }
    step "$what: $(tail -n 1 "$work/log")"
}

# Prints how many bytes of two images differ, and by how much at most.
difference() {
    cmp -l "$1" "$2" | awk '
        function value(s,   v, i) {
            for (i = 1; i <= length(s); i++) v = 8 * v + substr(s, i, 1)
            return v
        }
        { d = value($2) - value($3); if (d < 0) d = -d; if (d > most) most = d; n++ }
        END { print n + 0, most + 0 }'
}

# compare_images MOST BYTES: with what lavapipe drew on Debian 12, but for MOST of 255 levels in BYTES
# of 768.
compare_images() {
    for seed in 1 2 3; do
        want=$here/images/$seed.ppm
        got=$work/$seed.ppm
        [ "$(wc -c <"$got")" = "$(wc -c <"$want")" ] || die "the image of seed $seed has another size"
        found=$(difference "$want" "$got")
        found_by="${found% *} bytes differ from lavapipe's, by up to ${found#* } levels"
        if [ "${found#* }" -gt "$1" ] || [ "${found% *}" -gt "$2" ]; then
            die "image of seed $seed: $found_by"
        fi
        step "image of seed $seed: $found_by"
    done
}

# The rows that this driver could run and no suite has run.
missing_rows() {
    while read -r row _ can; do
        [ "$can" != yes ] || grep -qs "^$row " "$work"/kernels.* || printf '%s\n' "$row"
    done <"$work/rows"
}

# How many builds of each row ran in each suite.
print_coverage() {
    printf '%-20s %6s' 'kernel row' builds
    for suite in $suites; do printf ' %7s' "$suite"; done
    printf '\n'
    while read -r row builds can; do
        printf '%-20s %6s' "$row" "$builds"
        if [ "$can" != yes ]; then
            printf '  not here: %s\n' "$can"
            continue
        fi
        for suite in $suites; do
            ran=$(grep -s "^$row " "$work/kernels.$suite" | sort -u | wc -l)
            printf ' %7s' "$ran"
        done
        printf '\n'
    done <"$work/rows"
}

check_coverage() {
    suites='ops golden engine images small'
    on "$own" "$build/tests/drivers/kernels" >"$work/rows" || die "the kernel table cannot be listed"
    for row in $(missing_rows); do
        for part in 't5-tiny/ f16' 'if-tiny-I/reference_unet f32' 'if-tiny-I/reference_unet f16'; do
            ! grep -qs "^$row " "$work/kernels.small" || continue
            # Weights are packed for the activations of a U-Net: in rows, as this kernel needs them,
            # only if its own kernel is wished for.
            export IMAGEND_KERNEL="$row"
            [ "$row" != matmul_matrix_split ] || IMAGEND_KERNEL=$row,matmul_matrix
            check "small $part with $row" env TEST_ONLY="${part% *}" "$build/tests/parity/golden" \
                "$golden" --quiet --dtype "${part#* }"
            unset IMAGEND_KERNEL
        done
    done
    print_coverage
    none=$(missing_rows)
    # shellcheck disable=SC2086 # a list of names
    [ -z "$none" ] || die "rows of the kernel table that ran in no suite:" $none
}

own=$(find_icd "$driver")
[ -n "$own" ] || {
    echo "skipped: the driver $driver is not installed"
    exit 77
}
device=$(on "$own" "$build/imagend" devices | head -n 1)
case $driver:$device in
lavapipe:*llvmpipe* | swiftshader:*SwiftShader*) step "$device ($own)" ;;
*) die "$own opens another device: $device" ;;
esac

check_suites() {
    export TEST_CASES=all
    [ -n "$all" ] || export IMAGEND_TEST_WAY=own
    for ops in "$build"/tests/ops/test_ops_*; do
        [ ! -d "$ops" ] || continue
        case ${all:-part}:$ops in
        part:*_tune | part:*_stream) ;; # what they test is the same on each driver
        *) check "${ops##*/test_}" "$ops" ;;
        esac
    done
    if [ -n "$all" ]; then
        check golden "$build/tests/parity/golden" "$golden" --quiet
        check 'golden f16' "$build/tests/parity/golden" "$golden" --quiet --dtype f16
        check engine "$build/tests/engine/test_engine"
    else
        for part in t5-tiny schedulers/ if-tiny-I/reference_unet; do
            check "golden $part" env TEST_ONLY="$part" "$build/tests/parity/golden" "$golden" --quiet
        done
        check engine "$build/tests/engine/test_engine" small
    fi
}

if [ -n "$all" ] || [ "${TEST_CASES:-}" = all ]; then
    check_suites
fi
check images "$build/tests/drivers/draw" "$golden/if-tiny-I" 16 "$work" "a cat" 1 2 3
[ -s "$work/kernels.images" ] || die "the kernels that ran are not listed"
case $device in
*llvmpipe*256*bits*) compare_images 0 0 ;;
# Other lanes, other orders of sums, another exp: bytes that are next to a rounding boundary may fall
# on its other side.
*) compare_images 1 8 ;;
esac
[ ! -f "$work/kernels.golden" ] || check_coverage
