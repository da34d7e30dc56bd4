"""Defaults of pod specs, in pods and in templates.

My job: what upstream's `SetDefaults_*` of core/v1 fill in, and the empty structs that its encoder never leaves out.
I own no rule about what is allowed; `spec` has those. Changes the dicts it is given.
"""

from typing import Any

from miniapiserver.resources.quantity import canonical, canonicalize

JSON = dict[str, Any]

_HANDLERS = ("postStart", "preStop")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
#: Volume sources whose files get a mode, and their default 0644
_WITH_MODE = ("secret", "configMap", "downwardAPI", "projected")
_FILE_MODE = 0o644


def pull_policy(image: str) -> str:
    """Always for `:latest` and for no tag, unless a digest pins the image."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def default_pod_spec(spec: JSON) -> None:
    for key, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
    ):
        if not spec.get(key):
            spec[key] = value
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    _default_service_account(spec)
    for volume in spec.get("volumes") or ():
        if volume is not None:
            _default_volume(volume)
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            if container is not None:
                _default_container(container)
    if overhead := spec.get("overhead"):
        canonicalize(overhead)
    if resources := spec.get("resources"):
        _default_resources(resources)


def default_pod(spec: JSON) -> None:
    """What a pod gets and a template does not: service links, requests from limits, host ports on the host network."""
    default_pod_spec(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    for key in ("containers", "initContainers"):
        for container in spec.get(key) or ():
            if container is None:
                continue
            if limits := container["resources"].get("limits"):
                container["resources"]["requests"] = limits | (container["resources"].get("requests") or {})
            if spec.get("hostNetwork"):
                for port in container.get("ports") or ():
                    if port and not port.get("hostPort"):
                        port["hostPort"] = port.get("containerPort") or 0


def default_template(template: JSON) -> None:
    """A pod template's metadata is always written out; its creationTimestamp never is."""
    metadata = template.get("metadata")
    if metadata is None:
        template["metadata"] = {}
    elif metadata.get("creationTimestamp", "") is None:
        del metadata["creationTimestamp"]
    spec = template.get("spec")
    if spec is None:
        spec = template["spec"] = {"containers": None}
    default_pod_spec(spec)


def _default_service_account(spec: JSON) -> None:
    """The old name `serviceAccount` and the new one are always answered alike; the new one wins."""
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def _default_container(container: JSON) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if container.get("resources"):
        _default_resources(container["resources"])
    else:
        container["resources"] = {}
    for port in container.get("ports") or ():
        if port is not None:
            port["protocol"] = port.get("protocol") or "TCP"
    for variable in container.get("env") or ():
        if variable and (source := variable.get("valueFrom")):
            _default_references(source)
    for key in _PROBES:
        if (probe := container.get(key)) is not None:
            _default_probe(probe)
    if lifecycle := container.get("lifecycle"):
        for key in _HANDLERS:
            if handler := lifecycle.get(key):
                _default_handler(handler)


def _default_resources(resources: JSON) -> None:
    canonicalize(resources.get("limits"))
    canonicalize(resources.get("requests"))


def _default_references(source: JSON) -> None:
    if (field := source.get("fieldRef")) is not None and not field.get("apiVersion"):
        field["apiVersion"] = "v1"
    if (resource := source.get("resourceFieldRef")) is not None:
        resource["divisor"] = canonical(resource.get("divisor") or "0")


def _default_handler(handler: JSON) -> None:
    if (http := handler.get("httpGet")) is not None:
        http["path"] = http.get("path") or "/"
        http["scheme"] = http.get("scheme") or "HTTP"
    if (grpc := handler.get("grpc")) is not None and grpc.get("service") is None:
        grpc["service"] = ""


def _default_probe(probe: JSON) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    _default_handler(probe)


def _default_volume(volume: JSON) -> None:
    if not any(value is not None for key, value in volume.items() if key != "name"):
        volume["emptyDir"] = {}
        return
    for key in _WITH_MODE:
        if (source := volume.get(key)) is not None and source.get("defaultMode") is None:
            source["defaultMode"] = _FILE_MODE
    if (host_path := volume.get("hostPath")) is not None and host_path.get("type") is None:
        host_path["type"] = ""
    if (downward := volume.get("downwardAPI")) is not None:
        _default_items(downward)
    if (projected := volume.get("projected")) is not None:
        _default_projections(projected)
    if (empty := volume.get("emptyDir")) and empty.get("sizeLimit") is not None:
        empty["sizeLimit"] = canonical(empty["sizeLimit"])
    if (iscsi := volume.get("iscsi")) is not None and not iscsi.get("iscsiInterface"):
        iscsi["iscsiInterface"] = "default"
    if (template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate")) is not None:
        _default_claim_template(template)


def _default_items(source: JSON) -> None:
    for item in source.get("items") or ():
        if item is not None:
            _default_references(item)


def _default_projections(projected: JSON) -> None:
    if "sources" not in projected:
        projected["sources"] = None
    for source in projected["sources"] or ():
        if not source:
            continue
        if (downward := source.get("downwardAPI")) is not None:
            _default_items(downward)
        if (token := source.get("serviceAccountToken")) is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600


def _default_claim_template(template: JSON) -> None:
    template["metadata"] = template.get("metadata") or {}
    spec = template["spec"] = template.get("spec") or {}
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    resources = spec["resources"] = spec.get("resources") or {}
    _default_resources(resources)
