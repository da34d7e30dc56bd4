"""Pods for the tests of the endpoint: one container, one command of the host."""

from typing import Any

JSON = dict[str, Any]


def pod(name: str, *command: str, **spec: Any) -> JSON:
    container = {"name": "c", "image": "host", "command": list(command)} | spec.pop("container", {})
    return {"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "status": {"phase": "Pending"},
            "spec": {"nodeName": "node-1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                     "containers": [container]} | spec}
