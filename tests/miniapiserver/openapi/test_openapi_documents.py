"""OpenAPI documents of the built-in table, in their own terms and as a real kubectl reads them."""

import asyncio
import contextlib
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from miniapiserver.endpoints import discovery, gnostic
from miniapiserver.endpoints.openapi import V2_PROTOBUF, Documents
from miniapiserver.resources.resource import TypeTable
from miniapiserver.resources.rows import all_rows

JSON = dict[str, Any]
ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.fixture(scope="module")
def documents() -> Documents:
    return Documents(TypeTable(all_rows()))


def parsed(documents: Documents, path: str) -> JSON:
    found = documents.answer(path, "")
    assert found is not None and found.status == 200
    result: JSON = json.loads(found.body)
    return result


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_root_leads_to_every_group_version(documents: Documents) -> None:
    paths = parsed(documents, "/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/autoscaling/v1", "apis/autoscaling/v2"} <= set(paths)
    url = paths["apis/apps/v1"]["serverRelativeURL"]
    assert url.startswith("/openapi/v3/apis/apps/v1?hash=") and len(url.partition("=")[2]) == 128


def test_no_reference_leads_nowhere(documents: Documents) -> None:
    for place in parsed(documents, "/openapi/v3")["paths"]:
        document = parsed(documents, f"/openapi/v3/{place}")
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert set(references(document)) <= known, place
    document = parsed(documents, "/openapi/v2")
    assert set(references(document)) <= {f"#/definitions/{name}" for name in document["definitions"]}


def test_a_right_hash_is_for_ever_and_a_wrong_one_moves(documents: Documents) -> None:
    url = parsed(documents, "/openapi/v3")["paths"]["api/v1"]["serverRelativeURL"]
    right = documents.answer("/openapi/v3/api/v1", "", url.partition("=")[2])
    assert right is not None and right.headers["Cache-Control"] == "public, immutable"
    wrong = documents.answer("/openapi/v3/api/v1", "", "00")
    assert wrong is not None and (wrong.status, wrong.headers["Location"]) == (301, url)
    assert documents.answer("/openapi/v3/apis/nope/v1", "") is None


def test_a_patch_operation_says_what_clients_look_for(documents: Documents) -> None:
    operation = parsed(documents, "/openapi/v3/apis/apps/v1")["paths"][
        "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    ]["patch"]
    assert operation["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    assert operation["x-kubernetes-action"] == "patch"
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= {item["name"] for item in operation["parameters"]}
    assert "application/apply-patch+yaml" in operation["requestBody"]["content"]


def test_schemas_carry_the_extensions_patches_need(documents: Documents) -> None:
    for path, schemas in (("/openapi/v2", ("definitions",)), ("/openapi/v3/api/v1", ("components", "schemas"))):
        found = parsed(documents, path)
        for name in schemas:
            found = found[name]
        volumes = found["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"]
        assert {key: value for key, value in volumes.items() if key.startswith("x-")} == {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-merge-key": "name",
            "x-kubernetes-patch-strategy": "merge,retainKeys",
        }
        assert found["io.k8s.api.core.v1.PodSpec"]["required"] == ["containers"]
        assert found["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"] == [
            {"group": "", "kind": "Pod", "version": "v1"}
        ]
        assert found["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"] == "atomic"
        options = found["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"]
        assert {"group": "apps", "kind": "DeleteOptions", "version": "v1"} in options


def test_version_2_answers_protobuf_under_a_name_mime_parsers_accept(documents: Documents) -> None:
    found = documents.answer("/openapi/v2", ASKED)
    assert found is not None and found.content_type == V2_PROTOBUF
    assert "@" not in found.content_type
    assert found.gzipped is not None and gzip.decompress(found.gzipped) == found.body


def test_gnostic_bytes_of_a_small_document() -> None:
    document = {
        "swagger": "2.0",
        "info": {"title": "T", "version": "1"},
        "paths": {},
        "definitions": {
            "A": {"type": "object", "required": ["b"], "properties": {"b": {"$ref": "#/definitions/B"}}, "x-y": [1]}
        },
    }
    assert gnostic.encode(document).hex(" ", 1) == " ".join(
        (
            "0a 03 32 2e 30",  # swagger: "2.0"
            "12 06 0a 01 54 12 01 31",  # info: title, version
            "42 00",  # paths
            "4a 41 0a 3f 0a 01 41 12 3a",  # definitions: one, named A
            "b2 01 08 0a 06 6f 62 6a 65 63 74",  # type {value: object}
            "9a 01 01 62",  # required: b
            # properties: b -> {_ref: #/definitions/B}
            "ca 01 18 0a 16 0a 01 62 12 11 0a 0f 23 2f 64 65 66 69 6e 69 74 69 6f 6e 73 2f 42",
            "fa 01 0d 0a 03 78 2d 79 12 06 12 04 5b 31 5d 0a",
        )
    )  # vendor_extension: x-y {yaml: "[1]"}


def test_a_changed_table_changes_hash_and_document() -> None:
    table = TypeTable(all_rows())
    documents = Documents(table)
    before = parsed(documents, "/openapi/v3")["paths"]["apis/apps/v1"]
    table.remove("apps", "v1", "deployments")
    after = parsed(documents, "/openapi/v3")["paths"]["apis/apps/v1"]
    assert before != after
    assert not any("deployments" in path for path in parsed(documents, "/openapi/v3/apis/apps/v1")["paths"])


# --- a real kubectl ----------------------------------------------------------------------------------------------


def kubectls() -> list[str]:
    """Every kubectl in PATH's folder."""
    found = shutil.which("kubectl")
    if found is None:
        return []
    folder = Path(found).resolve().parent
    return sorted(str(path) for path in folder.glob("kubectl.1.*")) or [found]


@contextlib.asynccontextmanager
async def server(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The environment of a kubectl that talks to a server of nothing but documents."""
    table = TypeTable(all_rows())
    schemas, groups = Documents(table), discovery.Documents(table, "127.0.0.1", 1)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        accept = request.headers.get("Accept", "")
        found = (
            schemas.answer(request.path, accept, request.query.get("hash", ""))
            if "openapi" in request.path
            else groups.answer(request.path, accept)
        )
        if found is None:
            return web.Response(status=404, text="404 page not found")
        return web.Response(
            body=found.body, status=found.status, headers=found.headers | {"Content-Type": found.content_type}
        )

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        config = tmp_path / "config"
        config.write_text(
            json.dumps(
                {
                    "kind": "Config",
                    "apiVersion": "v1",
                    "current-context": "c",
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                }
            )
        )
        yield os.environ | {"KUBECONFIG": str(config), "HOME": str(tmp_path)}
    finally:
        await runner.cleanup()


@pytest.mark.e2e
@pytest.mark.parametrize("kubectl", kubectls(), ids=lambda path: Path(path).name)
async def test_kubectl_explains_from_our_documents(kubectl: str, tmp_path: Path) -> None:
    async with server(tmp_path) as env:
        for asked, expected in (
            ("pod.spec.containers.ports", "containerPort\t<integer>"),
            ("hpa --api-version=autoscaling/v2 --recursive", "averageUtilization"),
        ):
            process = await asyncio.create_subprocess_exec(
                kubectl,
                "explain",
                *asked.split(),
                env=env,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, err.decode()
            assert expected in out.decode()
