"""`python -m bench.streams`: what a real kubectl gets through API server and kubelet: port-forward and logs of a
gigabyte, and exec round trips."""

import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

from bench.cluster import Measured, cpu_seconds, running

GIBIBYTE = 1 << 30
EXECS = 20
#: A pod that sends a gibibyte to whoever connects.
SENDER = (
    "import socket,sys\ns=socket.create_server(('0.0.0.0',9099))\nb=bytes(1<<20)\n"
    "while True:\n c,_=s.accept()\n try:\n  [c.sendall(b) for _ in range(1024)]\n except OSError: pass\n c.close()\n"
)
LOGGER = (
    "yes 'a line of a log that is as long as lines of logs are, more or less, give or take a few' | head -c 1073741824"
)
#: A whole gibibyte is to be read, with the stamp that CRI puts before every line.
UNROTATED = {"containerLogMaxSize": "4Gi"}


class Bench:
    def __init__(self, measured: Measured, kubectl: str) -> None:
        self.measured = measured
        self.base = [kubectl, "--kubeconfig", str(measured.kubeconfig)]

    def run(self, *words: str) -> str:
        return subprocess.run([*self.base, *words], check=True, capture_output=True, text=True, timeout=300).stdout

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for name, pid in self.measured.pids().items() if name != "supervisor")

    def start(self, name: str, *command: str) -> None:
        # the echo image sees the interpreter its kubelet runs with
        self.run("run", name, "--image=miniplane.local/echo", "--restart=Never", "--command", "--", *command)

    def ready(self, name: str) -> None:
        self.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def port_forward(self) -> None:
        self.start("sender", sys.executable, "-c", SENDER)
        self.ready("sender")
        with subprocess.Popen(
            [*self.base, "port-forward", "pod/sender", ":9099"], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", child.stdout.readline())
            assert found is not None
            before, started, size = self.cpu(), time.perf_counter(), 0
            with socket.create_connection(("127.0.0.1", int(found[1]))) as client:
                while data := client.recv(1 << 20):
                    size += len(data)
            self._report("kubectl port-forward of 1 GiB", size, started, before, "budget 120 MB/s")
            child.terminate()

    def logs(self) -> None:
        self.start("logger", "sh", "-c", LOGGER)
        self.run("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/logger", "--timeout=120s")
        before, started, size = self.cpu(), time.perf_counter(), 0
        with subprocess.Popen([*self.base, "logs", "logger"], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            while data := child.stdout.read(1 << 20):
                size += len(data)
        came = f"no budget; {size} of {GIBIBYTE} bytes came"
        self._report("kubectl logs of a 1 GiB log", size, started, before, came)

    def _report(self, what: str, size: int, started: float, cpu: float, budget: str) -> None:
        elapsed, used = time.perf_counter() - started, self.cpu() - cpu
        print(
            f"{what}: {size / elapsed / 1e6:.0f} MB/s, {used / (size / GIBIBYTE):.1f} CPU s per GiB of ours  ({budget})"
        )

    def execs(self) -> None:
        self.start("target", "sleep", "3600")
        self.ready("target")
        spent = []
        for _ in range(EXECS):
            started = time.perf_counter()
            self.run("exec", "target", "--", "true")
            spent.append(time.perf_counter() - started)
        alone = []
        for _ in range(EXECS):
            started = time.perf_counter()
            self.run("version", "--client")
            alone.append(time.perf_counter() - started)
        print(
            f"kubectl exec true: median {statistics.median(spent):.3f} s, of which kubectl alone "
            f"{statistics.median(alone):.3f} s   (budget 0.19 s)"
        )


def main() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        print("no kubectl on this machine: nothing measured")
        return
    with running(kubelet=UNROTATED) as measured:
        bench = Bench(measured, kubectl)
        bench.execs()
        bench.port_forward()
        bench.logs()


if __name__ == "__main__":
    main()
