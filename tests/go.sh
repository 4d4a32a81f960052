# shellcheck shell=bash
# go.sh: for the scripts that build real parts for tests from Go modules (`source` it): each program once, until its module or script changes.
#
#   begin DIR FOLDER    programs go to DIR; ends the script when DIR holds what the scripts and modules below FOLDER say
#   version MODULE      the version of that module which the go.mod in the current folder names
#   build NAME PACKAGE [LDFLAGS]   builds NAME from the module in the current folder
#   finish              DIR holds all of it

export CGO_ENABLED=0

begin() {
  out=$(mkdir -p "${1:?folder for the programs}" && cd "$1" && pwd)
  exec 9>"$out/.lock"
  flock 9 # two test programs may ask at the same time
  want=$(cd "$2" && find . -name go.mod -o -name go.sum -o -name build.sh | LC_ALL=C sort | xargs sha256sum "${BASH_SOURCE[0]}" | cut -d ' ' -f 1)
  if [ "$(cat "$out/.built" 2>/dev/null)" = "$want" ]; then exit 0; fi
  rm -f "$out/.built"
}

version() {
  awk -v module="$1" '$1 == module { print $2; exit } $2 == module { print $3; exit }' go.mod
}

build() {
  nice go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$out/$1" "$2"
}

finish() {
  printf '%s\n' "$want" >"$out/.built"
}
