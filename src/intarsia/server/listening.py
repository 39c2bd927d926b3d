"""The listening socket: had before minutes are spent on loading, and closed without a reset connection.

Whoever the kernel has let in while nobody accepts would be reset when the socket is closed, although the connection
stood: a request that was sent on it would be lost. So the socket is made deaf first (it lets nobody in any more), then
whoever is in its queue is accepted, and only then it is closed. Who knocked in between is refused, and knows that
nothing was taken."""

from __future__ import annotations

import contextlib
import ctypes
import selectors
import socket
import struct
import sys

from intarsia.errors import BadInput

BACKLOG = 1024
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06  # opcodes of classic BPF
_FLAGS, _SYN, _ACK, _WHOLE = 13, 0x02, 0x10, 0xFFFFFFFF
# What would open a connection (SYN without ACK) is dropped; all else passes, also that of who is let in already.
_NOBODY_NEW = (
    (_LOAD_BYTE, 0, 0, _FLAGS), (_AND, 0, 0, _SYN | _ACK), (_JUMP_IF_EQUAL, 0, 1, _SYN), (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _WHOLE),
)  # fmt: skip


def listening(host: str, port: int) -> socket.socket:
    """The socket. Raises `BadInput` where it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadInput(f"cannot listen on {host}:{port} ({error.strerror}): give another --host or --port") from None


def deafen(listener: socket.socket) -> None:
    """Let nobody in any more; who is in the queue stays there. On Linux; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    program = b"".join(struct.pack("HBBI", *step) for step in _NOBODY_NEW)
    kept = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HP", len(_NOBODY_NEW), ctypes.addressof(kept))
    with contextlib.suppress(OSError):  # a kernel without filters: as elsewhere
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, head)


def waiting(listener: socket.socket) -> bool:
    """Whether somebody is in the queue who was not accepted yet."""
    with selectors.DefaultSelector() as looking:
        looking.register(listener, selectors.EVENT_READ)
        return bool(looking.select(0))
