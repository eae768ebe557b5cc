#!/usr/bin/env bash
# usage: up.sh DIRECTORY BINARIES CGROUP REGISTRY PAUSE
#
# A Kubernetes: a control plane and two nodes, linux/amd64 and linux/arm64, which
# pull from REGISTRY; PAUSE is the image of a pod's sandbox. test/with-services.sh
# starts this as the first process of a process, a mount and a network namespace:
# everything ends with it, and what it has to put outside of DIRECTORY is seen by
# nobody else.
#
# It writes DIRECTORY/admin, a kubeconfig, and says "up". Then it does what is
# written to DIRECTORY/control, a line each: see control.sh.
set -euo pipefail
dir=$1 bin=$2 cgroup=$3 registry=$4 pause=$5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
address=10.99.0.1
native=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')

trap 'exit 0' TERM
mkfifo "$dir/control" "$dir/reply"

# A node's programs have paths that no setting changes: a /run for shims' sockets,
# a /var/log and a /var/lib for links and state. The kubelet insists on six of the
# kernel's settings, too: it may have files instead.
private() {
  local setting
  mkdir -p "$dir"/{run,log,lib,work,bin,sysctl}
  for setting in vm/{overcommit_memory,panic_on_oom} kernel/{panic,panic_on_oops} kernel/keys/root_max{keys,bytes}; do
    cat "/proc/sys/$setting" >"$dir/sysctl/${setting//\//.}"
    mount --bind "$dir/sysctl/${setting//\//.}" "/proc/sys/$setting"
  done
  mount -t overlay -o "lowerdir=/var/lib,upperdir=$dir/lib,workdir=$dir/work" overlay /var/lib
  mount --bind "$dir/log" /var/log
  mount --rbind "$dir/run" /run
}

declare -A command=() process=()
keep() { # NAME COMMAND...: starts it; control.sh may stop and start it again
  local name=$1
  shift
  command[$name]=$(printf '%q ' "$@")
  start "$name"
}
start() {
  eval "exec ${command[$1]}" >>"$dir/$1.log" 2>&1 </dev/null &
  process[$1]=$!
}
stop() {
  [ -n "${process[$1]:-}" ] || return 0
  kill -KILL "${process[$1]}" 2>/dev/null || true
  wait "${process[$1]}" 2>/dev/null || true
  process[$1]=
}

# await NAME COMMAND...: until COMMAND succeeds, while NAME runs, a minute at most.
await() {
  local name=$1
  shift
  for _ in $(seq 300); do
    "$@" >>"$dir/$name.await.log" 2>&1 && return 0
    kill -0 "${process[$name]}" 2>/dev/null || break
    sleep 0.2
  done
  echo "$name did not start:"
  tail -n 20 "$dir/$name.log" "$dir/$name.await.log"
  exit 1
}

kubectl() { "$dir/bin/kubectl" --kubeconfig "$dir/admin" "$@"; }

# who NAME USER GROUP: a kubeconfig, and a token that the API server knows.
who() {
  echo "token-of-$1,$2,$2,\"$3\"" >>"$dir/tokens"
  cat >"$dir/$1" <<Y
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w 0 "$dir/api.crt")}}]
users: [{name: $2, user: {token: "token-of-$1"}}]
contexts: [{name: test, context: {cluster: test, user: "$2"}}]
current-context: test
Y
}

control_plane() {
  local name
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    ln -s "$bin/hyper" "$dir/bin/$name"
  done
  # One key serves the API and signs the service accounts' tokens.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=kube-apiserver \
    -addext "subjectAltName=IP:$address,IP:127.0.0.1" -keyout "$dir/api.key" -out "$dir/api.crt" 2>/dev/null
  who admin admin system:masters
  who controllers system:kube-controller-manager ""
  who scheduler system:kube-scheduler ""
  for name in amd64 arm64; do who "kubelet-$name" "system:node:node-$name" system:nodes; done

  keep etcd "$dir/bin/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  keep apiserver "$dir/bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$address" --cert-dir="$dir" \
    --tls-cert-file="$dir/api.crt" --tls-private-key-file="$dir/api.key" --token-auth-file="$dir/tokens" --anonymous-auth=false \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$dir/api.crt" --service-account-signing-key-file="$dir/api.key" \
    --service-cluster-ip-range=10.98.0.0/24 --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-preferred-address-types=InternalIP --allow-privileged=true
  await apiserver kubectl get --raw /readyz
  keep controllers "$dir/bin/kube-controller-manager" --kubeconfig="$dir/controllers" --authentication-kubeconfig="$dir/controllers" \
    --authorization-kubeconfig="$dir/controllers" --bind-address=127.0.0.1 --cert-dir="$dir" --leader-elect=false --flex-volume-plugin-dir="$dir/volume-plugins" \
    --use-service-account-credentials=true --service-account-private-key-file="$dir/api.key" --root-ca-file="$dir/api.crt"
  keep scheduler "$dir/bin/kube-scheduler" --kubeconfig="$dir/scheduler" --authentication-kubeconfig="$dir/scheduler" \
    --authorization-kubeconfig="$dir/scheduler" --bind-address=127.0.0.1 --cert-dir="$dir" --leader-elect=false
  await controllers kubectl get serviceaccount default
}

