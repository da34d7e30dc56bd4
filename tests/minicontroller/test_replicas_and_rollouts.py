"""ReplicaSets keep their number; Deployments move pods within their budget."""

from hypothesis import given
from hypothesis import strategies as st
from objects import StillInformers, meta, pod, replica_set

from minicontroller.actions import Create, Delete, Patch
from minicontroller.deployments import REVISION, Deployments, template_hash
from minicontroller.replicasets import REPLICA_SETS, Replicas
from minicontroller.rollout import Budget, Sizes, next_sizes


async def replicas(informers: StillInformers) -> Replicas:
    return Replicas(informers, REPLICA_SETS, lambda: 1_800_000_000.0)


async def test_missing_pods_are_created_from_the_template_and_owned() -> None:
    informers = StillInformers()
    controller, owner = await replicas(informers), replica_set(replicas=2)
    informers.put("replicasets.apps", owner)
    informers.put("pods", pod("rs-a", owner))
    created = [action for action in controller.plan(("ns", "rs")) if isinstance(action, Create)]
    assert [action.body["metadata"]["generateName"] for action in created] == ["rs-"]
    assert created[0].body["metadata"]["ownerReferences"][0]["uid"] == "uid-rs"


async def test_surplus_pods_go_and_the_unready_go_first() -> None:
    informers = StillInformers()
    controller, owner = await replicas(informers), replica_set(replicas=1)
    informers.put("replicasets.apps", owner)
    informers.put("pods", pod("ready", owner), pod("unready", owner, ready=False))
    deleted = [action.path.rsplit("/", 1)[1] for action in controller.plan(("ns", "rs")) if isinstance(action, Delete)]
    assert deleted == ["unready"]


async def test_a_matching_orphan_is_adopted_before_anything_is_created() -> None:
    informers = StillInformers()
    controller = await replicas(informers)
    informers.put("replicasets.apps", replica_set(replicas=1))
    informers.put("pods", pod("orphan"))
    actions = list(controller.plan(("ns", "rs")))
    assert not any(isinstance(action, Create) for action in actions)
    adoption = next(action for action in actions if isinstance(action, Patch) and action.path.endswith("/pods/orphan"))
    assert adoption.body["metadata"]["ownerReferences"][0]["name"] == "rs"


async def test_a_pod_being_deleted_does_not_count() -> None:
    informers = StillInformers()
    controller, owner = await replicas(informers), replica_set(replicas=1)
    informers.put("replicasets.apps", owner)
    informers.put("pods", pod("going", owner, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert any(isinstance(action, Create) for action in controller.plan(("ns", "rs")))


def deployment(replicas: int = 2, image: str = "i", **spec: object) -> dict[str, object]:
    return {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": meta("web"),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "x"}},
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
            **spec,
        },
    }


async def test_a_new_deployment_makes_one_replica_set_named_after_its_template() -> None:
    informers = StillInformers()
    controller = Deployments(informers)
    web = deployment()
    informers.put("deployments.apps", web)
    made = next(action for action in controller.plan(("ns", "web")) if isinstance(action, Create))
    digest = template_hash(web["spec"]["template"], 0)  # type: ignore[index]
    assert made.body["metadata"]["name"] == f"web-{digest}"
    assert made.body["metadata"]["annotations"][REVISION] == "1"
    assert made.body["spec"]["selector"]["matchLabels"]["pod-template-hash"] == digest


async def test_a_changed_template_starts_a_second_set_within_the_surge() -> None:
    informers = StillInformers()
    controller = Deployments(informers)
    old = replica_set(
        "web-old",
        2,
        annotations={REVISION: "1"},
        ownerReferences=[
            {"kind": "Deployment", "apiVersion": "apps/v1", "name": "web", "uid": "uid-web", "controller": True}
        ],
    )
    old["status"] = {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    informers.put("deployments.apps", deployment(image="new"))
    informers.put("replicasets.apps", old)
    made = next(action for action in controller.plan(("ns", "web")) if isinstance(action, Create))
    assert made.body["spec"]["replicas"] == 1
    assert made.body["metadata"]["annotations"][REVISION] == "2"


sizes = st.builds(lambda replicas, part: Sizes(replicas, min(replicas, part)), st.integers(0, 12), st.integers(0, 12))


@given(st.integers(0, 10), st.integers(0, 3), st.integers(0, 3), sizes, st.lists(sizes, max_size=3))
def test_a_rolling_update_never_exceeds_its_budget(
    wanted: int, surge: int, missing: int, new: Sizes, old: list[Sizes]
) -> None:
    budget = Budget.of(wanted, {"maxSurge": surge, "maxUnavailable": missing})
    grown, shrunk = next_sizes(budget, new, old)
    before = new.replicas + sum(item.replicas for item in old)
    assert grown <= max(wanted, 0) or grown <= new.replicas
    assert grown + sum(item.replicas for item in old) <= max(budget.most, before)
    assert all(0 <= size <= item.replicas for size, item in zip(shrunk, old, strict=True))
    available = new.available + sum(min(item.available, size) for item, size in zip(old, shrunk, strict=True))
    had = new.available + sum(item.available for item in old)
    assert available >= min(had, budget.least_available)


@given(st.integers(1, 8), st.integers(0, 2), st.integers(0, 2))
def test_a_rolling_update_always_ends(wanted: int, surge: int, missing: int) -> None:
    budget = Budget.of(wanted, {"maxSurge": surge, "maxUnavailable": missing})
    new, old = Sizes(0, 0), [Sizes(wanted, wanted)]
    for _ in range(4 * wanted + 4):
        grown, shrunk = next_sizes(budget, new, old)
        new, old = Sizes(grown, grown), [Sizes(size, size) for size in shrunk]
    assert (new.replicas, old[0].replicas) == (wanted, 0)


async def test_pods_on_their_way_out_are_counted_for_replica_sets_and_deployments() -> None:
    informers = StillInformers()
    controller, owner = await replicas(informers), replica_set(replicas=1)
    informers.put("replicasets.apps", owner)
    informers.put("pods", pod("going", owner, deletionTimestamp="2026-01-01T00:00:00Z"), pod("here", owner))
    (report,) = [action for action in controller.plan(("ns", "rs")) if isinstance(action, Patch)]
    assert (report.body["status"]["replicas"], report.body["status"]["terminatingReplicas"]) == (1, 1)


async def test_a_paused_deployment_says_so_before_anything_else() -> None:
    informers = StillInformers()
    controller = Deployments(informers, lambda: 1_800_000_000.0)
    informers.put("deployments.apps", deployment(paused=True, progressDeadlineSeconds=600))
    (report,) = [action for action in controller.plan(("ns", "web")) if isinstance(action, Patch)]
    first = report.body["status"]["conditions"][0]
    assert (first["type"], first["status"], first["reason"]) == ("Progressing", "Unknown", "DeploymentPaused")
    assert report.body["status"]["terminatingReplicas"] == 0


async def test_a_reported_deployment_is_not_reported_again() -> None:
    informers = StillInformers()
    controller, web = Deployments(informers, lambda: 1_800_000_000.0), deployment(paused=True)
    informers.put("deployments.apps", web)
    (report,) = [action for action in controller.plan(("ns", "web")) if isinstance(action, Patch)]
    kept = {name: value for name, value in report.body["status"].items() if value is not None}
    informers.put("deployments.apps", web | {"status": kept})
    assert not [action for action in controller.plan(("ns", "web")) if isinstance(action, Patch)]
