import itertools

from benchmarks import imbalance


def test_sizes_fall_geometrically_and_add_up():
    assert imbalance.class_sizes(1000, 1) == [250, 250, 250, 250]
    sizes = imbalance.class_sizes(10_000, 27)
    assert sum(sizes) == 10_000
    steps = [a / b for a, b in itertools.pairwise(sizes)]
    assert all(abs(step - 3) < 0.02 for step in steps)
    assert imbalance.class_sizes(10, 1000)[-1] == 1
