"""The head of a CONNECT request: what is taken, what is refused and with which status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.protocol.connect import MAX_HEAD, BadRequest, ConnectRequest, parse_connect, refusal

AS_KUBE_APISERVER = b"CONNECT 10.0.0.7:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_the_target_is_the_request_target_not_the_host_header() -> None:
    assert parse_connect(AS_KUBE_APISERVER) == ConnectRequest("10.0.0.7:10250", b"")


def test_bytes_behind_the_head_are_kept() -> None:
    # Lost once in k3s (k3s-io/k3s#6216).
    assert parse_connect(AS_KUBE_APISERVER + b"\x16\x03\x01") == ConnectRequest("10.0.0.7:10250", b"\x16\x03\x01")


def test_an_incomplete_head_waits() -> None:
    for length in range(len(AS_KUBE_APISERVER)):
        assert parse_connect(AS_KUBE_APISERVER[:length]) is None


@pytest.mark.parametrize("address", ["node-1.example:80", "[::1]:10250", "[fe80::1%eth0]:1", "127.0.0.1:65535"])
def test_good_addresses(address: str) -> None:
    request = parse_connect(f"CONNECT {address} HTTP/1.1\r\n\r\n".encode())
    assert request is not None
    assert request.address == address


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT 10.0.0.1 HTTP/1.1",
        "CONNECT :80 HTTP/1.1",
        "CONNECT a:0 HTTP/1.1",
        "CONNECT a:65536 HTTP/1.1",
        "CONNECT a:-1 HTTP/1.1",
        "CONNECT a:80x HTTP/1.1",
        "CONNECT ::1:80 HTTP/1.1",
        "CONNECT [::g]:80 HTTP/1.1",
        "CONNECT a/b:80 HTTP/1.1",
        "CONNECT a@b:80 HTTP/1.1",
        "CONNECT a\x00b:80 HTTP/1.1",
        "CONNECT a:80 HTTP/2.0",
        "CONNECT  a:80 HTTP/1.1",
        "CONNECT a:80",
        "",
    ],
)
def test_malformed_requests_are_400(line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_connect(f"{line}\r\n\r\n".encode())
    assert caught.value.status == 400


def test_other_methods_are_405() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_connect(b"GET / HTTP/1.1\r\n\r\n")
    assert caught.value.status == 405


def test_an_endless_head_is_431() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_connect(b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * MAX_HEAD)
    assert caught.value.status == 431


def test_a_refusal_has_a_length_and_the_type() -> None:
    assert refusal(504, "i/o timeout", "DialTimeout") == (
        b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Konnectivity-Error: DialTimeout\r\nContent-Length: 13\r\nConnection: close\r\n\r\ni/o timeout\r\n"
    )


@given(st.binary(max_size=300))
def test_garbage_is_a_request_or_a_bad_request(garbage: bytes) -> None:
    try:
        parse_connect(garbage + b"\r\n\r\n")
    except BadRequest:
        return
