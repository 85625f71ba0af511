"""A run whose optimizer is chosen by `auto`."""

from evomerge.proposers import auto

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
