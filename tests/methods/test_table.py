"""The method table and its rules."""

import subprocess
import sys

import pytest

from evomerge.methods import METHODS, MethodSpec, parameter_names


def test_names_are_the_keys() -> None:
    assert all(spec.name == name for name, spec in METHODS.items())
    assert list(METHODS) == [
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_ties",
        "dare_linear",
        "breadcrumbs",
        "breadcrumbs_ties",
        "della",
        "della_linear",
        "sce",
        "model_stock",
        "nuslerp",
        "multislerp",
        "karcher",
        "nearswap",
        "arcee_fusion",
        "ram",
        "ramplus_tl",
        "passthrough",
    ]


@pytest.mark.parametrize("spec", METHODS.values(), ids=list(METHODS))
def test_rows_are_complete(spec: MethodSpec) -> None:
    assert spec.summary
    assert callable(spec.load())
    assert spec.max_models is None or spec.max_models >= spec.min_models
    for parameter in spec.parameters:
        assert parameter.help
        assert parameter.required == (parameter.default is None)
        if parameter.kind == "choice":
            assert {parameter.usual, parameter.default} <= set(parameter.choices)


def test_parameter_names() -> None:
    assert parameter_names()[:2] == ("weight", "normalize")
    assert METHODS["ties"].parameter("density") is not None
    assert METHODS["slerp"].parameter("density") is None


def test_metadata_needs_no_torch() -> None:
    rooms = "evomerge.methods, evomerge.recipe, evomerge.checkpoints"
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
