"""A recipe is never scored on an item again."""

import dataclasses

import pytest

from evomerge.search.cache import KnownResults, ResultCache, missing_items, open_caches
from evomerge.workers import Assignment

from .conftest import IDS, ITEMS, InstantPool, score

RECIPE = {
    "merge_method": "linear",
    "models": [{"model": "m/math", "parameters": {"weight": 1}}],
}
SEARCH = dict.fromkeys(("a", "b"), IDS["search"])
HOLDOUT = dict.fromkeys(("a", "b"), IDS["holdout"])


@pytest.fixture
def pool():
    return InstantPool()


def cache_of(folder, pool, mark="f00", seed=0):
    return ResultCache(folder, pool.info, {"m/math": mark}, seed)


def scored(split="search", items=None):
    return score(Assignment(0, RECIPE, split, items)).scores


def test_what_was_kept_is_known(tmp_path, pool):
    cache_of(tmp_path, pool).keep(RECIPE, scored())
    cache = cache_of(tmp_path, pool)
    assert cache.known(RECIPE, SEARCH) == scored()
    assert missing_items(cache.known(RECIPE, SEARCH), SEARCH) == {}
    assert not cache.known(RECIPE, HOLDOUT).num_items
    cache.keep(RECIPE, scored("holdout"))
    assert cache.known(RECIPE, HOLDOUT) == scored("holdout")
    assert cache.known(RECIPE, SEARCH) == scored()


def test_some_items_only(tmp_path, pool):
    cache = cache_of(tmp_path, pool)
    cache.keep(RECIPE, scored(items={"a": IDS["search"][5:15]}))
    known = cache.known(RECIPE, SEARCH)
    missing = missing_items(known, SEARCH)
    assert missing["b"] == IDS["search"]
    assert set(missing["a"]) == set(IDS["search"]) - set(IDS["search"][5:15])
    rest = scored(items=missing)
    assert rest.merge(known).select(SEARCH) == scored()


def test_what_a_proxy_scored_is_kept_apart_and_known_for_search_items_alone(tmp_path, pool):
    def caches(proxy=None):
        return open_caches(tmp_path, pool.info, {"m/math": "f00"}, 0, proxy=proxy)

    results = KnownResults(caches("fp8"))
    for split in ("search", "holdout"):
        assignment = Assignment(0, RECIPE, split)
        assert results.take_out(assignment) == assignment
        results.put_back(score(assignment))
        results.end(0)
    plain = caches()["search"]
    assert not plain.known(RECIPE, SEARCH).num_items
    assert plain.known(RECIPE, HOLDOUT) == scored("holdout")
    again = caches("fp8")
    assert again["search"].known(RECIPE, SEARCH) == scored()
    assert not again["search"].known(RECIPE, HOLDOUT).num_items
    assert not again["holdout"].known(RECIPE, SEARCH).num_items
    assert not caches("int8")["search"].known(RECIPE, SEARCH).num_items


def test_an_assignment_of_some_items_scores_no_others(tmp_path, pool):
    results = KnownResults(dict.fromkeys(IDS, cache_of(tmp_path, pool)))
    first, both = {"a": IDS["search"][:5]}, {"a": IDS["search"][3:8], "b": IDS["search"][:2]}
    asked = results.take_out(Assignment(0, RECIPE, "search", first))
    assert asked.items == first
    results.put_back(score(asked))
    asked = results.take_out(Assignment(1, RECIPE, "search", both))
    assert asked.items == {"a": IDS["search"][5:8], "b": IDS["search"][:2]}
    whole = results.put_back(score(asked))
    assert whole.scores == scored(items=both)
    assert whole.scored_items == 5
    again = results.take_out(Assignment(2, RECIPE, "search", first))
    assert again.scores == scored(items=first)
    assert again.scored_items == 0


def test_the_key_is_content(tmp_path, pool):
    cache = cache_of(tmp_path, pool)
    cache.keep(RECIPE, scored())
    moved = {
        "models": [{"model": "elsewhere", "parameters": {"weight": 1.0}}],
        "merge_method": "linear",
    }
    other = ResultCache(tmp_path, pool.info, {"elsewhere": "f00"}, 0)
    assert other.known(moved, SEARCH).num_items == 2 * ITEMS
    changed = {**RECIPE, "models": [{"model": "m/math", "parameters": {"weight": 1.5}}]}
    assert not cache.known(changed, SEARCH).num_items
    assert not cache_of(tmp_path, pool, mark="f01").known(RECIPE, SEARCH).num_items
    assert not cache_of(tmp_path, pool, seed=1).known(RECIPE, SEARCH).num_items


def test_a_task_that_was_set_up_otherwise_is_scored_again(tmp_path, pool):
    cache_of(tmp_path, pool).keep(RECIPE, scored())
    changed = InstantPool()
    changed.info = dataclasses.replace(pool.info, task_keys={"a": "one", "b": "new"})
    cache = cache_of(tmp_path, changed)
    known = cache.known(RECIPE, SEARCH)
    assert list(known.by_task) == ["a"]
    cache.keep(RECIPE, scored(items=missing_items(known, SEARCH)))
    assert cache.known(RECIPE, SEARCH).num_items == 2 * ITEMS


def test_another_run_s_tasks_are_left_in_the_file(tmp_path, pool):
    cache_of(tmp_path, pool).keep(RECIPE, scored())
    alone = InstantPool()
    alone.info = dataclasses.replace(
        pool.info, task_keys={"b": "two"}, ids={"holdout": {"b": IDS["holdout"]}}
    )
    cache_of(tmp_path, alone).keep(RECIPE, scored("holdout", {"b": IDS["holdout"]}))
    assert cache_of(tmp_path, pool).known(RECIPE, SEARCH) == scored()


