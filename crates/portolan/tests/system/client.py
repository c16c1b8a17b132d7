"""What Kubernetes' own Python client makes of the server: lists of every kind, watches, patches, paging, sessions."""

import json
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()

lists = [
    core.list_namespace,
    core.list_node,
    core.list_pod_for_all_namespaces,
    core.list_service_for_all_namespaces,
    core.list_endpoints_for_all_namespaces,
    core.list_config_map_for_all_namespaces,
    core.list_secret_for_all_namespaces,
    core.list_service_account_for_all_namespaces,
    core.list_event_for_all_namespaces,
    client.CoordinationV1Api().list_lease_for_all_namespaces,
    client.DiscoveryV1Api().list_endpoint_slice_for_all_namespaces,
    client.RbacAuthorizationV1Api().list_cluster_role,
    client.RbacAuthorizationV1Api().list_cluster_role_binding,
]
for of in lists:
    # The client checks what it reads: a required field that is missing is an error.
    assert of().items, of.__name__

# Every change of a Service is seen, whoever makes it and how.
seen = []


def follow():
    for event in watch.Watch().stream(core.list_namespaced_service, "default", timeout_seconds=30):
        service = event["object"]
        if service.metadata.name == "py":
            seen.append((event["type"], service.spec.type, dict(service.metadata.labels or {})))
            if event["type"] == "DELETED":
                return


following = threading.Thread(target=follow)
following.start()
spec = client.V1ServiceSpec(selector={"app": "web"}, ports=[client.V1ServicePort(port=80)])
made = core.create_namespaced_service("default", client.V1Service(metadata=client.V1ObjectMeta(name="py"), spec=spec))
assert made.spec.cluster_ip and made.spec.ports[0].target_port == 80, made
core.patch_namespaced_service("py", "default", {"metadata": {"labels": {"a": "1"}}})
core.patch_namespaced_service("py", "default", [{"op": "add", "path": "/metadata/labels/b", "value": "2"}])
made.spec.ports[0].port = 81
try:
    core.replace_namespaced_service("py", "default", made)
    raise SystemExit("a stale version was taken")
except ApiException as error:
    assert (error.status, json.loads(error.body)["reason"]) == (409, "Conflict"), error
services = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="Service")
services.patch(name="py", namespace="default", body={"spec": {"type": "NodePort"}}, content_type="application/merge-patch+json")
core.delete_namespaced_service("py", "default")
following.join()
assert seen == [
    ("ADDED", "ClusterIP", {}),
    ("MODIFIED", "ClusterIP", {"a": "1"}),
    ("MODIFIED", "ClusterIP", {"a": "1", "b": "2"}),
    ("MODIFIED", "NodePort", {"a": "1", "b": "2"}),
    ("DELETED", "NodePort", {"a": "1", "b": "2"}),
], seen

names, more = [], None
while more != "":
    page = core.list_namespaced_config_map("kube-system", limit=1, _continue=more)
    names += [item.metadata.name for item in page.items]
    more = page.metadata._continue or ""
assert names == [item.metadata.name for item in core.list_namespaced_config_map("kube-system").items] and names

container = {"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", "echo hello; exec sleep 1000"]}
core.create_namespaced_pod("default", {"metadata": {"name": "py"}, "spec": {"containers": [container]}})
for event in watch.Watch().stream(core.list_namespaced_pod, "default", field_selector="metadata.name=py", timeout_seconds=30):
    statuses = event["object"].status.container_statuses or []
    if any(status.ready for status in statuses):
        break
else:
    raise SystemExit("the pod does not get ready")
# Ready is what the process is, not what it has said.
deadline = time.monotonic() + 30
while (log := core.read_namespaced_pod_log("py", "default")) != "hello\n":
    assert log == "" and time.monotonic() < deadline, log


def session(*command, **more):
    return stream(
        core.connect_get_namespaced_pod_exec, "py", "default", command=list(command), stderr=True, stdout=True, tty=False,
        _preload_content=False, **more,
    )


said = session("sh", "-c", "echo out; echo err >&2; exit 3", stdin=False)
said.run_forever(timeout=30)
assert (said.read_stdout(), said.read_stderr(), said.returncode) == ("out\n", "err\n", 3)
# This client sends text as text messages, and bytes as binary ones.
echo = session("cat", stdin=True)
for word in ["ping\n", "pong\n"]:
    echo.write_stdin(word)
    assert echo.readline_stdout(timeout=30) == word.strip()
echo.close()

# A port of a pod, and one where nobody listens.
forwarded = portforward(core.connect_get_namespaced_pod_portforward, "web-1", "default", ports="80,9")
web = forwarded.socket(80)
web.setblocking(True)
web.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while piece := web.recv(4096):
    answer += piece
    if b"}" in answer:
        break
assert b'"name":"web-1"' in answer, answer
closed = forwarded.socket(9)
closed.setblocking(True)
assert closed.recv(1) == b""
assert "connection refused" in forwarded.error(9) and forwarded.error(80) is None

template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
apps.create_namespaced_deployment(
    "default",
    {"metadata": {"name": "py"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}},
)
scale = apps.patch_namespaced_deployment_scale("py", "default", {"spec": {"replicas": 2}})
assert (scale.spec.replicas, scale.status.selector) == (2, "a=b"), scale
token = core.create_namespaced_service_account_token(
    "default", "default", client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=3600))
)
assert token.status.token.count(".") == 2
eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="py", namespace="default"))
core.create_namespaced_pod_eviction("py", "default", eviction)
left = core.list_namespaced_pod("default", field_selector="metadata.name=py").items
assert all(pod.metadata.deletion_timestamp for pod in left), left
print("done")
