"""Many clients at once: nothing is lost, nothing is handed out twice, everybody sees everything once and in order."""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest
from filters_server import CONFIGMAPS, NAMESPACE, Answer, Server, config_map, service

from miniapiserver.registry import creation
from miniapiserver.registry.allocation import unbroken

MERGE = "application/merge-patch+json"
SERVICES = f"{NAMESPACE}/services"


async def all_of(*asked: Any) -> list[Answer]:
    return list(await asyncio.gather(*asked))


def codes(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.code for answer in answers)


async def test_of_twenty_creates_of_one_name_one_wins(server: Server) -> None:
    answers = await all_of(*[server.ask("POST", CONFIGMAPS, config_map("same")) for _ in range(20)])
    assert codes(answers) == {201: 1, 409: 19}
    assert {answer.reason for answer in answers if answer.code == 409} == {"AlreadyExists"}


async def test_patches_of_different_keys_are_all_kept(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("patched"))
    asked = [
        server.ask("PATCH", f"{CONFIGMAPS}/patched", {"data": {f"k{n}": "v"}}, Content_Type=MERGE) for n in range(30)
    ]
    assert codes(await all_of(*asked)) == {200: 30}
    assert len((await server.get(f"{CONFIGMAPS}/patched")).body["data"]) == 30


async def test_an_update_from_an_old_revision_is_a_conflict_and_retries_lose_nothing(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("counter") | {"data": {"n": "0"}})
    conflicts = 0

    async def count_up() -> None:
        nonlocal conflicts
        for _ in range(5):
            while True:
                obj = (await server.get(f"{CONFIGMAPS}/counter")).body
                obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)
                answer = await server.ask("PUT", f"{CONFIGMAPS}/counter", obj)
                if answer.code == 200:
                    break
                assert (answer.code, answer.reason) == (409, "Conflict")
                conflicts += 1

    await asyncio.gather(*[count_up() for _ in range(6)])
    assert (await server.get(f"{CONFIGMAPS}/counter")).body["data"]["n"] == "30"
    assert conflicts  # else nothing was tested


async def test_of_many_deletes_one_succeeds(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, config_map("gone"))
    answers = await all_of(*[server.ask("DELETE", f"{CONFIGMAPS}/gone") for _ in range(10)])
    assert codes(answers) == {200: 1, 404: 9}


async def test_an_update_never_brings_back_what_a_delete_took(server: Server) -> None:
    for turn in range(10):
        name = f"{CONFIGMAPS}/contested-{turn}"
        await server.ask("POST", CONFIGMAPS, config_map(f"contested-{turn}"))
        patch = {"data": {"k": "v"}}
        answers = await all_of(
            server.ask("PATCH", name, patch, Content_Type=MERGE),
            server.ask("DELETE", name),
            server.ask("PATCH", name, patch, Content_Type=MERGE),
        )
        assert answers[1].code == 200
        assert {answers[0].code, answers[2].code} <= {200, 404, 409}
        assert (await server.get(name)).code == 404


async def test_finalizers_taken_off_one_by_one_end_in_exactly_one_removal(server: Server) -> None:
    names = [f"example.com/f{n}" for n in range(5)]
    await server.ask("POST", CONFIGMAPS, config_map("finalized", finalizers=names))
    assert (await server.ask("DELETE", f"{CONFIGMAPS}/finalized")).body["metadata"]["deletionTimestamp"]

    async def take_off(name: str) -> None:
        while (obj := (await server.get(f"{CONFIGMAPS}/finalized")).body)["kind"] == "ConfigMap":
            if name not in obj["metadata"].get("finalizers", []):
                return
            obj["metadata"]["finalizers"].remove(name)
            await server.ask("PUT", f"{CONFIGMAPS}/finalized", obj)

    await asyncio.gather(*[take_off(name) for name in names])
    assert (await server.get(f"{CONFIGMAPS}/finalized")).code == 404


async def test_generated_names_that_collide_are_drawn_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaaa", "aaaaa", "bbbbb", "aaaaa", "bbbbb", "ccccc"])
    monkeypatch.setattr(creation, "random_suffix", lambda: next(drawn))
    body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "g-"}}
    names = [(await server.ask("POST", CONFIGMAPS, body)).body["metadata"]["name"] for _ in range(3)]
    assert names == ["g-aaaaa", "g-bbbbb", "g-ccccc"]


