"""The model's thread: one batch of what waits, and several models as their mean."""

import threading
import types

import numpy as np
import pytest

from tests.trainer.serving.conftest import SIZE
from trainer.serving.engine import Engine


def pictures(count):
    return np.random.default_rng(0).integers(0, 255, (count, SIZE, SIZE, 1)).astype(np.uint8)


def test_what_waits_is_answered_in_one_batch_and_what_was_cancelled_is_not(served, monkeypatch):
    sizes = []
    begun, go_on = threading.Event(), threading.Event()
    predict = served.classifier.predict_pixels

    def watched(pixels, size):
        sizes.append((len(pixels), size))
        begun.set()
        go_on.wait(30)
        return predict(pixels, size)

    monkeypatch.setattr(served.classifier, "predict_pixels", watched)
    stack = pictures(7)
    futures = [served.engine.ask(stack[0])]
    assert begun.wait(30)
    futures += [served.engine.ask(one) for one in stack[1:]]
    assert futures.pop().cancel()
    go_on.set()
    answers = [future.result(60) for future in futures]
    assert sizes == [(1, 1), (5, 8)]
    known = predict(stack[:6])
    for row, answer in enumerate(answers):
        for name, values in known.probabilities.items():
            given = answer.combined.probabilities[name][0]
            np.testing.assert_allclose(given, values[row], atol=1e-5)
        assert (answer.outside, answer.heat_map) == (None, None)


def test_every_image_has_its_own_flag_of_the_detector(served, monkeypatch):
    stack = pictures(5)
    scores = served.classifier.predict_pixels(stack).logits.max(axis=1)
    threshold = float(np.sort(scores)[2:4].mean())
    detector = types.SimpleNamespace(
        score=lambda features, logits: logits.max(axis=1), threshold=threshold
    )
    monkeypatch.setattr(served.classifier, "detector", detector)
    futures = [served.engine.ask(one) for one in stack]
    flags = [future.result(60).outside for future in futures]
    assert flags == (scores > threshold).tolist()
    assert flags.count(True) == 2


def test_a_failure_is_told_to_who_waits_and_the_next_is_answered(served, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(served.classifier, "predict_pixels", lambda pixels, size: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            served.engine.ask(pictures(1)[0]).result(30)
    assert served.engine.ask(pictures(1)[0]).result(30).combined.in_set.shape == (1, 4)
    assert served.engine.ready


def test_several_models_give_their_mean(served, run_dir):
    from trainer.deployment.predictor import Classifier

    other = Classifier.load(run_dir, deploy_prior=[0.7, 0.1, 0.1, 0.1])
    engine = Engine([served.classifier, other])
    stack = pictures(1)
    answer = engine.ask(stack[0], heat_map=True).result(60)
    engine.close()
    assert not engine.ready
    values = [one.predict_pixels(stack).probabilities for one in (served.classifier, other)]
    for name in values[0]:
        mean = (values[0][name] + values[1][name]) / 2
        np.testing.assert_allclose(answer.combined.probabilities[name], mean, atol=1e-5)
    assert answer.combined.disagreement[0] > 0
    assert answer.heat_map.shape == (SIZE, SIZE, 3)
