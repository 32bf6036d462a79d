#!/bin/sh
# Builds the bundle (deploy/bundle.sh), unpacks it into a folder with another name, and checks that no program
# there loads anything from outside but the C library and the Vulkan loader, that the program generates an image,
# and that bench/gpu.sh measures and reports. A slow test; 77 where it cannot be built.
set -eu
root=$(readlink -f "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
    printf 'bundle: %s\n' "$*" >&2
    exit 1
}

for tool in dpkg-query xz objdump strip meson ninja glslc; do
    command -v "$tool" >/dev/null 2>&1 || {
        echo "skipped: $tool is not installed"
        exit 77
    }
done
"$root/deploy/bundle.sh" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log"
    die "it could not be built"
}
tail -n 1 "$work/log"
tarball=$(ls "$root"/build-bundle/imagend-*-linux-x86_64.tar.xz)
mkdir "$work/a folder"
tar -C "$work/a folder" -xJf "$tarball"
bundle="$work/a folder/moved"
mv "$work/a folder"/imagend-* "$bundle"

for program in "$bundle"/libexec/*; do
    outside=$(ldd "$program" | awk -v bundle="$bundle/libexec/../lib/" '
        / => / && index($0, " => " bundle) == 0 { print $1 }' |
        grep -Ev '^(libc|libm|libdl|libpthread|librt|libresolv|libutil|libvulkan)\.so' || true)
    [ -z "$outside" ] || die "$program loads $outside from outside"
done
cd /
version=$("$bundle/bin/imagend" --version)
env -i HOME="$work/home" PATH=/usr/bin:/bin "$bundle/bin/imagend" generate "a red sphere" --size 64 \
    -o "$work/a.png" >"$work/log" 2>&1 || {
    cat "$work/log"
    die "no image"
}
[ "$(head -c 4 "$work/a.png" | tail -c 3)" = PNG ] || die "the image is no PNG"
for test in matmul norm; do
    (cd "$bundle" && IMAGEND_TEST_WAY=own bin/test_ops_$test >"$work/log" 2>&1) || {
        tail -n 20 "$work/log"
        die "ops $test failed"
    }
done
# The images of the bundle were drawn by lavapipe, so on lavapipe they are equal.
"$bundle/bench/gpu.sh" --only pixels --minutes 20 --out "$work/report"
grep -q '| pixels | ok |' "$work/report/report.md" || {
    cat "$work/report/report.md"
    die "the report has no images"
}
echo "bundle: $version runs from another folder"
