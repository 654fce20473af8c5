"""Keeps the addresses that a link listens on the same as the endpoints of the pods at its far end."""

from __future__ import annotations

import asyncio
import logging

from prfaas_local.link.endpoints import Address, endpoints
from prfaas_local.link.link import Link
from prfaas_local.link.state import Fault
from prfaas_local.link.translation import Translation
from prfaas_local.node.reflector import Reflector

logger = logging.getLogger(__name__)

RETRY_S = 0.5
"""How long an address that could not be had is left alone."""


class Listeners:
    """The listening addresses of a link; none while it is cut.

    Connections outlive them when a pod goes: the pod's own end closes those.
    """

    def __init__(self, link: Link, pods: Reflector, translation: Translation) -> None:
        self._link = link
        self._pods = pods
        self._translation = translation
        self._changed = asyncio.Event()
        self._reconciling = asyncio.Lock()
        self._complained: set[Address] = set()
        self._servers: dict[Address, tuple[Address, asyncio.Server]] = {}
        pods.listen(lambda *_: self._changed.set())

    @property
    def synced(self) -> bool:
        """Whether the pods are known and nothing is left to be done about them."""
        return self._pods.synced.is_set() and not self._changed.is_set() and self.open == self._wanted()

    @property
    def open(self) -> dict[Address, Address]:
        """The addresses listened on, and the pods' addresses that they lead to."""
        return {listen: target for listen, (target, _) in self._servers.items()}

    async def run(self) -> None:
        """Follow the pods until cancelled, then listen on nothing."""
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
        """Listen as the state of the link asks for, now; what fails is tried again by `run`."""
        if await self._reconcile():
            self._changed.set()

    def _wanted(self) -> dict[Address, Address]:
        if self._link.state.fault is Fault.CUT:
            return {}
        return endpoints(self._pods.objects.values(), self._translation)

    async def _reconcile(self) -> set[Address]:
        """Return the addresses that could not be had."""
        async with self._reconciling:
            wanted = self._wanted()
            for listen in [listen for listen, target in self.open.items() if wanted.get(listen) != target]:
                _, server = self._servers.pop(listen)
                server.close()
                logger.info("%s:%d is gone", *listen)
            failed: set[Address] = set()
            for listen in sorted(wanted.keys() - self._servers.keys()):
                target = wanted[listen]
                try:
                    self._servers[listen] = target, await self._link.listen(listen, target)
                except OSError as error:
                    failed.add(listen)
                    if listen not in self._complained:
                        logger.warning("%s:%d cannot be listened on, trying again: %s", *listen, error.strerror)
                else:
                    logger.info("%s:%d leads to %s:%d", *listen, *target)
            self._complained = failed
            return failed
