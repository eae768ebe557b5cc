#!/usr/bin/env bash
# usage: control.sh stop|start|restart PART
#
# Kills a part of the cluster of test/with-services.sh, or starts it again, and
# returns when that is done: etcd, apiserver (ready again), controllers, scheduler,
# containerd-ARCHITECTURE, kubelet-ARCHITECTURE.
set -euo pipefail
[ $# = 2 ] || { sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
case $1 in stop | start | restart) ;; *) sed -n '2s/^# //p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;; esac
dir=$(dirname "${KMA_TEST_CLUSTER:?run this under test/with-services.sh --cluster}")
exec 7>"$dir/control.lock"
flock 7
echo "$1 $2" >"$dir/control"
read -r reply <"$dir/reply"
[ "$reply" = ok ] || { echo "control: $reply" >&2; exit 1; }
