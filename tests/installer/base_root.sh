#!/usr/bin/env bash
# Makes the root folder of a bare Debian with systemd, for the tests that boot one: tests/installer/base_root.sh [FOLDER]
# Needs root, mmdebstrap and Debian's packages; about 30 s and 200 MB. Does nothing where the folder is there already.
set -euo pipefail
root=${1:-"$(dirname "${BASH_SOURCE[0]}")/../../.cache/roots/debian"}
[[ ! -e $root/etc/debian_version ]] || exit 0
mkdir -p "$(dirname "$root")"
scratch=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror=$(apt-get indextargets --format "\$(REPO_URI)" | head -n 1)
mmdebstrap --quiet --variant=essential --include=systemd,systemd-sysv,dbus,iproute2,procps,curl,ca-certificates \
  "$suite" "$scratch" "$mirror"
rm -f "$scratch/etc/hostname"
: >"$scratch/etc/machine-id"
for unit in systemd-udevd.service systemd-networkd-wait-online.service getty@tty1.service console-getty.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer; do
  ln -sf /dev/null "$scratch/etc/systemd/system/$unit"
done
chmod 755 "$scratch"
mv "$scratch" "$root"
trap - EXIT
