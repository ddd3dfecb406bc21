#!/bin/sh
# Installs mycelium and its service on this machine, upgrades it, takes it off again.
#
#   curl -fsSL https://example.net/mycelium/install.sh | sh
#   MYCELIUM_INSTALL_FROM=mycelium-0.1.0-bundle.tar sh install.sh      # without a network
#
# A second run changes only what differs; an upgrade whose agent does not become ready goes back to what ran before.
# Nothing is placed whose checksum is not in a list signed by the key in this script. Settings and state are never touched.
#
# Options and variables: sh install.sh --help, or usage() below.

set -eu
umask 022

# A release has its own values here, see tools/release.ts.
VERSION='@VERSION@'
PUBLIC_KEY='@PUBLIC_KEY@' # SubjectPublicKeyInfo, base64
SSH_KEY='@SSH_KEY@'
GPG_KEY='@GPG_KEY@' # an OpenPGP certificate, base64
RELEASE_URL='@RELEASE_URL@'

UNIT=mycelium-agent.service
KERNEL_MIN=5.4
GLIBC_MIN=2.27
SYSTEMD_MIN=245

die() {
  printf 'install.sh: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '  %s\n' "$2" >&2
  exit 1
}

say() {
  printf '%s\n' "$*"
}

# run COMMAND…: does it, or says it where nothing is to be changed.
run() {
  if [ -n "$DRY_RUN" ]; then say "would run: $*"; else "$@"; fi
}

usage() {
  cat <<'TEXT'
Options:
  --dry-run      say what would be done, change nothing (downloads go to a temporary folder)
  --rollback     go back to what ran before the last upgrade
  --uninstall    the same as mycelium-uninstall; with --purge also settings, state and keys
  --version      print the version that this script installs
  --help         print this

Variables, each with its default. Those marked * are kept in install.conf and hold for later runs.
  MYCELIUM_INSTALL_URL=             * folder of the release, http(s)://…; a release has its own inside
  MYCELIUM_INSTALL_FROM=              a folder or a bundle file instead of the network
  MYCELIUM_INSTALL_NETWORK=           form a network of this name where this node has none
  MYCELIUM_INVITE_FILE=               join with the invite in this file where this node has no network
  MYCELIUM_INSTALL_CONFIG=            becomes config.yaml where there is none
  MYCELIUM_INSTALL_BIN_DIR=/usr/local/bin             * the program and mycelium-uninstall
  MYCELIUM_INSTALL_LIB_DIR=/usr/local/lib/mycelium    * what ran before the last upgrade
  MYCELIUM_INSTALL_UNIT_DIR=/etc/systemd/system       * the unit
  MYCELIUM_INSTALL_CACHE_DIR=/var/cache/mycelium      * downloads that were cut off
  MYCELIUM_INSTALL_SKIP_USER=         non-empty: do not make the user and group mycelium
  MYCELIUM_INSTALL_SKIP_ENABLE=       non-empty: do not enable the service
  MYCELIUM_INSTALL_SKIP_START=        non-empty: do not start or restart the service
  MYCELIUM_INSTALL_SKIP_CHECKS=       non-empty: install although this machine is none that the program is made for
  MYCELIUM_INSTALL_READY_SEC=90       time that a started agent has until it is ready
  MYCELIUM_INSTALL_SETTLE_SEC=5       time that it must stay so
  MYCELIUM_INSTALL_TRIES=5            tries of each download; each goes on where the last was cut off
  MYCELIUM_INSTALL_ROOT=              install below this folder (an image); no service is started
  MYCELIUM_INSTALL_PURGE=             non-empty: as --purge
Downloads go through http_proxy, https_proxy and no_proxy.
TEXT
}

# setting NAME DEFAULT: from the environment, else from the last installation, else the default.
setting() {
  eval "value=\${MYCELIUM_INSTALL_$1-}"
  if [ -z "$value" ] && [ -r "$CONF" ]; then value=$(sed -n "s/^$1=//p" "$CONF" | tail -n 1); fi
  eval "$1=\${value:-\$2}"
}

