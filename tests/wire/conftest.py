"""Certificates shared by the wire tests."""

import pytest
import trustme
from wire_certificates import Certificates, write_pair


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    cert, key = write_pair(folder, "server", authority.issue_cert("127.0.0.1", "localhost"))
    client_cert, client_key = write_pair(folder, "client", authority.issue_cert("client@example.org", common_name="me"))
    return Certificates(str(folder / "ca.crt"), cert, key, client_cert, client_key, authority, folder)
