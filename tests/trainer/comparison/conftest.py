"""Pages whose pictures a test does not look at."""

import matplotlib.figure
import pytest


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and checked for mistakes, but come as empty SVGs: drawing the figures of a
    page takes three seconds."""

    def write_empty(figure, buffer, **options):
        buffer.write(b'<svg viewBox="0 0 9 9"></svg>')

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", write_empty)
