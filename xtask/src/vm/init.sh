#!/bin/busybox sh
# First process of the guest: leaves the initramfs, which nothing can pivot away from, for a tmpfs.
/bin/busybox mkdir -p /root
/bin/busybox mount -t tmpfs -o mode=755 root /root
/bin/busybox cp -a /bin /modules /tests /apparmor /filters /skipped /sbin-init /root/
for folder in /*; do
    case $folder in
    /bin | /modules | /tests | /apparmor | /root | /init | /sbin-init | /filters | /skipped) ;;
    *) /bin/busybox cp -a "$folder" /root/ ;;
    esac
done
exec /bin/busybox switch_root /root /sbin-init
