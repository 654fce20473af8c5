"""What an answer of Prometheus says."""

import pytest

from prfaas_operator.api.conditions import Reason
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.scaling.prometheus.results import QueryError, read, single

NOW = 1_000_000.0


def vector(value="1.5", at_s=NOW):
    return [{"metric": {}, "value": [at_s, value]}]


@pytest.mark.parametrize(
    ("result", "value", "reason"),
    [
        (vector(), 1.5, None),
        (vector("0"), 0.0, None),
        ([], None, Reason.SIGNAL_MISSING),
        (vector("NaN"), None, Reason.SIGNAL_INVALID),
        (vector("+Inf"), None, Reason.SIGNAL_INVALID),
        (vector("-Inf"), None, Reason.SIGNAL_INVALID),
        (vector() + vector(), None, Reason.SIGNAL_INVALID),
        ([NOW, "1"], None, Reason.SIGNAL_INVALID),
        ([{"metric": {}, "values": []}], None, Reason.SIGNAL_INVALID),
        ([{"metric": {}, "value": None}], None, Reason.SIGNAL_INVALID),
        ([{"value": [NOW, "1"]}], None, Reason.SIGNAL_INVALID),
        (vector("many"), None, Reason.SIGNAL_INVALID),
        ({"a": 1}, None, Reason.SIGNAL_INVALID),
        (None, None, Reason.SIGNAL_INVALID),
        (vector(at_s=NOW - 25), 1.5, None),
        (vector(at_s=NOW + 25), 1.5, None),
        (vector(at_s=NOW - 90), None, Reason.PROMETHEUS_CLOCK_SKEWED),
        (vector(at_s=NOW + 90), None, Reason.PROMETHEUS_CLOCK_SKEWED),
        (vector(at_s="soon"), None, Reason.SIGNAL_INVALID),
    ],
)
def test_answers(result, value, reason):
    """One finite number of about now is a value; for everything else there is a reason, and no value."""
    try:
        found = single(read(result, NOW, NOW))
    except QueryError as error:
        assert (value, reason) == (None, error.fault.reason)
    else:
        assert (found.value, found.reason) == (value, reason)


def test_a_slow_answer_is_no_skewed_clock():
    """Between question and answer any time is right."""
    assert single(read(vector(at_s=NOW + 50), NOW, NOW + 60)).value == 1.5


async def test_without_a_server():
    """An operator without --prometheus-url says so, and one whose server is away does too."""
    nothing = Prometheus(PrometheusFiles())
    assert (await nothing.ask("up")).reason is Reason.PROMETHEUS_NOT_CONFIGURED
    away = Prometheus(PrometheusFiles(url="http://127.0.0.1:9"))
    assert (await away.ask("up")).reason is Reason.PROMETHEUS_UNREACHABLE
    nothing.close()
    away.close()
