#!/bin/busybox sh
# The first process of the virtual machine: its root is the host's, read-only, with a tmpfs over it. What it is to run comes in /run/share.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do $b insmod "/modules/$module"; done </modules/order
options=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o $options,ro,cache=loose host /host || $b poweroff -f
$b mount -t tmpfs -o size=75% own /own
$b mkdir /own/upper /own/work
$b mount -t overlay -o lowerdir=/host,upperdir=/own/upper,workdir=/own/work root /new || $b poweroff -f
for folder in proc sys dev; do $b mount --move /$folder /new/$folder; done
$b mount -t tmpfs run /new/run
$b mkdir -p /new/run/share /new/run/netns /new/run/lock
$b mount -t 9p -o $options,cache=none share /new/run/share || $b poweroff -f
exec $b switch_root /new /bin/bash /run/share/start
