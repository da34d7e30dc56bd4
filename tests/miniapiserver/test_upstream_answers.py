"""Answers of a whole server that recordings of Kubernetes v1.36 show, and that no single kind explains."""

import asyncio

import pytest
from filters_server import CONFIGMAPS, Server

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"
FLOW_CONTROL = "/apis/flowcontrol.apiserver.k8s.io/v1"


async def test_an_update_that_only_orders_keys_differently_changes_nothing(server: Server) -> None:
    made = (await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n", "labels": {"a": "b", "c": "d"}},
                                                  "data": {"k": "v", "l": "w"}})).body
    turned = {key: made[key] for key in reversed(made)} | {"data": {"l": "w", "k": "v"}}
    again = (await server.ask("PUT", f"{CONFIGMAPS}/n", turned)).body
    assert again == made
    other = (await server.ask("PUT", f"{CONFIGMAPS}/n", turned | {"data": {"l": "v", "k": "w"}})).body
    assert other["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]


async def test_a_new_object_brings_no_resource_version(server: Server) -> None:
    answer = await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n", "resourceVersion": "5"}})
    assert answer.body == {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
                           "message": "resourceVersion should not be set on objects to be created"}


async def test_a_get_may_say_how_new_its_answer_must_be(server: Server) -> None:
    made = (await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n"}})).body
    revision = made["metadata"]["resourceVersion"]
    assert [(await server.get(f"{CONFIGMAPS}/n?resourceVersion={asked}")).code
            for asked in (revision, "0", "")] == [200] * 3
    unread = await server.get(f"{CONFIGMAPS}/n?resourceVersion=x")
    assert (unread.code, unread.reason, unread.body["message"]) == (
        500, "", 'resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax')


async def test_a_list_goes_on_from_any_version_but_not_from_a_named_one(server: Server) -> None:
    for name in "ab":
        await server.ask("POST", CONFIGMAPS, {"metadata": {"name": name}})
    token = (await server.get(f"{CONFIGMAPS}?limit=1")).body["metadata"]["continue"]
    assert [(await server.get(f"{CONFIGMAPS}?limit=1&continue={token}&resourceVersion={asked}")).code
            for asked in ("0", "5")] == [200, 400]
    assert "continue" not in (await server.get(f"{CONFIGMAPS}?limit=-1")).body["metadata"]


async def test_metadata_of_a_list_has_another_name_than_of_an_object(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n"}})
    refused = [await server.get(CONFIGMAPS, Accept=PARTIAL.format("")),
               await server.get(f"{CONFIGMAPS}/n", Accept=PARTIAL.format("List"))]
    assert [(answer.code, answer.body["message"]) for answer in refused] == [
        (406, "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"),
        (406, "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)")]
    assert (await server.get(CONFIGMAPS, Accept=PARTIAL.format("List"))).code == 200


@pytest.mark.parametrize(("kind", "seconds", "events"), [("", 1, 1), ("List", 600, 0)])
async def test_a_watch_ends_at_the_event_of_which_no_list_can_be_made(
    server: Server, kind: str, seconds: int, events: int
) -> None:
    made = (await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n"}})).body
    since = int(made["metadata"]["resourceVersion"]) - 1
    path = f"{CONFIGMAPS}?watch=1&resourceVersion={since}&timeoutSeconds={seconds}"
    async with asyncio.timeout(20):
        answer = await server.get(path, Accept=PARTIAL.format(kind))
    assert (answer.code, len(answer.raw.splitlines())) == (200, events)


async def test_component_statuses_are_asked_for_and_not_stored(server: Server) -> None:
    answer = await server.get("/api/v1/componentstatuses")
    items = {item["metadata"]["name"]: item["conditions"][0] for item in answer.body["items"]}
    assert (answer.body["kind"], answer.body["metadata"], sorted(items)) == (
        "ComponentStatusList", {}, ["controller-manager", "etcd-0", "scheduler"])
    assert items["etcd-0"] == {"type": "Healthy", "status": "True", "message": "ok"}
    assert answer.headers["Warning"] == '299 - "v1 ComponentStatus is deprecated in v1.19+"'
    one = await server.get("/api/v1/componentstatuses/etcd-0", Accept=TABLE)
    assert one.body["rows"][0]["cells"] == ["etcd-0", "Healthy", "ok", ""]
    missing = await server.get("/api/v1/componentstatuses/none")
    assert (missing.code, missing.body["message"]) == (500, "Component not found: none")
    assert (await server.ask("DELETE", "/api/v1/componentstatuses/etcd-0")).code == 405


async def test_reading_endpoints_warns_as_writing_them_does(server: Server) -> None:
    answer = await server.get("/api/v1/namespaces/default/endpoints/kubernetes")
    assert answer.headers["Warning"] == (
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"')


async def test_a_cluster_starts_with_flow_schemas_and_api_services(server: Server) -> None:
    schemas = (await server.get(f"{FLOW_CONTROL}/flowschemas")).body["items"]
    levels = (await server.get(f"{FLOW_CONTROL}/prioritylevelconfigurations")).body["items"]
    assert {item["spec"]["priorityLevelConfiguration"]["name"] for item in schemas} == {
        item["metadata"]["name"] for item in levels}
    assert (len(schemas), len(levels)) == (11, 8)
    core = (await server.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.")).body
    assert core["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert core["status"]["conditions"][0]["reason"] == "Local"
    names = {group["name"] for group in (await server.get("/apis")).body["groups"]}
    services = (await server.get("/apis/apiregistration.k8s.io/v1/apiservices")).body["items"]
    assert {item["spec"].get("group", "") for item in services} == names - {"apiregistration.k8s.io"} | {""}


async def test_system_priority_classes_stay(server: Server) -> None:
    answer = await server.ask("DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical")
    assert (answer.code, answer.body["message"]) == (
        403, 'priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: '
             "this is a system priority class and cannot be deleted")


async def test_the_legacy_watch_prefix_only_watches(server: Server) -> None:
    assert (await server.ask("POST", "/api/v1/watch/namespaces/default/configmaps", {})).code == 405
    seen = await server.get("/api/v1/watch/namespaces/default?timeoutSeconds=1")
    assert (seen.body["type"], seen.body["object"]["metadata"]["name"]) == ("ADDED", "default")


async def test_a_negative_grace_is_one_second(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, {"metadata": {"name": "n"}})
    assert (await server.ask("DELETE", f"{CONFIGMAPS}/n?gracePeriodSeconds=-1")).code == 200
    unknown = await server.ask("DELETE", f"{CONFIGMAPS}/n?propagationPolicy=X")
    assert unknown.body["details"]["causes"][0]["message"] == (
        'Unsupported value: "X": supported values: "Foreground", "Background", "Orphan", "nil"')


async def test_replicas_written_through_scale_belong_to_that_subresource(server: Server) -> None:
    path, labels = "/apis/apps/v1/namespaces/default/deployments", {"a": "b"}
    spec = {"selector": {"matchLabels": labels}, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    await server.ask("POST", path, {"metadata": {"name": "d"}, "spec": spec})
    await server.ask("PUT", f"{path}/d/scale?fieldManager=hpa", {"metadata": {"name": "d"}, "spec": {"replicas": 3}})
    found = (await server.get(f"{path}/d")).body
    entries = {entry["manager"]: entry for entry in found["metadata"]["managedFields"]}
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (3, 2)
    assert entries["hpa"]["subresource"] == "scale"
