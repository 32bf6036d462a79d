#!/bin/sh
# Builds the bundle: a tarball that runs from any folder of an x86-64 Linux system with a Vulkan driver
# and this release's C library or a newer one. Called by `./run bundle`; bundle.sh [--programs].
# Programs for matrix units need a glslc that knows GL_KHR_cooperative_matrix: $GLSLC, else this
# system's, else Debian 13's, which is downloaded into build-bundle and is not part of the bundle.
set -eu
root=$(readlink -f "$(dirname "$0")/..")
build=$root/build-bundle
newer=$build/glslc

knows_matrix() {
    "$1" --target-env=vulkan1.2 -fshader-stage=compute -I"$root/shaders/include" \
        -I"$root/engine/ops" -DDT_F16=1 -DWT=1 "$root/shaders/matmul_matrix.comp" -o /dev/null 2>/dev/null
}

# apt-get with lists and a cache of its own, for packages of another release.
apt_of_trixie() {
    apt-get -q -o Dir::Etc::SourceList="$newer/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$newer/state" -o Dir::State::status="$newer/status" \
        -o Dir::Cache="$newer/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1 "$@"
}

# Debian 13's glslc with the libraries that it needs, run by its own loader.
fetch_glslc() {
    mkdir -p "$newer/state/lists/partial" "$newer/cache/archives/partial"
    : >"$newer/status"
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    printf 'deb %s trixie main\n' "$mirror" >"$newer/sources.list"
    apt_of_trixie update &&
        apt_of_trixie install -y --no-install-recommends --download-only glslc || return 1
    for package in "$newer"/cache/archives/*.deb; do
        dpkg -x "$package" "$newer/root"
    done
    libraries=$newer/root/usr/lib/x86_64-linux-gnu
    printf '#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %s %s "$@"\n' \
        "$libraries" "$libraries" "$newer/root/usr/bin/glslc" >"$newer/glslc"
    chmod +x "$newer/glslc"
}

choose_glslc() {
    for glslc in ${GLSLC:+"$GLSLC"} glslc "$newer/glslc"; do
        ! knows_matrix "$glslc" || return 0
    done
    glslc=$newer/glslc
    if command -v apt-get >/dev/null 2>&1 && fetch_glslc >"$build/glslc.log" 2>&1 &&
        knows_matrix "$glslc"; then
        return 0
    fi
    echo "bundle: no glslc with GL_KHR_cooperative_matrix; the kernels for matrix units are left out" >&2
    glslc=glslc
}

mkdir -p "$build"
choose_glslc
printf "[binaries]\nglslc = '%s'\n" "$(command -v "$glslc")" >"$build/native"
# RPATH rather than RUNPATH: the libraries find each other by it, too.
# shellcheck disable=SC2016 # the loader's own variable
rpath='-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib'
if [ ! -f "$build/tree/build.ninja" ] || ! cmp -s "$build/native" "$build/native.used"; then
    rm -rf "$build/tree"
    meson setup --buildtype=release --strip --native-file "$build/native" -Dtest_data=tests -Dopenblas=disabled \
        -Dc_link_args="$rpath" -Dcpp_link_args="$rpath" "$build/tree" "$root"
    cp "$build/native" "$build/native.used"
fi
ninja -C "$build/tree" all benchmarks
exec python3 -B "$root/deploy/bundle.py" "$root" "$build" "$@"
