#!/usr/bin/env bash
# What a CI pipeline does with this example, on one machine: a matrix, a build
# per platform, a merge; then both images are run. Started by `make demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${KMA_TEST_BASES:?run this as \`make demo\`: it needs a registry with base images}"

work=$(mktemp -d "${TMPDIR:-/tmp}/kma-demo.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
PATH=$PWD/bin:$PATH
image=$KMA_TEST_REGISTRY/demo/hello
platforms=

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
exec 3>&1 # a command is shown even if its output goes elsewhere
show() { printf '%s$ %s%s\n' "$dim" "${*//$work/.}" "$plain" >&3 && "$@"; }

# The Dockerfile has a step that runs on the target platform.
for platform in linux/amd64 linux/arm64; do
  if kaniko-multiarch doctor --platform "$platform" --format json >"$work/doctor.json" 2>/dev/null; then
    platforms=${platforms:+$platforms,}$platform
  else
    echo "demo: without $platform, the doctor says why:" >&2
    jq -r '.checks[] | select(.status == "lack") | "  \(.kind) \(.subject): \(.detail). Fix: \(.fix)"' "$work/doctor.json" >&2
  fi
done
[ -n "$platforms" ] || exit 6

title "1. matrix: one job per platform"
show kaniko-multiarch matrix --platform "$platforms" --distribute always --image "$image" --destination "$image:1.0" --format json >"$work/plan.json"
jq -r '.matrix.include[] | "\(.name)\trunner \(.runner)\t\(.mode)"' "$work/plan.json"

# From Docker Hub the example needs no --build-context. Here nothing is pulled
# from outside: the same names lead to local images.
bases=(
  --build-context "golang:1.26=docker-image://$KMA_TEST_BASES/golang:1.26"
  --build-context "debian:12=docker-image://$KMA_TEST_BASES/debian:12"
)
leg=2
jq -r '.matrix.include[] | "\(.platform) \(.key)"' "$work/plan.json" | while read -r platform key; do
  title "$leg. build: the job for $platform, which pushes by digest and writes a record"
  show kaniko-multiarch build --context examples/hello --platform "$platform" --image "$image" --key "$key" \
    --digests-to "$work/digests" --progress plain "${bases[@]}" </dev/null
  leg=$((leg + 1))
done
(cd "$work" && show ls digests)

title "4. merge: the records become one image, verified before the tag moves"
show kaniko-multiarch merge --digests-from "$work/digests" --destination "$image:1.0" --platform "$platforms" \
  --index-annotations org.opencontainers.image.title=hello --report "$work/report.json" >/dev/null
jq -r '"\(.image // .digest)"' "$work/report.json"

title "5. what the registry has now, read by skopeo"
show skopeo inspect --raw --tls-verify=false "docker://$image:1.0" >"$work/index.json"
jq '{mediaType, annotations, manifests: [.manifests[] | {platform: "\(.platform.os)/\(.platform.architecture)", digest, size}]}' "$work/index.json"

# run PLATFORM: what the image prints, as a container with its own config.
run() {
  local arch=${1#linux/}
  skopeo copy --quiet --remove-signatures --src-tls-verify=false --override-arch "$arch" "docker://$image:1.0" "oci:$work/$arch:1.0"
  umoci --log=error unpack --image "$work/$arch:1.0" "$work/run-$arch"
  # Only the entrypoint: the image's command would wait for connections. In a
  # user namespace there are no control groups for us, nor all limits.
  jq --arg user "$user" '.process.terminal = false | .process.args = .process.args[:1]
    | if $user != "" then del(.linux.resources, .linux.cgroupsPath, .process.rlimits) else . end' "$work/run-$arch/config.json" >"$work/config.json"
  mv "$work/config.json" "$work/run-$arch/config.json"
  (cd "$work/run-$arch" && runc ${user:+--rootless=true} --root "$work/runc" run "kma-demo-$$-$arch" </dev/null)
}
user=
[ "$(id -u)" = 0 ] && read -r _ outside _ </proc/self/uid_map && [ "$outside" = 0 ] || user=yes
title "6. both images, run"
for platform in ${platforms//,/ }; do
  if ! setpriv --reuid 10001 --clear-groups true 2>/dev/null; then
    echo "demo: $platform was built and not run: its user 10001 is not there: add the line $(id -un):100000:65536 to /etc/subuid and /etc/subgid" >&2
    continue
  fi
  out=$(run "$platform")
  echo "$out"
  [[ $out == *"from $platform: "*"I am uid 10001"* ]] || {
    echo "demo: $platform printed something else than it should have" >&2
    exit 1
  }
done

title "Done: $image:1.0 is for $platforms"
echo "The same in one command, if one machine builds all: kaniko-multiarch build --platform $platforms --destination IMAGE:TAG"
