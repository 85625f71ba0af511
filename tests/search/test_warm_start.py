"""Starting from recipes and from earlier runs."""

import pytest

from evomerge.errors import StudyError
from evomerge.search.identity import write_space
from evomerge.search.warm_start import read_warm_start
from evomerge.space import nearest_point, with_starts

from .conftest import InstantPool


@pytest.fixture
def earlier(harness):
    run = harness("earlier", trials=25)
    run.drive(InstantPool(), holdout=True)
    write_space(run.directory, run.space, run.study(), None)
    settings = run.directory.read_settings()
    run.directory.write_settings(settings | {"name": "s"})
    return run


def best(run):
    records = [r for r in run.study().records.values() if r.holdout is not None]
    return max(records, key=lambda record: record.holdout.objective.value)


def test_a_start_is_scored_and_the_search_begins_there(harness):
    run = harness(trials=12, sigma=0.001)
    point = {"math.weight": 0.69, "code.weight[0]": 0.7, "code.weight[1]": 0.71}
    recipe = run.space.decode(point).to_dict()
    run.space = with_starts(run.space, [{"name": "mine", "recipe": recipe}])
    study = run.drive(InstantPool())
    (mine,) = [r for r in study.records.values() if r.kind == "start"]
    assert mine.label == "mine"
    assert mine.point == pytest.approx(point)
    for record in study.records.values():
        if record.kind == "proposed":
            assert record.point == pytest.approx(point, abs=0.05)


def test_an_earlier_run_gives_starts_and_hints(harness, earlier):
    later = harness("later", trials=15)
    warm = read_warm_start(later.space, earlier.directory.path)
    names = [each["name"] for each in warm.space.document.start]
    assert len(names) == 3
    assert names[0] == f"earlier: {best(earlier).label}"
    found, same = nearest_point(warm.space, warm.space.document.start[0]["recipe"])
    assert same
    assert found == pytest.approx(best(earlier).point)
    records = earlier.study().records.values()
    assert len(warm.hints) == sum(r.value is not None for r in records if r.point)
    gains = {h.gain for h in warm.hints}
    level = max(r.value for r in records if r.kind != "proposed" and r.value is not None)
    assert max(gains) == pytest.approx(
        max(r.value for r in records if r.point and r.value is not None) - level
    )


def test_other_tasks_give_starts_only(harness, earlier):
    tasks = {"tasks": [{"name": "a", "metric": "acc"}]}
    warm = read_warm_start(harness("later", top=tasks).space, earlier.directory.path)
    assert warm.space.document.start
    assert not warm.hints


def test_nothing_shared_is_refused(harness, earlier):
    other = {
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": "n/one", "parameters": {"weight": {"search": [0.0, 1.0]}}},
                {"model": "n/two", "parameters": {"weight": 1.0}},
            ],
        }
    }
    with pytest.raises(StudyError, match="shares neither models nor searched values"):
        read_warm_start(harness("later", top=other).space, earlier.directory.path)
