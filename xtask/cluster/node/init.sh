#!/bin/sh
# PID 1 of the boxed node. It lays the node's own file systems over the machine's, inside its own mount namespace,
# makes the node's network, says that it is ready, and then only waits for orphans. When it ends, everything in the
# box ends with it: the kernel kills the PID namespace, and mounts and network go with theirs.
set -eu
dir=$1      # the node's folder on the machine
address=$2  # the node's address
service=$3  # the address of the service `kubernetes`
name=$4     # the node's name

hostname "$name"

# /var/lib and /opt: whatever a component writes there lands in the node's folder.
for place in var/lib opt; do
    mkdir -p "$dir/overlay/$place/upper" "$dir/overlay/$place/work"
    mount -t overlay overlay "/$place" \
        -o "lowerdir=/$place,upperdir=$dir/overlay/$place/upper,workdir=$dir/overlay/$place/work"
done
# Plain folders: containerd's snapshots are overlays and cannot lie on one, and the kubelet's sockets are to be
# reached from outside. kubelet's device-plugins folder is a constant below /var/lib/kubelet.
for place in kubelet containerd vgpu; do
    mkdir -p "/var/lib/$place" "$dir/$place"
    mount --bind "$dir/$place" "/var/lib/$place"
done
mkdir -p "$dir/log/machine"
mount --bind "$dir/log/machine" /var/log
# The state of a boot: gone at the next one.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/cdi

# What a kubelet sets has no namespace: it would change the machine, and whatever else runs on it. It reads and writes
# plain files instead.
for setting in kernel/keys/root_maxbytes kernel/keys/root_maxkeys kernel/panic kernel/panic_on_oops \
    vm/overcommit_memory vm/panic_on_oom; do
    [ -e "/proc/sys/$setting" ] || continue
    mkdir -p "$dir/sysctls/${setting%/*}"
    cat "/proc/sys/$setting" >"$dir/sysctls/$setting"
    mount --bind "$dir/sysctls/$setting" "/proc/sys/$setting"
done

# Devices of our own, so that the scripted machine's nodes can be made without touching the machine's.
dev=$dir/dev
mkdir -p "$dev"
mount -t tmpfs -o mode=755 tmpfs "$dev"
mknod -m 666 "$dev/null" c 1 3
mknod -m 666 "$dev/zero" c 1 5
mknod -m 666 "$dev/full" c 1 7
mknod -m 666 "$dev/random" c 1 8
mknod -m 666 "$dev/urandom" c 1 9
mknod -m 666 "$dev/tty" c 5 0
mknod -m 644 "$dev/kmsg" c 1 11
mkdir "$dev/pts" "$dev/shm" "$dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$dev/shm"
mount -t mqueue mqueue "$dev/mqueue"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
ln -s /proc/self/fd/0 "$dev/stdin"
ln -s /proc/self/fd/1 "$dev/stdout"
ln -s /proc/self/fd/2 "$dev/stderr"
mount --move "$dev" /dev

# Volumes and the runtime's mounts propagate among the node's components, never to the machine.
mount --make-rshared /

# kubelet refuses a loopback address; both ends of the pair stay in the box. The service's address is ours, so that
# pods reach the apiserver without kube-proxy.
ip link set lo up
ip address add "$service/32" dev lo
ip link add node0 type veth peer name node1
ip address add "$address/24" dev node0
ip link set node0 up
ip link set node1 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

: >"$dir/ready"
# Each pause lets the shell take in the orphans that have ended meanwhile; whoever ends the pause does not end the node.
while :; do sleep 1 || :; done
