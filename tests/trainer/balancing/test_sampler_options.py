import pytest

from cxr_tfrecords.errors import UserError
from trainer.balancing import sampler_options
from trainer.settings.config import TrainConfig

CLASSES = ("A", "B C")


def shares(distribution=(), power=None, class_names=CLASSES, counts=(1, 9)):
    return sampler_options.resolve_distribution(distribution, power, class_names, counts)


def test_target_distribution_follows_the_classes_order_and_sums_to_one():
    pairs = sampler_options.parse_distribution(["B C=3", "A=1"])
    assert shares(pairs) == (0.25, 0.75)
    assert shares() is None
    with pytest.raises(UserError, match="'D' is unknown or left out"):
        shares(pairs, class_names=("A", "B C", "D"))
    with pytest.raises(UserError, match="0 or more"):
        shares((("A", -1.0), ("B C", 2.0)))


@pytest.mark.parametrize(
    ("word", "power", "expected"),
    [("uniform", 1.0, (0.5, 0.5)), ("sqrt", 0.5, (0.25, 0.75)), ("natural", 0.0, (0.1, 0.9))],
)
def test_words_and_powers_say_the_same_shares(word, power, expected):
    assert sampler_options.parse_distribution([word]) == word
    assert shares(word) == pytest.approx(expected)
    assert shares(power=power) == pytest.approx(expected)


@pytest.mark.parametrize("items", [["A"], ["=1"], ["A=x"], ["A=1", "A=2"], ["sqrt", "A=1"]])
def test_malformed_target_distribution_is_refused(items):
    with pytest.raises(UserError, match=r"--target_distribution.*uniform, sqrt"):
        sampler_options.parse_distribution(items)


def test_strategy_is_a_word_or_counts_by_label():
    assert sampler_options.parse_sampling_strategy(["not minority"]) == "not minority"
    assert sampler_options.parse_sampling_strategy([]) == "auto"
    pairs = sampler_options.parse_sampling_strategy(["B C=3000"])
    assert pairs == (("B C", 3000),)
    assert sampler_options.resolve_sampling_strategy(pairs, CLASSES) == {1: 3000}
    assert sampler_options.resolve_sampling_strategy("all", CLASSES) == "all"
    with pytest.raises(UserError, match=r"--sampling_strategy=B C=3000: .* no such class"):
        sampler_options.resolve_sampling_strategy(pairs, ("A", "B"))


@pytest.mark.parametrize("items", [["most"], ["A=1.5"], ["A=1", "A=2"], ["all", "A=1"]])
def test_malformed_strategy_is_refused(items):
    with pytest.raises(UserError, match="--sampling_strategy"):
        sampler_options.parse_sampling_strategy(items)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "weighted", "balance_power": 1.5}, r"--balance_power=1.5 must lie"),
        (
            {"sampler": "weighted", "balance_power": 0.5, "target_distribution": "sqrt"},
            "--balance_power=0.5 and --target_distribution",
        ),
        ({"sampler": "oversample", "balance_power": 0.5}, "no meaning with --sampler=oversample"),
        ({"sampler": "weighted", "target_distribution": "equal"}, "=equal is not one of uniform"),
        ({"sampler": "none", "sampling_strategy": "all"}, "no meaning with --sampler=none"),
        ({"sampler": "oversample", "sampling_strategy": (("A", 9),)}, "oversample_exact"),
    ],
)
def test_settings_that_contradict_are_refused_before_any_data_is_read(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(data_dir="d", **settings)
