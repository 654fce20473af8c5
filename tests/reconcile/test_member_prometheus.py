"""A MemberCluster with a Prometheus of its own: its pools are asked of that one, with credentials from Secrets."""

import itertools
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

pytestmark = pytest.mark.cluster

POOL = "PrefillPool/west-prefill"
PODS = "prfaas.dev/pool=west-prefill"
_numbers = itertools.count(200)


class Guarded(ThreadingHTTPServer):
    """A query API that answers every question with 1, to who has the token and names the tenant."""

    daemon_threads = True

    def __init__(self):
        super().__init__((f"127.{150 + os.getpid() % 90}.0.{next(_numbers)}", 0), _Answers)
        self.token = "new"
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://{self.server_address[0]}:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Guarded

    def do_POST(self):
        (query,) = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"]
        allowed = (
            self.headers["Authorization"] == f"Bearer {self.server.token}" and self.headers["X-Scope-OrgID"] == "us"
        )
        self.server.asked.append(query)
        result = [{"metric": {}, "value": [time.time(), "1"]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def guarded():
    server = Guarded()
    yield server
    server.shutdown()
    server.server_close()


def secret(name, **data):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def test_a_member_with_a_prometheus_of_its_own(tenant, prometheus, guarded):
    """Missing and refused credentials have their reasons, corrected ones are used; without it the operator's own answers."""
    member = tenant.body("MemberCluster/west")
    member["spec"]["prometheus"] = {
        "url": guarded.url,
        "bearerTokenSecretRef": {"name": "prometheus-token"},
        "headers": [{"name": "X-Scope-OrgID", "secretKeyRef": {"name": "prometheus-tenant", "key": "id"}}],
    }
    tenant.apply(member, "ModelProfile/case-study-h200", POOL)
    tenant.set_ready(PODS, 1)
    missing = tenant.wait_reason(POOL, "ScalingActive", "PrometheusNotConfigured")
    assert "prometheus-tenant" in missing["message"]
    tenant.apply(secret("prometheus-tenant", id="us"), secret("prometheus-token", token="old"))
    tenant.wait_reason(POOL, "ScalingActive", "PrometheusUnauthorized")
    tenant.apply(secret("prometheus-token", token="new"))
    tenant.wait_reason(POOL, "ScalingActive", "SignalObserved")
    # A renewed token is followed although the old one still worked when it was read.
    guarded.token = "newer"
    tenant.apply(secret("prometheus-token", token="newer"))
    asked = len(guarded.asked)
    tenant.wait(POOL, lambda _: len(guarded.asked) > asked + 8, "is asked about again")
    tenant.wait_reason(POOL, "ScalingActive", "SignalObserved")
    assert not [query for query in prometheus.asked if f'namespace="{tenant.namespace}"' in query]
    del member["spec"]["prometheus"]
    asked_before = len(prometheus.asked)
    tenant.apply(member)
    tenant.wait(POOL, lambda _: len(prometheus.asked) > asked_before + 3, "is asked of the operator's own")
    after = len(guarded.asked)
    tenant.wait(POOL, lambda _: len(prometheus.asked) > asked_before + 8, "is asked of the operator's own")
    assert len(guarded.asked) <= after + 1
