# Runs in another kernel: an API server, a pod and the proxy, in mode ipvs and changing to the modes in MODES one after the
# other while a client connects. The test gives PORTOLAN and MODES, and reads what is written.
set -u
echo 1 > /proc/sys/net/ipv4/ip_forward

DATA=/run/portolan
NODE=192.0.2.1
kubectl="kubectl --kubeconfig $DATA/kubeconfig"

wait_for() {
    tries=0
    until eval "$1" > /dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ]; then
            echo "not within time: $1"
            for log in /run/*.log; do echo "== $log"; tail -n 5 "$log"; done
            exit 1
        fi
        sleep 0.2
    done
}

ip netns add pod
ip link add v0 type veth peer name eth0 netns pod
ip addr add 10.1.0.1/24 dev v0
ip addr add $NODE/32 dev lo
ip link set v0 up
ip -n pod link set lo up
ip -n pod link set eth0 up
ip -n pod addr add 10.1.0.2/24 dev eth0
ip -n pod route add default via 10.1.0.1
# Without a route a packet to a ClusterIP would not even begin.
ip route add default via 10.1.0.2

cat > /run/server.py <<'P'
import socket, threading
server = socket.create_server(("", 8080), backlog=100)
def serve(peer):
    while data := peer.recv(100):
        peer.sendall(data)
    peer.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
P
cat > /run/client.py <<'P'
import os, socket
def connect():
    return socket.create_connection(("10.96.0.77", 80), timeout=30)
def works(line):
    line.sendall(b"x")
    assert line.recv(1) == b"x"
first, count = connect(), 0
works(first)
open("/run/begun", "w").close()
while not os.path.exists("/run/enough"):
    line = connect()
    works(line)
    line.close()
    works(first)
    count += 1
print("connections without a failure:", count)
P
ip netns exec pod python3 /run/server.py > /run/server.log 2>&1 &
$PORTOLAN up --control-plane --no-dns --node-ip $NODE --data-dir $DATA > /run/up.log 2>&1 &
wait_for "$kubectl get --raw /readyz"
cat > /run/objects.yaml <<'Y'
---
{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {portolan.dev/lb-algorithm: wlc}}, spec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{name: "", port: 8080, protocol: TCP}], endpoints: [{addresses: [10.1.0.2], conditions: {ready: true}}]}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.1.0.0/24}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
Y
$kubectl apply -f /run/objects.yaml > /run/apply.log 2>&1

start() {
    $PORTOLAN proxy --mode "$1" --kubeconfig $DATA/kubeconfig --hostname-override n1 --cluster-cidr 10.1.0.0/16 \
        --bind-address $NODE --conntrack-max-per-core 0 > "/run/proxy-$1.log" 2>&1 &
    proxy=$!
    wait_for "grep -q 'in step' /run/proxy-$1.log"
}

start ipvs
$PORTOLAN proxy status
python3 /run/client.py > /run/client.log 2>&1 &
client=$!
wait_for "test -e /run/begun"
for mode in $MODES; do
    kill $proxy
    wait $proxy
    start $mode
    case $mode in
    ipvs) wait_for "ipvsadm -Sn | grep 246.96.0.77:80" ;;
    *) wait_for '[ -z "$(ipvsadm -Sn)" ]' ;;
    esac
done
touch /run/enough
wait $client
cat /run/client.log
kill $proxy
wait $proxy
$PORTOLAN proxy cleanup
$PORTOLAN proxy cleanup
echo "left: $(ipvsadm -Sn)$(ip route show table all proto 112)$(iptables-legacy-save | grep PORTOLAN)$(iptables-save 2> /dev/null | grep PORTOLAN)$(nft list tables 2> /dev/null | grep portolan)"
