#!/usr/bin/env bash
# usage: test/binaries.sh oracle|act
#
# Prints a directory with the tools of that module, built once and kept in the
# user's cache directory.
set -euo pipefail
module=${1:?which module?}
cd "$(dirname "${BASH_SOURCE[0]}")/$module"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kaniko-multiarch-test/$module
mkdir -p "$cache"
key=$({ cat go.mod go.sum && go env GOVERSION GOARCH; } | sha256sum | cut -c 1-16)
exec 9>"$cache/lock"
flock 9
if [ ! -d "$cache/$key" ]; then
  echo "$module: building its tools, once" >&2
  rm -rf "$cache"/new
  CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$cache/new/" tool >&2
  mv "$cache/new" "$cache/$key"
fi
echo "$cache/$key"
