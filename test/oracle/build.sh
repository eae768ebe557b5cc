#!/usr/bin/env bash
# usage: test/oracle/build.sh --context DIR [--dockerfile FILE] --platform LIST --destination REFERENCE
#          [--build-context NAME=VALUE]... [--build-arg K=V]... [--target STAGE]
#          [--opt K=V]... [--output K=V]...
#
# Builds a Dockerfile with BuildKit as `kaniko-multiarch build` would with the
# same flags, and pushes the result. --opt and --output go to BuildKit as they
# are. Runs under test/with-services.sh --oracle.
set -euo pipefail
: "${KMA_TEST_BUILDKIT:?run this under test/with-services.sh --oracle}"

context=. dockerfile= destination='' output=''
# A Dockerfile's `# syntax=` line makes BuildKit pull that front end, unless it
# is told that it is that front end already: that is what cmdline says. (The
# build argument BUILDKIT_SYNTAX does not help: any value is pulled.)
opts=(--opt cmdline=docker/dockerfile:1)
while [ $# -gt 0 ]; do
  case $1 in
  --context) context=$2 ;;
  --dockerfile) dockerfile=$2 ;;
  --destination) destination=$2 ;;
  --platform) opts+=(--opt "platform=$2") ;;
  --target) opts+=(--opt "target=$2") ;;
  --build-context) opts+=(--opt "context:$2") ;;
  --build-arg) opts+=(--opt "build-arg:$2") ;;
  --opt) opts+=(--opt "$2") ;;
  --output) output+=,$2 ;;
  *) echo "oracle: unknown flag $1" >&2 && exit 2 ;;
  esac
  shift 2
done
dockerfile=${dockerfile:-$context/Dockerfile}

exec "$KMA_TEST_BUILDCTL" --addr "$KMA_TEST_BUILDKIT" build --progress plain --frontend dockerfile.v0 \
  --local context="$context" \
  --local dockerfile="$(dirname "$dockerfile")" --opt filename="$(basename "$dockerfile")" \
  --output "type=image,name=$destination,push=true,oci-mediatypes=true$output" \
  "${opts[@]}"
