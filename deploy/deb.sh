#!/bin/sh
# Builds the Debian package for the release that it runs on: from the current tree, with
# deploy/debian as debian/ and the changelog from CHANGELOG.md. Called by `./run deb`. lintian's complaints are errors.
# DEBFULLNAME and DEBEMAIL, or git's user, are the package's maintainer.
set -eu
root=$(readlink -f "$(dirname "$0")/..")
work=$root/build-deb

version=$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$root/meson.build")
name=${DEBFULLNAME:-$(git -C "$root" config user.name 2>/dev/null || true)}
email=${DEBEMAIL:-$(git -C "$root" config user.email 2>/dev/null || true)}
# A maintainer without an e-mail address, for a package that stays on this machine.
maintainer="${name:-local build} <${email:-imagend@localhost.invalid}>"

# Copies the sources, without build folders and downloads.
copy_tree() {
    if [ -e "$root/.git" ]; then
        git -C "$root" ls-files -z --cached --others --exclude-standard
    else
        (cd "$root" && find . -name 'build*' -prune -o -name node_modules -prune -o -type f -print0)
    fi | tar -C "$root" --null --ignore-failed-read -T - -cf - | tar -C "$1" -xf -
}

# Writes debian/changelog from CHANGELOG.md's sections of this version and of unreleased changes.
write_changelog() {
    awk -v version="[$version]" '
        function flush(   n, words, i, line) {
            n = split(item, words, " ")
            line = "  *"
            for (i = 1; i <= n; i++) {
                if (length(line) + 1 + length(words[i]) > 78) { print line; line = "   " }
                line = line " " words[i]
            }
            if (n) print line
            item = ""
        }
        /^## / { flush() }
        /^## / && ours { exit }
        /^## \[Unreleased\]/ { heading = "Unreleased: "; next }
        /^## / { if ($2 == version) { ours = 1; heading = "" } else heading = "-"; next }
        heading == "-" { next }
        /^### / { flush(); printf "\n  [ %s%s ]\n", heading, substr($0, 5); within = 1; next }
        /^- / && within { flush(); item = substr($0, 3); next }
        /^  / && item { item = item " " substr($0, 3) }
        END { flush() }
    ' "$root/CHANGELOG.md" >"$1.items"
    date=$(sed -n "s/^## \[$version\] - \(.*\)/\1/p" "$root/CHANGELOG.md")
    [ -n "$date" ] || {
        echo "deb: CHANGELOG.md has no section for version $version" >&2
        exit 1
    }
    {
        printf 'imagend (%s) unstable; urgency=medium\n' "$version"
        cat "$1.items"
        printf '\n -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "$date")"
    } >"$1"
    rm "$1.items"
}

# --tree FOLDER: only the sources, for a root that builds them.
if [ "${1:-}" = --tree ]; then
    copy_tree "$2"
    exit
fi
tree=$work/imagend-$version
rm -rf "$work"
mkdir -p "$tree"
copy_tree "$tree"
cp -R "$root/deploy/debian" "$tree/debian"
sed -i "s|@MAINTAINER@|$maintainer|" "$tree/debian/control"
write_changelog "$tree/debian/changelog"
(cd "$tree" && dpkg-buildpackage -b -us -uc)
lintian --no-cfg --fail-on error,warning "$work"/imagend_*.changes
echo "deb: $(ls "$work"/imagend_*.deb)"
