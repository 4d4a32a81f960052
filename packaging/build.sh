#!/bin/bash
# build.sh PROGRAMS OUT [ADDRESS]: makes of the folder with the built programs (`egressd`, `kubectl-egress`) a Debian package, a tarball of its files,
# the bill of materials, and kubectl's plugin alone with its manifest for krew, in OUT. ADDRESS is the folder on the web that the plugin's tarball
# will be in. The same programs and commit in, the same bytes out: times are the commit's (SOURCE_DATE_EPOCH).
set -euo pipefail
programs=$(realpath "${1:?folder with the built programs}") out=$(realpath -m "${2:?folder for the packages}")
address=${3:-https://releases.egressd.example}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory='*' log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/tree documentation=$work/tree/usr/share/doc/egressd

install -D --mode 755 "$programs/egressd" "$root/usr/sbin/egressd"
install -D --mode 755 "$programs/kubectl-egress" "$root/usr/bin/kubectl-egress"
install -D --mode 644 packaging/config.yaml "$root/etc/egressd/config.yaml"
for unit in examples/systemd/*.service; do
  # The program is built by who uses it (docs/cloud.md), and is not in this package.
  if [ "${unit##*/}" = egressd-cloud.service ]; then continue; fi
  # Theirs is a program that was installed by hand, and their first line says where to copy them.
  sed '1{/^# Copy to /d}; s|/usr/local/sbin/|/usr/sbin/|' "$unit" | install -D --mode 644 /dev/stdin "$root/usr/lib/systemd/system/${unit##*/}"
done

egressd=$root/usr/sbin/egressd
"$egressd" man --directory "$work/man"
for page in "$work"/man/*; do
  gzip -9 --no-name <"$page" | install -D --mode 644 /dev/stdin "$root/usr/share/man/man${page##*.}/${page##*/}.gz"
done
completion() { "$egressd" completions "$1" | install -D --mode 644 /dev/stdin "$root/usr/share/$2"; }
completion bash bash-completion/completions/egressd
completion zsh zsh/vendor-completions/_egressd
completion fish fish/vendor_completions.d/egressd.fish

mkdir -p "$documentation"
cp -r --parents docs examples charts ./*.md LICENSE "$documentation"
cp packaging/debian/copyright "$documentation"
packaging/sbom.sh "$documentation/egressd.cdx.json"
find "$root" -type d -exec chmod 755 {} + -o -type f ! -path '*/sbin/*' ! -path '*/bin/*' -exec chmod 644 {} +

# What the programs ask of the C library: the newest version of a symbol.
libc=$(objdump -T "$root"/usr/*bin/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
mkdir -p "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<EOF
Package: egressd
Version: $version
Architecture: $architecture
Maintainer: the authors of egressd <egressd@localhost>
Installed-Size: $(du --apparent-size -sk "$root" | cut -f 1)
Depends: libc6 (>= ${libc#GLIBC_}), libgcc-s1
Suggests: docker.io | docker-ce, nftables
Section: net
Priority: optional
Description: each container leaves by its own NIC and public address
 On a host with several NICs or addresses, egressd lets each container, pod or
 program leave by the exit that its label or manifest names: the NIC, the
 gateway and the source address, from its first packet, or not at all.
EOF
echo /etc/egressd/config.yaml >"$root/DEBIAN/conffiles"
install --mode 755 packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$out"
name=egressd_${version}_$architecture
find "$root" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --uniform-compression -Zzstd -z9 --build "$root" "$out/$name.deb" >/dev/null
dpkg-deb --fsys-tarfile "$out/$name.deb" | gzip --no-name >"$out/$name.tar.gz"
cp "$documentation/egressd.cdx.json" "$out/egressd.cdx.json"

plugin=kubectl-egress_${version}_linux_$architecture.tar.gz
install -D --mode 755 "$programs/kubectl-egress" "$work/plugin/kubectl-egress"
install --mode 644 LICENSE "$work/plugin/LICENSE"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --directory "$work/plugin" --create . | gzip --no-name >"$out/$plugin"
sum=$(sha256sum "$out/$plugin" | cut -d ' ' -f 1)
sed "1d; s|@VERSION@|$version|; s|@ARCHITECTURE@|$architecture|; s|@ADDRESS@|$address|; s|@ARCHIVE@|$plugin|; s|@SHA256@|$sum|" \
  packaging/krew/egress.yaml >"$out/egress.yaml"
printf '%s\n' "$out/$name.deb" "$out/$name.tar.gz" "$out/egressd.cdx.json" "$out/$plugin" "$out/egress.yaml"
