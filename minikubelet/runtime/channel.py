"""Messages between the kubelet and what the launcher forked: length, marshal, and descriptors beside them.

My job: the framing both ends share. I own nothing. marshal, because both ends are the same interpreter and trust each
other, and because it is there without an import: the launcher's memory is counted on every node.
"""

import array
import marshal
import socket
import struct
from typing import Any

LENGTH = struct.Struct("=I")
MAX_MESSAGE = 64 << 20
MAX_DESCRIPTORS = 8


def encode(message: Any) -> bytes:
    body = marshal.dumps(message)
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Any:
    return marshal.loads(body)


def send(channel: socket.socket, message: Any, descriptors: tuple[int, ...] = ()) -> None:
    """Blocking. The descriptors travel with the first byte."""
    data = encode(message)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = channel.sendmsg([data], rights)
    if sent < len(data):
        channel.sendall(data[sent:])


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """Blocking. Raises EOFError when the other end is gone."""
    head, descriptors = receive_part(channel, LENGTH.size)
    while len(head) < LENGTH.size:
        more, _ = receive_part(channel, LENGTH.size - len(head))
        head += more
    (length,) = LENGTH.unpack(head)
    body = bytearray()
    while len(body) < length:
        body += receive_part(channel, min(length - len(body), 1 << 20))[0]
    return marshal.loads(bytes(body)), descriptors


def receive_part(channel: socket.socket, size: int) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = channel.recvmsg(size, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    if not data:
        raise EOFError
    return data, descriptors.tolist()