read_settings() {
  ROOT=${MYCELIUM_INSTALL_ROOT:-}
  ROOT=${ROOT%/}
  [ -z "$ROOT" ] || [ -d "$ROOT" ] || die "there is no folder $ROOT"
  CONF=$ROOT/etc/mycelium/install.conf
  case $RELEASE_URL in @*) RELEASE_URL= ;; esac
  # A newer script brings its own address; one without takes the last.
  if [ -n "$RELEASE_URL" ]; then URL=${MYCELIUM_INSTALL_URL:-$RELEASE_URL}; else setting URL ''; fi
  URL=${URL%/}
  setting BIN_DIR /usr/local/bin
  setting LIB_DIR /usr/local/lib/mycelium
  setting UNIT_DIR /etc/systemd/system
  setting CACHE_DIR /var/cache/mycelium
  for value in "$BIN_DIR" "$LIB_DIR" "$UNIT_DIR" "$CACHE_DIR"; do
    case $value in
      *[!A-Za-z0-9/._+-]*) die "cannot use the folder \"$value\"" "Letters, digits and / . _ + - only." ;;
      /*) ;;
      *) die "cannot use the folder \"$value\": wanted one that starts with /" ;;
    esac
  done
  FROM=${MYCELIUM_INSTALL_FROM:-}
  READY_SEC=${MYCELIUM_INSTALL_READY_SEC:-90}
  SETTLE_SEC=${MYCELIUM_INSTALL_SETTLE_SEC:-5}
  TRIES=${MYCELIUM_INSTALL_TRIES:-5}
  SOCKET=/run/mycelium/agent.sock
  PROGRAM=$ROOT$BIN_DIR/mycelium
}

# older A B: whether version A is older than version B.
older() {
  [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

check_machine() {
  [ -z "${MYCELIUM_INSTALL_SKIP_CHECKS:-}" ] || return 0
  cure='Wanted: Linux on x86_64 or aarch64 with glibc and systemd, for example Debian 12, Ubuntu 22.04, Raspberry Pi OS (64-bit).'
  [ "$(uname -s)" = Linux ] || die "this is $(uname -s)" "$cure"
  case $MACHINE in
    x86_64 | aarch64) ;;
    armv*) die "the program does not run on 32-bit ARM ($MACHINE)" \
      "Most boards of the last ten years are 64-bit: install the 64-bit image of your system (Raspberry Pi OS 64-bit)." ;;
    *) die "the program does not run on $MACHINE" "$cure" ;;
  esac
  for loader in "$ROOT"/lib/ld-musl-*; do
    [ ! -e "$loader" ] || [ -e "$ROOT/lib64/ld-linux-x86-64.so.2" ] || [ -e "$ROOT/lib/ld-linux-aarch64.so.1" ] ||
      die "this system is built on musl, the program needs glibc" "$cure"
  done
  [ -z "$ROOT" ] || return 0
  # A 64-bit kernel under a 32-bit system: the default of older Raspberry Pi OS.
  [ "$(getconf LONG_BIT 2>/dev/null || echo 64)" = 64 ] ||
    die "the kernel is 64-bit, the system on it is 32-bit" "Install the 64-bit image of your system (Raspberry Pi OS 64-bit)."
  kernel=$(uname -r)
  ! older "${kernel%%-*}" "$KERNEL_MIN" || die "the kernel is $kernel, wanted $KERNEL_MIN or newer" "Upgrade the system. $cure"
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo)
  [ -z "$glibc" ] || ! older "${glibc#glibc }" "$GLIBC_MIN" || die "this is $glibc, wanted $GLIBC_MIN or newer" "Upgrade the system. $cure"
  command -v systemctl >/dev/null 2>&1 || die "there is no systemd on this machine" \
    "Without it run the program by hand or by your own service manager: mycelium up. $cure"
  systemd=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
  [ "${systemd:-0}" -ge "$SYSTEMD_MIN" ] || die "this is systemd $systemd, wanted $SYSTEMD_MIN or newer" "Upgrade the system. $cure"
  [ -d /run/systemd/system ] || [ -n "${MYCELIUM_INSTALL_SKIP_START:-}" ] || die "systemd does not run this machine (a container?)" \
    "MYCELIUM_INSTALL_SKIP_START=1 installs without starting; or run it by hand: mycelium up"
}

# ---- Getting the release: nothing here writes outside of $WORK and the cache.

# fetch NAME: brings a file of the release to $WORK/NAME; a part of it that is in the cache is continued.
fetch() {
  if [ -d "$FROM" ]; then
    [ -f "$FROM/$1" ] || die "there is no $1 in $FROM" "Copy the whole folder of the release."
    cp "$FROM/$1" "$WORK/$1" || die "cannot copy $FROM/$1" "Is the disk full?"
  elif [ -n "$FROM" ]; then
    tar -xOf "$FROM" "$1" >"$WORK/$1" 2>/dev/null || die "cannot read $1 from $FROM" \
      "Is it a whole bundle of mycelium $VERSION (mycelium-$VERSION-bundle.tar), and is there space in $WORK?"
  else
    download "$URL/$1" "$PARTS/$1"
    mv "$PARTS/$1" "$WORK/$1"
  fi
}

download() {
  try=1
  while ! get "$1" "$2"; do
    [ "$try" -lt "$TRIES" ] || die "cannot download $1: $reason, tried $TRIES times" \
      "Run it again when the network is back: it goes on where it was cut off. Behind a proxy set https_proxy (sudo drops it: sudo -E)."
    say "download of ${1##*/} was cut off ($reason), goes on in $try s"
    sleep "$try"
    try=$((try + 1))
  done
}

