#!/busybox sh
# First process of a virtual machine (`mod.rs` packs it with the modules it loads).
# It makes the host's files the machine's own: read-only by 9p, with a layer in memory above
# them, so that every program of the host is there and nothing that happens here reaches it.
# Then the test harness's own first process takes over: `testbed guest`.
/busybox mkdir -p /proc /dev /host /layer /root
/busybox mount -t proc proc /proc
/busybox mount -t devtmpfs dev /dev
while read -r module; do
    /busybox insmod "/modules/$module" || echo "vip-init: cannot load $module"
done </modules/order

# A look whether this machine boots at all: `vm/accelerator.rs` of the tests.
if [ "$vip_probe" = 1 ]; then
    echo "vip-init: boots"
    exec /busybox poweroff -f
fi

share() { # tag, directory, options
    /busybox mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$3" "$1" "$2"
}
share root /host ro,cache=loose
/busybox mount -t tmpfs -o size=80% layer /layer
/busybox mkdir /layer/upper /layer/work
/busybox mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
/busybox mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp /root/usr/lib/modules
/busybox mount -t proc proc /root/proc
/busybox mount -t sysfs sys /root/sys
/busybox mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
/busybox mount -t devtmpfs dev /root/dev
/busybox mkdir -p /root/dev/pts /root/dev/shm
/busybox mount -t devpts devpts /root/dev/pts
/busybox mount -t tmpfs run /root/run
# Not on /tmp, which is in memory anyway: the repository may lie there.
share modules /root/usr/lib/modules ro,cache=loose
# Certificates and configurations, which the host goes on writing: nothing is cached.
share work /root/dev/shm rw
echo "vip-init: $vip_testbed is next"
exec /busybox switch_root /root "$vip_testbed" guest
