#!/bin/busybox sh
# Runs every test program and says how many failed; the host listens to the last line only.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp GANTRY_RUNTIME=/bin/gantry-runtime RUST_BACKTRACE=0
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
echo "root:x:0:0:root:/:/bin/sh" > /etc/passwd
echo "root:x:0:" > /etc/group
failed=0
for module in /modules/*; do insmod "$module" || failed=$((failed + 1)); done
for profile in /apparmor/*; do
    cat "$profile" > /sys/kernel/security/apparmor/.replace || failed=$((failed + 1))
done
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
    */guest) $program $filters ;;
    *) $program --test-threads 2 $skip $filters ;;
    esac || failed=$((failed + 1))
done
echo "gantry-vm: after $(cut -d ' ' -f 1 /proc/uptime) s"
echo "gantry-vm: failed programs: $failed"
poweroff -f
