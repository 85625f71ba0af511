import os
import subprocess
import sys

import pytest

from evomerge.errors import EvaluationError
from evomerge.evaluation import content_id, split_items
from evomerge.evaluation.items import ItemSource

IDS = [content_id({"n": k}) for k in range(100)]


def split(ids=IDS, seed=0, search=30, holdout=60):
    return split_items({"t": ids}, seed=seed, search_items=search, holdout_items=holdout)["t"]


def test_content_decides_the_id():
    assert content_id({"a": 1, "b": [2, "é"]}) == content_id({"b": [2, "é"], "a": 1})
    assert content_id({"a": 1}) != content_id({"a": "1"})


def test_sizes_and_disjointness():
    result = split()
    assert (len(result.search), len(result.holdout)) == (30, 60)
    assert not set(result.search) & set(result.holdout)


def test_the_order_of_the_documents_does_not_matter_and_the_seed_does():
    assert split() == split(ids=IDS[::-1])
    assert split() != split(seed=1)


def test_more_items_keep_those_that_were_there():
    small, large = split(search=10, holdout=20), split(search=40, holdout=60)
    assert large.search[:10] == small.search
    assert large.holdout[:20] == small.holdout


def test_duplicates_are_one_item():
    result = split(ids=IDS[:20] * 3, search=5, holdout=15)
    assert sorted([*result.search, *result.holdout]) == sorted(IDS[:20])


def test_defaults():
    result = split(search=None, holdout=None)
    assert (len(result.search), len(result.holdout)) == (33, 67)
    result = split(search=None, holdout=90)
    assert (len(result.search), len(result.holdout)) == (10, 90)
    many = [content_id(k) for k in range(1000)]
    assert len(split(ids=many, search=None, holdout=None).search) == 200
    # More would cost more than the search.
    assert len(split(ids=many, search=20, holdout=None).holdout) == 100
    assert len(split(ids=many, search=20, holdout=900).holdout) == 900


@pytest.mark.parametrize(("search", "holdout"), [(60, 41), (101, None), (None, 100), (100, None)])
def test_too_few_documents(search, holdout):
    with pytest.raises(EvaluationError, match="task 't' has 100 different documents"):
        split(search=search, holdout=holdout)


def test_a_document_of_two_tasks_is_on_one_side():
    tasks = {"one": IDS[:60], "two": IDS[30:]}
    both = split_items(tasks, seed=0, search_items=20, holdout_items=30)
    search = {*both["one"].search, *both["two"].search}
    assert not search & {*both["one"].holdout, *both["two"].holdout}


def test_the_split_is_the_same_in_every_process():
    program = (
        "from evomerge.evaluation import content_id, split_items\n"
        "ids = [content_id({'n': k}) for k in range(100)]\n"
        "print(split_items({'t': ids}, seed=0, search_items=30, holdout_items=60)['t'])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "2")
    }
    assert printed == {str(split())}


def test_importing_the_package_imports_no_heavy_library():
    program = (
        "import sys, evomerge.evaluation\n"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def sources(**keys):
    return {"t": ItemSource(**{"search": IDS, "holdout": IDS, **keys})}


def test_sides_of_different_splits_share_nothing():
    source = sources(search=IDS[:60], holdout=IDS[50:])
    found = split_items(source, seed=0, search_items=None, holdout_items=None)["t"]
    assert set(found.search) == set(IDS[:50]), "what is in both is held out"
    assert set(found.holdout) == set(IDS[50:])
    fewer = split_items(source, seed=0, search_items=10, holdout_items=20)["t"]
    assert fewer.search == found.search[:10]
    assert fewer.holdout == found.holdout[:20]
    with pytest.raises(EvaluationError, match="has 50 different documents for its search items"):
        split_items(source, seed=0, search_items=51, holdout_items=None)


def test_named_items_are_taken_as_they_are():
    source = sources(search_list=IDS[5:15])
    found = split_items(source, seed=0, search_items=3, holdout_items=None)["t"]
    assert found.search == tuple(IDS[5:15])
    assert set(found.holdout) == set(IDS) - set(IDS[5:15])
    source = sources(holdout_list=IDS[:30])
    found = split_items(source, seed=0, search_items=None, holdout_items=None)["t"]
    assert found.holdout == tuple(IDS[:30])
    assert set(found.search) == set(IDS[30:])


def test_an_item_named_for_both_sides_is_refused():
    with pytest.raises(EvaluationError, match=f"item {IDS[7]} is named for the search and for"):
        split_items(
            sources(search_list=IDS[5:8], holdout_list=IDS[7:20]),
            seed=0,
            search_items=None,
            holdout_items=None,
        )


def test_a_named_item_of_one_task_decides_its_side_in_another():
    documents = {"other": IDS, **sources(search_list=IDS[:40], holdout_list=IDS[40:70])}
    both = split_items(documents, seed=0, search_items=10, holdout_items=50)
    assert not set(both["other"].search) & set(IDS[40:70])
    assert not set(both["other"].holdout) & set(IDS[:40])
