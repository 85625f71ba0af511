"""A run whose optimizer is chosen by `auto`."""

from evomerge.proposers import auto
from evomerge.search import inspect_file
from tests.conftest import small_space

from .conftest import InstantPool


def test_the_choice_is_kept_in_the_study_when_the_budget_grows(harness, monkeypatch):
    monkeypatch.setattr(auto, "_FEW_TRIALS", 12)
    run = harness(top={"objective": ["a", "b"]}, optimizer="auto", trials=12)
    study = run.drive(InstantPool())
    assert study.attributes["optimizer"]["name"] == "tpe"
    assert study.attributes["optimizer"]["reason"].startswith("2 objectives in 12 trials: ")
    run.space = run.space.with_search(trials=16)
    assert auto.choose(run.space, run.space.document.search, 2).name == "nsga2"
    study = run.drive(InstantPool())
    assert study.attributes["optimizer"]["name"] == "tpe"
    assert len(study.records) == 16


def test_check_says_what_auto_takes_and_what_guides(tmp_path):
    path = small_space(tmp_path / "space.yml", search={"optimizer": "auto"})
    found = inspect_file(path)
    assert not found.problems
    facts = "\n".join(found.facts)
    assert "optimizer: auto takes surrogate (3 searched values in 12 trials: " in facts
    assert "40 search items, 60 held-out items, guided by exact_match and gold_probability" in facts


def test_check_says_what_is_certain_of_the_cost(tmp_path):
    cost = (
        "item evaluations: 480 for 6 baselines; beside the budget at most 960 to choose the winner "
        "on held-out items"
    )
    warning = "the baselines take the whole budget, so nothing would be searched "
    for search, reason in (
        ({}, None),
        ({"trials": 6}, "(trials: 6 of 6)"),
        ({"items": 400}, "(items: 480 of 400)"),
    ):
        found = inspect_file(small_space(tmp_path / "space.yml", search=search))
        assert cost in found.facts
        assert [note for note in found.notes if warning in note] == (
            [warning + reason] if reason else []
        )


def test_check_loads_an_optimizer_of_ones_own(tmp_path):
    path = small_space(tmp_path / "space.yml", search={"optimizer": "mine:Search"})
    (problem,) = inspect_file(path).problems
    assert "mine" in problem
    (tmp_path / "mine.py").write_text(
        "class Empty: pass\n"
        "class Search:\n    def __init__(self, space, *, start, known, seed, num_objectives): ...\n"
    )
    found = inspect_file(path)
    assert not found.problems
    assert "optimizer: mine:Search" in found.facts
    path = small_space(tmp_path / "space.yml", search={"optimizer": "mine:Empty"})
    (problem,) = inspect_file(path).problems
    assert "optimizer 'mine:Empty': the class cannot be made" in problem
