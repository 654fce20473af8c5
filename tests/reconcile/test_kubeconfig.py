"""Kubeconfigs of tenants: what is taken, and what is refused before it can do harm."""

import base64

import pytest
import yaml

from prfaas_operator.clusters.credentials import KubeconfigError, parse_kubeconfig

PEM = base64.b64encode(b"-----BEGIN X-----").decode()


def kubeconfig(cluster=None, user=None, **top):
    return yaml.safe_dump(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "x", "user": "y"}}],
            "clusters": [{"name": "x", "cluster": {"server": "https://h:6443/"} | (cluster or {})}],
            "users": [{"name": "y", "user": {"token": "secret"} if user is None else user}],
            **top,
        }
    )


def test_inline_credentials():
    """Token or client certificate, and the authority, all inline."""
    found = parse_kubeconfig(kubeconfig({"certificate-authority-data": PEM, "tls-server-name": "n"}))
    assert (found.server, found.token, found.ca_pem, found.tls_server_name) == (
        "https://h:6443", "secret", "-----BEGIN X-----", "n",
    )  # fmt: skip
    certificate = parse_kubeconfig(kubeconfig(user={"client-certificate-data": PEM, "client-key-data": PEM}))
    assert certificate.token is None
    assert certificate.key_pem == "-----BEGIN X-----"
    assert found.digest() != certificate.digest()
    assert "secret" not in found.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not YAML"),
        ("a", "not a kubeconfig"),
        (kubeconfig(**{"current-context": "z"}), "no entry 'z' in contexts"),
        (kubeconfig(clusters=[]), "no entry 'x' in clusters"),
        (kubeconfig(clusters=None), "no entry 'x' in clusters"),
        (kubeconfig({"server": "http://h"}), "must be an https:// URL"),
        (kubeconfig({"server": 5}), "must be an https:// URL"),
        (kubeconfig({"certificate-authority": "/etc/passwd"}), "'certificate-authority' is not allowed"),
        (kubeconfig({"insecure-skip-tls-verify": True}), "'insecure-skip-tls-verify' is not allowed"),
        (kubeconfig({"proxy-url": "http://evil"}), "'proxy-url' is not allowed"),
        (kubeconfig(user={"exec": {"command": "rm"}}), "'exec' is not allowed"),
        (kubeconfig(user={"auth-provider": {"name": "x"}}), "'auth-provider' is not allowed"),
        (kubeconfig(user={"tokenFile": "/var/run/secrets/token"}), "'tokenFile' is not allowed"),
        (kubeconfig(user={"client-key": "/x", "token": "a"}), "'client-key' is not allowed"),
        (kubeconfig(user={}), "neither a token nor"),
        (kubeconfig(user={"client-certificate-data": PEM}), "neither a token nor"),
        (kubeconfig(user={"client-certificate-data": "*", "client-key-data": PEM}), "not base64"),
    ],
)
def test_what_is_refused(text, message):
    """A plugin would run as the operator, a file would be the operator's own; both are refused by name."""
    with pytest.raises(KubeconfigError, match=message.replace("(", r"\(")):
        parse_kubeconfig(text)
