"""``evomerge methods``: the method table."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from evomerge.cli.options import JsonFlag

__all__ = ["methods"]


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, with its parameters.", show_default="all")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the merge methods and their parameters.

    **Examples**

    `evomerge methods`

    `evomerge methods ties`
    """
    from rich.console import Console
    from rich.table import Table

    from evomerge.errors import RecipeError, nearest
    from evomerge.methods import METHODS, SYMBOLS

    if name is not None and name not in METHODS:
        raise RecipeError(f"unknown merge method {name!r}; {nearest(name, METHODS)}")
    chosen = [METHODS[name]] if name else list(METHODS.values())
    if as_json:
        rows = [{k: v for k, v in asdict(spec).items() if k != "function"} for spec in chosen]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    if name is None:
        table = Table(box=None, pad_edge=False)
        for heading in ("method", "parameters", "what it does"):
            table.add_column(heading, no_wrap=heading == "method")
        for spec in chosen:
            table.add_row(spec.name, ", ".join(p.name for p in spec.parameters), spec.summary)
        console.print(table)
        return
    spec = chosen[0]
    console.print(f"[bold]{spec.name}[/]: {spec.summary}")
    console.print(f"when: {spec.use}", highlight=False)
    # Formulas have their own lines and brackets.
    console.print(f"\n{spec.formula}\n", highlight=False, markup=False, soft_wrap=True)
    console.print(SYMBOLS, highlight=False, markup=False)
    if spec.paper:
        console.print(spec.paper, highlight=False)
    console.print(f"models: {spec.num_models()}; base_model: {spec.base}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("parameter", "per model", "range", "default", "meaning"):
        table.add_column(heading)
    for parameter in spec.parameters:
        low = "" if parameter.low is None else f"{parameter.low:g}"
        high = "" if parameter.high is None else f"{parameter.high:g}"
        table.add_row(
            parameter.name,
            "yes" if parameter.per_model else "",
            f"{low} … {high}" if low or high else "",
            "required" if parameter.required else str(parameter.default),
            parameter.help,
        )
    console.print(table)