get() {
  size=$(wc -c 2>/dev/null <"$2" || echo 0)
  if command -v curl >/dev/null 2>&1; then
    # A server that stalls is given up after 30 s; one that cannot continue (33, or 22 for a 416) begins anew.
    curl -fsSL --connect-timeout 15 --speed-limit 1 --speed-time 30 -C "$((size))" -o "$2" "$1" 2>"$WORK/error" && return 0
    status=$?
    reason=$(tail -n 1 "$WORK/error" 2>/dev/null || echo "curl ended with $status")
    case $status in
      22)
        case $reason in *40[134]*) die "cannot download $1: $reason" "Is MYCELIUM_INSTALL_URL the folder of release $VERSION?" ;; esac
        rm -f "$2"
        ;;
      33 | 36) rm -f "$2" ;;
      23) die "cannot write $2: $reason" "Is the disk full? It needs 200 MB. MYCELIUM_INSTALL_CACHE_DIR names another place." ;;
    esac
  elif command -v wget >/dev/null 2>&1; then
    wget -q -c -t 1 -T 30 -O "$2" "$1" 2>"$WORK/error" && return 0
    status=$?
    reason="wget ended with $status"
    [ "$status" != 3 ] || die "cannot write $2" "Is the disk full? It needs 200 MB. MYCELIUM_INSTALL_CACHE_DIR names another place."
    [ "$status" != 8 ] || rm -f "$2"
  else
    die "there is neither curl nor wget on this machine" "Install one (apt-get install curl ca-certificates), or bring a bundle: MYCELIUM_INSTALL_FROM"
  fi
  return 1
}

