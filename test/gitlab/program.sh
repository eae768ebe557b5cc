#!/usr/bin/env bash
# Prints the path of gitlab-ci-local, which runs GitLab's pipelines here. It is
# installed once, at package-lock.json's versions, in the user's cache directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

for program in node npm rsync git; do
  command -v "$program" >/dev/null || { echo "gitlab-ci-local: needs $program, which is not installed" >&2; exit 1; }
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kaniko-multiarch-test/gitlab
mkdir -p "$cache"
key=$({ cat package-lock.json && node --version; } | sha256sum | cut -c 1-16)
exec 9>"$cache/lock"
flock 9
if [ ! -d "$cache/$key" ]; then
  echo "gitlab-ci-local: installing it with npm, once" >&2
  rm -rf "$cache/new"
  mkdir "$cache/new"
  cp package.json package-lock.json "$cache/new"
  (cd "$cache/new" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1 --loglevel=error >&2) || {
    echo "gitlab-ci-local: npm could not install it: see its messages above" >&2
    exit 1
  }
  mv "$cache/new" "$cache/$key"
fi
echo "$cache/$key/node_modules/.bin/gitlab-ci-local"
