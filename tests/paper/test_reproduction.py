"""`prfaas paper` computes every cell that can be computed, and says why where one does not match."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from prfaas_cli import paper
from prfaas_cli.main import cli
from prfaas_core import errors, model, planner
from prfaas_core.case_study import H200, HOMOGENEOUS, LENGTHS, NAIVE, PRFAAS
from prfaas_core.model import Averaging
from prfaas_core.reproduction import case_study_tables, figures
from prfaas_core.reproduction.cells import Cell, Origin

TABLES = paper.tables()
TRUE = Averaging.TRUE_MEAN


def cell(table, row, column) -> Cell:
    return next(one for one in table.cells if (one.row, one.column) == (row, column))


def test_all_tables_are_there():
    assert [table.name for table in TABLES] == [
        "Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "Figure 5", "Beyond the paper",
    ]  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_does_not_match_says_why(table):
    for one in table.cells:
        if one.matches is False or one.origin is Origin.NOT_REPRODUCIBLE:
            assert one.note, (one.row, one.column)
        if one.origin is Origin.NOT_REPRODUCIBLE:
            assert one.ours is None


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("PrfaaS-PD", "t K"),
        ("PrfaaS-PD", "N_p"),
        ("PrfaaS-PD", "N_d"),
        ("PrfaaS-PD", "P90 TTFT s"),
        ("PrfaaS-PD", "Theta_prfaas"),
        ("PrfaaS-PD", "Theta_pd-p"),
        ("PrfaaS-PD", "Theta_pd-d"),
        ("PrfaaS-PD", "ratio"),
        ("Homogeneous PD", "N_p"),
        ("Homogeneous PD", "P90 TTFT s"),
        ("Homogeneous PD", "Theta_pd-p"),
        ("Homogeneous PD", "Lambda_max"),
        ("Naive heterogeneous", "P90 TTFT s"),
        ("Naive heterogeneous", "Theta_prfaas"),
        ("Naive heterogeneous", "Theta_pd-d"),
        ("Naive heterogeneous", "Lambda_max"),
        ("Naive heterogeneous", "ratio"),
        ("Statements", "p %"),
        ("Statements", "E[L | L > t] K"),
        ("Statements", "P90 TTFT against homogeneous %"),
    ],
)
def test_cells_of_table_6_within_the_papers_rounding(row, column):
    assert cell(case_study_tables.table_6(), row, column).matches


@pytest.mark.parametrize(
    ("row", "column", "error"),
    [
        ("PrfaaS-PD", "mean TTFT s", 0.010),
        ("PrfaaS-PD", "Lambda_max", 0.003),
        ("Homogeneous PD", "mean TTFT s", 0.002),
        ("Homogeneous PD", "Theta_pd-d", 0.003),
        ("Naive heterogeneous", "mean TTFT s", 0.030),
    ],
)
def test_cells_of_table_6_that_do_not_match_are_near(row, column, error):
    found = cell(case_study_tables.table_6(), row, column)
    assert found.matches is False
    assert found.relative_error is not None
    assert abs(found.relative_error) <= error


def test_the_papers_decode_rates_need_a_step_just_under_25_ms():
    """3.91 for five instances, 2.35 for three and 6.25 for eight leave a narrow range, and 20 slots at 25 ms are below it."""
    cells = ((5, 3.91), (3, 2.35), (8, 6.25))
    low = max((rate - 0.005) / count for count, rate in cells)
    high = min((rate + 0.005) / count for count, rate in cells)
    assert low < high
    assert PRFAAS.local.decode_rps(1024) < low
    assert low <= replace(PRFAAS.local, step_s=0.024985).decode_rps(1024) < high


@pytest.mark.parametrize(("thousands", "mib", "seconds", "gbps"), case_study_tables._TABLE_5)
def test_phi_of_table_5_lies_within_the_rounding_of_its_inputs(thousands, mib, seconds, gbps):
    low = 8 * (mib - 0.05) * 2**20 / (seconds + 0.005) / 1e9
    high = 8 * (mib + 0.05) * 2**20 / (seconds - 0.005) / 1e9
    assert low <= gbps + 0.005
    assert high >= gbps - 0.005


def test_a_constant_for_remote_requests_would_explain_the_means_but_not_the_quantiles():
    extra = 0.05
    share = LENGTHS.above(19_400)
    assert model.mean_ttft_s(PRFAAS, LENGTHS, 19_400) + extra * share == pytest.approx(2.22, abs=0.005)
    assert model.mean_ttft_s(NAIVE, LENGTHS, 0) + extra == pytest.approx(1.74, abs=0.005)
    assert model.quantile_ttft_s(NAIVE, LENGTHS, 0, 0.9) + extra > 3.515


def test_true_means_are_the_limits_of_stability():
    assert model.throughput(PRFAAS, LENGTHS, 19_400, TRUE).rate == pytest.approx(3.14, abs=0.005)
    assert model.throughput(PRFAAS, LENGTHS, 19_600, TRUE).rate == pytest.approx(3.156, abs=0.001)
    # A step of 100 tokens finds a little more than a step of 200 does.
    assert planner.best_roles(PRFAAS, LENGTHS, figures.GRID_TOKENS, TRUE).throughput.rate == pytest.approx(
        3.163, abs=0.001
    )
    assert model.throughput(HOMOGENEOUS, LENGTHS, float("inf"), TRUE).rate == pytest.approx(2.02, abs=0.005)
    assert model.throughput(NAIVE, LENGTHS, 0, TRUE).rate == pytest.approx(2.37, abs=0.005)


def test_the_bound_of_fractional_roles():
    found = planner.fractional_roles(PRFAAS, LENGTHS, range(2000, 60_001, 100))
    assert (found.rate, found.threshold_tokens) == (pytest.approx(3.385, abs=0.001), 21_800)
    assert found.local_instances == pytest.approx(3.65, abs=0.005)
    coarse = planner.fractional_roles(PRFAAS, LENGTHS, range(2000, 60_001, 200), TRUE)
    assert coarse.rate == pytest.approx(3.334, abs=0.001)
    fine = planner.fractional_roles(PRFAAS, LENGTHS, range(2000, 60_001, 100), TRUE)
    assert fine.rate == pytest.approx(3.341, abs=0.001)


def test_no_whole_roles_beat_the_fractional_bound():
    for averaging in Averaging:
        whole = planner.best_roles(PRFAAS, LENGTHS, figures.GRID_TOKENS, averaging).throughput.rate
        assert whole <= planner.fractional_roles(PRFAAS, LENGTHS, figures.GRID_TOKENS, averaging).rate


def test_the_true_mean_is_the_mean_of_the_sample():
    at = model.throughput(PRFAAS, LENGTHS, 30_000, TRUE)
    long = [tokens for tokens in LENGTHS.sample if tokens > 30_000]
    mean_s = sum(map(H200.prefill_s, long)) / len(long)
    assert at.remote_rps == pytest.approx(PRFAAS.remote_instances / mean_s, rel=1e-9)


def test_equation_2_both_ways():
    at_mean = model.egress_bps(H200, 64, LENGTHS)
    assert at_mean == pytest.approx(64 * H200.kv_rate_bps(LENGTHS.mean))
    true = model.egress_bps(H200, 64, LENGTHS, TRUE)
    expected = 64 * 8 * LENGTHS.expectation(H200.kv_bytes) / LENGTHS.expectation(H200.prefill_s)
    assert true == pytest.approx(expected, rel=1e-9)


def test_zero_instances_and_a_dead_link_carry_nothing_and_are_named():
    dead = model.throughput(replace(PRFAAS, link_bps=0.0), LENGTHS, 19_400)
    assert (dead.rate, dead.bound) == (0.0, model.Bound.LINK)
    idle = model.throughput(replace(PRFAAS, local_instances=0), LENGTHS, 19_400)
    assert (idle.rate, idle.bound) == (0.0, model.Bound.LOCAL_PREFILL)


def test_an_empty_grid_is_refused():
    with pytest.raises(errors.InvalidValueError, match="thresholds"):
        planner.best_threshold(PRFAAS, LENGTHS, [])


def test_the_command_prints_every_table_and_why():
    result = CliRunner().invoke(cli, ["paper"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for table in TABLES:
        assert table.name in result.output
    assert "a step of 24.98 ms" in " ".join(result.output.split())
    assert "not reproducible" in result.output


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_command_writes_figures_that_are_the_same_every_time(tmp_path, suffix):
    seen = []
    for name in ("one", "two"):
        result = CliRunner().invoke(cli, ["paper", "--out", str(tmp_path / name), "--format", suffix])
        assert result.exit_code == 0, result.output
        seen.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert sorted(seen[0]) == [f"figure-5a-roles.{suffix}", f"figure-5b-threshold.{suffix}", f"slow-links.{suffix}"]
    assert seen[0] == seen[1]
    assert seen[0][f"figure-5a-roles.{suffix}"].startswith({"svg": b"<?xml", "png": b"\x89PNG"}[suffix])


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, ["paper", "--out", str(tmp_path / "file" / "below")])
    assert result.exit_code == 1
    assert "give a folder that can be written" in result.output
