"""Connections whose other end vanishes without a word: the system is to ask, and to give them up.

A process that is killed, or a machine that is shut down, closes its connections. One that loses its power or its
network does not, and whoever waits for it would wait for as long as the patience of `ranks.py` says.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

SECONDS_OF_SILENCE = 60
SECONDS_BETWEEN_QUESTIONS = 20
NUM_QUESTIONS = 12
MILLISECONDS_UNANSWERED = 1000 * (SECONDS_OF_SILENCE + SECONDS_BETWEEN_QUESTIONS * NUM_QUESTIONS)
"""Five minutes in all: a switch may restart meanwhile. For a process that is busy or stopped its system answers."""

DESCRIPTORS = Path("/proc/self/fd")


def keep_asking() -> None:
    """Let the system ask the other ends of all connections of this process; on other systems than Linux nothing."""
    if sys.platform != "linux":
        return
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError):  # the folder's own descriptor is closed by now; others are no sockets
            _set(os.dup(int(name)))


def _set(descriptor: int) -> None:
    """Set the options of a connection; they are those of the connection itself, not of the copy, which is closed."""
    try:
        end = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return
    with end:
        if end.family in (socket.AF_INET, socket.AF_INET6) and end.type == socket.SOCK_STREAM:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SECONDS_OF_SILENCE)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SECONDS_BETWEEN_QUESTIONS)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, NUM_QUESTIONS)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, MILLISECONDS_UNANSWERED)
