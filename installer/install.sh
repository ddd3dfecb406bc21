#!/bin/sh
# Installs a mycelium binary that is on this machine already, with its systemd unit.
#
#   sh installer/install.sh ./dist/mycelium-x86_64-unknown-linux-gnu
#   sh installer/install.sh --uninstall
#
# Running it again changes only what differs. Settings in /etc/mycelium are never touched.
# Environment, each with its default:
#   MYCELIUM_INSTALL_BIN_DIR=/usr/local/bin           where the binary goes
#   MYCELIUM_INSTALL_UNIT_DIR=/etc/systemd/system     where the unit goes
#   MYCELIUM_INSTALL_SKIP_ENABLE=                     non-empty: install, do not enable or start
#   MYCELIUM_INSTALL_PURGE=                           non-empty, with --uninstall: remove state and keys as well
# Options: --dry-run says what would be done and does nothing.
set -eu

BIN_DIR=${MYCELIUM_INSTALL_BIN_DIR:-/usr/local/bin}
UNIT_DIR=${MYCELIUM_INSTALL_UNIT_DIR:-/etc/systemd/system}
UNIT=mycelium-agent.service
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
DRY_RUN=
UNINSTALL=
BINARY=

die() {
  printf 'install.sh: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '  %s\n' "$2" >&2
  exit 1
}

say() {
  printf '%s\n' "$*"
}

run() {
  if [ -n "$DRY_RUN" ]; then
    say "would run: $*"
  else
    "$@"
  fi
}

# place SOURCE TARGET MODE: copies where the contents differ, by a rename, so that a running binary is not disturbed.
place() {
  if [ -f "$2" ] && cmp -s "$1" "$2"; then
    say "unchanged: $2"
    return 1
  fi
  say "install: $2"
  run install -D -m "$3" "$1" "$2.new"
  run mv -f "$2.new" "$2"
}

has_systemd() {
  [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1
}

check_machine() {
  [ "$(uname -s)" = Linux ] || die "this is $(uname -s), wanted Linux"
  case $(uname -m) in
    x86_64 | aarch64) ;;
    *) die "the program does not run on $(uname -m)" "It runs on x86_64 and aarch64." ;;
  esac
  for loader in /lib/ld-musl-*; do
    [ ! -e "$loader" ] || [ -e /lib64/ld-linux-x86-64.so.2 ] || [ -e /lib/ld-linux-aarch64.so.1 ] ||
      die "this system is built on musl, the program needs glibc" "Use Debian, Ubuntu, Fedora or another system with glibc."
  done
}

uninstall() {
  if has_systemd && systemctl cat "$UNIT" >/dev/null 2>&1; then
    run systemctl disable --now "$UNIT"
  fi
  for file in "$UNIT_DIR/$UNIT" "$BIN_DIR/mycelium"; do
    [ ! -e "$file" ] || run rm -f "$file"
  done
  if has_systemd; then run systemctl daemon-reload; fi
  if [ -n "${MYCELIUM_INSTALL_PURGE:-}" ]; then
    run rm -rf /var/lib/mycelium /var/lib/private/mycelium /etc/mycelium
  else
    say "kept: /var/lib/mycelium and /etc/mycelium (MYCELIUM_INSTALL_PURGE=1 removes them)"
  fi
}

for argument in "$@"; do
  case $argument in
    --dry-run) DRY_RUN=1 ;;
    --uninstall) UNINSTALL=1 ;;
    -h | --help)
      sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    -*) die "no option $argument" "See: sh install.sh --help" ;;
    *) BINARY=$argument ;;
  esac
done

[ -n "$DRY_RUN" ] || [ "$(id -u)" = 0 ] || [ -w "$BIN_DIR" ] || die "wanted root" "Run it with sudo."
if [ -n "$UNINSTALL" ]; then
  uninstall
  exit 0
fi

check_machine
[ -n "$BINARY" ] || die "no binary named" "Make one with: npx --yes deno@2.9.6 task compile"
[ -f "$BINARY" ] || die "there is no file $BINARY"
"$BINARY" version >/dev/null 2>&1 || die "$BINARY does not run on this machine" "It may be for another architecture: $(uname -m) is wanted."
changed=
place "$BINARY" "$BIN_DIR/mycelium" 755 && changed=1
place "$HERE/../systemd/$UNIT" "$UNIT_DIR/$UNIT" 644 && changed=1
if ! has_systemd; then
  say "no systemd here: start it with: $BIN_DIR/mycelium up"
elif [ -n "${MYCELIUM_INSTALL_SKIP_ENABLE:-}" ]; then
  say "not started: MYCELIUM_INSTALL_SKIP_ENABLE is set"
else
  [ -z "$changed" ] || run systemctl daemon-reload
  run systemctl enable "$UNIT"
  if [ -n "$changed" ]; then run systemctl restart "$UNIT"; else run systemctl start "$UNIT"; fi
  say "running: mycelium status --socket /run/mycelium/agent.sock"
fi
