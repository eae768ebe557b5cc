#!/usr/bin/env bash
# usage: .github/pin.sh IMAGE@sha256:DIGEST [DIRECTORY]
#
# Makes the actions in DIRECTORY (default: here) run an image that is there, and
# not one that every job builds. The release workflow does it, in the commit that
# gets the tags: whoever pins the action's commit then pins the image, too. The
# reusable workflow stays as it is: no job's token may change one.
set -euo pipefail
image=${1:?which image?}
cd "${2:-$(dirname "${BASH_SOURCE[0]}")/..}"
for action in action.yml matrix/action.yml merge/action.yml; do
  grep -qE '^  image: (\.\./)?Dockerfile$' "$action" || { echo "pin: $action has no Dockerfile" >&2; exit 1; }
  sed -i -E "s#^  image: .*#  image: docker://$image#" "$action"
done
