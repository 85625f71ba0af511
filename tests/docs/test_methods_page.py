"""docs/methods.md is what the method table says today."""

import importlib.util

from evomerge.methods import IGNORED_PARAMETERS, METHODS
from tests.conftest import ROOT, succeed

PAGE = ROOT / "docs" / "methods.md"


def make_page():
    script = ROOT / "scripts" / "make_methods_page.py"
    spec = importlib.util.spec_from_file_location("make_methods_page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


def test_the_page_is_current():
    assert PAGE.read_text() == make_page(), "run python scripts/make_methods_page.py"


def test_every_method_and_parameter_is_on_the_page():
    sections = dict(
        section.split("\n", 1) for section in PAGE.read_text().split("\n## ")[1:] if section
    )
    for name, spec in METHODS.items():
        assert spec.formula in sections[name]
        assert spec.use in sections[name]
        assert spec.paper in sections[name]
        for parameter in spec.parameters:
            assert f"| `{parameter.name}` | {parameter.help} |" in sections[name]
    for name, why in IGNORED_PARAMETERS.items():
        assert f"| `{name}` | {why} |" in sections["Accepted without effect"]


def test_every_row_has_a_formula_and_a_use():
    for name, spec in METHODS.items():
        assert "out = " in spec.formula, name
        assert spec.use.endswith("."), name
        assert max(map(len, spec.formula.splitlines())) <= 100, name
        # A parameter that changes the numbers stands in the formula, by its name or its letter.
        letters = {"weight": "w_", "rescale": "r_i", "max_iter": "", "filter_wise": ""}
        for parameter in spec.parameters:
            if parameter.name.startswith("nuslerp_"):
                continue
            letter = letters.get(parameter.name, parameter.name)
            assert letter in spec.formula, f"{name}: {parameter.name}"


def test_the_command_shows_formula_and_use():
    printed = succeed("methods", "model_stock").stdout
    assert METHODS["model_stock"].formula in printed
    assert METHODS["model_stock"].use in " ".join(printed.split())
