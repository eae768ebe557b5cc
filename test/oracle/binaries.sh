#!/usr/bin/env bash
# Prints a directory with buildkitd and buildctl at go.mod's version, built once
# and kept in the user's cache directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kaniko-multiarch-test/oracle
mkdir -p "$cache"
key=$({ cat go.mod go.sum && go env GOVERSION GOARCH; } | sha256sum | cut -c 1-16)
exec 9>"$cache/lock"
flock 9
if [ ! -d "$cache/$key" ]; then
  echo "oracle: building BuildKit, once" >&2
  rm -rf "$cache"/new
  CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$cache/new/" tool >&2
  mv "$cache/new" "$cache/$key"
fi
echo "$cache/$key"
