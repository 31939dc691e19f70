#!/usr/bin/env bash
# Runs a command that cargo has built as user 65534 (nobody), who has no group, no capability, and a home of his own.
#
# This directory, or the way to it, may be closed to him. In a mount namespace of our own it is opened: an empty directory
# takes the place of what is closed, and in it stands nothing but the content of this one.
set -euo pipefail

root=$(pwd -P)
if [[ ${ORDINARY_INSIDE-} != 1 ]]; then
    ORDINARY_INSIDE=1 exec unshare --mount --propagation private -- bash "$0" "$@"
fi

# The first directory on the way from / that others may not enter.
closed=
for ((at = 1; at <= ${#root}; at++)); do
    [[ ${root:at:1} == / || $at == "${#root}" ]] || continue
    mode=$(stat -c %a "${root:0:at}")
    if (((8#$mode & 1) == 0)); then
        closed=${root:0:at}
        break
    fi
done
if [[ -n $closed ]]; then
    aside=$(mktemp -d /dev/shm/ordinary-XXXXXX)
    mount --bind "$root" "$aside"
    mount -t tmpfs -o mode=755 ordinary "$closed"
    mkdir -p "$root"
    shopt -s dotglob
    for entry in "$aside"/*; do
        place=$root/${entry##*/}
        if [[ -d $entry ]]; then mkdir "$place"; else : >"$place"; fi
        mount --bind "$entry" "$place"
    done
    umount "$aside"
    rmdir "$aside"
    cd "$root"
fi

home=$(mktemp -d /tmp/ordinary-XXXXXX)
trap 'rm -rf "$home"' EXIT
chown 65534:65534 "$home"
env -u ORDINARY_INSIDE HOME="$home" TMPDIR="$home" \
    setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --ambient-caps=-all "$@"
