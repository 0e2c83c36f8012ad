"""Ports that are ours before and between the processes that listen on them."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Self

from model_gateway.settings import ConfigError


class ReservedPort:
    """A port that was free, and on Linux is kept from being handed out to anybody else.

    A socket that is bound but does not listen takes no connection, and leaves the port to a process that
    binds it by number with SO_REUSEADDR, as servers do. So a server started again finds its port free.

    Args:
        host: the address to listen on.
        port: 0 for any.
        name: the setting to blame.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise ConfigError("environment", [f"GATEWAY_HOST: {host}: {error.strerror}"]) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise ConfigError("environment", [_complaint(error, host, port, name)]) from None
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":  # elsewhere a bound socket would keep the server out too
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _complaint(error: OSError, host: str, port: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{name}: {host}:{port} is in use by another process; stop it or choose another port"
    return f"{name}: can't listen on {host}:{port}: {error.strerror}"
