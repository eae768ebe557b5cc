#!/usr/bin/env bash
# Builds the tool's own image with the tool, for two platforms, in both variants:
# once as a developer does, in namespaces, and once by the image itself, in a
# default container. Both must give the same digest. Started by `make image`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${KMA_TEST_BASES:?run this as \`make image\`: it needs a registry with base images}"

work=$(mktemp -d "${TMPDIR:-/tmp}/kma-image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
image=$KMA_TEST_REGISTRY/kaniko-multiarch

# The Dockerfile's names are public images; here they lead to local ones.
args=(
  --platform "${PLATFORMS:-linux/amd64,linux/arm64}" --reproducible
  --build-context "golang:1.26=docker-image://$KMA_TEST_BASES/golang:1.26"
  --build-context "busybox:musl=docker-image://$KMA_TEST_BASES/busybox:1"
  --build-arg "VERSION=${VERSION:-dev}"
)
# What this machine needs to reach Go's module proxy, the steps need too.
for variable in {HTTP,HTTPS,NO,http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY GOPROXY; do
  [ -z "${!variable:-}" ] || args+=(--build-arg "$variable")
done
here=(--context . --isolation namespaces) there=(--context /workspace) volumes=(-v "$PWD:/workspace:ro")
certificates=/usr/local/share/ca-certificates
if compgen -G "$certificates/*.crt" >/dev/null; then
  here+=(--build-context "certificates=$certificates")
  there+=(--build-context certificates=/certificates)
  volumes+=(-v "$certificates:/certificates:ro")
fi

for target in executor debug; do
  echo "== $target, in namespaces" >&2
  bin/kaniko-multiarch build "${here[@]}" "${args[@]}" --target "$target" --destination "$image:$target" --digest-file "$work/$target" >/dev/null
done
[ -n "${KMA_TEST_DOCKER:-}" ] || echo "image: skipped: no docker, so no image builds itself" >&2
for target in ${KMA_TEST_DOCKER:+executor debug}; do
  echo "== $target, by itself, in a default container" >&2
  "$KMA_TEST_DOCKER" run --rm --network host "${volumes[@]}" --entrypoint /kaniko/kaniko-multiarch "$image:$target" \
    build "${there[@]}" "${args[@]}" --target "$target" --destination "$image:$target-again" >"$work/name"
  sed 's/.*@//' "$work/name" >"$work/$target-again"
done

differ=
for target in executor debug; do
  digest=$(<"$work/$target")
  [ -z "${KMA_TEST_DOCKER:-}" ] || [ "$digest" = "$(<"$work/$target-again")" ] || {
    echo "image: $target is not reproducible: $digest, then $(<"$work/$target-again")" >&2
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