# verify_list: whether SHA256SUMS is signed by the key in this script, by the first program here that can tell.
verify_list() {
  list=$WORK/SHA256SUMS
  case $(openssl version 2>/dev/null) in
    'OpenSSL '[3-9].*)
      printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$PUBLIC_KEY" >"$WORK/key.pem"
      fetch SHA256SUMS.sig
      verifier=openssl
      openssl pkeyutl -verify -pubin -inkey "$WORK/key.pem" -rawin -in "$list" -sigfile "$WORK/SHA256SUMS.sig" >/dev/null 2>&1
      return
      ;;
  esac
  if command -v ssh-keygen >/dev/null 2>&1; then
    printf 'mycelium namespaces="mycelium-release" %s\n' "$SSH_KEY" >"$WORK/signers"
    fetch SHA256SUMS.sshsig
    verifier=ssh-keygen
    ssh-keygen -Y verify -f "$WORK/signers" -I mycelium -n mycelium-release -s "$WORK/SHA256SUMS.sshsig" <"$list" >/dev/null 2>&1
    return
  fi
  if command -v gpgv >/dev/null 2>&1; then
    printf %s "$GPG_KEY" | base64 -d >"$WORK/key.gpg"
    fetch SHA256SUMS.gpg
    verifier=gpgv
    gpgv --homedir "$WORK" --keyring "$WORK/key.gpg" "$WORK/SHA256SUMS.gpg" "$list" >/dev/null 2>&1
    return
  fi
  die "no program on this machine can check the release's signature" \
    "Wanted one of: openssl 3, ssh-keygen, gpgv. For example: apt-get install openssl"
}

# sum_of NAME: the checksum that the signed list has for it.
sum_of() {
  sum=$(sed -n "s/^\([0-9a-f]\{64\}\)  $1\$/\1/p" "$WORK/SHA256SUMS")
  [ ${#sum} = 64 ] || die "the release's list names no $1" "It may be the list of another version: this script installs $VERSION."
  printf %s "$sum"
}

is_sum() {
  [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -c 1-64)" = "$2" ]
}

# fetch_checked NAME: fetches a file, and refuses it where its checksum is not the signed one.
fetch_checked() {
  wanted=$(sum_of "$1")
  fetch "$1"
  is_sum "$WORK/$1" "$wanted" && return 0
  # Continued from the part of another build, say: once more from the start.
  if [ -z "$FROM" ]; then
    rm -f "$WORK/$1"
    fetch "$1"
    is_sum "$WORK/$1" "$wanted" && return 0
  fi
  die "refused: $1 is not what was released (its SHA-256 differs from the signed list)" \
    "It was changed or damaged on the way. Nothing was installed."
}

get_release() {
  case $VERSION in @*) die "this script is of no release: it has no key to check one with" \
    "Take install.sh from a release; deno task release makes one in dist/release." ;; esac
  [ -n "$FROM$URL" ] || die "it is not said where the release is" \
    "Set MYCELIUM_INSTALL_URL to its folder, or MYCELIUM_INSTALL_FROM to a folder or bundle on this machine."
  [ -z "$FROM" ] || [ -e "$FROM" ] || die "there is no $FROM"
  [ -n "$FROM" ] || case $URL in http://* | https://*) ;; *) die "cannot use MYCELIUM_INSTALL_URL \"$URL\"" "Wanted http://… or https://…" ;; esac
  # curl reads the proxy for http from the small letters only.
  [ -z "${HTTP_PROXY:-}" ] || [ -n "${http_proxy:-}" ] || export http_proxy="$HTTP_PROXY"
  PARTS=$WORK/parts
  if [ -z "$DRY_RUN" ] && [ -z "$FROM" ]; then
    [ -d "$ROOT$CACHE_DIR" ] || made_cache=1
    PARTS=$ROOT$CACHE_DIR/$VERSION
  fi
  mkdir -p "$PARTS"
  # The list is small and may be new: never continued.
  rm -f "$PARTS"/SHA256SUMS*
  fetch SHA256SUMS
  verify_list || die "refused: the release is not signed by the key in this script ($verifier says so)" \
    "Somebody changed it, or the script and the release do not belong together. Nothing was installed."
  say "signature: good ($verifier)"
  BINARY=mycelium-$VERSION-$MACHINE-unknown-linux-gnu
  BINARY_SUM=$(sum_of "$BINARY")
  fetch_checked "mycelium-$VERSION-agent.service"
  sed "s|/usr/local/bin/mycelium |$BIN_DIR/mycelium |" "$WORK/mycelium-$VERSION-agent.service" >"$WORK/$UNIT"
  if is_sum "$PROGRAM" "$BINARY_SUM"; then
    NEW_BINARY=
  elif [ -n "$DRY_RUN" ]; then
    sum_of "$BINARY.gz" >/dev/null
    NEW_BINARY=1
  else
    fetch_checked "$BINARY.gz"
    NEW_BINARY=1
  fi
}

# ---- Changing the machine: first all new files beside the old ones, then renames.

# stage TARGET MODE: puts stdin beside TARGET, on the disk for good.
stage() {
  mkdir -p "${1%/*}" && cat >"$1.new" && chmod "$2" "$1.new" && sync "$1.new"
}

make_user() {
  [ -z "${MYCELIUM_INSTALL_SKIP_USER:-}" ] || return 0
  ! grep -q '^mycelium:' "$ROOT/etc/passwd" 2>/dev/null || return 0
  say "user and group: mycelium"
  # shellcheck disable=SC2086 # No word where it is empty.
  run systemd-sysusers ${ROOT:+--root="$ROOT"} --inline 'u mycelium - "Mycelium agent" /var/lib/mycelium /usr/sbin/nologin'
}

write_conf() {
  for name in URL BIN_DIR LIB_DIR UNIT_DIR CACHE_DIR; do
    eval "printf '%s=%s\n' $name \"\$$name\""
  done
}

write_uninstall() {
  cat <<TEXT
#!/bin/sh
# Takes mycelium off this machine; made by install.sh $VERSION. Options: --dry-run, --purge (settings, state and keys too).
set -eu
ROOT='$ROOT' BIN_DIR='$BIN_DIR' LIB_DIR='$LIB_DIR' UNIT_DIR='$UNIT_DIR' CACHE_DIR='$CACHE_DIR'
UNIT='$UNIT'
TEXT
  cat <<'TEXT'
DRY_RUN='' PURGE=${MYCELIUM_INSTALL_PURGE:-}
for argument in "$@"; do
  case $argument in
    --dry-run) DRY_RUN=1 ;;
    --purge) PURGE=1 ;;
    *) echo "mycelium-uninstall: no option $argument, wanted --dry-run or --purge" >&2; exit 2 ;;
  esac
