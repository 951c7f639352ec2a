"""A small model that was never trained, and a server around it in the test's own process."""

import asyncio
import types

import numpy as np
import pytest

from tests import helpers
from tests.trainer import fake_run

httpx = pytest.importorskip("httpx", reason="the server's tests ask it with httpx")
SIZE = 32
COUNTS = {"train": (8, 12, 20, 4), "validation": (30, 40, 60, 20), "test": (3, 5, 7, 3)}


def png(label=0, size=48, seed=0):
    from cxr_tfrecords import images

    pixels = helpers.tiny_image(label, np.random.default_rng(seed), size, 1)
    return images.encode(pixels, "png")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    from trainer.models import classifier

    path = fake_run.write_run(
        tmp_path_factory.mktemp("serving") / "a-run",
        counts=COUNTS,
        dataset={"image_size": SIZE, "reading": {"image_size": SIZE, "channels": 1}},
        backbone="tiny",
        batch_size=8,
    )
    model = classifier.create_model("tiny", image_size=SIZE, channels=1, num_classes=4)
    logits = model.get_layer("logits")
    logits.kernel.assign(logits.kernel * 20)  # so that images get different classes
    model.save(f"{path}/model.keras")
    return path


@pytest.fixture(scope="session")
def served(run_dir):
    """engine, decoders (two processes) and the content of /model."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from trainer.deployment.decoders import Decoders
    from trainer.deployment.predictor import Classifier
    from trainer.serving.api import describe_model
    from trainer.serving.engine import Engine

    classifiers = [Classifier.load(run_dir)]
    engine = Engine(classifiers)
    decoders = Decoders(classifiers[0].reading, wall_s=60.0, processes=2)
    yield types.SimpleNamespace(
        classifier=classifiers[0],
        engine=engine,
        decoders=decoders,
        model=describe_model(classifiers, 0.95, 0.9),
    )
    engine.close()
    decoders.close()


@pytest.fixture
def make_app(served):
    """Makes an application with other limits than the defaults."""
    from trainer.serving.app import Limits, create_app

    def make(**limits):
        return create_app(served.engine, served.decoders, served.model, Limits(**limits), threads=2)

    return make


class Client:
    """Asks an application without a network."""

    def __init__(self, app):
        self._app = app

    def __getattr__(self, method):
        """`get` and `post`, as those of httpx."""

        async def ask(*args, **kwargs):
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as c:
                return await getattr(c, method)(*args, **kwargs)

        return lambda *args, **kwargs: asyncio.run(ask(*args, **kwargs))


@pytest.fixture
def make_client(make_app):
    return lambda **limits: Client(make_app(**limits))
