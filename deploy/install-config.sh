#!/bin/sh
# install-config.sh SOURCE TARGET: the default configuration, unless there is one. Run by meson install.
set -eu
target=${DESTDIR:-}$2
[ -e "$target" ] || install -D -m 644 "$1" "$target"
