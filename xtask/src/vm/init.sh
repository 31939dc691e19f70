#!/usr/bin/bash
# The first program of the machine of `cargo xtask vm`: sets it up, runs what /vm/tests says, and ends it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux LANG=C

# The file system into which the kernel unpacks can be no root of a mount namespace whose root is changed; a mount of it can.
if [[ ${1-} != inside ]]; then
    mkdir -p /vm/root
    mount --bind / /vm/root
    cd /vm/root
    mount --move . /
    exec chroot . /init inside
fi

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue /dev/hugepages
mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t hugetlbfs huge /dev/hugepages
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin; ln -sfn fd/1 /dev/stdout; ln -sfn fd/2 /dev/stderr
hostname vm 2>/dev/null || echo vm >/proc/sys/kernel/hostname
ip link set lo up
while read -r module; do busybox insmod "/vm/modules/$module" || echo "vm: $module was not loaded"; done </vm/modules/order

# Victims with thousands of sockets; a soft limit as programs usually have it.
ulimit -Hn 1048576
ulimit -Sn 1024

source /vm/tests
echo "vm: $(uname -r), $(grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'), up after $(sed 's/ .*//' /proc/uptime) s"
grep -m1 flags /proc/cpuinfo

as=()
export SNAP_TEST_BUILT=1 SNAP_RANDOM_KILLS=20 RUST_BACKTRACE=0
if [[ $AS_USER == 1 ]]; then
    export SNAP_TEST_ORDINARY_USER=1 HOME=/tmp/ordinary TMPDIR=/tmp/ordinary
    mkdir -p "$HOME" && chown 65534:65534 "$HOME"
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --ambient-caps=-all)
fi

# Everything that is run gets a session of its own: the first program has one that nobody else may be in.
step() {
    local title=$1
    shift
    echo "vm: begin $title"
    setsid --wait "${as[@]}" "$@" </dev/null 2>&1
    echo "vm: end $title: $?"
}

cd /tmp || exit
step "snap check" "$SNAP" check
step "snap demo" "$SNAP" demo
# shellcheck disable=SC2086
step "tests" "$IT" --test-threads=2 $TESTS
echo "vm: done after $(sed 's/ .*//' /proc/uptime) s"
sleep 0.2
busybox reboot -f
