#!/bin/busybox sh
# Runs every test program and says how many failed; the host listens to the last line only.
# Beside Debian's own programs only those are linked that are missing.
/bin/busybox --install -s /bin 2> /dev/null
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp RUST_BACKTRACE=0
export GANTRY_RUNTIME=/bin/gantry-runtime GANTRY_OCI_PROBE=/bin/oci-probe
failed=0
prepare() {
    mkdir -p /proc /sys /dev /tmp /run /etc /root
    chmod 1777 /tmp
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts /dev/shm /dev/mqueue
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    mount -t tmpfs run /run
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t securityfs security /sys/kernel/security
    ip link set lo up
    hostname guest
    [ -e /etc/hostname ] || echo guest > /etc/hostname
    [ -e /etc/hosts ] || echo "127.0.0.1 localhost" > /etc/hosts
    [ -e /etc/passwd ] || echo "root:x:0:0:root:/:/bin/sh" > /etc/passwd
    [ -e /etc/group ] || echo "root:x:0:" > /etc/group
    if [ "$guest_root" != disk ]; then
        for module in /modules/*; do insmod "$module" || failed=$((failed + 1)); done
        # Where util-linux has it.
        mkdir -p /usr/bin && ln -sf /bin/busybox /usr/bin/unshare
    fi
    if [ -e /policy ]; then
        mount -t selinuxfs selinuxfs /sys/fs/selinux
        # In one piece, as the kernel wants it.
        dd if=/policy of=/sys/fs/selinux/load bs=1M 2> /dev/null || failed=$((failed + 1))
        echo 1 > /sys/fs/selinux/enforce
    fi
    if [ -d /sys/kernel/security/apparmor ]; then
        for profile in /apparmor/*; do
            cat "$profile" > /sys/kernel/security/apparmor/.replace || failed=$((failed + 1))
        done
    fi
}
# systemd has done this where it is the first process.
[ $$ = 1 ] && prepare
skip=""
while read -r name || [ -n "$name" ]; do [ -n "$name" ] && skip="$skip --skip $name"; done < /skipped
filters="$(cat /filters)"
# A filter that is part of a program's name chooses the program; else filters choose cases.
chosen=""
for program in /tests/*; do
    for filter in $filters; do
        case ${program##*/} in *$filter*) chosen="$chosen $program" ;; esac
    done
done
[ -n "$chosen" ] && filters=""
for program in ${chosen:-/tests/*}; do
    echo "gantry-vm: ${program##*/}"
    case $program in
    */runtime-*) $program --test-threads 2 $skip $filters ;;
    # On ext4: Linux maps ids on tmpfs since 6.3 only.
    */oci) mkdir -p /disk && mount -t ext4 /dev/vda /disk && TMPDIR=/disk $program $filters ;;
    *) $program $filters ;;
    esac || failed=$((failed + 1))
done
echo "gantry-vm: after $(cut -d ' ' -f 1 /proc/uptime) s"
echo "gantry-vm: failed programs: $failed"
poweroff -f
