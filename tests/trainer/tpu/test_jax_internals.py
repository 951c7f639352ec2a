"""A jax of another form is named with what to install."""

import sys
import types

import pytest

from cxr_tfrecords.errors import UserError
from trainer.tpu import jax_internals


def test_a_missing_part_of_jax_is_one_line_that_says_what_to_install(monkeypatch):
    for name in ("jax", "jax._src", "jax._src.lib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "jax._src.lib.xla_client", None)
    sys.modules["jax"].__version__ = "9.9"
    with pytest.raises(UserError, match=r"jax 9\.9 has no jax\._src.*pip install '.\[tpu-check\]'"):
        jax_internals.compile_options()
