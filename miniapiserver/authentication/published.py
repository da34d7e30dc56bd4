"""What extension servers must know to believe this API server's front proxy.

My job: ConfigMap `kube-system/extension-apiserver-authentication` from the configuration. Its readers (controller
manager and scheduler with a secure port, aggregated API servers) take their trust from it. Pure but for the CA files.
"""

import json
from pathlib import Path
from typing import Any

from miniapiserver.config import Config

JSON = dict[str, Any]

NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"


def config_map(config: Config) -> JSON:
    data: dict[str, str] = {}
    if config.client_ca_file is not None:
        data["client-ca-file"] = _pem(config.client_ca_file)
    if config.requestheader_client_ca_file is not None:
        data |= {
            "requestheader-client-ca-file": _pem(config.requestheader_client_ca_file),
            "requestheader-allowed-names": _words(config.requestheader_allowed_names),
            "requestheader-username-headers": _words(config.requestheader_username_headers),
            "requestheader-uid-headers": _words(config.requestheader_uid_headers),
            "requestheader-group-headers": _words(config.requestheader_group_headers),
            "requestheader-extra-headers-prefix": _words(config.requestheader_extra_headers_prefix)}
    return {"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data}


def _pem(path: Path) -> str:
    return path.read_text()


def _words(words: tuple[str, ...]) -> str:
    return json.dumps(list(words), separators=(",", ":"))
