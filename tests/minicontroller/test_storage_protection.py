"""Claims and volumes wait for those who use them."""

from typing import Any

import pytest
from objects import StillInformers

from minicontroller.actions import Update
from minicontroller.storageprotection import ClaimProtection, VolumeProtection

JSON = dict[str, Any]


def claim(going: bool = True) -> JSON:
    metadata: JSON = {"name": "c", "namespace": "ns", "finalizers": ["kubernetes.io/pvc-protection", "mine"]}
    return {"metadata": metadata | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {})}


def pod(node: str = "n1", phase: str = "Running", name: str = "c") -> JSON:
    return {"metadata": {"name": "p", "namespace": "ns"}, "status": {"phase": phase}, "spec": {
        "nodeName": node, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}}


@pytest.mark.parametrize(("found", "user", "is_released"), [
    (claim(), None, True), (claim(), pod(), False), (claim(), pod(node=""), True), (claim(), pod(name="other"), True),
    (claim(), pod(phase="Succeeded"), True), (claim(going=False), None, False)])
async def test_a_claim_is_released_when_no_running_pod_names_it(
    found: JSON, user: JSON | None, is_released: bool
) -> None:
    informers = StillInformers()
    controller = ClaimProtection(informers)
    informers.put("persistentvolumeclaims", found)
    if user is not None:
        informers.put("pods", user)
    actions = list(controller.plan(("ns", "c")))
    assert bool(actions) == is_released
    if is_released:
        [update] = actions
        assert isinstance(update, Update) and update.body["metadata"]["finalizers"] == ["mine"]


@pytest.mark.parametrize(("phase", "is_released"), [("Bound", False), ("Released", True), ("Available", True)])
async def test_a_volume_is_released_when_it_is_not_bound(phase: str, is_released: bool) -> None:
    informers = StillInformers()
    controller = VolumeProtection(informers)
    informers.put("persistentvolumes", {"status": {"phase": phase}, "metadata": {
        "name": "v", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/pv-protection"]}})
    assert bool(list(controller.plan(("", "v")))) == is_released
