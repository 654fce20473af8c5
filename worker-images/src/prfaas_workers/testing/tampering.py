"""A network that damages what passes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Tampering(threading.Thread):
    """A TCP proxy to one target that counts, cuts, flips or holds back bytes of its connections.

    Args:
        to_reader: whether the bytes from the owner to the reader are meant, or those of the request.
        cut_at, hold_at: after so many bytes the connection is closed, or nothing more is let through until the owner is gone.
        flip_at, mask: the byte at this offset is changed by exclusive or.
    """

    def __init__(
        self,
        target: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        to_reader: bool = True,
        cut_at: int | None = None,
        hold_at: int | None = None,
        flip_at: int | None = None,
        mask: int = 0xFF,
    ) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._damaged_direction = to_reader
        self._cut_at, self._hold_at, self._flip_at, self._mask = cut_at, hold_at, flip_at, mask
        self._server = socket.create_server(listen)
        self._server.settimeout(0.05)
        self.port: int = self._server.getsockname()[1]
        self.passed = {True: 0, False: 0}
        self.holding = threading.Event()
        self._stopping = False
        self._pumps: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self.join()

    def run(self) -> None:
        with self._server:
            while not self._stopping:
                try:
                    client, _ = self._server.accept()
                except TimeoutError:
                    continue
                pump = threading.Thread(target=self._connection, args=(client,), daemon=True)
                pump.start()
                self._pumps.append(pump)
            for pump in self._pumps:
                pump.join()

    def _connection(self, client: socket.socket) -> None:
        with client:
            try:
                upstream = socket.create_connection(self._target)
            except OSError:
                return
            with upstream:
                back = threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True)
                back.start()
                self._pump(client, upstream, False)
                back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, to_reader: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                offset = self.passed[to_reader]
                if to_reader == self._damaged_direction:
                    if self._flip_at is not None and 0 <= self._flip_at - offset < len(chunk):
                        changed = bytearray(chunk)
                        changed[self._flip_at - offset] ^= self._mask
                        chunk = bytes(changed)
                    limit = self._cut_at if self._cut_at is not None else self._hold_at
                    if limit is not None and offset + len(chunk) > limit:
                        sink.sendall(chunk[: max(0, limit - offset)])
                        if self._hold_at is not None:
                            self.holding.set()
                            while source.recv(65536):
                                pass
                        break
                sink.sendall(chunk)
                self.passed[to_reader] += len(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
