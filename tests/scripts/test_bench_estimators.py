"""The comparison of estimators, with a few candidates and items."""

import json

import pytest

from tests.conftest import ROOT


def test_every_estimator_has_its_rows(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import bench_estimators

        small = ["--candidates", "4", "--repeats", "1", "--search-items", "60", "--told", "2"]
        bench_estimators.main(["--out", str(tmp_path), *small])
        files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
        bench_estimators.main(["--out", str(tmp_path), *small, "--better"])
    found = json.loads((tmp_path / "estimators.json").read_text())
    rows = found["told"]["2"]
    wanted = {(name, rung) for name in bench_estimators.ESTIMATORS for rung in (32, 64, 128)}
    assert {(row["estimator"], row["items"]) for row in rows} == wanted
    for row in rows:
        assert 0 < row["rmse"] < 0.3
        assert 0 < row["stated"] < 0.3
    # What was scored is not scored again.
    assert len(files) == 10
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert (tmp_path / "estimators.better.json").is_file()
    assert "stratified with control" in capsys.readouterr().out
