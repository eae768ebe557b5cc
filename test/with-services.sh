#!/usr/bin/env bash
# usage: test/with-services.sh [--bases] [--oracle] [--docker] [--cluster] [--disk GIB] [--] COMMAND [ARGUMENT...]
#
# Runs COMMAND with real servers around it, and stops exactly those afterwards,
# whatever happened. What COMMAND finds in its environment:
#
#   KMA_TEST_REGISTRY   HOST:PORT of an empty registry, plain HTTP, loopback only
#   KMA_TEST_EMULATED   foreign platforms that run here through QEMU: linux/arm64,...
#   KMA_TEST_BASES      HOST:PORT/bases, with --bases: see test/bases
#   KMA_TEST_BUILDKIT   address of a BuildKit daemon, with --oracle: see test/oracle
#   KMA_TEST_BUILDCTL   its client's path
#   KMA_TEST_DOCKER     path of a docker client, with --docker, and
#   DOCKER_HOST         its daemon, which has no image and no network but the host's;
#                       for -v there is a /var/run/docker.sock, as in most places
#   TMPDIR              with --disk: a directory on a new file system of at most GIB, ext4
#                       with a journal in a sparse file, where the servers' data are, too
#   KMA_TEST_CLUSTER    an administrator's kubeconfig, with --cluster, of a Kubernetes
#                       with a node of linux/amd64 and one of linux/arm64: see test/cluster
#   KMA_TEST_KUBECTL    its client's path
#   KMA_TEST_CLUSTER_IMAGE    this tool's image, by digest, in the registry
#   KMA_TEST_CLUSTER_CONTROL  stops and starts the cluster's parts: see test/cluster/control.sh
#
# With --cluster COMMAND and the servers have a network of their own, which leads
# nowhere else: there the nodes' pods know the registry by the same address.
#
# KMA_TEST_BUILDKITD is another BuildKit daemon to start, by its path.
#
# A variable is absent if this machine cannot have its service; a line says why.
# Every run has a port, a directory and QEMU registrations of its own, so runs
# side by side do not meet. It all lives in a mount namespace of its own: mounts
# disappear with the last process, even if this script is killed.
#
# For an ordinary user that is in a user namespace, where the user is root and
# has the subordinate ids of /etc/subuid, or no other id. There the registry
# works, and QEMU if the kernel has binfmt_misc for each user namespace (6.7).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bases= oracle= docker= cluster= disk=
while [ $# -gt 0 ]; do
  case $1 in
  --bases) bases=yes ;;
  --oracle) oracle=yes ;;
  --docker) docker=yes ;;
  --cluster) cluster=yes ;;
  --disk) disk=${2:?--disk takes a number of GiB} && shift ;;
  --) shift && break ;;
  -*) echo "with-services: unknown flag $1" >&2 && exit 2 ;;
  *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || { sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }

say() { echo "services: $*" >&2; }

# inside: root in a mount namespace of our own, or "user" in a user namespace.
inside=${KMA_SERVICES_INSIDE:-}
unset KMA_SERVICES_INSIDE
enter() { # INSIDE UNSHARE-FLAG...
  local how=$1
  shift
  unshare "$@" --mount --propagation private true 2>/dev/null || return 0
  KMA_SERVICES_INSIDE=$how exec unshare "$@" --mount --propagation private \
    "${BASH_SOURCE[0]}" ${bases:+--bases} ${oracle:+--oracle} ${docker:+--docker} ${cluster:+--cluster} \
    ${disk:+--disk "$disk"} -- "${command[@]}"
}
command=("$@")
if [ -z "$inside" ] && [ "$(id -u)" = 0 ]; then
  enter yes
elif [ -z "$inside" ]; then
  enter user --user --map-root-user --map-auto
  enter user --user --map-root-user
fi
user=
if [ "$inside" = user ]; then user=yes inside=; fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/kma-services.XXXXXX")
binfmt=/proc/sys/fs/binfmt_misc
cgroup=$(basename "$dir")
groups=() entries=() pid=
net=() # what enters the cluster's network
# runc leaves this behind, empty; it is ours if it is not there yet.
leftovers=(/run/runc)
for i in "${!leftovers[@]}"; do [ ! -e "${leftovers[i]}" ] || unset "leftovers[i]"; done

