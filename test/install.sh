#!/usr/bin/env bash
# Installs the programs that the tests and the demo use, if they are missing.
#
# Only root on a Debian-like system installs anything. Elsewhere what is missing
# is named, with what root would have to do, and the tests that need it skip
# themselves.
# Nothing stays behind but the packages: no service, no policy file, no
# binfmt_misc entry.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # not in everybody's

# program:package
needed=(
  docker-registry:docker-registry
  skopeo:skopeo
  umoci:umoci
  runc:runc
  dockerd:docker.io
  containerd:containerd # the cluster's nodes, with the next three
  /usr/lib/cni/bridge:containernetworking-plugins
  openssl:openssl
  ip:iproute2
  qemu-aarch64-static:qemu-user-static
  busybox:busybox-static # the sandbox tests' root
  jq:jq
  bzip2:bzip2 # the corpus' archives, with the next two
  xz:xz-utils
  zstd:zstd
  git:git
  getfattr:attr
  getcap:libcap2-bin
  unshare:util-linux
  newuidmap:uidmap # an ordinary user's builds
  rsync:rsync      # gitlab-ci-local's
)
# Groovy runs the Jenkins library. A Java that is not here would be the largest
# package of all.
if command -v java >/dev/null; then
  needed+=(groovy:groovy)
else
  echo "install: no java: the Jenkins library's tests skip themselves; for them: apt-get install default-jre-headless groovy" >&2
fi
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
policy=/usr/sbin/policy-rc.d
binfmt=/proc/sys/fs/binfmt_misc

programs=() packages=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null && continue
  programs+=("${pair%%:*}") packages+=("${pair##*:}")
done
if [ ! -e "$keyring" ]; then
  programs+=("$keyring") packages+=(debian-archive-keyring)
fi

# An ordinary user's builds have the ids that these files give the user.
me=$(id -un 2>/dev/null || id -u)
if [ "$(id -u)" != 0 ]; then
  for file in /etc/subuid /etc/subgid; do
    grep -qE "^($me|$(id -u)):" "$file" 2>/dev/null && continue
    echo "install: $file has no line for $me: only images whose files are all root's can be built; as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $me, or other free numbers" >&2
    break
  done
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gitlab() { "$here/gitlab/program.sh" >/dev/null || echo "install: no gitlab-ci-local: the GitLab templates' tests skip themselves" >&2; }
[ ${#packages[@]} -gt 0 ] || { gitlab; exit 0; }

skip() {
  gitlab
  echo "install: skipped: $1; missing: ${programs[*]}; as root: apt-get install ${packages[*]}" >&2
  exit 0
}
command -v apt-get >/dev/null || skip "not a Debian-like system"
[ "$(id -u)" = 0 ] || skip "not root"

entries() { ls "$binfmt" 2>/dev/null | sort; }

wrote_policy= log=$(mktemp)
was_mounted=$(mountpoint -q "$binfmt" && echo yes || true)
before=$(entries)
cleanup() {
  local entry
  [ -z "$wrote_policy" ] || rm -f "$policy"
  # qemu-user-static registers itself where it can: take that back.
  for entry in $(comm -13 <(echo "$before") <(entries)); do
    case $entry in qemu-*) echo -1 >"$binfmt/$entry" || true ;; esac
  done
  if [ -z "$was_mounted" ] && mountpoint -q "$binfmt"; then umount "$binfmt" || true; fi
  rm -f "$log"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ ! -e "$policy" ]; then
  wrote_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; }
install() { apt install -y --no-install-recommends "${packages[@]}"; }

echo "install: ${packages[*]}" >&2
# The lists may be absent or old: refresh them only when the install says so.
install || { apt update && install; } || {
  cat "$log" >&2
  echo "install: apt-get could not install ${packages[*]}: see its messages above" >&2
  exit 1
}
gitlab
