#!/bin/sh
# The Debian package on a fresh system: deb.sh [RELEASE...], by default Debian 12 and 13. For each
# release it builds the package with `./run deb` in one debootstrap root; in another it installs it,
# generates images, serves under systemd, upgrades, removes and purges it. Needs root, debootstrap and
# Debian's packages; the roots are outside the tree, in IMAGEND_ROOTS. A test (suite slow), also for manual use.
set -eu
root=$(readlink -f "$(dirname "$0")/../..")
roots=${IMAGEND_ROOTS:-/var/tmp/imagend-roots}

die() {
    printf 'deb: %s\n' "$*" >&2
    exit 1
}

# ---- roots ---------------------------------------------------------------------------------------

# fresh RELEASE NAME: a minimal Debian in $roots/NAME
fresh() {
    mkdir -p "$roots"
    if [ ! -f "$roots/base-$1.tar" ]; then
        rm -rf "$roots/base-$1"
        debootstrap --variant=minbase "$1" "$roots/base-$1" >"$roots/base-$1.log" 2>&1 ||
            die "debootstrap $1 failed; see $roots/base-$1.log"
        tar -C "$roots/base-$1" -cf "$roots/base-$1.tar.new" .
        mv "$roots/base-$1.tar.new" "$roots/base-$1.tar"
        rm -rf "$roots/base-$1"
    fi
    rm -rf "${roots:?}/$2"
    mkdir "$roots/$2"
    tar -C "$roots/$2" -xf "$roots/base-$1.tar"
    cp /etc/resolv.conf "$roots/$2/etc/resolv.conf"
}

# within NAME COMMAND...: run it in the root, with mounts that end with it. Only the environment that
# a login has, and a way to the network.
within() {
    name=$1
    shift
    unshare --mount --pid --fork --kill-child "$0" inside "$roots/$name" "$@"
}

inside() {
    chroot=$1
    shift
    mount -t proc proc "$chroot/proc"
    mount --rbind /dev "$chroot/dev"
    exec chroot "$chroot" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} \
        ${https_proxy:+https_proxy="$https_proxy"} DEBFULLNAME="${DEBFULLNAME:-imagend test}" \
        DEBEMAIL="${DEBEMAIL:-imagend@test.invalid}" "$@"
}

# ---- building ------------------------------------------------------------------------------------

build() {
    release=$1
    fresh "$release" "build-$release"
    mkdir "$roots/build-$release/src"
    "$root/deploy/deb.sh" --tree "$roots/build-$release/src"
    echo "deb: $release: building"
    within "build-$release" sh -c 'cd /src && ./run deb' >"$roots/build-$release.log" 2>&1 || {
        tail -n 40 "$roots/build-$release.log" >&2
        die "./run deb failed on $release"
    }
    cp "$roots/build-$release"/src/build-deb/imagend_*.deb "$roots/imagend-$release.deb"
    rm -rf "${roots:?}/build-$release"
}

# ---- the package on a bare system -----------------------------------------------------------------

# on COMMAND: in the bare root
on() { within "$bare" sh -c "$1"; }

expect() {
    on "$1" >"$roots/$bare.out" 2>&1 || {
        cat "$roots/$bare.out" >&2
        die "$release: this failed: $1"
    }
}

refuse() {
    ! on "$1" >"$roots/$bare.out" 2>&1 || die "$release: this should have failed: $1"
}

install_package() {
    cp "$roots/imagend-$release.deb" "$roots/$bare/tmp/imagend.deb"
    expect 'apt-get update -q && apt-get install -y -q --no-install-recommends /tmp/imagend.deb'
    expect 'id -u imagend && id -nG imagend | grep -q video && id -nG imagend | grep -q render'
    expect 'test -s /usr/share/man/man1/imagend.1.gz && test -s /usr/share/man/man5/imagend.conf.5.gz'
    expect 'imagend config check --config /etc/imagend/imagend.conf'
    # The service waits for the administrator.
    refuse 'ls /etc/systemd/system/*/imagend.service'
    version=$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$root/meson.build")
    expect "test \"\$(imagend --version)\" = 'imagend $version'"
    expect "test \"\$(dpkg-query -W -f='\${Version}' imagend)\" = '$version'"
    expect 'md5sum -c --quiet /var/lib/dpkg/info/imagend.md5sums'
}

# From a folder of its own, as a user without a home.
draw() {
    expect 'cd /var/tmp && setpriv --reuid nobody --regid nogroup --clear-groups imagend generate \
        "a red sphere on a wooden table" --size 64 --steps 2 --seed 1 -o red.png'
    expect 'grep -q "imagend '"$version"'" /var/tmp/red.png'
    expect 'head -c 4 /var/tmp/red.png | tail -c 3 | grep -q PNG'
}

try_unit='[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/try'

# The unit as it is, in a container with systemd and a network of its own.
serve() {
    expect 'apt-get install -y -q --no-install-recommends systemd curl'
    tree=$roots/$bare
    install -m 755 "$root/tests/deb/serve.sh" "$tree/usr/local/sbin/try"
    printf '%s\n' "$try_unit" >"$tree/etc/systemd/system/try.service"
    mkdir -p "$tree/etc/systemd/system/default.target.wants"
    ln -sf ../try.service "$tree/etc/systemd/system/default.target.wants/try.service"
    timeout 900 systemd-nspawn -q --register=no --keep-unit --private-network -b -D "$tree" \
        </dev/null >"$tree.boot" 2>&1 || true
    grep -qx served "$tree/var/log/try.log" || {
        tail -n 20 "$tree.boot" >&2
        tail -n 40 "$tree/var/log/try.log" >&2
        on 'journalctl -u imagend --no-pager | tail -n 20' >&2
        die "$release: the service does not serve"
    }
}

# An administrator's configuration survives; nothing but it survives removal, and nothing purging.
upgrade_and_remove() {
    expect 'echo "keep-jobs = 77" >>/etc/imagend/imagend.conf'
    expect 'dpkg -i --force-confold /tmp/imagend.deb && grep -q "keep-jobs = 77" /etc/imagend/imagend.conf'
    expect 'apt-get remove -y -q imagend && test -f /etc/imagend/imagend.conf'
    refuse 'command -v imagend'
    expect 'test -d /var/lib/imagend && apt-get purge -y -q imagend'
    refuse 'ls -d /etc/imagend /var/lib/imagend /var/cache/imagend /usr/share/imagend'
}

try() {
    release=$1
    bare=bare-$release
    fresh "$release" "$bare"
    install_package
    draw
    serve
    upgrade_and_remove
    rm -rf "${roots:?}/$bare"
    echo "deb: $release: installed, drew, served, upgraded, removed and purged"
}

if [ "${1:-}" = inside ]; then
    shift
    inside "$@"
fi
for tool in debootstrap unshare systemd-nspawn; do
    command -v "$tool" >/dev/null 2>&1 || {
        echo "skipped: $tool is not installed"
        exit 77
    }
done
if [ "$(id -u)" != 0 ]; then
    echo "skipped: needs root, to change the root"
    exit 77
fi
[ $# -gt 0 ] || set -- bookworm trixie
for release in "$@"; do
    build "$release"
    try "$release"
done
