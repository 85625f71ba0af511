"""What a check says about the values of a space."""

from evomerge.search import inspect_file
from tests.conftest import ROOT, small_space

MODELS = ROOT / "search_spaces" / "playground"


def della(density, epsilon=0.1):
    values = {"weight": {"search": [0.0, 1.0]}, "density": density, "epsilon": epsilon}
    return {
        "merge_method": "della",
        "base_model": str(MODELS / "base"),
        "models": [{"model": str(MODELS / "add"), "parameters": values}],
    }


def test_values_that_do_not_go_together_are_told_with_their_share(tmp_path):
    path = small_space(tmp_path / "space.yml", recipe=della({"search": [0.0, 1.0]}))
    found = inspect_file(path)
    assert not found.problems
    (note,) = (note for note in found.notes if "random candidates" in note)
    # Below 0.1 and above 0.9: a fifth, give or take three standard errors of 50 draws.
    assert 2 <= int(note.split(" of 50 ")[0]) <= 18
    assert "tensor 'model.embed_tokens.weight': della keeps" in note


def test_ranges_that_always_fit_are_not_spoken_of(tmp_path):
    path = small_space(tmp_path / "space.yml", recipe=della({"search": [0.11, 0.89]}))
    assert not inspect_file(path).notes


def test_a_fixed_value_that_does_not_fit_is_a_problem(tmp_path):
    (problem,) = inspect_file(small_space(tmp_path / "space.yml", recipe=della(0.95))).problems
    assert "0.95 - 0.1 and 0.95 + 0.1; choose a smaller epsilon" in problem
