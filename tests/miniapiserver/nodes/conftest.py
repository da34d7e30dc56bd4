"""The stub kubelet and the certificates of the wire tests, for the tests of the path to a node."""

import sys
from pathlib import Path

import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parents[2] / "wire"))

from wire_certificates import Certificates, write_pair


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    cert, key = write_pair(folder, "server", authority.issue_cert("127.0.0.1", "localhost"))
    issued = authority.issue_cert("client@example.org", common_name="kube-apiserver-kubelet-client")
    client_cert, client_key = write_pair(folder, "client", issued)
    return Certificates(str(folder / "ca.crt"), cert, key, client_cert, client_key, authority, folder)
