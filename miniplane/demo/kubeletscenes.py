"""The scenes about the way to the kubelet: who answers at its address, and whom it answers.

My job: play them. Each starts clusters of its own by `lab`.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from miniplane.demo.attacker import Account
from miniplane.demo.lab import OWNED, Lab, Said, lab
from miniplane.demo.scene import JSON, Act, Stage, Step

CARD: Final = "4111-0042"
#: One order every 300 ms: a log worth reading.
SHOP: Final = f"i=0; while :; do i=$((i+1)); echo order $i paid with card {CARD}; sleep 0.3; done"
PASSWORD: Final = "hunter2"
#: What the kubelet's bare flags mean, so that the attacker can go on to the real one. See docs/scenes/kubelet-ca.md.
OPEN_KUBELET: Final = ("--anonymous-auth=true", "--authorization-mode=AlwaysAllow")


def kubelet_ca(stage: Stage) -> list[Act]:
    acts = []
    for verified, setting in (
        (False, "--kubelet-certificate-authority not set"),
        (True, "--kubelet-certificate-authority=pki/ca.crt"),
    ):
        act = Act("verified" if verified else "unverified", setting)
        stage.waits("a cluster" if not verified else "another cluster")
        with lab(verified, kubelet=OPEN_KUBELET) as cluster:
            start_shop(cluster)
            stage.begins(act)
            cluster.attacker.attack()
            cluster.attacker.account()
            four_commands(stage, act, cluster)
            cluster.attacker.be_quiet()
            found = cluster.run("exec", "shop", "--", "cat", f"/tmp/{OWNED}")
            act.extra["attackerRanInPod"] = found.exit_code == 0
        acts.append(act)
    return acts


def start_shop(cluster: Lab) -> None:
    cluster.start_pod("shop", "--image=host", "--command", "--", "sh", "-c", SHOP)
    cluster.start_pod("web", "--image=miniplane.local/echo")


def four_commands(stage: Stage, act: Act, cluster: Lab) -> None:
    for said in (logs, shell, attach, forward):
        step = Step(said(cluster), cluster.attacker.account())
        act.steps.append(step)
        stage.happened(step)


def logs(cluster: Lab) -> Said:
    return cluster.run("logs", "shop", "--tail=1")


def shell(cluster: Lab) -> Said:
    said = cluster.run("exec", "-i", "shop", "--", "sh", stdin=f"echo the password is {PASSWORD}\n")
    return Said(f"{said.command}   # you type: echo the password is {PASSWORD}", said.output, said.exit_code)


def attach(cluster: Lab) -> Said:
    with cluster.background("attach", "shop") as process:
        line = cluster.first_line(process.stdout)
        if line.startswith("If you don't see"):
            line = cluster.first_line(process.stdout)
    return Said("kubectl attach shop", line, 0 if CARD in line else 1)


def forward(cluster: Lab, pod: str = "web", port: int = 8080, path: str = "/cart?card=" + CARD) -> Said:
    command = f"kubectl port-forward {pod} :{port} & curl localhost{path}"
    with cluster.background("port-forward", f"pod/{pod}", f":{port}", "--address=127.0.0.1") as process:
        line = cluster.first_line(process.stdout)
        try:
            local = int(line.split("127.0.0.1:")[1].split()[0])
            return Said(command, _page(local, path), 0)
        except (OSError, IndexError, ValueError):
            process.terminate()
            rest = process.stdout.read() if process.stdout else ""
            said = [one for one in (line, *rest.splitlines()) if "rror" in one]
            return Said(command, said[-1].partition("] ")[2] or said[-1] if said else "connection closed", 1)


def _page(port: int, path: str) -> str:
    """The page's text; of the echo server's, what was asked."""
    with socket.create_connection(("127.0.0.1", port), 5) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(4096), b""))
    body = answer.decode().partition("\r\n\r\n")[2].strip()
    if not body:
        raise OSError("no answer")
    return f"web was asked for {json.loads(body)['path']}" if body.startswith("{") else body


# Anonymous


def anonymous_kubelet(stage: Stage) -> list[Act]:
    """No interceptor: the attacker just asks the kubelet, from anywhere that reaches its port."""
    acts = []
    for kubelet, name, setting in (
        (OPEN_KUBELET, "anonymous", "the kubelet's bare flags: --anonymous-auth=true --authorization-mode=AlwaysAllow"),
        ((), "authenticated", "authentication and authorization as kubeadm and miniplane set them"),
    ):
        act = Act(name, setting)
        stage.waits("a cluster")
        with lab(True, kubelet=kubelet) as cluster:
            cluster.start_pod("shop", "--image=host", "--command", "--", "sh", "-c", SHOP)
            stage.begins(act)
            for path in ("/pods", "/containerLogs/default/shop/shop?tailLines=1"):
                status, body = _ask_kubelet(cluster, path)
                read: JSON = {"event": "read", "stream": "response", "bytes": len(body), "text": body}
                command = f"curl -k https://{cluster.node}{path}   # the attacker, without credentials"
                told = Account((read,)) if status == 200 else Account()
                step = Step(Said(command, f"{status} {body}", 0 if status == 200 else 1), told)
                act.steps.append(step)
                stage.happened(step)
        acts.append(act)
    return acts


def _ask_kubelet(cluster: Lab, path: str) -> tuple[int, str]:
    context = ssl._create_unverified_context()
    host, _, port = cluster.node.rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace").strip()
    finally:
        connection.close()


# Node to API server


def node_to_api(stage: Stage) -> list[Act]:
    """The other direction: the attacker takes the API server's place towards nodes, pods and people."""
    from miniplane.addresses import free_port
    from miniplane.demo.attacker import Attacker
    from miniplane.program import Pki

    act = Act("node to API server", "the cluster's root certificate is in every kubeconfig and every pod")
    stage.waits("a cluster")
    with lab(True) as cluster:
        cluster.start_pod("shop", "--image=host", "--command", "--", "sh", "-c", SHOP)
        record = cluster.state.require_record()
        place = f"127.0.0.1:{free_port('127.0.0.1')}"
        arguments = ("--listen", place, "--upstream", f"127.0.0.1:{record.place.port}",
                     "--cluster-ca", Pki(cluster.state.path)("ca.crt"))  # fmt: skip
        with Attacker(arguments) as attacker:
            attacker.attack()
            attacker.account()
            stage.begins(act)
            for said in _callers(cluster, f"https://{place}"):
                step = Step(said, attacker.account())
                act.steps.append(step)
                stage.happened(step)
    return [act]


def _callers(cluster: Lab, server: str) -> Iterator[Said]:
    """A person, a node, a pod: each with its own credentials and the cluster's root."""
    person = cluster.run("--server", server, "get", "pods")
    yield Said("kubectl get pods   # you", _last(person.output), person.exit_code)
    kubelet = str(cluster.state.path / "nodes" / "node-1" / "kubelet.conf")
    node = cluster.run("--kubeconfig", kubelet, "--server", server, "get", "node", "node-1")
    yield Said("kubectl get node node-1   # the kubelet's credentials", _last(node.output), node.exit_code)
    calls = f'curl -sS --cacert $D/ca.crt -H "Authorization: Bearer $(cat $D/token)" {server}/api 2>&1'
    script = f"D=/var/run/secrets/kubernetes.io/serviceaccount; {calls}"
    pod = cluster.run("exec", "shop", "--", "sh", "-c", script)
    yield Said("curl https://kubernetes/api   # in a pod, with its token", pod.output.partition("\n")[0], pod.exit_code)


def _last(output: str) -> str:
    return output.splitlines()[-1] if output else ""
