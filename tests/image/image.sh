#!/bin/sh
# Builds the container image from the Dockerfile with buildah and a base image made by debootstrap, and
# runs it as an operator would: as an ordinary user, with a read-only root file system, without capabilities.
# Called by `./run image`; needs root, debootstrap, buildah, iproute2 and Debian's packages, but no
# registry and no container engine. All files are in the folder build-image.
set -eu
root=$(readlink -f "$(dirname "$0")/../..")
work=$root/build-image
limit=400000000

die() {
    printf 'image: %s\n' "$*" >&2
    exit 1
}

store() {
    command=$1
    shift
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$command" "$@"
}

# What makes debian:12-slim of a minimal Debian 12: no documentation, no translations, no lists.
make_base() {
    base=$work/base
    rm -rf "$base"
    debootstrap --variant=minbase bookworm "$base"
    for kept_out in doc groff info lintian linda locale man; do
        printf 'path-exclude /usr/share/%s/*\n' "$kept_out"
        rm -rf "${base:?}/usr/share/$kept_out"/*
    done >"$base/etc/dpkg/dpkg.cfg.d/docker"
    for left_over in var/lib/apt/lists var/cache/apt var/log dev; do
        rm -rf "${base:?}/$left_over"/*
    done
    printf 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin"; };\n' \
        >"$base/etc/apt/apt.conf.d/docker-clean"
    tar -C "$base" -cf "$work/base.tar.new" .
    mv "$work/base.tar.new" "$work/base.tar"
    rm -rf "$base"
}

build_image() {
    rm -rf "$work/storage" "$work/run"
    mkdir -p "$work"
    [ -f "$work/base.tar" ] || make_base
    base=$(store from scratch)
    store add -q "$base" "$work/base.tar" / >/dev/null
    store commit -q "$base" "localhost/debian:12-slim" >/dev/null
    store rm "$base" >/dev/null
    # The other format has no health check.
    store build --format docker --isolation chroot --pull-never --layers=false \
        -t localhost/imagend "$root"
}

# The image's file system, and what it says about how to run it, in $work.
unpack_image() {
    container=$(store from --pull-never localhost/imagend)
    store mount "$container" >"$work/root"
    config() { store inspect --type image --format "$1" localhost/imagend; }
    config '{{.OCIv1.Config.User}}' >"$work/user"
    config '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' >"$work/env"
    config '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' \
        >"$work/command"
    config '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | sed 1d >"$work/health"
}

check_size() {
    size=$(du -sxb "$(cat "$work/root")" | cut -f1)
    echo "image: $((size / 1000000)) MB, of which"
    (cd "$(cat "$work/root")" && du -xk --all . | sort -rn | awk -F'\t' '
        $2 ~ /\.(so|so\.[0-9.]+|safetensors)$|^\.\/(usr|usr\/share\/imagend|var|etc)$|imagend$/ && n++ < 12 {
            printf "  %6.1f MB  %s\n", $1 * 1024 / 1e6, $2 }')
    [ "$size" -lt "$limit" ] || die "the image is larger than $((limit / 1000000)) MB"
}

# ---- inside: with mounts and a network of its own ------------------------------------------------

# become COMMAND...: this process becomes one of the container.
become() {
    # shellcheck disable=SC2046 # one variable a line, none with spaces
    exec chroot --userspec="$user" --groups= "$image" setpriv --inh-caps=-all --bounding-set=-all \
        --no-new-privs env -i $(cat "$work/env") "$@"
}

inside() { (become "$@"); }

mount_image() {
    mount --bind "$image" "$image"
    mount -o remount,bind,ro "$image"
    mount -t proc proc "$image/proc"
    mount -t tmpfs dev "$image/dev"
    for device in null zero full random urandom; do
        : >"$image/dev/$device"
        mount --bind "/dev/$device" "$image/dev/$device"
    done
    for folder in var/cache/imagend var/lib/imagend; do
        owner=$(stat -c 'uid=%u,gid=%g' "$image/$folder")
        mount -t tmpfs -o "$owner,mode=755" volume "$image/$folder"
    done
    ip link set lo up
}

expect_refused() {
    ! inside sh -c "$1" 2>/dev/null || die "the container could do this: $1"
}

run_image() {
    image=$(cat "$work/root")
    user=$(cat "$work/user")
    case $user in
    '' | 0 | 0:* | root | root:*) die "the image runs as root" ;;
    esac
    mount_image
    expect_refused 'touch /usr/bin/x'
    expect_refused 'touch /tmp/x'
    # shellcheck disable=SC2046 # words without spaces
    become $(cat "$work/command") 2>"$work/log" &
    server=$!
    trap 'kill $server 2>/dev/null' EXIT
    for _ in $(seq 300); do
        inside curl -fs -o /dev/null http://127.0.0.1:8080/readyz && break
        kill -0 $server 2>/dev/null || break
        sleep 0.2
    done
    inside curl -fs -o /dev/null http://127.0.0.1:8080/readyz || {
        cat "$work/log" >&2
        die "the container did not become ready"
    }
    [ -s "$work/health" ] || die "there is no health check"
    # shellcheck disable=SC2046 # words without spaces
    inside $(cat "$work/health") >"$work/health.out" || die "the health check fails"
    inside curl -fsS --max-time 300 http://127.0.0.1:8080/v1/images/generations \
        -H 'Content-Type: application/json' -H 'Accept: image/png' \
        -d '{"prompt": "a red sphere on a wooden table", "size": "64x64", "seed": 1}' >"$work/first.png"
    [ "$(head -c 4 "$work/first.png" | tail -c 3)" = PNG ] || die "no picture came"
    kill -TERM $server
    code=0
    wait $server || code=$?
    trap - EXIT
    [ $code = 0 ] || die "after SIGTERM it ended with $code"
    echo "image: ready, healthy, drew $work/first.png, ended with 0"
}

if [ "${1:-}" = inside ]; then
    run_image
    exit
fi
[ "$(id -u)" = 0 ] || die "wants root, to mount and to change the root"
build_image
unpack_image
check_size
unshare --mount --net --pid --fork --kill-child "$0" inside
rm -rf "$work/storage" "$work/run"
