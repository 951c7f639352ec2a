"""Several models are loaded with what the flags say, and a run is not read more than needed."""

import typing

import pytest

from cxr_tfrecords.errors import UserError
from cxr_tfrecords.reading import Reading
from trainer.deployment import several_models

SETTINGS = {"sensitivity": 0.9, "coverage": 0.9, "ood_method": "none", "false_alarms": 0.01}


class Model:
    class_names, reading = ("A", "B"), Reading(32, 1)
    asked: typing.ClassVar[list[str]] = []

    def __init__(self, path, deploy_prior):
        self.path, self.deploy_prior = path, deploy_prior
        self.model_hash = path.removesuffix("-copy")

    @classmethod
    def kind_of(cls, path):
        return cls

    @classmethod
    def names_in(cls, path):
        cls.asked.append(path)
        return ("A", "C") if path == "other" else cls.class_names

    @classmethod
    def load(cls, path, deploy_prior, **settings):
        assert settings == SETTINGS
        assert path != "other"
        return cls(path, deploy_prior)


def test_class_names_are_read_ahead_only_where_they_are_needed(monkeypatch):
    monkeypatch.setattr(several_models, "Classifier", Model)
    monkeypatch.setattr(Model, "asked", [])
    loaded = several_models.load_models(["one", "two"], deploy_prior=[], **SETTINGS)
    assert [model.deploy_prior for model in loaded] == [None, None]
    assert Model.asked == ["two"]
    Model.asked.clear()
    (model,) = several_models.load_models(["one"], deploy_prior=["B=0.9", "A=0.1"], **SETTINGS)
    assert model.deploy_prior == (0.1, 0.9)
    assert Model.asked == ["one"]


def test_a_model_of_other_classes_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setattr(several_models, "Classifier", Model)
    with pytest.raises(UserError, match="--model: other has other classes, or reads images in"):
        several_models.load_models(["one", "other"], deploy_prior=[], **SETTINGS)


def test_a_model_that_is_named_twice_is_refused_since_it_agrees_with_itself(monkeypatch):
    monkeypatch.setattr(several_models, "Classifier", Model)
    with pytest.raises(UserError, match="one-copy is the same model as one: name it once"):
        several_models.load_models(["one", "two", "one-copy"], deploy_prior=[], **SETTINGS)
