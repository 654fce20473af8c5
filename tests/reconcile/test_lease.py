"""One operator at a time writes."""

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_the_second_waits_for_the_first(another_operator, cluster, client):
    """Only the holder works; when it ends in order the next goes on at once, and without the Lease it ends with status 1."""
    first, second = (
        another_operator(
            name, cluster, f"--identity={name}", "--leader-election-name=contended", "--namespace=nobody-is-here"
        )
        for name in ("first", "second")
    )
    first.start()
    second.start(leading=False)
    lease = client.get("Lease", "contended", "prfaas-system")
    assert lease["spec"]["holderIdentity"].startswith("first_")
    assert second.metric("prfaas_operator_leading") == 0
    assert first.stop() == 0
    second.wait_leading(deadline_s=6)
    lease = client.merge("Lease", "contended", "prfaas-system", {"spec": {"holderIdentity": "thief"}})
    assert second.wait_end(10) == 1
    assert "the lease prfaas-system/contended is lost" in second.log
    assert client.get("Lease", "contended", "prfaas-system")["spec"] == lease["spec"]