done
run() { if [ -n "$DRY_RUN" ]; then echo "would run: $*"; else "$@"; fi; }
remove() { for path; do [ ! -e "$path" ] && [ ! -L "$path" ] || run rm -rf "$path"; done; }
[ -n "$DRY_RUN" ] || [ "$(id -u)" = 0 ] || { echo "mycelium-uninstall: wanted root: run it with sudo" >&2; exit 1; }
if [ -z "$ROOT" ] && [ -d /run/systemd/system ]; then
  run systemctl disable --quiet --now "$UNIT" 2>/dev/null || true
  run systemctl reset-failed "$UNIT" 2>/dev/null || true
fi
remove "$ROOT$UNIT_DIR/multi-user.target.wants/$UNIT" "$ROOT$UNIT_DIR/$UNIT" "$ROOT$UNIT_DIR/$UNIT.d"
if [ -z "$ROOT" ] && [ -d /run/systemd/system ]; then run systemctl daemon-reload; fi
remove "$ROOT$BIN_DIR/mycelium" "$ROOT$LIB_DIR" "$ROOT$CACHE_DIR"
[ -n "$ROOT" ] || remove /run/mycelium
if [ -n "$PURGE" ]; then
  remove "$ROOT/var/lib/mycelium" "$ROOT/etc/mycelium"
  if grep -q '^mycelium:' "$ROOT/etc/passwd"; then run userdel ${ROOT:+--root "$ROOT"} mycelium; fi
  if grep -q '^mycelium:' "$ROOT/etc/group"; then run groupdel ${ROOT:+--root "$ROOT"} mycelium; fi
  # Copies from before the last change.
  for file in passwd group shadow gshadow; do
    ! grep -q '^mycelium:' "$ROOT/etc/$file-" 2>/dev/null || run sed -i '/^mycelium:/d' "$ROOT/etc/$file-"
  done
