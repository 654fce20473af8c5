"""By what the metrics server knows the API server, and how it follows what is renewed."""

import asyncio
import gc
import ssl
from types import SimpleNamespace

import httpx
import pytest

from prfaas_local.certificates import Authority
from prfaas_operator.actuators import front_proxy, metrics_server
from prfaas_operator.actuators.front_proxy import FrontProxy, FrontProxyError, NotFrontProxyError
from prfaas_operator.actuators.metrics_server import MetricsServer
from prfaas_operator.actuators.pool_metrics import PoolMetrics
from prfaas_operator.objects import ObjectStore

API = "/apis/external.metrics.k8s.io/v1beta1"
PROXY = FrontProxy("pem", ("front-proxy-client",), ("X-Remote-User",))


def certificate(name):
    """Return a client certificate as `ssl` gives it."""
    return {"subject": ((("organizationName", "o"),), (("commonName", name),))}


def test_the_user_is_whom_the_api_server_names():
    headers = {"X-Remote-User": "hpa"}
    assert PROXY.user(certificate("front-proxy-client"), headers) == "hpa"
    assert FrontProxy("pem", (), ("X-A", "X-Remote-User")).user(certificate("any"), headers) == "hpa"


@pytest.mark.parametrize(
    ("found", "headers", "message"),
    [
        (None, {"X-Remote-User": "admin"}, "no client certificate"),
        (certificate("somebody"), {"X-Remote-User": "admin"}, "is of 'somebody', and not of front-proxy-client"),
        (certificate("front-proxy-client"), {}, "none of the headers X-Remote-User"),
    ],
)
def test_others_are_refused(found, headers, message):
    with pytest.raises(NotFrontProxyError, match=message):
        PROXY.user(found, headers)


class Hub:
    """The hub's ConfigMap, as a test sets it."""

    def __init__(self, data=None):
        self.data = data

    async def get(self, *_):
        return None if self.data is None else {"data": self.data}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "turn on the API server's aggregation layer"),
        ({"client-ca-file": "pem"}, "has no requestheader-client-ca-file"),
        (
            {"requestheader-client-ca-file": "pem", "requestheader-allowed-names": "["},
            "extension-apiserver-authentication: ",
        ),
    ],
)
async def test_a_hub_without_aggregation_is_told_apart(data, message):
    with pytest.raises(FrontProxyError, match=message):
        await front_proxy.read(Hub(data))


@pytest.fixture
async def serving(connections, tmp_path, unused_tcp_port, monkeypatch):
    """A server that looks for renewed files all the time, with what changes them."""
    monkeypatch.setattr(metrics_server, "_LOOK_S", 0.05)
    monkeypatch.setattr(metrics_server, "_AGAIN_S", 0.05)
    found = SimpleNamespace(hub=Hub(), authority=Authority("prfaas"), proxies=Authority("front-proxy-ca"))

    def renew():
        pair = found.authority.server("prfaas-operator", ["127.0.0.1"])
        (tmp_path / "tls.key").write_bytes(pair.key)
        (tmp_path / "tls.crt").write_bytes(pair.certificate)
        found.hub.data = {"requestheader-client-ca-file": found.proxies.certificate.decode()}

    async def ask(proxies=None, authority=None):
        """Return the status that the API server would get, or None where TLS refuses."""
        context = ssl.create_default_context(cadata=(authority or found.authority).certificate.decode())
        pair = (proxies or found.proxies).client("front-proxy-client")
        (tmp_path / "client.pem").write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(tmp_path / "client.pem")
        try:
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                answer = await client.get(f"https://127.0.0.1:{unused_tcp_port}{API}", headers={"X-Remote-User": "hpa"})
        except httpx.TransportError:
            return None
        return answer.status_code

    async def until(status, **who):
        async with asyncio.timeout(20):
            while await ask(**who) != status:
                pass

    found.renew, found.until = renew, until
    metrics = PoolMetrics(ObjectStore(), None, lambda _: None)
    server = asyncio.create_task(
        MetricsServer(found.hub, metrics, tmp_path, host="127.0.0.1", port=unused_tcp_port).run()
    )
    yield found
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)
    gc.collect()


# asyncio forgets to close a connection whose handshake was refused, and says so when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_it_serves_once_it_can_and_follows_new_authorities(serving):
    """Certificates and the authority of the API server are renewed while the operator runs."""
    await serving.until(None)  # neither a certificate nor the hub's word
    serving.renew()
    await serving.until(200)
    old, serving.authority = serving.authority, Authority("prfaas")
    serving.renew()
    await serving.until(200)
    await serving.until(None, authority=old)
    old, serving.proxies = serving.proxies, Authority("front-proxy-ca")
    serving.renew()
    await serving.until(200)
    await serving.until(None, proxies=old)
