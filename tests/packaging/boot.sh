#!/bin/sh
# Starts systemd as the first process of a container. It wants control groups of version 2, and a tree of its own. Where the
# machine has version 1, a part of its tree without controllers does, of which a new namespace shows nothing else.
set -eu
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    exec /sbin/init
fi
mkdir /tmp/tree
mount -t cgroup2 none /tmp/tree
mkdir "/tmp/tree/$(hostname)"
echo $$ >"/tmp/tree/$(hostname)/cgroup.procs"
umount /tmp/tree
umount -R /sys/fs/cgroup
exec unshare --cgroup sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec /sbin/init'
