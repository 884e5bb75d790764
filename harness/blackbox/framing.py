"""Frames on a socket: a little-endian u32 length and a body. The length is checked before memory is allocated."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from harness.errors import ProtocolError

if TYPE_CHECKING:
    import socket

LENGTH = struct.Struct("<I")


def receive(sock: socket.socket, largest: int) -> bytes | None:
    """The body of the next frame, or None if the other side closed the connection between frames.

    The socket's timeout limits the time of the whole frame, however slowly its bytes arrive.

    Raises:
        ProtocolError: the frame is longer than `largest` bytes, has no length, or was cut off.
        TimeoutError: the socket's timeout ran out.
    """
    timeout = sock.gettimeout()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        head = _exactly(sock, LENGTH.size, deadline)
        if head is None:
            return None
        (length,) = LENGTH.unpack(head)
        if not 0 < length <= largest:
            raise ProtocolError(
                f"frame of {length:,} bytes; 1 to {largest:,} are accepted. Send coordinates, or send less at once"
            )
        body = _exactly(sock, length, deadline)
    finally:
        sock.settimeout(timeout)
    if body is None:
        raise ProtocolError(f"frame of {length:,} bytes was cut off")
    return body


def _exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes | None:
    """Read `size` bytes, or return None if the peer closed before the first. Memory grows only as bytes arrive."""
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"only {len(data):,} of {size:,} bytes arrived in time")
            sock.settimeout(left)
        try:
            chunk = sock.recv(min(size - len(data), 1 << 20))
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            if not data:
                return None
            raise ProtocolError(f"frame was cut off: {size - len(data):,} of {size:,} bytes are missing")
        data += chunk
    return bytes(data)
