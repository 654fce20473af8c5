"""Traffic from the request log of a router."""

import datetime
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from prfaas_cli.main import cli
from prfaas_cli.scenario_traffic import of_log
from prfaas_cli.trace import TraceError

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "e2e" / "manifests"
ROUTE = "prfaas-demo/chat"
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def line(arrived_s, total_s=1.0, **fields):
    """A request as a router writes it, when it ends."""
    ended = START + datetime.timedelta(seconds=arrived_s + total_s)
    return {
        "event": "request",
        "level": "info",
        "timestamp": ended.isoformat().replace("+00:00", "Z"),
        "route": ROUTE,
        "destination": "local_prefill",
        "outcome": "ok",
        "stream": True,
        "prompt_tokens": 1100,
        "output_tokens": 10,
        "max_tokens": 20,
        "block_tokens": 512,
        "blocks": "00000001" + "00000002",
        "ttft_s": 0.25,
        "total_s": total_s,
    } | fields


def write(path, *lines):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in lines))
    return path


def test_requests_arrive_when_they_began_not_when_they_ended(tmp_path):
    path = write(tmp_path / "log", line(5.0, total_s=0.5), line(2.0, total_s=9.0), line(2.5))
    arrivals = of_log([path], ROUTE, 512).arrivals
    assert [at_s for at_s, *_ in arrivals] == pytest.approx([0.0, 0.5, 3.0])


def test_the_logs_of_several_routers_are_one_traffic(tmp_path):
    first = write(tmp_path / "a", line(1.0), line(3.0))
    second = write(tmp_path / "b", line(2.0, prompt_tokens=7, blocks=""))
    arrivals = of_log([first, second], ROUTE, 512).arrivals
    assert [tokens for _, tokens, _, _ in arrivals] == [1100, 7, 1100]
    assert len(of_log([first, second], ROUTE, 512, limit=2).arrivals) == 2


def test_equal_digests_are_equal_prefixes(tmp_path):
    path = write(tmp_path / "log", line(0), line(1), line(2, blocks="00000001" + "00000009"), line(3, blocks=""))
    traffic = of_log([path], ROUTE, 512)
    keys = [keys for *_, keys in traffic.arrivals]
    assert keys[0] == keys[1]
    assert keys[2][0] == keys[0][0]
    assert keys[2][1] != keys[0][1]
    assert traffic.lengths.sample == (76, 588, 1100, 1100)


def test_answers_are_as_long_as_usage_says_then_as_asked_then_as_the_others(tmp_path):
    path = write(
        tmp_path / "log",
        line(0, output_tokens=10),
        line(1, output_tokens=None),
        line(2, output_tokens=None, max_tokens=None),
    )
    traffic = of_log([path], ROUTE, 512)
    assert [output for _, _, output, _ in traffic.arrivals] == [10, 20, 15]
    assert traffic.notes == ("1 requests have no known answer length; taken as the mean, 15 tokens",)


def test_other_events_and_other_routes_are_passed_over(tmp_path):
    path = write(
        tmp_path / "log",
        "Traceback (most recent call last):",
        {"event": "started"},
        "[1]",
        line(0, route="a/b"),
        line(1),
    )
    assert len(of_log([path], ROUTE, 512).arrivals) == 1


def test_what_was_recorded_is_of_streamed_answers(tmp_path):
    path = write(
        tmp_path / "log",
        line(0, ttft_s=0.2),
        line(1, ttft_s=0.4, destination="remote_prefill"),
        line(2, ttft_s=9.0, stream=False),
        line(3, ttft_s=None, outcome="failed"),
    )
    recorded = of_log([path], ROUTE, 512).recorded
    assert recorded is not None
    assert recorded.ttft_s == (0.2, 0.4)
    assert recorded.remote_share == 0.5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no request of the route prfaas-demo/chat. Give the log of its routers"),
        ([line(0, route="a/b")], "it has requests of a/b"),
        ([{k: v for k, v in line(0).items() if k != "blocks"}], "line 1: has no blocks; it is of a router that did not write"),
        ([line(0, block_tokens=16)], "block_tokens=16, but the manifests' prefixCache.blockTokens is 512"),
        ([line(0, prompt_tokens=0)], "line 1: prompt_tokens: 0 is not valid"),
        ([line(0, total_s=-1)], "line 1: total_s: -1 is not valid"),
        ([line(0, timestamp="yesterday")], "line 1: Invalid isoformat string"),
        ([line(0, blocks="xyz")], "line 1: non-hexadecimal"),
        ([line(0, output_tokens=None, max_tokens=None)], "have clients send stream_options.include_usage or max_tokens"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_be_used_says_why(tmp_path, rows, words):
    with pytest.raises(TraceError) as caught:
        of_log([write(tmp_path / "log", *rows)], ROUTE, 512)
    assert words in str(caught.value)


def test_a_log_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match="gone: No such file or directory; give the JSON log of a router"):
        of_log([tmp_path / "gone"], ROUTE, 512)


def test_the_command_shows_what_was_recorded_beside_the_baseline(tmp_path):
    path = write(tmp_path / "log", *(line(number, blocks="") for number in range(20)))
    arguments = ["whatif", "-f", str(MANIFESTS), "--log", str(path), "--threshold", "100"]
    shown = CliRunner().invoke(cli, arguments, env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "as recorded" in shown.output
    found = json.loads(CliRunner().invoke(cli, [*arguments, "-o", "json"]).stdout)
    assert found["recorded"]["ttftSeconds"]["mean"] == pytest.approx(0.25)
    assert found["baseline"]["requests"] == 20
    assert found["variants"][0]["remoteShare"] == 1.0