# A kubelet writes down its own architecture at every heartbeat. This policy makes
# one node's foreign: what runs there runs through QEMU.
foreign_node() {
  local arch=arm64
  [ "$native" = amd64 ] || arch=amd64
  kubectl apply -f - <<Y
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: foreign-node}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [nodes, nodes/status]}
  matchConditions:
  - {name: its-name, expression: "object.metadata.name == 'node-$arch'"}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >
        Object{metadata: Object.metadata{labels: {"kubernetes.io/arch": "$arch", "beta.kubernetes.io/arch": "$arch"}},
               status: Object.status{nodeInfo: Object.status.nodeInfo{architecture: "$arch"}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: foreign-node}
spec: {policyName: foreign-node}
Y
}

# cgroups NAME: a kubelet removes the groups of pods that it does not know, so each
# has a root of its own, in every hierarchy.
cgroups() {
  local hierarchy group
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2
    for group in . "$cgroup"; do
      mkdir -p "/sys/fs/cgroup/$group"
      echo "+cpu +cpuset +memory +pids" >"/sys/fs/cgroup/$group/cgroup.subtree_control"
    done
    mkdir "/sys/fs/cgroup/$cgroup/$1"
    return
  fi
  while read -r hierarchy; do
    mkdir -p "$hierarchy/$cgroup/$1"
    [ -e "$hierarchy/cpuset.cpus" ] || continue
    for group in "$hierarchy/$cgroup" "$hierarchy/$cgroup/$1"; do
      cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
      cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
    done
  done < <(awk '$3 == "cgroup" { print $2 }' /proc/mounts)
}

node() { # ARCHITECTURE NUMBER
  local name=node-$1 ip=10.99.0.1$2 d=$dir/node-$1
  mkdir -p "$d"/{cni,pods,hosts/"$registry"}
  ip address add "$ip/32" dev lo
  cat >"$d/cni/10-bridge.conflist" <<J
{"cniVersion": "0.4.0", "name": "pods-$1", "plugins": [{
  "type": "bridge", "bridge": "pods-$1", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$d/ipam", "ranges": [[{"subnet": "10.97.$2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
J
  echo "[host.\"http://$registry\"]" >"$d/hosts/$registry/hosts.toml"
  # restrict_oom_score_adj: in a virtual machine root may lack CAP_SYS_RESOURCE.
  cat >"$d/containerd.toml" <<T
version = 2
root = "$d/containerd"
state = "$d/state"
[grpc]
address = "$d/containerd.sock"
[ttrpc]
address = "$d/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "$d/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "$d/hosts"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$d/cni"
T
  keep "containerd-$1" containerd --config "$d/containerd.toml"
  await "containerd-$1" ctr --address "$d/containerd.sock" version
  cgroups "$name"
  cat >"$d/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
healthzBindAddress: $ip
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://$d/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/$name
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
podLogsDir: $d/pods
volumePluginDir: $d/volume-plugins
clusterDNS: [$address]
clusterDomain: cluster.local
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
Y
  keep "kubelet-$1" "$dir/bin/kubelet" --config="$d/kubelet.yaml" --kubeconfig="$dir/kubelet-$1" --hostname-override="$name" --node-ip="$ip" \
    --root-dir="$d/kubelet" --cert-dir="$d/certificates" --node-labels="kubernetes.io/arch=$1,beta.kubernetes.io/arch=$1"
}
node_ready() { [ "$(kubectl get node "node-$1" -o 'jsonpath={.metadata.labels.kubernetes\.io/arch} {.status.conditions[?(@.type=="Ready")].status}')" = "$1 True" ]; }

private
control_plane
foreign_node >/dev/null
node amd64 1
node arm64 2
for arch in amd64 arm64; do await "kubelet-$arch" node_ready "$arch"; done
echo up

exec 8<>"$dir/control" 9<>"$dir/reply"
while read -r verb name <&8; do
  if [ -z "${command[$name]:-}" ]; then
    echo "no $name here: ${!command[*]}" >&9
    continue
  fi
  case $verb in
  stop) stop "$name" ;;
  start) [ -n "${process[$name]}" ] || start "$name" ;;
  restart) stop "$name" && start "$name" ;;
  esac
  [ "$verb $name" != "start apiserver" ] && [ "$verb $name" != "restart apiserver" ] || await apiserver kubectl get --raw /readyz
  echo ok >&9
done
