"""Merge methods: one table of metadata (free of torch), one pure function for each row.

`METHODS` and its row types can be imported without torch; the functions themselves live in
modules beside it and are loaded by `MethodSpec.load`.
"""

from evomerge.methods.spec import MethodSpec, ParameterSpec
from evomerge.methods.table import IGNORED_PARAMETERS, METHODS, SYMBOLS, parameter_names

__all__ = [
    "IGNORED_PARAMETERS",
    "METHODS",
    "SYMBOLS",
    "MethodSpec",
    "ParameterSpec",
    "parameter_names",
]
