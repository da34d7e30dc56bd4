"""The table of streams: what people do through the API server into the nodes' network, whatever the path there is.

`STREAMS` is the table, `pods` makes what it needs. `test_egress` runs it over every egress,
`test_netns` behind a firewall.
"""

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from miniplane.testing import TestCluster
from tests.e2e.kubectl import Kubectl
from wire.ledgerfeed import read_ledger

#: Longer than any prefix of something encoded, and nowhere else: a capture is searched for it.
SECRET = "the-pods-own-data-9e107d9d372bb682"

#: Zeros without end for whoever connects to port 8080.
FLOOD = """
import os, socket, threading
def flood(sock):
    while True:
        sock.sendall(bytes(65536))
address = os.environ.get("POD_IP") or socket.gethostbyname(socket.gethostname())
with socket.create_server((address, 8080)) as server:
    while True:
        threading.Thread(target=flood, args=server.accept()[:1], daemon=True).start()
"""

PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: one, image: busybox, command: [sh, -c, 'i=0; while :; do echo {SECRET} $i; i=$((i+1)); sleep 0.1; done']}}
  - {{name: two, image: busybox, command: [sh, -c, 'echo two; sleep 3600']}}
---
apiVersion: v1
kind: Pod
metadata: {{name: shell}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: busybox, command: [sh, -c, 'echo up; sleep 3600']}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: mirror}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: busybox, stdin: true, command: [cat]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: echo, image: miniplane.local/echo, ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: flood}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: miniplane.local/echo
    command: {json.dumps([sys.executable, "-c", FLOOD])}
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


def pods(kubectl: Kubectl) -> Kubectl:
    kubectl("create", "namespace", kubectl.namespace)
    kubectl("apply", "-f", "-", stdin=PODS)
    kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s")
    return kubectl


def eventually(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What `check` returns once it is true. A poll: the thing waited for is another program's."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def logs(kubectl: Kubectl) -> None:
    assert kubectl("logs", "talker", "-c", "two") == "two\n"


def followed_logs(kubectl: Kubectl) -> None:
    with kubectl.start("logs", "-f", "talker", "-c", "one") as following:
        lines = [following.output.readline() for _ in range(5)]
    assert lines == [f"{SECRET} {number}\n" for number in range(5)]


def attach(kubectl: Kubectl) -> None:
    answer = subprocess.Popen(kubectl.argv("attach", "-i", "mirror"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=kubectl.environment)
    with answer:
        assert answer.stdin is not None and answer.stdout is not None
        answer.stdin.write(f"{SECRET}\n")
        answer.stdin.flush()
        try:
            said = ""
            while SECRET not in said:
                line = answer.stdout.readline()
                assert line, said
                said += line
        finally:
            answer.terminate()


def execute(kubectl: Kubectl) -> None:
    """A megabyte up and down, and the exit code."""
    payload = bytes(range(256)) * 4096
    answer = subprocess.run(kubectl.argv("exec", "-i", "shell", "--", "sh", "-c", "cat; exit 3"), input=payload,
                            capture_output=True, timeout=60, env=kubectl.environment)
    assert hashlib.sha256(answer.stdout).hexdigest() == hashlib.sha256(payload).hexdigest()
    assert answer.returncode == 3, answer.stderr


def port_forward(kubectl: Kubectl) -> None:
    with kubectl.start("port-forward", "pod/echo", ":8080") as forwarding:
        port, answers = forwarding.port(), list[str]()

        def ask(number: int) -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{SECRET}/{number}", timeout=20) as response:
                answers.append(json.load(response)["path"])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [f"/{SECRET}/{number}" for number in range(4)]


def node_proxy(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/healthz") == "ok"


def pod_proxy(kubectl: Kubectl) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/echo:8080/proxy/deep/path?q=1"
    assert json.loads(kubectl("get", "--raw", path))["path"].startswith("/deep/path")


def service_proxy(kubectl: Kubectl) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/services/echo:80/proxy/by/service"
    assert json.loads(eventually(lambda: kubectl.run("get", "--raw", path).stdout))["path"] == "/by/service"


STREAMS: Mapping[str, Callable[[Kubectl], None]] = {
    "logs": logs, "logs -f": followed_logs, "attach": attach, "exec": execute, "port-forward": port_forward,
    "node proxy": node_proxy, "pod proxy": pod_proxy, "service proxy": service_proxy,
}  # fmt: skip


def paths(cluster: TestCluster) -> set[str]:
    """The ways of all connections the API server has made into the nodes' network, by its own ledger, but for the
    tunnels themselves."""
    entries = asyncio.run(read_ledger(cluster.state.connections_socket("miniapiserver")))
    made = [entry for entry in entries if entry["from"] == "kube-apiserver" and entry["purpose"] != "SSH tunnel"]
    return {entry["path"] for entry in made}
