#!/bin/busybox sh
# First process of a guest: leaves the initramfs, which nothing can pivot away from, for a tmpfs or for the disk.
/bin/busybox mkdir -p /root /dev
if [ "$guest_root" = disk ]; then
    for module in /modules/*; do /bin/busybox insmod "$module"; done
    /bin/busybox mount -t devtmpfs dev /dev
    /bin/busybox mount -t ext4 /dev/vda /root
    /bin/busybox umount /dev
else
    /bin/busybox mount -t tmpfs -o mode=755 root /root
fi
for folder in /*; do
    case $folder in
    /root | /init | /dev) ;;
    *) /bin/busybox cp -a "$folder" /root/ ;;
    esac
done
/bin/busybox mkdir -p /root/dev
exec /bin/busybox switch_root /root "${guest_first:-/sbin-init}"
