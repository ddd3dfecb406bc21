#!/usr/bin/env bash
# Runs mycelium for aarch64 under qemu-user: from source on Deno's arm64 build, and compiled where dist/ has the binary.
# Shows that it starts, forms a network and answers; says nothing of speed (20 times slower than the machine).
# Exit status: 0 ran, 3 something it needs is not to be had (said loudly), 1 it failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The newest arm64 build that the registry has under this name; source runs on 2.9.6 elsewhere.
DENO_PACKAGE=@deno/linux-arm64-glibc@2.9.5
DENO_SHA256=e1a70c5eb03b0ebaf761077029ef86b9ba22d50e2b54ca45ce5437457f701b63
SYSROOT=/usr/aarch64-linux-gnu
BINARY=dist/mycelium-aarch64-unknown-linux-gnu

skip() { echo "SKIPPED aarch64: $*" >&2; exit 3; }
command -v qemu-aarch64-static >/dev/null || skip "no qemu-aarch64-static (Debian: qemu-user-static)"
[[ -e $SYSROOT/lib/libc.so.6 && -e $SYSROOT/lib/libgcc_s.so.1 ]] || skip "no $SYSROOT (Debian: libc6-arm64-cross libgcc-s1-arm64-cross)"

scratch=$(mktemp -d)
node=
cleanup() {
  [[ -n $node ]] && kill "$node" 2>/dev/null && wait "$node" 2>/dev/null
  rm -rf "$scratch"
}
trap cleanup EXIT

arm64_deno=.cache/runtime/deno-arm64
if ! echo "$DENO_SHA256  $arm64_deno" | sha256sum --check --status 2>/dev/null; then
  mkdir -p .cache/runtime
  archive=$(npm pack --silent --pack-destination "$scratch" "$DENO_PACKAGE" | tail -1) || skip "$DENO_PACKAGE is not to be had"
  tar -xzf "$scratch/$archive" -C "$scratch" package/deno || skip "$DENO_PACKAGE has no deno"
  echo "$DENO_SHA256  $scratch/package/deno" | sha256sum --check --status || { echo "$DENO_PACKAGE is not what was pinned" >&2; exit 1; }
  mv "$scratch/package/deno" "$arm64_deno"
fi

# Modules come from this machine's node_modules, untouched: it has nothing native that the program uses.
[[ -d node_modules/libp2p ]] || npx --yes deno@2.9.6 install --quiet || exit 1
export DENO_DIR=$scratch/deno DENO_NO_UPDATE_CHECK=1 NO_COLOR=1

emulator=(qemu-aarch64-static -L "$SYSROOT")

# exercise NAME COMMAND …: forms a network of one in a new folder, reads its status over the socket, ends it by SIGTERM.
exercise() {
  local name=$1 started=$SECONDS status= state
  shift
  state=$(mktemp -d -p "$scratch")
  "$@" version || { echo "FAILED $name: version" >&2; return 1; }
  MYCELIUM_PORT=0 MYCELIUM_HTTP_LISTEN=127.0.0.1:0 "$@" up --network arm64 --listen 127.0.0.1 --no-mdns --no-multicast --no-broadcast \
    --json --state "$state" >"$state.log" 2>&1 &
  node=$!
  for _ in $(seq 240); do
    sleep 0.5
    kill -0 "$node" 2>/dev/null || break
    grep -q '"event":"ready"' "$state.log" && status=$("$@" status --json --state "$state") && break
  done
  if ! grep -q '"verified"' <<<"$status"; then
    echo "FAILED $name: no verified node in $((SECONDS - started)) s" >&2
    tail -30 "$state.log" >&2
    return 1
  fi
  kill -TERM "$node"
  wait "$node" || { echo "FAILED $name: SIGTERM ended it with status $?" >&2; node=; return 1; }
  node=
  echo "ok $name: verified, answered, ended; $((SECONDS - started)) s"
}

exercise "from source" "${emulator[@]}" "$arm64_deno" run -A --no-check --no-lock --node-modules-dir=manual main.ts || exit 1
if [[ -x $BINARY ]]; then
  exercise "compiled" "${emulator[@]}" "$BINARY" || exit 1
else
  echo "SKIPPED aarch64 compiled: there is no $BINARY" >&2
fi
