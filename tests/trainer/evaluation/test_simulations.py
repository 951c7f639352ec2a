import numpy as np
import pytest

from trainer.evaluation import simulated_benefit, simulated_studies, simulated_tests
from trainer.evaluation.net_benefit import SHOWN, net_benefit
from trainer.evaluation.simulated_studies import Scenario

CHECKS = (simulated_tests.check_intervals, simulated_tests.check_levels)


def test_the_simulation_itself_runs(monkeypatch):
    monkeypatch.setattr(simulated_tests, "TRUTH_GROUPS", 500)
    monkeypatch.setattr(simulated_tests, "RESAMPLES", 50)
    checks = [check for run in CHECKS for check in run(2)]
    page = simulated_tests.table(checks)
    assert "95% interval: difference of mcc" in page
    assert all(check.hits <= check.repetitions == 2 for check in checks)
    world = simulated_benefit.World(4000, 0.05)
    _, positive, [model, *_] = world.draw(np.random.default_rng(0))
    curve = net_benefit(positive, model, np.array(SHOWN))
    assert curve == pytest.approx(world.truth(), abs=0.01)
    small = Scenario("small", 60, 2, (3, 3), gain=40)
    assert simulated_studies.measure(small, 3).power == 1.0
    rows = simulated_studies.table(2, 0, [small])
    assert "| small" in rows
    assert "100%" in rows


@pytest.mark.slow
def test_intervals_cover_and_tests_keep_their_level_in_simulated_worlds():
    """docs/statistics.md has the figures of 1,000 repetitions."""
    checks = {check.name: check for run in CHECKS for check in run(150)}
    print("\n" + simulated_tests.table(list(checks.values())))
    for name, check in checks.items():
        tolerance = 3.5 * check.error + 0.01
        if "wrong" in name:
            assert check.share < checks["95% interval: accuracy"].share - 0.02
        elif "groups of" in name and "bootstrap" not in name:
            continue  # they take images as independent, and are not asked to hold here
        elif check.expected > 0.5:  # wider than promised is allowed
            assert check.share > check.expected - tolerance, name
        else:
            assert check.share < check.expected + tolerance, name


@pytest.mark.slow
def test_studies_hold_what_the_comparison_promises(monkeypatch):
    """docs/statistics.md has the figures of 1,000 repetitions."""
    monkeypatch.setattr(simulated_studies, "RESAMPLES", 200)
    repetitions = 100
    # What 1,000 repetitions gave for the least favourable scenario that is promised.
    least, most = 0.93, 0.075
    coverage, error = (3.5 * (p * (1 - p) / repetitions) ** 0.5 for p in (least, most))
    for scenario in simulated_studies.scenarios():
        outcome = simulated_studies.measure(scenario, repetitions)
        print(scenario, outcome)
        if "reference by 9" in scenario.name and scenario.seeds == 3:
            continue  # not promised: docs/statistics.md says what happens then
        assert outcome.coverage > least - coverage, scenario
        assert outcome.family_error < most + error, scenario
        if scenario.gain and max(scenario.seed_points) == 1:
            assert outcome.power > 0.8, scenario


@pytest.mark.slow
def test_intervals_of_net_benefit_hold_for_a_rare_class():
    """docs/statistics.md has the figures of 300 repetitions."""
    checks = simulated_benefit.check_net_benefit(200)
    print("\n" + simulated_tests.table(checks))
    assert [check.name for check in checks if check.share < 0.92] == []