else
  # The user stays with the files that are his: his number must not go to somebody else.
  echo "kept: /var/lib/mycelium, /etc/mycelium and the user mycelium (--purge removes them)"
fi
remove "$ROOT$BIN_DIR/mycelium-uninstall"
TEXT
}

# save_previous: what runs now is kept for a rollback; a link where the disk allows, so that it needs no space.
save_previous() {
  PREVIOUS=$ROOT$LIB_DIR/previous
  rm -rf "$PREVIOUS.new" && mkdir -p "$PREVIOUS.new" &&
    { ln "$PROGRAM" "$PREVIOUS.new/mycelium" 2>/dev/null || cp -p "$PROGRAM" "$PREVIOUS.new/mycelium"; } &&
    { [ ! -f "$ROOT$UNIT_DIR/$UNIT" ] || cp -p "$ROOT$UNIT_DIR/$UNIT" "$PREVIOUS.new/$UNIT"; } &&
    rm -rf "$PREVIOUS" && mv "$PREVIOUS.new" "$PREVIOUS"
}

# differs FILE TARGET
differs() {
  ! cmp -s "$1" "$2"
}

place_all() {
  changed=
  { write_conf >"$WORK/install.conf" && write_uninstall >"$WORK/mycelium-uninstall"; } || die "cannot write to $WORK" "Is the disk full?"
  for one in "$WORK/$UNIT:$ROOT$UNIT_DIR/$UNIT:644" "$WORK/mycelium-uninstall:$ROOT$BIN_DIR/mycelium-uninstall:755" \
    "$WORK/install.conf:$CONF:600" "${MYCELIUM_INSTALL_CONFIG:-}:$ROOT/etc/mycelium/config.yaml:644"; do
    file=${one%%:*} target=${one#*:} mode=${one##*:}
    target=${target%:*}
    [ -n "$file" ] || continue
    case $target in */config.yaml) [ ! -e "$target" ] || continue ;; esac
    if differs "$file" "$target"; then
      if [ -n "$DRY_RUN" ]; then
        say "would install: $target"
      else
        STAGED="$STAGED $target.new"
        stage "$target" "$mode" <"$file" || full "$target"
      fi
      [ "${target##*/}" != "$UNIT" ] || changed=1
    else
      say "unchanged: $target"
    fi
  done
  if [ -z "$NEW_BINARY" ]; then
    say "unchanged: $PROGRAM"
  elif [ -n "$DRY_RUN" ]; then
    say "would install: $PROGRAM (mycelium $VERSION)"
    changed=1
  else
    STAGED="$STAGED $PROGRAM.new"
    gzip -dc <"$WORK/$BINARY.gz" | stage "$PROGRAM" 755 || full "$PROGRAM"
    is_sum "$PROGRAM.new" "$BINARY_SUM" || full "$PROGRAM"
    "$PROGRAM.new" version >/dev/null 2>&1 || [ -n "$ROOT" ] || die "mycelium $VERSION does not run on this machine" \
      "$("$PROGRAM.new" version 2>&1 | tail -n 3) Nothing was installed."
    changed=1
  fi
  [ -z "$DRY_RUN" ] || return 0
  if [ -n "$changed" ] && [ -f "$PROGRAM" ]; then save_previous || full "$ROOT$LIB_DIR"; fi
  for file in $STAGED; do
    say "install: ${file%.new}"
    mv -f "$file" "${file%.new}"
  done
  STAGED=
}

