#!/bin/sh
# The node loses its power and comes back, as far as a kubelet and its plugins can tell: pods, runtime, kubelet and
# agent are killed, /run is empty, the boot id is another. Disks are as they were, and the control plane lives elsewhere.
set -eu
dir=$1
cgroup=$2  # the node's group in every hierarchy

victims() {
    for process in /proc/[0-9]*; do
        case $(cat "$process/comm" 2>/dev/null) in
            containerd* | kubelet | vgpu-plugin) echo "${process#/proc/}" ;;
            *) grep -q ":/$cgroup/" "$process/cgroup" 2>/dev/null && echo "${process#/proc/}" ;;
        esac
    done || :
}

left=$(victims)
while [ "$left" ]; do
    kill -9 $left 2>/dev/null || :
    sleep 0.1
    left=$(victims)
done

# A kubelet that finds cgroups without containers waits half a minute for them; after a reboot there are none.
for group in "/sys/fs/cgroup/$cgroup" /sys/fs/cgroup/*/"$cgroup"; do
    [ -d "$group" ] && find "$group" -mindepth 1 -depth -type d -exec rmdir {} + || :
done

umount --recursive --lazy /run
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/cdi
cat /proc/sys/kernel/random/uuid >"$dir/boot-id"
mount --bind "$dir/boot-id" /proc/sys/kernel/random/boot_id
