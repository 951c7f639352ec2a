"""What the scaling benchmark computes from its times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.build import scaling


@given(share=st.floats(0, 1), cores=st.integers(2, 512))
def test_the_share_is_the_one_that_amdahls_law_had(share, cores):
    speed_up = scaling.expected_speed_up(share, cores)
    assert scaling.serial_share(speed_up, cores) == pytest.approx(share, abs=1e-9)


def test_more_than_all_cores_is_no_share_below_zero():
    assert scaling.serial_share(2.1, 2) == 0


def test_speeds_are_compared_within_a_round():
    speeds = {("one thread", 1): [100.0, 50.0, 200.0], ("threads", 2): [150.0, 90.0, 300.0]}
    one, threads = scaling._rows(speeds)
    assert (one["images/s"], one["to one"]) == ("100", "")
    assert threads["images/s"] == "150"
    assert threads["to one"] == "1.50 (1.50 to 1.80)"
    # A third of the work runs on one core at a time: 1 / (1/3 + 2/3 / 2) = 1.5.
    assert threads["one at a time"] == "33.3%"
    assert threads["16"] == "2.7"
