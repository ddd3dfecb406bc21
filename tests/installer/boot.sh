#!/usr/bin/env bash
# Boots the system in a root folder with systemd as PID 1, in namespaces of its own; ends when it is off.
# usage: boot.sh ROOT NETNS CGROUP      (CGROUP: a name that this makes in every hierarchy)
# Reboots arrive as SIGHUP (129) and boot again, power-off as SIGINT (130).
set -u
export R=$1 NETNS=$2 CGROUP=$3
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
  [[ -w $hierarchy/cgroup.procs ]] || continue
  # On a machine with one hierarchy its controllers are folders of groups, not of hierarchies.
  [[ $hierarchy == /sys/fs/cgroup || ! -e /sys/fs/cgroup/cgroup.procs ]] || continue
  mkdir -p "$hierarchy/$CGROUP"
  for file in cpus mems; do
    [[ ! -e $hierarchy/cpuset.$file ]] || cat "$hierarchy/cpuset.$file" >"$hierarchy/$CGROUP/cpuset.$file"
  done
  echo $$ >"$hierarchy/$CGROUP/cgroup.procs"
done
inside() {
  set -e
  mount --bind "$R" "$R"
  cd "$R"
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount -t tmpfs -o mode=755 dev dev
  mkdir dev/pts dev/shm dev/net
  mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
  mount -t tmpfs -o mode=1777 shm dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  for number in 0 1 2; do ln -s "/proc/self/fd/$number" "dev/$(cut -d ' ' -f $((number + 1)) <<<'stdin stdout stderr')"; done
  while read -r name mode major minor; do
    mknod -m "$mode" "dev/$name" c "$major" "$minor"
  done <<<'null 666 1 3
zero 666 1 5
full 666 1 7
random 666 1 8
urandom 666 1 9
tty 666 5 0
kmsg 600 1 11'
  mount -t tmpfs -o mode=755 run run
  if [[ -e /sys/fs/cgroup/cgroup.procs ]]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
  else
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids; do
      [[ -d /sys/fs/cgroup/$hierarchy ]] || continue
      mkdir "sys/fs/cgroup/$hierarchy"
      mount -t cgroup -o "$hierarchy" cgroup "sys/fs/cgroup/$hierarchy"
    done
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
  fi
  cat /proc/sys/kernel/random/uuid >run/.boot_id
  mount --bind run/.boot_id proc/sys/kernel/random/boot_id
  mkdir -p .old
  pivot_root . .old
  umount -l /.old
  rmdir /.old
  hostname "$(cat /etc/hostname)"
  exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
}
export -f inside
status=129
while [[ $status == 129 ]]; do
  nsenter --net="/run/netns/$NETNS" unshare -m -u -i -p -C --fork --kill-child=SIGKILL --propagation private bash -c inside </dev/null
  status=$?
done
echo "off ($status)"
[[ $status == 130 ]]
