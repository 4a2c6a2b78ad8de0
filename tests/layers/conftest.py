import pytest

from bnn.ops.cpu import blocks


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks call the operations one after the other; tests/layers/test_one_call.py compares this with one call."""
    monkeypatch.setattr(blocks, "serves", lambda *_: False)
    monkeypatch.setattr(blocks, "serves_gradient", lambda *_: False)
