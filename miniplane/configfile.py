"""The file `up --config` reads: the flags' settings in YAML, and extra arguments for each program.

    apiVersion: miniplane/v1alpha1
    kind: Cluster
    nodes: 3
    kubeletCA: false
    extraArgs:
      miniapiserver: ["--authorization-mode=AlwaysAllow"]
      minikubelet: ["--max-pods=500"]

My job: strict reading; a field nobody knows is an error that names it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from miniplane.errors import OptionsError
from miniplane.state import Egress, Storage, Topology

API_VERSION: Final = "miniplane/v1alpha1"


def load(path: Path) -> dict[str, Any]:
    """Fields of `Options`. Raises OptionsError, naming file and field."""
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise OptionsError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise OptionsError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return parse(document)
    except OptionsError as error:
        raise OptionsError(f"{path}: {error}") from error


def parse(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise OptionsError("a mapping was expected")
    fields = dict(document)
    if (fields.pop("apiVersion", None), fields.pop("kind", None)) != (API_VERSION, "Cluster"):
        raise OptionsError(f"must say apiVersion: {API_VERSION} and kind: Cluster")
    unknown = sorted(str(name) for name in fields if name not in _FIELDS)
    if unknown:
        raise OptionsError(f"unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    given = {}
    for name, value in fields.items():
        setting, reader = _FIELDS[name]
        try:
            given[setting] = reader(value)
        except ValueError as error:
            raise OptionsError(f"{name}: {error}") from error
    return given


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a number was expected, not {value!r}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false was expected, not {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {value!r}")
    return tuple(_text(item) for item in value)


def _arguments(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise ValueError(f"a mapping from process to arguments was expected, not {value!r}")
    return {_text(name): _texts(arguments) for name, arguments in value.items()}


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "nodes": ("nodes", _integer),
    "kubeletCA": ("kubelet_ca", _boolean),
    "bindAddress": ("bind_address", _text),
    "securePort": ("secure_port", _integer),
    "sans": ("sans", _texts),
    "storage": ("storage", lambda value: Storage(_text(value))),
    "egress": ("egress", lambda value: Egress(_text(value))),
    "topology": ("topology", lambda value: Topology(_text(value))),
    "extraArgs": ("extra_args", _arguments),
}
