#!/bin/sh
# Makes the release tarball of the last commit and checks that it is complete: it is unpacked without git,
# built, tested (suites unit and style) and installed. Called by `./run dist`; dist.sh BUILD-FOLDER.
set -eu
root=$(readlink -f "$(dirname "$0")/..")
build=$1
work=$root/build-dist

version=$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$root/meson.build")
tarball=$build/meson-dist/imagend-$version.tar.xz
tree=$work/imagend-$version

meson dist -C "$build" --no-tests --formats xztar
rm -rf "$work"
mkdir -p "$work"
tar -C "$work" -xf "$tarball"
# Git also looks for a repository in parent folders.
export GIT_CEILING_DIRECTORIES="$work"
meson setup --buildtype=release "$tree/build" "$tree"
ninja -C "$tree/build"
meson test -C "$tree/build" --no-rebuild --print-errorlogs --suite unit --suite style
meson install -C "$tree/build" --no-rebuild --quiet --destdir "$work/installed"
program=$(find "$work/installed" -path '*/bin/imagend')
[ "$("$program" --version)" = "imagend $version" ] || {
    echo "dist: $program is not version $version" >&2
    exit 1
}
rm -rf "$work"
echo "dist: $tarball builds outside of git and passes its tests"