async def test_a_range_without_a_free_name_says_already_exists(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "random_suffix", lambda: "zzzzz")
    body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "g-"}}
    assert (await server.ask("POST", CONFIGMAPS, body)).code == 201
    answer = await server.ask("POST", CONFIGMAPS, body)
    assert (answer.code, answer.reason) == (409, "AlreadyExists")


async def test_no_cluster_ip_is_handed_out_twice_and_a_full_range_is_an_error(server: Server) -> None:
    answers = await all_of(*[server.ask("POST", SERVICES, service(f"s{n}")) for n in range(20)])
    given = [answer.body["spec"]["clusterIP"] for answer in answers if answer.code == 201]
    assert (
        len(given) == len(set(given)) == 13
    )  # 16 addresses, without the first, the last and the `kubernetes` Service's
    assert codes(answers)[500] == 7


async def test_no_node_port_is_handed_out_twice(server: Server) -> None:
    answers = await all_of(*[server.ask("POST", SERVICES, service(f"n{n}", "NodePort")) for n in range(10)])
    given = [answer.body["spec"]["ports"][0]["nodePort"] for answer in answers if answer.code == 201]
    assert sorted(given) == list(range(30000, 30008))
    assert len(await addresses(server)) == 1 + 8  # the refused ones hold no address


async def test_of_many_who_ask_for_one_address_one_gets_it(server: Server) -> None:
    asked = [server.ask("POST", SERVICES, service(f"w{n}", clusterIP="127.96.0.7")) for n in range(8)]
    answers = await all_of(*asked)
    assert codes(answers) == {201: 1, 422: 7}


async def addresses(server: Server) -> set[str]:
    listed = (await server.get("/apis/networking.k8s.io/v1/ipaddresses")).body["items"]
    return {item["metadata"]["name"] for item in listed}


async def test_a_dry_run_holds_no_address_and_no_port(server: Server) -> None:
    before, revision = await addresses(server), (await server.get(SERVICES)).body["metadata"]["resourceVersion"]
    for n in range(20):  # more than there are
        answer = await server.ask("POST", f"{SERVICES}?dryRun=All", service(f"d{n}", "NodePort"))
        assert answer.code == 201 and answer.body["spec"]["clusterIP"] and answer.body["spec"]["ports"][0]["nodePort"]
    assert await addresses(server) == before
    assert (await server.get(SERVICES)).body["metadata"]["resourceVersion"] == revision  # not even for a moment


async def test_a_failed_create_gives_its_address_back(server: Server) -> None:
    before = await addresses(server)
    assert (await server.ask("POST", SERVICES, service("one"))).code == 201
    assert (await server.ask("POST", SERVICES, service("one"))).code == 409
    assert len(await addresses(server)) == len(before) + 1
    assert (await server.ask("DELETE", f"{SERVICES}/one")).code == 200
    assert await addresses(server) == before


async def test_a_client_that_leaves_in_a_create_leaves_no_half_service(server: Server) -> None:
    async def leave(number: int) -> None:
        await asyncio.wait_for(server.ask("POST", SERVICES, service(f"l{number}")), number % 10 * 0.0007 + 0.0005)

    for number in range(40):
        await asyncio.gather(leave(number), return_exceptions=True)
        if number % 8 == 7:
            await asyncio.sleep(0.05)
            services = (await server.get(SERVICES)).body["items"]
            assert await addresses(server) == {item["spec"]["clusterIP"] for item in services}
            for name in (item["metadata"]["name"] for item in services if item["metadata"]["name"] != "kubernetes"):
                await server.ask("DELETE", f"{SERVICES}/{name}")


async def test_unbroken_work_ends_before_the_cancellation_goes_on() -> None:
    steps = []

    async def work() -> None:
        for step in range(3):
            await asyncio.sleep(0.01)
            steps.append(step)

    task = asyncio.create_task(unbroken(work()))
    await asyncio.sleep(0.015)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == [0, 1, 2]


