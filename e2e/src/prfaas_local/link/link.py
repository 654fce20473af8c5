"""The link: its state, its two directions and the connections over it."""

from __future__ import annotations

import asyncio
import logging
import socket

from prfaas_local.link.connection import RECEIVE_BUFFER_BYTES, Connection, End
from prfaas_local.link.direction import Direction
from prfaas_local.link.state import Fault, LinkState
from prfaas_local.listening import Address

logger = logging.getLogger(__name__)

_BACKLOG = 1024


class Link:
    """All connections share the capacity of each direction. Use within one event loop."""

    def __init__(self, state: LinkState) -> None:
        self._state = state
        self.to_pods = Direction(state)
        """From the near end to the pods."""
        self.from_pods = Direction(state)
        self._connections: set[Connection] = set()
        self.accepted = 0
        """Connections accepted, ever."""

    @property
    def state(self) -> LinkState:
        """Capacity, delay and fault now."""
        return self._state

    @property
    def connections(self) -> int:
        """Connections that are open at one end at least."""
        return len(self._connections)

    @property
    def queued_bytes(self) -> tuple[int, int]:
        """Bytes that wait for their turn: to the pods, from the pods."""
        queued = [connection.queued_bytes for connection in self._connections]
        return sum(to_pods for to_pods, _ in queued), sum(from_pods for _, from_pods in queued)

    def configure(self, state: LinkState) -> None:
        """Change the state at once, also for connections that are open."""
        logger.info("link: %s", state)
        self._state = state
        if state.fault is Fault.CUT:
            self.abort()
        self.to_pods.configure(state)
        self.from_pods.configure(state)

    def abort(self) -> None:
        """Reset all connections."""
        for connection in list(self._connections):
            connection.abort()

    async def listen(self, listen: Address, target: Address) -> asyncio.Server:
        """Carry connections to `listen` over the link to `target`. Raises OSError when the address cannot be had."""

        def accept() -> End:
            return Connection(target, self.to_pods, self.from_pods, self._opened, self._connections.discard).near

        sock = socket.socket(socket.AF_INET6 if ":" in listen[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted connections inherit it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.bind(listen)
            return await asyncio.get_running_loop().create_server(accept, sock=sock, backlog=_BACKLOG)
        except BaseException:
            sock.close()
            raise

    def _opened(self, connection: Connection) -> None:
        self.accepted += 1
        self._connections.add(connection)
        if self._state.fault is Fault.CUT:
            connection.abort()
