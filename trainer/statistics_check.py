"""Checks intervals and tests on simulated test sets, whose true metrics are known.

    python -m trainer.statistics_check --repetitions=400

Each repetition draws a small clustered test set from a simulated world, computes intervals and
tests as for real runs, and asks whether the interval contains the world's true value (coverage) and
whether a test calls two equal methods different (level). docs/statistics.md shows the results.
"""

from __future__ import annotations

from absl import flags

from cxr_tfrecords.errors import run_main

FLAGS = flags.FLAGS

flags.DEFINE_integer("repetitions", 400, "Simulated test sets of each check.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the simulation.")


def main(argv: list[str]) -> None:
    del argv
    # Imported here: they need scipy.
    from trainer.evaluation import simulated_benefit, simulated_studies, simulated_tests

    scenarios = simulated_studies.scenarios()
    print(simulated_studies.table(FLAGS.repetitions, FLAGS.seed, scenarios) + "\n", flush=True)
    for check in (
        simulated_tests.check_intervals,
        simulated_tests.check_levels,
        simulated_benefit.check_net_benefit,
    ):
        print(simulated_tests.table(check(FLAGS.repetitions, FLAGS.seed)) + "\n", flush=True)


if __name__ == "__main__":
    run_main(main)
