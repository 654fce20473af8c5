"""One operator at a time writes."""

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def contenders(cluster, tmp_path, operator, tenant):
    """Two operators for one Lease and a namespace that nobody else works on."""
    made = []

    def make(name):
        contender = type(operator)(
            tmp_path / name, cluster, f"--identity={name}", "--leader-election-name=contended",
            "--namespace=nobody-is-here",
        )  # fmt: skip
        made.append(contender)
        return contender

    yield make
    for contender in made:
        contender.kill()


def test_the_second_waits_for_the_first(contenders, client):
    """Only the holder works; when it ends in order the next goes on at once, and without the Lease it ends with status 1."""
    first, second = contenders("first"), contenders("second")
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
