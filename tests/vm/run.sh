#!/bin/bash
# run.sh COMMAND [ARGUMENT...]: runs it as root in a virtual machine with Debian's kernel, the host's files under it and no network card. What it
# writes to them is lost, but for the file that PAGE names, which it finds under that variable, too. The kernel's modules that MODULES names are
# loaded before. The exit status is the command's, or 125 when the machine ended without one.
#
# QEMU emulates the processor, for machines that are virtual themselves. There is one: with two, each change of a process's memory has both wait for
# each other, and a program costs two and a half times as much to start. Its clock counts instructions, each a nanosecond, so that nothing is late
# in there because this machine is busy; while it has nothing to do time goes as outside, or at once with COUNTING=1. What clears a page by one
# instruction for each byte (erms) is not offered.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
parts=$(realpath -m "${CARGO_TARGET_DIR:-$here/../../target}")/tmp/vm
"$here/build.sh" "$parts"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/share"
cat >"$work/share/start" <<START
export PATH=$PATH HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /lib/modules
mount --bind $parts/modules /lib/modules
xargs --no-run-if-empty modprobe --all <<<"${MODULES:-}"
ip link set lo up
stty -F /dev/hvc0 raw -echo
cd $(printf %q "$PWD")
mount --bind /run/share /mnt
export EGRESSD_TEST_VM=1 PAGE=/mnt/page
setsid $(printf '%q ' "$@") >/dev/hvc0 2>&1 </dev/null
echo \$? >/run/share/status
sync
busybox reboot -f
START
machine=(-icount shift=0,sleep=on -cpu "max,-erms")
if [ -n "${COUNTING:-}" ]; then machine=(-icount shift=0,sleep=off -cpu qemu64); fi
ended=0
qemu-system-x86_64 -machine pc -nodefaults -no-user-config -nic none -display none -no-reboot \
  -accel "tcg,thread=single,tb-size=512" -smp 1 "${machine[@]}" -m 3072 \
  -kernel "$parts/kernel" -initrd "$parts/initrd" \
  -append "console=ttyS0 quiet reboot=t panic=-1 mitigations=off nokaslr audit=0 no_timer_check selinux=0 apparmor=0 tsc=reliable" \
  -chardev "file,id=console,path=$work/console" -serial chardev:console \
  -device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtconsole,chardev=out \
  -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host \
  -fsdev "local,id=share,path=$work/share,security_model=none" -device virtio-9p-pci,fsdev=share,mount_tag=share \
  -object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random </dev/null || ended=$?
if [ -n "${PAGE:-}" ] && [ -s "$work/share/page" ]; then cp "$work/share/page" "$PAGE"; fi
[ ! -s "$work/share/status" ] || exit "$(cat "$work/share/status")"
echo "the virtual machine ended without a status (QEMU's is $ended); its console says last:" >&2
tail -20 "$work/console" >&2
exit 125
