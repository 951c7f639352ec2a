"""Real radiographs, weights and the paper's tables, where they lie beside the project."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def shared_path(name: str) -> pathlib.Path:
    """Path of a file or folder in `shared/` beside the project; skips the test without it."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"needs shared/{name} beside the project, which is not there")
    return path
