#!/bin/sh
# driver.sh with the lavapipe of other Debian releases, each in a debootstrap root where `./run build`
# builds as a user would: roots.sh BUILD. A slow test; needs root, a Debian mirror, and 3 GB of disk in
# BUILD/roots, which is kept. RELEASES in the environment names some of them. Exits with 77 if none
# could run.
set -eu
build=$1
source=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
releases=${RELEASES:-bookworm trixie trixie-backports}
run=0

say() { printf '%s\n' "$*"; }

skip() {
    say "skipped: $*"
    exit 77
}

# The base system and nothing of this project, made once.
make_root() {
    [ ! -f "$root/made" ] || return 0
    rm -rf "$root"
    mkdir -p "$build/roots"
    debootstrap --variant=minbase "$base" "$root" >"$root.log" 2>&1 || {
        tail -n 3 "$root.log"
        return 1
    }
    mirror=$(sed -n 's/^deb \([^ ]*\) .*/\1/p' "$root/etc/apt/sources.list" | head -n 1)
    printf 'deb %s %s-backports main\n' "$mirror" "$base" >>"$root/etc/apt/sources.list"
    touch "$root/made"
}

# From nothing: objects of other sources, built later than these were written, would pass for theirs.
copy_source() {
    rm -rf "$root/src"
    mkdir -p "$root/src"
    tar -C "$source" --exclude='./build*' --exclude=./.git --exclude=./training/out \
        --exclude=node_modules -cf - . | tar -C "$root/src" -xf -
    cp /etc/resolv.conf "$root/etc/resolv.conf"
}

# In a mount namespace of its own: nothing stays mounted, whatever happens.
enter() {
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        DEBIAN_FRONTEND=noninteractive /src/tests/drivers/roots.sh /src/build within "$release"
}

# quietly COMMAND...: shows the end of what it said only when it fails.
quietly() {
    "$@" >/tmp/log 2>&1 || {
        tail -n 30 /tmp/log
        return 1
    }
}

# In the root of the other release.
within() {
    cd "$source"
    quietly apt-get update -q
    quietly ./run build
    quietly apt-get install -y -q --no-install-recommends --allow-downgrades \
        "mesa-vulkan-drivers/$release" || exit 77
    quietly ninja -C build
    dpkg-query -W mesa-vulkan-drivers
    exec tests/drivers/driver.sh lavapipe build all
}

case ${2:-} in
inside)
    root=$3
    release=$4
    enter
    ;;
within)
    release=$3
    within
    ;;
esac

[ "$(id -u)" = 0 ] || skip "roots of other releases can only be made by root"
for tool in debootstrap unshare chroot tar; do
    command -v "$tool" >/dev/null 2>&1 || skip "$tool is not installed"
done
copied=
# shellcheck source=/dev/null
own=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
for release in $releases; do
    [ "$release" != "$own" ] || continue # its lavapipe is the system's
    base=${release%-backports}
    root=$build/roots/$base
    say "== lavapipe of Debian $release"
    make_root || {
        say "skipped: no root of $base could be made"
        continue
    }
    # Another Mesa in the same root needs no other build.
    [ "$copied" = "$base" ] || copy_source
    copied=$base
    code=0
    unshare --mount "$0" "$build" inside "$root" "$release" || code=$?
    case $code in
    0) run=$((run + 1)) ;;
    77) say "skipped: there is no Mesa in $release" ;;
    *) exit "$code" ;;
    esac
done
[ "$run" != 0 ] || skip "no other release could be run"
