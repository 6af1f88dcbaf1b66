"""A requests session whose calls end in time: a watchdog shuts its sockets down, wherever they are waiting.

Timeouts of sockets count from byte to byte, so a peer that sends one byte now and then could hold a call for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class Watchdog:
    """Shuts a request's sockets down when its time is over, wherever it is waiting."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def watch(self, sock: socket.socket | None) -> None:
        """Add a connected socket."""
        if sock is not None:
            self._sockets.append(sock)
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        self.expired = True
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class _WatchedAdapter(HTTPAdapter):
    """Tells the watchdog about every socket that is opened."""

    def __init__(self, dog: Watchdog) -> None:
        self._pools = _watched_pools(dog)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _watched_pools(dog: Watchdog) -> dict[str, Any]:
    class Plain(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            sock = super()._new_conn()
            dog.watch(sock)
            return sock

    class Tls(urllib3.connection.HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            sock = super()._new_conn()
            dog.watch(sock)  # while it shakes hands
            return sock

        def connect(self) -> None:
            super().connect()
            dog.watch(self.sock)  # TLS has wrapped the first one and taken its descriptor

    class PlainPool(urllib3.connectionpool.HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(urllib3.connectionpool.HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}


@contextlib.contextmanager
def watched_session(dog: Watchdog) -> Iterator[requests.Session]:
    """A fresh session per request: calls are minutes apart, and a session is not meant for several threads."""
    with requests.Session() as session:
        session.auth = _no_auth  # keeps requests from looking into .netrc
        adapter = _WatchedAdapter(dog)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        yield session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
