#!/usr/bin/env bash
# usage: test/binaries.sh oracle|act|cluster
#
# Prints a directory with the tools of that module, built once and kept in the
# user's cache directory.
set -euo pipefail
module=${1:?which module?}
cd "$(dirname "${BASH_SOURCE[0]}")/$module"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kaniko-multiarch-test/$module
mkdir -p "$cache"
key=$({ cat go.mod go.sum $(find . -name '*.go' | sort) && go env GOVERSION GOARCH; } | sha256sum | cut -c 1-16)
exec 9>"$cache/lock"
flock 9
if [ ! -d "$cache/$key" ]; then
  echo "$module: building its tools, once" >&2
  rm -rf "$cache"/new
  flags='-s -w'
  # Kubernetes compares the versions of its parts, and parses them.
  kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes v//p' go.mod)
  for package in ${kubernetes:+k8s.io/component-base/version k8s.io/client-go/pkg/version}; do
    flags+=" -X $package.gitVersion=v$kubernetes"
  done
  CGO_ENABLED=0 go build -trimpath -ldflags="$flags" -o "$cache/new/" tool >&2
  mv "$cache/new" "$cache/$key"
fi
echo "$cache/$key"
