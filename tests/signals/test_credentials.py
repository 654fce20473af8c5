"""How the operator shows a Prometheus who it is, and follows credentials that are renewed."""

import asyncio
from dataclasses import replace

import pytest
import yaml

from prfaas_local.certificates import Authority
from prfaas_local.scraping import scraping
from prfaas_operator.api.conditions import Reason
from prfaas_operator.main import parse
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.prometheus.access import PrometheusFiles

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# bcrypt of "test", from the documentation of Prometheus' web configuration.
USERS = {"operator": "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"}


@pytest.fixture
def guarded(tmp_path):
    """A real Prometheus with TLS, which wants a client certificate and a password; yields files that it accepts."""
    authority = Authority("authority")
    pairs = {"server": authority.server("prometheus", ["127.0.0.1"]), "client": authority.client("operator")}
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    for name, pair in pairs.items():
        (tmp_path / f"{name}.crt").write_bytes(pair.certificate)
        (tmp_path / f"{name}.key").write_bytes(pair.key)
    tls = {
        "cert_file": "server.crt", "key_file": "server.key", "client_ca_file": "ca.crt",
        "client_auth_type": "RequireAndVerifyClientCert",
    }  # fmt: skip
    (tmp_path / "web.yaml").write_text(yaml.safe_dump({"tls_server_config": tls, "basic_auth_users": USERS}))
    (tmp_path / "username").write_text("operator\n")
    (tmp_path / "password").write_text("test\n")
    with scraping(tmp_path, {}, web=tmp_path / "web.yaml") as (_, url):
        yield PrometheusFiles(
            url=url,
            ca_file=tmp_path / "ca.crt",
            client_certificate_file=tmp_path / "client.crt",
            client_key_file=tmp_path / "client.key",
            username_file=tmp_path / "username",
            password_file=tmp_path / "password",
        )


async def asked(files):
    server = Prometheus(files)
    try:
        return await server.ask("vector(4)")
    finally:
        server.close()


async def test_a_real_one_with_tls_certificate_and_password(guarded, tmp_path):
    """All of it is needed, each refusal is told from the others, and a corrected password is used soon."""
    assert (await asked(guarded)).value == 4
    nameless = await asked(replace(guarded, client_certificate_file=None))
    # Which of the two depends on whether TLS 1.3's alert outruns the end of the connection.
    assert nameless.reason in (Reason.PROMETHEUS_UNAUTHORIZED, Reason.PROMETHEUS_UNREACHABLE), nameless
    stranger = await asked(replace(guarded, ca_file=None))
    assert stranger.reason is Reason.PROMETHEUS_CERTIFICATE_INVALID, stranger
    broken = await asked(replace(guarded, ca_file=guarded.password_file))
    assert (broken.reason, "not PEM" in broken.message) == (Reason.PROMETHEUS_NOT_CONFIGURED, True)
    absent = await asked(replace(guarded, password_file=tmp_path / "absent"))
    assert (absent.reason, "absent" in absent.message) == (Reason.PROMETHEUS_NOT_CONFIGURED, True)
    guarded.password_file.write_text("wrong")
    server = Prometheus(guarded)
    assert (await server.ask("vector(4)")).reason is Reason.PROMETHEUS_UNAUTHORIZED
    guarded.password_file.write_text("test")
    async with asyncio.timeout(5):
        while (await server.ask("vector(4)")).value != 4:  # noqa: ASYNC110  credentials are looked at once a second
            await asyncio.sleep(0.05)
    server.close()


async def test_headers_and_the_question(make_wire, tmp_path):
    """Headers from the command line and from files, the query in the body, and how long it may take."""
    (tmp_path / "X-Api-Key").write_text("secret\n")
    (tmp_path / "..data").mkdir()
    wire, seen = make_wire(), {}

    def record(handler, form):
        seen.update(path=handler.path, form=form.decode(), headers=dict(handler.headers))
        body, status = wire.forward(handler.path, form)
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    wire.break_(record)
    arguments = [
        "--advertise-address=a:1", f"--prometheus-url={wire.url}/", "--prometheus-header=X-Scope-OrgID=team=a",
        f"--prometheus-header-dir={tmp_path}", "--prometheus-timeout-s=2.5",
    ]  # fmt: skip
    assert (await asked(parse(arguments)[0].prometheus)).value == 4
    assert seen["path"] == "/api/v1/query"
    assert {"query=vector%284%29", "timeout=2.5", "partial_response=false"} == set(seen["form"].split("&"))
    assert (seen["headers"]["X-Scope-OrgID"], seen["headers"]["X-Api-Key"]) == ("team=a", "secret")
    assert "Authorization" not in seen["headers"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prometheus-url=prometheus:9090"], "'prometheus:9090' is not http(s)://HOST"),
        (
            ["--prometheus-url=https://me:secret@prometheus"],
            "'prometheus' is not http(s)://HOST[:PORT][/PATH], without a user",
        ),
        (["--prometheus-username-file=/u"], "go together"),
        (["--prometheus-client-key-file=/k"], "go together"),
        (
            ["--prometheus-bearer-token-file=/t", "--prometheus-username-file=/u", "--prometheus-password-file=/p"],
            "remove one of them",
        ),
        (["--prometheus-header=tenant"], "is not NAME=VALUE"),
    ],
)
def test_options_that_do_not_go_together(capsys, arguments, message):
    with pytest.raises(SystemExit):
        parse(["--advertise-address=a:1", *arguments])
    assert message in capsys.readouterr().err


async def test_a_header_that_is_none(make_wire):
    """What cannot be sent is said, and not raised."""
    found = await asked(PrometheusFiles(url=make_wire().url, headers=(("X-Tenant", "a\nb"),)))
    assert found.reason is Reason.PROMETHEUS_NOT_CONFIGURED, found
