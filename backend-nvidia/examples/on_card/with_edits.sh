#!/usr/bin/env bash
# Runs a program in a root of its own that has exactly what a container would get of a card, and its own libraries:
#
#   cargo build --release --examples -p vgpu-backend-nvidia
#   target/release/examples/show_edits 0 > /tmp/edits
#   backend-nvidia/examples/on_card/with_edits.sh /tmp/edits target/release/examples/cuda_probe
#   backend-nvidia/examples/on_card/with_edits.sh /tmp/edits nvidia-smi
#
# As root. A second argument that has no slash is a program among the mounts.
set -euo pipefail
edits=$(realpath "${1:?which edits?}") program=${2:?which program?}
if [ "${WITH_EDITS_INSIDE:-}" != yes ]; then
  WITH_EDITS_INSIDE=yes exec unshare --mount --pid --fork --propagation private "$0" "$@"
fi
shift 2
root=$(mktemp -d)
mount -t tmpfs -o mode=755 with-edits "$root"
mkdir -p "$root"/{dev,etc,proc,tmp,usr/bin}
mknod -m 666 "$root/dev/null" c 1 3
mount -t proc proc "$root/proc"
# What the dynamic loader needs for the program itself; none of it is the driver's.
bring() {
  { ldd "$1" 2>/dev/null || true; } | grep -o '/[^ )]*' | while read -r library; do
    case $library in *nvidia* | *libcuda*) continue ;; esac
    [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
  done
}
environment=(PATH=/usr/bin:/bin) folders=()
while IFS=$'\t' read -r kind first second third; do
  case $kind in
    node) mkdir -p "$root$(dirname "$first")"; mknod -m 666 "$root$first" c "$second" "$third" ;;
    mount)
      mkdir -p "$root$(dirname "$second")"
      if [ -d "$first" ]; then mkdir -p "$root$second"; else touch "$root$second"; fi
      mount --bind "$first" "$root$second"
      mount -o remount,bind,ro,nosuid,nodev "$root$second"
      ;;
    env) environment+=("$first") ;;
    link) mkdir -p "$root$(dirname "$second")"; ln -sfn "$first" "$root$second" ;;
    folder) folders+=("$first") ;;
  esac
done < "$edits"
case $program in
  */*) cp "$program" "$root/usr/bin/program"; bring "$program"; program=/usr/bin/program ;;
  *) bring "$root/usr/bin/$program"; program=/usr/bin/$program ;;
esac
# The driver's libraries need the C library's other parts, which the program may not name.
for name in libdl.so.2 libpthread.so.0 librt.so.1 libm.so.6; do
  library=$(ldconfig -p | grep -m1 "$name " | grep -o '/.*' || true)
  [ -z "$library" ] || [ -e "$root$library" ] ||
    { mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library"; }
done
printf '%s\n' ${folders[@]+"${folders[@]}"} > "$root/etc/ld.so.conf"
ldconfig -r "$root" -f /etc/ld.so.conf -C /etc/ld.so.cache
exec env -i "${environment[@]}" "$(command -v chroot)" "$root" "$program" "$@"