full() {
  die "cannot write $1" "Is the disk full? It needs 200 MB there. Nothing was installed."
}

has_systemd() {
  [ -z "$ROOT" ] && [ -d /run/systemd/system ]
}

member() {
  "$PROGRAM" status --socket "$SOCKET" --exit-code --quiet >/dev/null 2>&1
}

# ready WHAT: waits until the agent runs, answers and stays; where WHAT is "member", until it is one again.
ready() {
  waited=0 stayed=0 pid=
  while [ "$waited" -lt "$READY_SEC" ]; do
    sleep 1
    waited=$((waited + 1))
    now=$(systemctl show -p ActiveState -p MainPID -p NRestarts "$UNIT" | sort | tr '\n' ' ')
    case $now in
      ActiveState=failed*) return 1 ;;
      ActiveState=active*NRestarts=0*) ;;
      *NRestarts=0*) stayed=0 && continue ;;
      # It ended by itself.
      *) return 1 ;;
    esac
    [ "$now" = "$pid" ] || stayed=0
    pid=$now
    if [ "$1" = member ]; then member; else "$PROGRAM" status --socket "$SOCKET" --quiet >/dev/null 2>&1; fi || continue
    stayed=$((stayed + 1))
    [ "$stayed" -le "$SETTLE_SEC" ] || return 0
  done
  return 1
}

restart() {
  systemctl daemon-reload
  systemctl reset-failed "$UNIT" 2>/dev/null || true
  systemctl stop "$UNIT" 2>/dev/null || true
  systemctl start --no-block "$UNIT"
}

# back: puts the files of $PREVIOUS in their places again.
back() {
  PREVIOUS=$ROOT$LIB_DIR/previous
  mv -f "$PREVIOUS/mycelium" "$PROGRAM"
  [ ! -f "$PREVIOUS/$UNIT" ] || mv -f "$PREVIOUS/$UNIT" "$ROOT$UNIT_DIR/$UNIT"
  rm -rf "$PREVIOUS"
  rmdir "$ROOT$LIB_DIR" 2>/dev/null || true
}

start() {
  if [ -z "${MYCELIUM_INSTALL_SKIP_ENABLE:-}" ]; then
    [ -L "$ROOT$UNIT_DIR/multi-user.target.wants/$UNIT" ] ||
      run systemctl ${ROOT:+--root="$ROOT"} enable --quiet "$UNIT"
  fi
  if [ -n "${MYCELIUM_INSTALL_SKIP_START:-}" ] || ! has_systemd; then
    say "not started"
    return 0
  fi
  if [ -z "$changed" ] && systemctl is-active --quiet "$UNIT"; then
    say "running: unchanged"
    return 0
  fi
  if [ -n "$DRY_RUN" ]; then
    say "would run: systemctl restart $UNIT"
    return 0
  fi
  restart
  if ready "$was"; then
    say "running: mycelium $VERSION"
    return 0
  fi
  {
    say "mycelium $VERSION did not become ready within $READY_SEC s. Its last words:"
    journalctl -u "$UNIT" -n 8 --no-pager -o cat 2>/dev/null | sed 's/^/  | /'
  } >&2
  if [ -n "$fresh" ]; then
    MYCELIUM_INSTALL_PURGE=$fresh_state sh "$ROOT$BIN_DIR/mycelium-uninstall" >/dev/null
    die "mycelium $VERSION does not run here; it was taken off again" "Its last words are above."
  fi
  [ -f "$ROOT$LIB_DIR/previous/mycelium" ] || die "mycelium $VERSION does not run here" "There is nothing to go back to."
  back
  restart
  ready "$was" || die "mycelium $VERSION did not become ready, and what ran before does not either any more" "See: journalctl -u $UNIT"
  die "mycelium $VERSION did not become ready: what ran before runs again" "Its last words are above."
}

