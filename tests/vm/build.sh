#!/bin/bash
# build.sh DIR: puts Debian's kernel with all its modules into DIR, and what a virtual machine boots from: `kernel`, `initrd` and `modules`. The
# package is fetched and unpacked, and nothing is installed. Does nothing when DIR or the cache (tests/go.sh) has it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
source "$here/../go.sh"
begin "${1-}" "$here"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

package() { apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'; }
[ -n "$(package)" ] || apt-get update -q >&2
apt-get -o APT::Sandbox::User=root download -q "$(package)" >&2 || { apt-get update -q >&2 && apt-get -o APT::Sandbox::User=root download -q "$(package)" >&2; }
dpkg-deb --extract linux-image-*.deb root
release=$(ls root/lib/modules)
# Below the root of the machine /lib leads to /usr/lib, and modules are looked for by the release's name.
mkdir "$out/modules"
mv "root/lib/modules/$release" "$out/modules/$release"
# Unpacked here: an emulated processor takes seconds for it.
python3 - root/boot/vmlinuz-* "$out/kernel" <<'UNPACK'
import lzma, sys
image = open(sys.argv[1], "rb").read()
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(image[image.index(b"\xfd7zXZ\0"):]))
UNPACK
mkdir -p tree/lib
ln -s "$out/modules" tree/lib/modules
depmod --basedir tree "$release"

# The first process finds the host's root by 9p, read-only, puts a tmpfs over it, and goes there. What it is to run comes in /run/share. It is written
# here because the cache knows what it has by this script.
mkdir -p first/{bin,dev,proc,sys,host,own,new,modules}
cp "$(command -v busybox)" first/bin/busybox
for module in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
  modprobe --dirname tree --set-version "$release" --show-depends $module
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" first/modules/
  basename "$file" >>first/modules/order
done
cat >first/init <<'INIT'
#!/bin/busybox sh
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
INIT
chmod 755 first/init
(cd first && find . | busybox cpio -o -H newc) 2>/dev/null | gzip -1 >"$out/initrd"
finish
