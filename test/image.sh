#!/usr/bin/env bash
# Builds the tool's own image with the tool, for two platforms, in both variants:
# once as a developer does, with what earlier builds left, and once from nothing.
# Both must give the same digest. Started by `make image`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${KMA_TEST_BASES:?run this as \`make image\`: it needs a registry with base images}"

work=$(mktemp -d "${TMPDIR:-/tmp}/kma-image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
image=$KMA_TEST_REGISTRY/kaniko-multiarch

# The Dockerfile's names are public images; here they lead to local ones.
args=(
  --context . --platform "${PLATFORMS:-linux/amd64,linux/arm64}" --reproducible --isolation namespaces
  --build-context "golang:1.26=docker-image://$KMA_TEST_BASES/golang:1.26"
  --build-context "busybox:musl=docker-image://$KMA_TEST_BASES/busybox:1"
  --build-arg "VERSION=${VERSION:-dev}"
)
# What this machine needs to reach Go's module proxy, the steps need too.
for variable in {HTTP,HTTPS,NO,http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY GOPROXY; do
  [ -z "${!variable:-}" ] || args+=(--build-arg "$variable")
done
certificates=/usr/local/share/ca-certificates
if compgen -G "$certificates/*.crt" >/dev/null; then
  args+=(--build-context "certificates=$certificates")
fi

build() { # TARGET TAG [FLAG...]
  bin/kaniko-multiarch build "${args[@]}" --target "$1" --destination "$image:$2" --digest-file "$work/$2" "${@:3}" >/dev/null
}
for target in executor debug; do
  echo "== $target" >&2
  build "$target" "$target"
  build "$target" "$target-again" --no-cache --state-dir "$work/state"
done

differ=
for target in executor debug; do
  digest=$(<"$work/$target") again=$(<"$work/$target-again")
  [ "$digest" = "$again" ] || {
    echo "image: $target is not reproducible: $digest, then $again" >&2
    differ=yes
  }
  skopeo inspect --raw --tls-verify=false "docker://$image@$digest" >"$work/index.json"
  echo "$target $digest"
  jq -r '.manifests[] | "\(.platform.os)/\(.platform.architecture) \(.digest)"' "$work/index.json" |
    while read -r platform child; do
      size=$(skopeo inspect --raw --tls-verify=false "docker://$image@$child" | jq '[.layers[].size] | add')
      echo "  $platform $child $((size / 1000)) kB"
    done
done
[ -z "$differ" ]