enter_network() {
  if [ -n "$DRY_RUN" ] || ! has_systemd || [ -n "${MYCELIUM_INSTALL_SKIP_START:-}" ] || member; then return 0; fi
  if [ -n "${MYCELIUM_INVITE_FILE:-}" ]; then
    "$PROGRAM" join --socket "$SOCKET" --invite-file "$MYCELIUM_INVITE_FILE"
  elif [ -n "${MYCELIUM_INSTALL_NETWORK:-}" ]; then
    "$PROGRAM" init --socket "$SOCKET" "$MYCELIUM_INSTALL_NETWORK"
  else
    say "next: mycelium init home (a new network), or mycelium join --invite-file FILE"
  fi
}

rollback() {
  [ -f "$ROOT$LIB_DIR/previous/mycelium" ] || die "there is nothing to go back to" "Only what ran before the last upgrade is kept."
  if [ -n "$DRY_RUN" ]; then
    say "would go back to: $("$ROOT$LIB_DIR/previous/mycelium" version | head -n 1)"
    return 0
  fi
  back
  if has_systemd; then
    restart
    ready runs || die "what ran before does not become ready" "See: journalctl -u $UNIT"
  fi
  say "back: $("$PROGRAM" version | head -n 1)"
}

clean_up() {
  # shellcheck disable=SC2086 # A list, of folders without blanks (read_settings).
  [ -z "$STAGED" ] || rm -f $STAGED
  [ -z "${WORK:-}" ] || rm -rf "$WORK"
  # Of a download that was cut off the part stays, nothing else.
  [ -z "${made_cache:-}" ] || rmdir "$ROOT$CACHE_DIR/$VERSION" "$ROOT$CACHE_DIR" 2>/dev/null || true
}

main() {
  DRY_RUN='' ACTION=install STAGED='' was=runs fresh='' fresh_state='' MACHINE=$(uname -m)
  for argument in "$@"; do
    case $argument in
      --dry-run) DRY_RUN=1 ;;
      --rollback) ACTION=rollback ;;
      --uninstall) ACTION=uninstall ;;
      --purge) MYCELIUM_INSTALL_PURGE=1 ;;
      --version) say "$VERSION" && exit 0 ;;
      -h | --help) usage && exit 0 ;;
      *) die "no option $argument" "See: sh install.sh --help" ;;
    esac
  done
  read_settings
  [ -n "$DRY_RUN" ] || [ "$(id -u)" = 0 ] || [ -n "$ROOT" ] || die "wanted root" "Run it with sudo: curl … | sudo sh"
  # One at a time, without a lock file that would stay.
  if [ -z "$DRY_RUN" ] && [ -d "$ROOT$BIN_DIR" ] && command -v flock >/dev/null 2>&1; then
    exec 9<"$ROOT$BIN_DIR"
    flock -n 9 || die "another installation is going on" "Wait for it."
  fi
  WORK=$(mktemp -d) || die "cannot make a temporary folder" "Is the disk full? TMPDIR names another place."
  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
  case $ACTION in
    uninstall)
      write_uninstall >"$WORK/uninstall"
      MYCELIUM_INSTALL_PURGE=${MYCELIUM_INSTALL_PURGE:-} sh "$WORK/uninstall" ${DRY_RUN:+--dry-run}
      ;;
    rollback) rollback ;;
    install)
      check_machine
      get_release
      [ -e "$PROGRAM" ] || fresh=1
      [ -e "$ROOT/var/lib/mycelium" ] || fresh_state=1
      if [ -z "$fresh" ] && has_systemd && member; then was=member; fi
      place_all
      make_user
      start
      enter_network
      [ -n "$DRY_RUN" ] || rm -rf "$ROOT$CACHE_DIR"
      ;;
  esac
}

# The last line runs it all: of a script that was cut off nothing is run.
{ main "$@" </dev/null; }
