"""Net benefit and operating points of a comparison, and what the user chooses of them."""

import json

import numpy as np
import pytest

from cxr_tfrecords.errors import UserError
from tests.trainer import fake_study
from trainer.comparison import decision_curves
from trainer.comparison.markdown_text import markdown
from trainer.comparison.methods import score_entry
from trainer.comparison.page.page import render
from trainer.evaluation.net_benefit import net_benefit


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    paths = fake_study.write_study(tmp_path_factory.mktemp("study"))
    content, entries = fake_study.compare(paths, sensitivity=0.6, benefit_class="Normal")
    return paths, content, entries


def test_the_curve_is_a_mean_over_seeds_of_calibrated_probabilities(study):
    _, content, entries = study
    scored = score_entry(entries[2], None)
    positive = scored.predictions[0].labels == 2
    own = content["entries"]["oversample"]["net_benefit"]
    for threshold in decision_curves.SHOWN:
        expected = np.mean(
            [
                net_benefit(positive, np.exp(one[:, 2]), np.array([threshold]))[0]
                for one in scored.variants["calibrated"]
            ]
        )
        interval = own[str(threshold)]
        assert interval["estimate"] == pytest.approx(expected)
        assert interval["low"] < expected < interval["high"]
        at = content["net_benefit"]["thresholds"].index(threshold)
        assert own["curve"][at] == pytest.approx(expected)
        odds = threshold / (1 - threshold)
        share = positive.mean()
        assert content["net_benefit"]["all"][at] == pytest.approx(share - (1 - share) * odds)
    shown = f"{1000 * own['0.2']['estimate']:,.1f} ["
    assert shown in markdown(content)
    json.dumps(content, allow_nan=False)


def test_target_shares_weigh_the_test_images(study):
    content, _ = fake_study.compare(
        study[0], deploy_prior=(0.3, 0.3, 0.3, 0.1), benefit_class="Normal"
    )
    assert content["net_benefit"]["all"][0] == pytest.approx(0.3 - 0.7 / 99)


def test_the_class_is_the_rarest_unless_one_is_named(study):
    content, _ = fake_study.compare(study[0])
    assert content["net_benefit"]["class"] == "Viral Pneumonia"
    assert study[1]["net_benefit"]["class"] == "Normal"
    with pytest.raises(UserError, match=r"--benefit_class='normal' is not .* COVID, "):
        fake_study.compare(study[0], benefit_class="normal")


@pytest.mark.usefixtures("undrawn")
def test_operating_points_have_the_sensitivity_that_the_user_wants(study):
    paths, content, entries = study
    for name, points in content["entries"]["none"]["operating_points"].items():
        validation = entries[0].runs[0].predictions("validation")
        label = content["class_names"].index(name)
        own = validation.probabilities[validation.labels == label, label]
        called = (own >= points[0]["thresholds"][0] - 1e-12).mean()
        assert 0.6 <= called < 0.6 + 1 / len(own)
        assert points[0]["wanted"] == 0.6
    assert content["settings"]["sensitivity"] == 0.6
    for text in (markdown(content), render(content, entries, gallery=False)):
        assert "a sensitivity of at least 60% on validation" in text
    for wrong in (-0.1, 1.01, float("nan")):
        with pytest.raises(UserError, match="--sensitivity"):
            fake_study.compare(paths, sensitivity=wrong)