async def test_a_watch_sees_every_change_once_and_in_order_while_writers_run(server: Server) -> None:
    revision = (await server.get(CONFIGMAPS)).body["metadata"]["resourceVersion"]

    async def write(number: int) -> None:
        path = f"{CONFIGMAPS}/w{number}"
        await server.ask("POST", CONFIGMAPS, config_map(f"w{number}"))
        for turn in range(5):
            await server.ask("PATCH", path, {"data": {"turn": str(turn)}}, Content_Type=MERGE)
        await server.ask("DELETE", path)

    async def watched(path: str) -> list[Any]:
        lines = (await server.get(path)).raw.splitlines()
        return [(event["type"], event["object"]["metadata"]) for event in map(orjson.loads, lines)]

    watch = f"{CONFIGMAPS}?watch=1&timeoutSeconds=2&resourceVersion={revision}"
    early = [asyncio.create_task(watched(watch)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await asyncio.gather(*[write(number) for number in range(12)])
    late = await watched(
        f"{watch.replace('timeoutSeconds=2', 'timeoutSeconds=1')}"
    )  # from memory, as if it had been there
    for events in [late, *await asyncio.gather(*early)]:
        revisions = [int(metadata["resourceVersion"]) for _, metadata in events]
        assert revisions == sorted(set(revisions)) and len(revisions) == 12 * 7
        per_object = [kind for kind, metadata in events if metadata["name"] == "w3"]
        assert per_object == ["ADDED", *["MODIFIED"] * 5, "DELETED"]


async def test_pages_show_one_revision_while_writers_run(server: Server) -> None:
    for number in range(30):
        await server.ask("POST", CONFIGMAPS, config_map(f"p{number:02}"))
    page = (await server.get(f"{CONFIGMAPS}?limit=7")).body
    seen, revision = [item["metadata"]["name"] for item in page["items"]], page["metadata"]["resourceVersion"]
    for number in range(0, 30, 3):
        await server.ask("DELETE", f"{CONFIGMAPS}/p{number:02}")
        await server.ask("POST", CONFIGMAPS, config_map(f"p{number:02}x"))
    while token := page["metadata"].get("continue"):
        page = (await server.get(f"{CONFIGMAPS}?limit=7&continue={token}")).body
        assert page["metadata"]["resourceVersion"] == revision
        seen += [item["metadata"]["name"] for item in page["items"]]
    assert seen == [f"p{number:02}" for number in range(30)]


async def test_what_was_compacted_is_410_with_a_way_on(server: Server) -> None:
    for number in range(6):
        await server.ask("POST", CONFIGMAPS, config_map(f"c{number}"))
    page = (await server.get(f"{CONFIGMAPS}?limit=2")).body
    old = page["metadata"]["resourceVersion"]
    for number in range(6):
        await server.ask("PATCH", f"{CONFIGMAPS}/c{number}", {"data": {"k": "v"}}, Content_Type=MERGE)
    storage = server.parts.server.registry.storage
    await storage.compact(await storage.current_revision())
    server.parts.server.registry.store_of("configmaps").cache.reset()  # as after a restart: no history in memory
    gone = await server.get(f"{CONFIGMAPS}?limit=2&continue={page['metadata']['continue']}")
    assert (gone.code, gone.reason) == (410, "Expired")
    rest = await server.get(f"{CONFIGMAPS}?continue={gone.body['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest.body["items"]] == ["c2", "c3", "c4", "c5"]
    exact = await server.get(f"{CONFIGMAPS}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (exact.code, exact.reason) == (410, "Expired")
    watch = await server.get(f"{CONFIGMAPS}?watch=1&timeoutSeconds=1&resourceVersion={old}")
    assert watch.code == 200 and watch.body["type"] == "ERROR" and watch.body["object"]["code"] == 410


async def test_a_terminating_namespace_takes_nothing_new(server: Server) -> None:
    await server.ask(
        "POST", "/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "ending"}}
    )
    path = "/api/v1/namespaces/ending/configmaps"
    assert (await server.ask("POST", path, config_map("before"))).code == 201
    assert (await server.ask("DELETE", "/api/v1/namespaces/ending")).body["status"]["phase"] == "Terminating"
    answers = await all_of(*[server.ask("POST", path, config_map()) for _ in range(5)])
    assert {(answer.code, answer.reason) for answer in answers} == {(403, "Forbidden")}
    assert answers[0].body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