# Jobs get process groups of their own: a Ctrl-C reaches COMMAND through us, and
# the servers only after COMMAND is gone.
set -m

stop() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}
cleanup() {
  trap - EXIT
  trap '' INT TERM HUP
  local i
  [ -z "$pid" ] || stop "$pid"
  for ((i = ${#groups[@]} - 1; i >= 0; i--)); do stop "${groups[i]}"; done
  for i in ${entries[@]+"${entries[@]}"}; do echo -1 >"$binfmt/$i" || true; done
  for i in ${leftovers[@]+"${leftovers[@]}"} /sys/fs/cgroup/{,*/}"$cgroup"; do
    [ ! -d "$i" ] || find "$i" -depth -type d -exec rmdir {} \; || true
  done
  [ -z "${net[*]}" ] || umount "$dir/net" || true
  if mountpoint -q "$dir"; then umount --lazy "$dir"; fi
  rm -rf --one-file-system "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# serve NAME COMMAND...: in the background, its output in $dir/NAME.log; it dies with this script.
serve() {
  local name=$1
  shift
  setpriv --pdeathsig KILL "${net[@]}" "$@" >"$dir/$name.log" 2>&1 </dev/null &
  groups+=("$!")
  disown # or bash reports its end
}

# ready COMMAND...: waits until COMMAND succeeds, 30 seconds at most (or $patience
# tenths), for the server that was started last.
ready() {
  for _ in $(seq "${patience:-300}"); do
    "$@" >/dev/null 2>&1 && return 0
    kill -0 "${groups[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# await NAME COMMAND...: the same, and without NAME nothing goes on.
await() {
  local name=$1
  shift
  ready "$@" && return 0
  say "$name did not start:"
  tail -n 20 "$dir/$name.log" >&2
  exit 1
}

# make_disk puts a file system of our own below $dir: its speed depends on no
# other's age, and it has a journal. The file has no name, so it goes with the mount.
make_disk() {
  [ -n "$inside" ] || { say "no disk: mounting one takes root and a mount namespace"; return; }
  local file
  file=$(mktemp "${TMPDIR:-/tmp}/kma-disk.XXXXXX")
  truncate -s "${disk}G" "$file"
  if /sbin/mkfs.ext4 -q -F -m 0 -E nodiscard "$file" && mount -o loop,noatime,noinit_itable "$file" "$dir"; then
    mkdir -m 1777 "$dir/tmp"
    export TMPDIR=$dir/tmp
  else
    say "no disk: see the messages above"
  fi
  rm -f "$file"
}

start_registry() { # [ADDRESS]
  local address=${1:-127.0.0.1}
  command -v docker-registry >/dev/null || { say "no registry: docker-registry is not installed"; return; }
  cat >"$dir/registry.yml" <<Y
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $dir/registry}, delete: {enabled: true}}
http: {addr: "$address:0"}
Y
  serve registry docker-registry serve "$dir/registry.yml"
  await registry grep -q "listening on $address" "$dir/registry.log"
  KMA_TEST_REGISTRY=$(sed -n "s/.*listening on \($address:[0-9]*\).*/\1/p" "$dir/registry.log" | head -n 1)
  export KMA_TEST_REGISTRY
}

# register MACHINE INTERPRETER PLATFORM MAGIC: flags PF as Debian's own entry,
# so that it works in any root and passes argv[0] on.
register() {
  [ "$(uname -m)" != "$1" ] || return 0
  local interpreter entry=kma-$$-$1 mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  interpreter=$(command -v "$2") || { say "no $3: $2 is not installed"; return; }
  printf '%s' ":$entry:M::$4:$mask:$interpreter:PF" >"$binfmt/register"
  entries+=("$entry")
  KMA_TEST_EMULATED=${KMA_TEST_EMULATED:+$KMA_TEST_EMULATED,}$3
  export KMA_TEST_EMULATED
}

register_qemu() {
  [ -n "$inside$user" ] || { say "no emulation: registering QEMU takes root and a mount namespace"; return; }
  # Where the kernel has one for all user namespaces, what root registered works.
  mount -t binfmt_misc binfmt_misc "$binfmt" 2>/dev/null || { say "no QEMU registered: this kernel has no binfmt_misc${user:+ for user namespaces, which takes Linux 6.7}"; return; }
  register aarch64 qemu-aarch64-static linux/arm64 \
    '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  register x86_64 qemu-x86_64-static linux/amd64 \
    '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00'
}

push_bases() {
  [ -n "${KMA_TEST_REGISTRY:-}" ] || return 0
  (cd "$here/.." && go run ./test/bases "$KMA_TEST_REGISTRY/bases")
  export KMA_TEST_BASES=$KMA_TEST_REGISTRY/bases
}

start_oracle() {
  [ -n "${KMA_TEST_REGISTRY:-}" ] || return 0
  [ -n "$inside" ] || { say "no BuildKit: its worker takes root and a mount namespace"; return; }
  command -v runc >/dev/null || { say "no BuildKit: runc is not installed"; return; }
  local bin
  bin=$("$here/binaries.sh" oracle)
  cat >"$dir/buildkitd.toml" <<T
root = "$dir/buildkit"
[grpc]
  address = ["unix://$dir/buildkitd.sock"]
[otel]
  socketPath = "$dir/otel.sock"
[worker.oci]
  binary = "$(command -v runc)"
  snapshotter = "overlayfs"
  networkMode = "host"
  gc = false
  defaultCgroupParent = "/$cgroup"
[worker.containerd]
  enabled = false
[registry."$KMA_TEST_REGISTRY"]
  http = true
T
  serve buildkitd "${KMA_TEST_BUILDKITD:-$bin/buildkitd}" --config "$dir/buildkitd.toml"
  export KMA_TEST_BUILDKIT=unix://$dir/buildkitd.sock KMA_TEST_BUILDCTL=$bin/buildctl
  await buildkitd "$KMA_TEST_BUILDCTL" --addr "$KMA_TEST_BUILDKIT" debug workers
}

# docker_client prints the first client that works with DOCKER_HOST.
docker_client() {
  local client
  while read -r client; do
    "$client" ps >/dev/null 2>&1 && echo "$client" && return 0
  done < <(type -ap docker)
  return 1
}

start_docker() {
  [ -n "$inside" ] || { say "no docker: its daemon takes root and a mount namespace"; return; }
  command -v dockerd >/dev/null || { say "no docker: dockerd is not installed"; return; }
  command -v docker >/dev/null || { say "no docker: its client is not installed"; return; }
  mkdir "$dir"/{run,etc,etc.work}
  cat >"$dir/dockerd.json" <<J
{
  "hosts": ["unix://$dir/docker.sock", "unix:///run/docker.sock"],
  "group": "root",
  "data-root": "$dir/docker",
  "exec-root": "$dir/docker-exec",
  "pidfile": "$dir/docker.pid",
  "storage-driver": "overlay2",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "cgroup-parent": "/$cgroup",
  "bridge": "none",
  "iptables": false,
  "ip6tables": false,
  "ip-forward": false
}
J
  # Its own process and mount namespace: what it starts and mounts ends with the
  # shell, at once, containers that ignore signals too. Its own /run: containerd's
  # shims have their sockets there, whatever the configuration, and a containerd
  # found there would be used. Its own layer on /etc: it writes to /etc/docker.
  # shellcheck disable=SC2016 # expanded by the inner shell
  serve dockerd unshare --fork --pid --kill-child --mount-proc bash -euc '
    if [ -d /run/systemd/resolve ]; then # where /etc/resolv.conf may lead
      mkdir -p "$1/run/systemd/resolve"
      mount --bind /run/systemd/resolve "$1/run/systemd/resolve"
    fi
    mount --rbind "$1/run" /run
    mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc.work" overlay /etc
    trap "exit 0" TERM
    dockerd --config-file "$1/dockerd.json" &
    wait "$!"' dockerd "$dir"
  if ! DOCKER_HOST=unix://$dir/docker.sock ready docker_client; then
    say "no docker: $(grep -v level=info "$dir/dockerd.log" | tail -n 1)"
    return
  fi
  export DOCKER_HOST=unix://$dir/docker.sock
  KMA_TEST_DOCKER=$(docker_client)
  export KMA_TEST_DOCKER
}

# cluster_images pushes the tool's image and that of a pod's sandbox, for this
# machine's architecture: the foreign node's programs are native, too.
cluster_images() {
  local work=$dir/images
  mkdir -p "$work/kaniko"
  (cd "$here/.." && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w -buildid=' -o "$work/kaniko/kaniko-multiarch" .)
  ln -s kaniko-multiarch "$work/kaniko/executor"
  cat >"$work/Dockerfile" <<D
FROM $KMA_TEST_BASES/busybox:1 AS pause
ENTRYPOINT ["/bin/sleep", "1000000000"]
FROM scratch AS tool
COPY kaniko /kaniko/
ENV HOME=/root USER=root PATH=/kaniko DOCKER_CONFIG=/kaniko/.docker/
ENTRYPOINT ["/kaniko/executor"]
D
  for target in pause tool; do
    "$work/kaniko/kaniko-multiarch" build --context "$work" --target "$target" --state-dir "$work/state" --progress plain \
      --destination "$KMA_TEST_REGISTRY/cluster/$target" --digest-file "$work/$target" >"$work/$target.log" 2>&1 || {
      say "the cluster's images were not built:"
      tail -n 20 "$work/$target.log" >&2
      return 1
    }
  done
}

start_cluster() {
  [ -n "$inside" ] || { say "no cluster: its nodes take root and a mount namespace"; return; }
  [ -n "${KMA_TEST_BASES:-}" ] || { say "no cluster: its images take --bases and a registry"; return; }
  local program binaries images=$dir/images
  for program in containerd runc openssl ip /usr/lib/cni/bridge; do
    command -v "$program" >/dev/null || { say "no cluster: $program is not installed"; return; }
  done
  unshare --net true 2>/dev/null || { say "no cluster: this system gives nobody a network of one's own"; return; }
  # What comes from elsewhere comes now.
  binaries=$("$here/binaries.sh" cluster)
  (cd "$here/.." && go mod download)
  cluster_images

  : >"$dir/net"
  unshare --net="$dir/net" ip link set lo up
  net=(nsenter --net="$dir/net")
  "${net[@]}" ip address add 10.99.0.1/32 dev lo
  start_registry 10.99.0.1
  export KMA_TEST_BASES=$KMA_TEST_REGISTRY/bases
  export KMA_TEST_CLUSTER_IMAGE=$KMA_TEST_REGISTRY/cluster/tool@$(<"$images/tool")

  export KUBECACHEDIR=$dir/kubectl # not in anybody's home
  mkdir "$dir/cluster"
  serve cluster unshare --fork --pid --kill-child --mount-proc \
    "$here/cluster/up.sh" "$dir/cluster" "$binaries" "$cgroup" "$KMA_TEST_REGISTRY" "$KMA_TEST_REGISTRY/cluster/pause@$(<"$images/pause")"
  patience=3000 await cluster grep -qx up "$dir/cluster.log"
  export KMA_TEST_CLUSTER=$dir/cluster/admin KMA_TEST_KUBECTL=$dir/cluster/bin/kubectl KMA_TEST_CLUSTER_CONTROL=$here/cluster/control.sh
}

[ -z "$disk" ] || make_disk
start_registry
register_qemu
[ -z "$bases" ] || push_bases
[ -z "$cluster" ] || start_cluster
[ -z "$oracle" ] || start_oracle
[ -z "$docker" ] || start_docker

setpriv --pdeathsig TERM "${net[@]}" "$@" &
pid=$!
code=0
wait "$pid" || code=$?
exit "$code"
