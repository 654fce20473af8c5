"""Certificates of the operator's service, renewed while it runs."""

import ssl

import grpc
import grpc.aio
import pytest

from prfaas_local.certificates import Authority
from prfaas_operator.configuration.tls import TlsFiles


def write(folder, authority, host="127.0.0.1"):
    pair = authority.server("prfaas-operator", [host])
    for name, pem in (("tls.key", pair.key), ("tls.crt", pair.certificate), ("ca.crt", authority.certificate)):
        (folder / name).write_bytes(pem)


async def presented(port):
    """Return the certificate that a new connection is shown."""
    import asyncio

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return certificate


@pytest.fixture
async def server(tmp_path):
    write(tmp_path, Authority("first"))
    changes = []
    files = TlsFiles(tmp_path, on_change=lambda: changes.append(files.ca_pem()))
    found = grpc.aio.server()
    port = found.add_secure_port("127.0.0.1:0", files.credentials())
    await found.start()
    yield files, port, changes
    await found.stop(None)


async def test_a_renewed_certificate_is_used(server, tmp_path):
    """New connections get the new certificate, without a restart."""
    _, port, _ = server
    before = await presented(port)
    assert await presented(port) == before
    write(tmp_path, Authority("second"))
    after = await presented(port)
    assert after != before


async def test_a_missing_file_keeps_the_old_certificate(server, tmp_path):
    """While files are exchanged the last pair that was whole goes on."""
    _, port, _ = server
    before = await presented(port)
    (tmp_path / "tls.key").unlink()
    assert await presented(port) == before
