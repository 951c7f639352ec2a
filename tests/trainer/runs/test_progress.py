import keras
import numpy as np
import pytest

from trainer.runs.progress import Progress


def _keras_says(values: list[float], mode: str) -> tuple[list[float], int, int]:
    """Learning rate after each epoch, best epoch and last epoch by Keras' own callbacks."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    stopping = keras.callbacks.EarlyStopping("m", patience=3, mode=mode)
    plateau = keras.callbacks.ReduceLROnPlateau("m", factor=0.5, patience=1, mode=mode)
    rates = []
    for callback in (stopping, plateau):
        callback.set_model(model)
        callback.on_train_begin()
    model.stop_training = False
    for epoch, value in enumerate(values):
        for callback in (stopping, plateau):
            callback.on_epoch_end(epoch, {"m": value})
        rates.append(float(model.optimizer.learning_rate))
        if model.stop_training:
            break
    return rates, stopping.best_epoch + 1, len(rates)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["min", "max"])
def test_stopping_and_learning_rate_follow_keras(seed, mode):
    rng = np.random.default_rng(seed)
    # Steps around the plateau threshold of 1e-4, and repeated values.
    values = np.round(1 - 0.01 * np.cumsum(rng.choice([-1, 0, 0.005, 0.02, 1], 25)), 6).tolist()
    rates, best_epoch, last = _keras_says(values, mode)

    progress = Progress(learning_rate=0.1)
    own_rates, own_best = [], []
    for value in values:
        own_best.append(
            progress.finish_epoch(
                value,
                maximize=mode == "max",
                early_stopping_patience=3,
                reduce_lr_patience=1,
                reduce_lr_factor=0.5,
            )
        )
        own_rates.append(progress.learning_rate)
        progress = Progress.from_json(progress.to_json())  # as resuming after every epoch
        if progress.stopped:
            break
    assert progress.epoch == last
    assert own_rates == pytest.approx(rates)
    assert progress.best_epoch == best_epoch == np.flatnonzero(own_best)[-1] + 1


def test_zero_patience_never_stops_and_a_value_that_is_not_finite_is_no_improvement():
    progress = Progress(learning_rate=0.1)
    for value in (1.0, 2.0, float("nan"), 3.0, 4.0):
        progress.finish_epoch(
            value,
            maximize=False,
            early_stopping_patience=0,
            reduce_lr_patience=0,
            reduce_lr_factor=0.1,
        )
    assert (progress.best_epoch, progress.stopped, progress.learning_rate) == (1, False, 0.1)
