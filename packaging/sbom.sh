#!/bin/bash
# sbom.sh OUT.json: writes the software bill of materials (CycloneDX 1.5) of the programs: each crate that is linked into them, with its version,
# licence and checksum, and what it depends on. The same Cargo.lock in, the same file out.
set -euo pipefail
out=$(realpath -m "${1:?file for the bill of materials}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$(dirname "$out")"
# Cargo.lock has the checksums: `name version checksum`, a line each.
sums=$(awk -F '"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n, v, $2}' Cargo.lock)
cargo metadata --locked --format-version 1 --filter-platform "$target" | jq --sort-keys --arg sums "$sums" '
  # Dependencies that are linked: neither those of tests nor those of build scripts.
  def linked: [.deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg];
  def purl: "pkg:cargo/\(.name)@\(.version)";
  ($sums | split("\n") | map(split(" ") | {key: "\(.[0]) \(.[1])", value: .[2]}) | from_entries) as $checksums |
  (.packages | map({key: .id, value: .}) | from_entries) as $packages |
  (.resolve.nodes | map({key: .id, value: linked}) | from_entries) as $edges |
  (.packages[] | select(.name == "egressd")) as $root |
  def reach(seen): (seen + [seen[] | $edges[.][]] | unique) as $more | if ($more | length) == (seen | length) then $more else reach($more) end;
  reach([$root.id]) as $all |
  {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {component: {type: "application", "bom-ref": ($root | purl), name: $root.name, version: $root.version,
      purl: ($root | purl), licenses: [{expression: $root.license}]}},
    components: [$all[] | select(. != $root.id) | $packages[.] | {type: "library", "bom-ref": purl, name, version, purl: purl}
      + (if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]} else {} end)
      + ($checksums["\(.name) \(.version)"] as $sum | if $sum then {hashes: [{alg: "SHA-256", content: $sum}]} else {} end)],
    dependencies: [$all[] | {ref: ($packages[.] | purl), dependsOn: ([$edges[.][] | $packages[.] | purl] | unique)}]
  }' >"$out"
