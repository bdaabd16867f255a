#!/busybox sh
# First process of the machine with the other architecture: shows that what is shipped for it
# works on its kernel. Each proof is a line on the console, which the test reads.

/busybox mkdir -p /bin /proc /sys /dev /run /tmp
/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf

proof() {
  name=$1
  shift
  if "$@" >"/tmp/$name" 2>&1; then
    echo "proved: $name"
  else
    echo "not proved: $name"
    cat "/tmp/$name"
  fi
}

while read -r module; do
  insmod "/modules/$module"
done </modules/order
ip link set lo up

# Each verdict by the real program, against the packet logic.
proof verdicts /verdicts --test-threads=2

# The node has one NIC; the client has the other one, which hangs on the same cable.
unshare -n sleep 100000 &
client="nsenter -t $! -n"
sleep 1
ip link set eth1 netns $!
ip address add 10.0.0.11/24 dev eth0
ip link set eth0 up
$client ip address add 10.0.0.100/24 dev eth1
$client ip link set eth1 up
nc -ll -p 6443 -e sh -c "echo served; exec cat" &
/vip run --config /vip.toml >/tmp/agent 2>&1 &
agent=$!

owns() {
  for _ in $(seq 120); do
    if grep -q "became the owner" /tmp/agent; then return; fi
    sleep 1
  done
  cat /tmp/agent
  return 1
}
answers() {
  $client arping -c 3 -I eth1 10.0.0.10 | tee /dev/stderr | grep -q "$(cat /sys/class/net/eth0/address)"
}
serves() { echo | $client nc -w 20 10.0.0.10 6443 | grep -q served; }
counts() {
  /vip status | tee /dev/stderr >/tmp/status
  grep -Eq "^arp_answered +[1-9]" /tmp/status && grep -Eq "^local_syn +[1-9]" /tmp/status
}
# The programs that tell of connections load apart from the others.
knows_connections() {
  sleep 60 | $client nc 10.0.0.10 6443 &
  for _ in $(seq 30); do
    wget -q -O /tmp/metrics http://127.0.0.1:9643/metrics
    if grep -q "^vip_roster_connections{.*} 1$" /tmp/metrics; then return; fi
    sleep 1
  done
  grep roster /tmp/metrics
  return 1
}
leaves_nothing() {
  kill "$agent"
  wait "$agent"
  /vip cleanup
  ls -A /sys/fs/bpf
  ip address show dev lo
  [ -z "$(ls -A /sys/fs/bpf)" ] && ! ip address show dev lo | grep -q 10.0.0.10
}

proof owns owns
proof native grep "XDP mode native" /tmp/agent
proof answers answers
proof serves serves
proof counts counts
proof knows_connections knows_connections
proof leaves_nothing leaves_nothing
poweroff -f
