import pytest

from tests.engine.reference import GOLDEN


@pytest.fixture(autouse=True)
def _in_golden_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
