#!/bin/sh
# Installs the static binary of a release for setup/action.yml. The checksums are
# part of the action's commit (setup/checksums, written by the release workflow):
# whoever pins that commit gets these bytes, wherever they come from.
set -eu
fail() { echo "::error::kaniko-multiarch setup: $1" >&2; exit "$2"; }

case $(uname -s)-$(uname -m) in
Linux-x86_64 | Linux-amd64) arch=amd64 ;;
Linux-aarch64 | Linux-arm64) arch=arm64 ;;
*) fail "there is no binary for $(uname -s) on $(uname -m), only for Linux on amd64 and arm64" 6 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
file=kaniko-multiarch-linux-$arch

# A line is VERSION SHA256 FILE.
version=${KMA_VERSION:-} sum=${KMA_SHA256:-}
if [ -r "$here/checksums" ]; then
  while read -r v s f; do
    if [ "$f" = "$file" ] && [ "${version:-$v}" = "$v" ]; then
      version=$v sum=${sum:-$s}
    fi
  done <"$here/checksums"
fi
[ -n "$version" ] || fail "this commit of the action is no release: give the inputs version and sha256, or use a release" 2
[ -n "$sum" ] || fail "the checksum of $version is unknown: give the input sha256, or use the action of that version" 2
case $version in *[!A-Za-z0-9._-]*) fail "version $version: want one like v1.2.3" 2 ;; esac

base=${KMA_BASE_URL:-https://github.com/${KMA_REPOSITORY:-org/kaniko-multiarch}/releases/download}
dir=${RUNNER_TEMP:-/tmp}/kaniko-multiarch/$version
mkdir -p "$dir"
new=$dir/.$$
trap 'rm -f "$new"' EXIT
if command -v curl >/dev/null; then
  curl -fsSL --retry 5 -o "$new" "${base%/}/$version/$file" || fail "cannot download ${base%/}/$version/$file: check the network, or give the input base-url of a mirror" 5
else
  wget -q -O "$new" "${base%/}/$version/$file" || fail "cannot download ${base%/}/$version/$file: check the network, or give the input base-url of a mirror" 5
fi
got=$(sha256sum "$new" | cut -d ' ' -f 1)
[ "$got" = "$sum" ] || fail "$file of $version has the SHA-256 $got, and not $sum: it is not what was released" 7
chmod 755 "$new"
mv "$new" "$dir/kaniko-multiarch"
ln -sf kaniko-multiarch "$dir/executor"
echo "$dir" >>"${GITHUB_PATH:-/dev/null}"
{ echo "version=$version"; echo "path=$dir/kaniko-multiarch"; } >>"${GITHUB_OUTPUT:-/dev/null}"
"$dir/kaniko-multiarch" version