def test_a_hole_in_a_file_is_never_taken_for_scores(tmp_path, pool):
    """After a power cut the end of a file may be there and a part before it not."""
    cache_of(tmp_path, pool).keep(RECIPE, scored())
    (file,) = tmp_path.glob("*/*.parquet")
    whole = file.read_bytes()
    noticed = 0
    for start in range(4, 700, 5):
        file.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])
        known = cache_of(tmp_path, pool).known(RECIPE, SEARCH)
        assert not known.num_items or known == scored()
        noticed += not known.num_items
    assert noticed > 100


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"nothing",
        lambda content: content[:-100],
        lambda content: bytes(len(content)),
    ],
)
def test_a_damaged_file_is_as_none(tmp_path, pool, damage):
    cache_of(tmp_path, pool).keep(RECIPE, scored())
    (file,) = tmp_path.glob("*/*.parquet")
    file.write_bytes(damage(file.read_bytes()))
    cache = cache_of(tmp_path, pool)
    assert not cache.known(RECIPE, SEARCH).num_items
    cache.keep(RECIPE, scored())
    assert cache_of(tmp_path, pool).known(RECIPE, SEARCH) == scored()


def test_a_candidate_under_way_is_not_read_again(tmp_path, pool, monkeypatch):
    results = KnownResults(dict.fromkeys(IDS, cache_of(tmp_path, pool)))
    read = []
    monkeypatch.setattr("evomerge.search.cache.read_items", read.append)
    for count in (5, 10, 20):
        items = {"a": IDS["search"][:count]}
        asked = results.take_out(Assignment(0, RECIPE, "search", items))
        assert asked.items["a"] == IDS["search"][count // 2 if count > 5 else 0 : count]
        fast = dataclasses.replace(score(asked), seconds={"score": 0.001})
        assert results.put_back(fast).scores == scored(items=items)
    assert not read
    monkeypatch.undo()
    assert not cache_of(tmp_path, pool).known(RECIPE, SEARCH).num_items
    results.end(0)
    assert cache_of(tmp_path, pool).known(RECIPE, SEARCH) == scored(items=items)


def test_what_took_time_to_score_is_written_at_once(tmp_path, pool):
    results = KnownResults(dict.fromkeys(IDS, cache_of(tmp_path, pool)))
    written = []
    for count, seconds in ((5, 0.06), (10, 0.06), (15, 0.06), (20, 3.0)):
        items = {"a": IDS["search"][:count]}
        asked = results.take_out(Assignment(0, RECIPE, "search", items))
        results.put_back(dataclasses.replace(score(asked), seconds={"score": seconds}))
        written.append(cache_of(tmp_path, pool).known(RECIPE, SEARCH).num_items)
    assert written == [0, 10, 10, 20]


def test_the_files_of_earlier_candidates_are_forgotten(tmp_path, pool):
    cache = cache_of(tmp_path, pool)
    recipes = [
        {**RECIPE, "models": [{"model": "m/math", "parameters": {"weight": i}}]} for i in range(300)
    ]
    for recipe in recipes:
        cache.keep(recipe, scored(items={"a": IDS["search"][:1]}))
    assert len(cache._remembered) == 256
    for file in tmp_path.glob("*/*.parquet"):
        file.unlink()
    assert not cache.known(recipes[0], SEARCH).num_items
    assert cache.known(recipes[-1], SEARCH).num_items == 1


def test_a_second_run_scores_nothing_and_is_the_same(harness, tmp_path):
    first = harness("one", cache=tmp_path / "shared", trials=20)
    pool = InstantPool()
    first.drive(pool, holdout=True)
    done = [r for r in first.study().records.values() if r.state == "complete"]
    failed = len(first.study().records) - len(done)
    assert pool.num_items == 2 * ITEMS * (len(done) + 3)
    second = harness("two", cache=tmp_path / "shared", trials=20)
    again = InstantPool()
    second.drive(again, holdout=True)
    assert again.num_items == 0
    assert len(again.scored) == failed, "a failure is no result to keep"
    assert second.trials() == first.trials()
    counts = [record.scored_items for record in second.study().records.values()]
    assert sum(sum(each.values()) for each in counts) == 0


def test_a_candidate_that_is_proposed_twice_is_scored_once(harness, tmp_path):
    recipe = {
        "merge_method": {"choice": ["task_arithmetic", "ties"]},
        "base_model": "m/base",
        "models": [
            {"model": "m/math", "parameters": {"weight": 0.7, "density": 1.0}},
            {"model": "m/code", "parameters": {"weight": 0.7, "density": 1.0}},
        ],
    }
    run = harness("run", top={"recipe": recipe}, cache=tmp_path / "c", optimizer="random")
    pool = InstantPool()
    run.drive(pool)
    records = [r for r in run.study().records.values() if r.state == "complete"]
    different = {str(record.recipe) for record in records}
    assert len(records) == 30
    assert pool.num_items == 2 * ITEMS * len(different)
    assert all(len(record.search.tasks) == 2 for record in records)


def test_what_a_killed_process_had_scored_is_not_scored_again(harness, tmp_path, monkeypatch):
    """Killed after the items were kept and before the study knew."""
    run = harness("run", cache=tmp_path / "c", trials=8)
    pool = InstantPool()
    study_class = type(run.study())
    complete = study_class.complete

    def killed(self, number, *arguments, **options):
        if number == 6:
            raise KeyboardInterrupt
        return complete(self, number, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(study_class, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            run.drive(pool)
    second = InstantPool()
    run.drive(second)
    assert 6 not in [number for number, _ in second.scored]
    assert run.study().records[6].scored_items == {"search": 0}
