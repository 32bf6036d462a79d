#!/bin/sh
# Starts a program of a bundle. Each file in bin is a link to this script and starts the program of the
# same name in libexec. A process has room for one C++ library, which the bundle's programs share with
# the Vulkan driver: if the system's is newer than the bundle's, it is used, as the driver may need it.
set -eu
self=$(readlink -f "$0")
root=${self%/*/*}
own=@STDCXX@
folders='/usr/lib/x86_64-linux-gnu /lib/x86_64-linux-gnu /usr/lib64 /lib64 /usr/lib'

# system NAME: the system's library of that name, or nothing.
system() {
    for folder in $folders; do
        [ ! -r "$folder/$1" ] || {
            readlink -f "$folder/$1"
            return
        }
    done
}

theirs=$(system libstdc++.so.6)
case ${theirs##*.so.6.0.} in
'' | *[!0-9]*) ;;
*)
    if [ "${theirs##*.so.6.0.}" -gt "$own" ]; then
        gcc=$(system libgcc_s.so.1)
        export LD_PRELOAD="$theirs${gcc:+:$gcc}${LD_PRELOAD:+:$LD_PRELOAD}"
    fi
    ;;
esac
# A bare machine may have a driver without the Vulkan loader and the libraries of X that NVIDIA's needs.
if [ -n "${IMAGEND_OWN_LOADER:-}" ] || [ -z "$(system libvulkan.so.1)" ]; then
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$root/lib/loader"
fi
exec "$root/libexec/${0##*/}" "$@"
