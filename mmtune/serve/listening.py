"""The address of a server: a socket that is bound before a model loads, and whether others can reach it."""

import errno
import ipaddress
import os
import socket

from mmtune.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Who connects before the server answers, waits.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        ConfigError: there is no such host, or the port is taken or not allowed.
    """
    family, address = _address(host, port)
    listener = socket.socket(family)
    if os.name == "posix":  # elsewhere it would share the port with another server
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise ConfigError("--port", f"{port} is not yours to take. Take one from 1024: --port 8000.") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError("--host", f"{host} is no address of this machine. Take 127.0.0.1 or 0.0.0.0.") from None
        message = f"{port} on {host} is taken ({error.strerror}). Take another one: --port {port % 65535 + 1}."
        raise ConfigError("--port", message) from None
    return listener


def is_loopback(host: str) -> bool:
    """Return whether a host is reached from this machine alone.

    Raises:
        ConfigError: there is no such host.
    """
    return ipaddress.ip_address(_address(host, 0)[1][0].partition("%")[0]).is_loopback


def require_secret(host: str, has_secret: bool, option: str) -> None:
    """Hold that whoever serves others asks them for a secret.

    Args:
        host: that the server will listen on.
        has_secret: whether there is one.
        option: that sets it.

    Raises:
        ConfigError: others can reach the host, and there is none.
    """
    if not has_secret and not is_loopback(host):
        message = f"{host} is reached from other machines, and nothing keeps strangers out. Add {option}."
        raise ConfigError("--host", message)


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port."""
    return (header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]).lower()


def url_of(host: str, listener: socket.socket) -> str:
    """Return where a socket is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _address(host: str, port: int) -> tuple[int, tuple[str, int]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError("--host", f"there is no host {host:.60}. Take 127.0.0.1, for this machine alone.") from None
    return family, (str(address[0]), int(address[1]))
