"""Where a study is kept: a run goes on with its own, and shares a storage with others."""

import pytest

import evomerge
from evomerge.errors import StudyError
from evomerge.search.identity import write_space
from evomerge.search.places import StudyPlace
from tests.conftest import small_space


@pytest.fixture
def begin(harness, tmp_path):
    """Begin the study of a run directory, or go on with it; its name and its trials."""

    def open_it(name, storage=None):
        run = harness(name)
        place = StudyPlace(run.directory, storage)
        study = place.open(run.space)
        study.begin(kind="start", label="x", recipe={}, point=None, asked_after=0, seed=0)
        write_space(run.directory, run.space, study, place.url)
        return study.name, len(study.records)

    return open_it


@pytest.fixture
def shared(tmp_path):
    return f"sqlite:///{tmp_path / 'shared.db'}"


def test_a_run_goes_on_in_its_storage_without_being_told(begin, shared, tmp_path):
    name, _ = begin("one", shared)
    assert begin("one") == (name, 2)
    assert begin("one", shared) == (name, 3)
    assert not (tmp_path / "one" / "study.db").exists()


def test_runs_that_share_a_storage_have_studies_of_their_own(begin, shared):
    names = [begin(run, shared)[0] for run in ("one", "two", "three")]
    assert names == ["space", "space-2", "space-3"]
    assert begin("two", shared) == ("space-2", 2)


@pytest.mark.parametrize("before", ["sqlite", "the directory"])
def test_another_storage_is_refused(begin, shared, tmp_path, before):
    begin("one", shared if before == "sqlite" else None)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    known = "shared.db" if before == "sqlite" else "one/study.db"
    with pytest.raises(StudyError, match=rf"other.db: the study of .*one is in .*{known}; leave"):
        begin("one", other)


def test_a_storage_under_another_name_is_taken(begin, shared, tmp_path):
    name, _ = begin("one", shared)
    again = f"sqlite:///{tmp_path / 'one' / '..' / 'shared.db'}"
    assert begin("one", again) == (name, 2)
    assert begin("one") == (name, 3)


def test_two_seeds_in_one_database(tmp_path):
    few = {"search_items": 8, "holdout_items": 8}
    path = small_space(tmp_path / "space.yml", search={"trials": 7}, evaluation=few)
    space, storage = evomerge.load_space(path), f"sqlite:///{tmp_path / 'shared.db'}"
    for seed in (0, 1):
        mine, run = space.with_search(seed=seed), tmp_path / f"seed{seed}"
        evomerge.run(mine, run, storage=storage, device="cpu")
        longer = evomerge.run(mine.with_search(trials=8), run, device="cpu")
        assert len(longer.trials) == 8
    with pytest.raises(StudyError, match="was begun without; leave it out to go on"):
        evomerge.run(mine, run, warm_start=tmp_path / "seed0", device="cpu")
