#!/bin/sh
# install-config.sh SOURCE TARGET: installs the default configuration, unless one exists. Run by meson install.
set -eu
target=${DESTDIR:-}$2
[ -e "$target" ] || install -D -m 644 "$1" "$target"
