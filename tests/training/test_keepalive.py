"""The system asks after the other ends of connections, so that a machine that has vanished is noticed."""

import os
import socket
import sys

import pytest

from mmtune.training.keepalive import MILLISECONDS_UNANSWERED, keep_asking


@pytest.mark.skipif(sys.platform != "linux", reason="the options are those of Linux")
def test_connections_are_asked_after_and_no_descriptor_is_left_open(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        (tmp_path / "a file").open("w"),
        socket.create_connection(server.getsockname()) as here,
        server.accept()[0] as there,
    ):
        assert not here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        before = os.listdir("/proc/self/fd")
        keep_asking()
        assert os.listdir("/proc/self/fd") == before
        for end in (here, there):
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == MILLISECONDS_UNANSWERED
            end.sendall(b"still open")
