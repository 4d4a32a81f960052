# shellcheck shell=bash
# go.sh: for the scripts that build real parts for tests from Go modules (`source` it). What they build is kept in a cache outside of the
# clone, by a hash of the modules and scripts, so that a clone needs to build only what no clone before it has built.
#
#   begin DIR FOLDER    programs go to DIR; ends the script when they are there, or in the cache
#   version MODULE      the version of that module which the go.mod in the current folder names
#   build NAME PACKAGE [LDFLAGS]   builds NAME from the module in the current folder
#   finish              puts what was built into the cache and into DIR
#
# The cache: $EGRESSD_CACHE, else egressd in $XDG_CACHE_HOME, else in ~/.cache. It keeps the last three that were used of each FOLDER.

export CGO_ENABLED=0
keep=3

begin() {
  : "${1:?folder for the programs}"
  mkdir -p "$(dirname "$1")"
  dir=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
  want=$(cd "$2" && { uname -m; find . -name go.mod -o -name go.sum -o -name build.sh | LC_ALL=C sort | xargs sha256sum "${BASH_SOURCE[0]}"; } |
    cut -d ' ' -f 1 | sha256sum | cut -c 1-16)
  if is_built; then exit 0; fi
  cache=${EGRESSD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egressd}
  cache=$(mkdir -p "$cache" && cd "$cache" && pwd)
  name=$(basename "$2")
  kept=$cache/$name-$want
  exec 9>"$cache/$name.lock"
  flock 9 # another clone, or another test program, may be building the same
  if is_built; then exit 0; fi
  if [ -d "$kept" ]; then
    hand_out
    exit 0
  fi
  out=$kept.partial
  rm -rf "$cache/$name"-*.partial # of a build that was ended: we have the lock
  mkdir "$out"
}

is_built() {
  [ "$(cat "$dir/.built" 2>/dev/null)" = "$want" ]
}

version() {
  awk -v module="$1" '$1 == module { print $2; exit } $2 == module { print $3; exit }' go.mod
}

# No child that outlives the script may hold the lock.
build() {
  nice go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$out/$1" "$2" 9>&-
}

finish() {
  printf '%s\n' "$want" >"$out/.built"
  mv "$out" "$kept"
  hand_out
}

# Links, so that a clone keeps its programs when the cache drops them; copies where the cache is on another file system.
hand_out() {
  touch "$kept"
  rm -rf "$dir" "$dir.partial"
  cp -al "$kept" "$dir.partial" 2>/dev/null || { rm -rf "$dir.partial" && cp -a "$kept" "$dir.partial"; }
  mv "$dir.partial" "$dir"
  # shellcheck disable=SC2012
  ls -dt "$cache/$name"-* | tail -n +$((keep + 1)) | xargs -r rm -rf
}
