"""Talking to anybody but the referee. All addresses are loopback ones."""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Any

from calls import system_call

_WAIT_S = 2.0


def connect_by_tcp(at: Any) -> str:
    """A server on this machine."""
    with socket.create_connection(("127.0.0.1", at.tcp), _WAIT_S) as sock:
        sock.sendall(b"labels, please")
    return "connected"


def connect_by_tcp_6(at: Any) -> str:
    """The same over IPv6, to a mapped address."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(("::ffff:127.0.0.1", at.tcp))
    return "connected"


def listen_on_tcp(at: Any) -> str:
    """Be a server that somebody connects to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        return str(sock.getsockname())


def send_by_udp(at: Any) -> str:
    """A datagram needs no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"labels", ("127.0.0.1", at.udp))
    return "sent"


def find_a_route(at: Any) -> str:
    """Connecting a datagram socket sends nothing, and tells whether there is a way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.5.5.5", 9))
        return str(sock.getsockname())


def connect_by_path(at: Any) -> str:
    """A second connection to whoever listens on a socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(at.unix)
    return "connected"


def connect_by_name(at: Any) -> str:
    """Abstract sockets lie outside the file system."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(b"\0" + at.abstract.encode())
    return "connected"


def send_by_name(at: Any) -> str:
    """Abstract sockets that take datagrams, as system logs do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"labels", b"\0" + at.datagrams.encode())
    return "sent"


def open_a_channel_to_the_host(at: Any) -> str:
    """Virtual machines have sockets to their hosts."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        return str(sock)


def talk_to_the_kernel(at: Any) -> str:
    """Netlink: interfaces, routes, audit."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        return "bound"


def open_a_crypto_socket(at: Any) -> str:
    """A kernel subsystem that had its holes."""
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as sock:
        return str(sock)


def queue_system_calls(at: Any) -> int:
    """``io_uring`` does for one what a filter of calls does not see."""
    return 1 + system_call("io_uring_setup", 4, ctypes.create_string_buffer(120))


def see_who_listens(at: Any) -> bool:
    """``/proc/self/net/unix`` lists the sockets of this machine, with their names: a process outside can make one."""
    with open("/proc/self/net/unix", encoding="utf-8", errors="replace") as file:
        return at.token in file.read()


def see_who_listens_by_a_thread(at: Any) -> bool:
    """The same file, below each thread."""
    with open("/proc/thread-self/net/unix", encoding="utf-8", errors="replace") as file:
        return at.token in file.read()


def see_who_listens_by_tcp(at: Any) -> bool:
    """``/proc/self/net/tcp``: addresses and ports."""
    with open(f"/proc/{os.getpid()}/net/tcp", encoding="utf-8") as file:
        return f":{at.tcp:04X} " in file.read()


def count_datagrams(at: Any) -> bool:
    """``/proc/self/net/udp``: a datagram that lies in the queue of a listener outside is a message to the worker."""
    with open("/proc/self/net/udp", encoding="utf-8") as file:
        return f":{at.udp:04X} " in file.read()
