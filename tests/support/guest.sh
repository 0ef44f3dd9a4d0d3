#!/bin/sh
# The first process of a kernel in user mode. Its root is a folder of the host, read-only; commands come from the
# console, one a line, and end with a line that tells their exit code.
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
for folder in /etc /var /root; do
    mkdir "/run/copy"
    mount -t tmpfs tmpfs /run/copy
    cp -a "$folder/." /run/copy
    mount --move /run/copy "$folder"
    rmdir /run/copy
done
modprobe -a esp4 esp6 xfrm_user af_key tun gcm ccm ctr cbc seqiv echainiv authenc authencesn chacha20poly1305 \
    chacha hmac sha512 cmac xcbc
printf '%s\n' root:x:0:0::/root:/bin/sh _iked:x:1:1::/var/lib/openiked/empty:/bin/false >/etc/passwd
printf '%s\n' root:x:0: _iked:x:1: >/etc/group
ip link set lo up
ip link set vec0 up
ip link set vec1 up
sysctl -qw net.ipv4.ip_forward=1
stty raw -echo
echo "[exit $?]"
while read -r line; do
    [ -n "$line" ] || continue
    eval "$line"
    echo "[exit $?]"
done
