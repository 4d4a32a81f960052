#!/bin/bash
# path.sh DIR: fills DIR with links to the programs that a fresh Debian has, those of the packages in the file `packages` with what they
# depend on, and Rust's and Go's. With DIR as the whole PATH, a test that calls anything else fails on every machine, not on a fresh one alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${1:?folder for the links}

# Names of the installed packages in question. Of alternatives in a dependency (`a | b`) that are installed, the first one counts, as for apt;
# of packages that provide a virtual one, all.
packages() {
  dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Essential}\t${Priority}\t${Provides}\t${Pre-Depends}, ${Depends}\n' |
    awk -F '\t' -v named="$(sed '/^#/d; s/ .*//' "$here/packages")" '
      function bare(name) { gsub(/\(.*\)|:any|:native|[[:space:]]/, "", name); return name }
      function add(name) { if (name in depends && !(name in taken)) { taken[name]; queue[++last] = name } }
      $1 != "ii " { next }
      {
        depends[$2] = $6
        count = split($5, provided, ",")
        for (i = 1; i <= count; i++) providers[bare(provided[i])] = providers[bare(provided[i])] " " $2
        if ($3 == "yes" || $4 == "required") fresh[$2]
      }
      END {
        add("apt")
        for (name in fresh) add(name)
        count = split(named, names, "\n")
        for (i = 1; i <= count; i++) {
          if (!(names[i] in depends)) { print "needs the package " names[i] " (make install)" >"/dev/stderr"; exit 1 }
          add(names[i])
        }
        for (next_one = 1; next_one <= last; next_one++) {
          groups = split(depends[queue[next_one]], group, ",")
          for (g = 1; g <= groups; g++) {
            ways = split(group[g], way, "|")
            for (w = 1; w <= ways; w++) {
              name = bare(way[w])
              if (name in depends) { add(name); break }
              if (name in providers) { count = split(providers[name], by, " "); for (b = 1; b <= count; b++) add(by[b]); break }
            }
          }
        }
        for (i = 1; i <= last; i++) print queue[i]
      }'
}

rm -rf "$dir"
mkdir -p "$dir"
mapfile -t names < <(packages)
[ ${#names[@]} -gt 0 ]
# A package of the architecture and one of the same name for all are listed alike.
files=$(dpkg-query -L "${names[@]}" | grep -E '^(/usr)?/s?bin/[^/]+$' | sort -u)
xargs ln -sf -t "$dir" <<<"$files"
# Debian's alternatives (cc, iptables, awk) belong to no package: the link counts that leads to a file of one that does.
# A package may call its file /bin/NAME where /bin leads to /usr/bin.
find /usr/bin /usr/sbin -lname '/etc/alternatives/*' -exec sh -c 'for link; do echo "$(readlink -f "$link") $link"; done' sh {} + |
  awk 'NR == FNR { sub("^/usr", ""); ours[$1]; next } { sub("^/usr", "", $1) } $1 in ours { print $2 }' <(echo "$files") - | xargs ln -sf -t "$dir"
for program in cargo cargo-clippy cargo-fmt clippy-driver rustc rustdoc rustfmt go; do
  if found=$(command -v "$program"); then ln -sf "$found" "$dir"; fi
done
