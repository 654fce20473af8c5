"""The operator's certificate, read again when its files change: a renewed one needs no restart."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog

_log = structlog.get_logger(__name__)

_LOOK_S = 5.0


class TlsFiles:
    """tls.crt, tls.key and ca.crt in a folder; `on_change` hears of another authority."""

    def __init__(self, folder: Path, *, on_change: Callable[[], None]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._pair: tuple[bytes, bytes] | None = None
        self._ca = ""

    def ca_pem(self) -> str:
        """Return the authority that routers check the certificate against."""
        if not self._ca:
            self._ca = (self._folder / "ca.crt").read_text()
        return self._ca

    def credentials(self) -> grpc.ServerCredentials:
        """Return server credentials that give every new connection the certificate of that moment."""
        # The stubs leave out that None means "as before".
        return grpc.dynamic_ssl_server_credentials(self._configuration(), self._renewed)  # type: ignore[arg-type]

    async def watch(self) -> None:
        """Look for another authority until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                found = (self._folder / "ca.crt").read_text()
            except OSError as error:
                _log.warning("authority not read", error=str(error))
                continue
            if found and found != self._ca:
                self._ca = found
                _log.info("authority changed")
                self._on_change()

    def _read(self) -> tuple[bytes, bytes]:
        return (self._folder / "tls.key").read_bytes(), (self._folder / "tls.crt").read_bytes()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        self._pair = self._read()
        return grpc.ssl_server_certificate_configuration([self._pair])

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new pair, or None when it is the old one, or cannot be read: the old one goes on then."""
        try:
            pair = self._read()
        except OSError as error:
            _log.warning("certificate not read", error=str(error))
            return None
        if pair == self._pair:
            return None
        _log.info("certificate renewed")
        self._pair = pair
        return grpc.ssl_server_certificate_configuration([pair])
