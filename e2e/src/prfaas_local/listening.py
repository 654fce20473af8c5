"""Keeps the addresses that a process listens on the same as those that it should listen on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Address = tuple[str, int]
"""IP address and port."""
Target = TypeVar("Target")

RETRY_S = 0.5
"""How long an address that could not be had is left alone."""


class ListeningSet(Generic[Target]):
    """Listening addresses, each with what it leads to. Connections outlive the address that they came through.

    Args:
        wanted: the addresses to listen on now, and where each leads.
        listen: begins to listen on one; OSError when it cannot be had.
    """

    def __init__(
        self,
        wanted: Callable[[], Mapping[Address, Target]],
        listen: Callable[[Address, Target], Awaitable[asyncio.Server]],
    ) -> None:
        self._wanted = wanted
        self._listen = listen
        self._changed = asyncio.Event()
        self._reconciling = asyncio.Lock()
        self._complained: set[Address] = set()
        self._servers: dict[Address, tuple[Target, asyncio.Server]] = {}

    def changed(self) -> None:
        """Have `run` look at what is wanted again."""
        self._changed.set()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._changed.is_set() and self.open == self._wanted()

    @property
    def open(self) -> dict[Address, Target]:
        """The addresses listened on, and where they lead."""
        return {address: target for address, (target, _) in self._servers.items()}

    async def run(self) -> None:
        """Follow what is wanted until cancelled, then listen on nothing."""
        try:
            while True:
                self._changed.clear()
                failed = await self._reconcile()
                try:
                    await asyncio.wait_for(self._changed.wait(), RETRY_S if failed else None)
                except TimeoutError:
                    continue
        finally:
            for _, server in self._servers.values():
                server.close()
            self._servers.clear()

    async def refresh(self) -> None:
        """Listen on what is wanted now; what fails is tried again by `run`."""
        if await self._reconcile():
            self._changed.set()

    async def _reconcile(self) -> set[Address]:
        """Return the addresses that could not be had."""
        async with self._reconciling:
            wanted = self._wanted()
            for address in [address for address, target in self.open.items() if wanted.get(address) != target]:
                _, server = self._servers.pop(address)
                server.close()
                logger.info("%s:%d is gone", *address)
            failed: set[Address] = set()
            for address in sorted(wanted.keys() - self._servers.keys()):
                target = wanted[address]
                try:
                    self._servers[address] = target, await self._listen(address, target)
                except OSError as error:
                    failed.add(address)
                    if address not in self._complained:
                        self._complained.add(address)
                        logger.warning("%s:%d cannot be listened on, trying again: %s", *address, error.strerror)
                else:
                    logger.info("%s:%d leads to %s", *address, target)
            self._complained &= failed
            return failed
