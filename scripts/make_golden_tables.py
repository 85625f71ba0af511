"""Write the tables of the reference merges into docs/mergekit-compat.md and docs/merging.md.

python scripts/make_golden_tables.py

What came out is what tests/engine/test_golden.py checks, case by case; messages come from running
the cases that are refused.
"""

import contextlib
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from evomerge.engine import merge_to_disk  # noqa: E402 - the tests' tables lie beside the package
from evomerge.errors import EvomergeError  # noqa: E402
from evomerge.methods import METHODS  # noqa: E402
from evomerge.recipe import load_recipe  # noqa: E402
from tests.engine import reference, test_golden  # noqa: E402

CASES_PAGE = ROOT / "docs" / "mergekit-compat.md"
COUNTS_PAGE = ROOT / "docs" / "merging.md"

EQUAL = "equal to the reference"
COPIED = "equal config, tensors not kept"
RANDOM = "agrees in distribution"
WORKS = "works here, fails there"
REFUSED = "refused here and there"
REFUSED_HERE = "refused here, merged there"
_NO_METHOD = "no such method"


def outcome(case: str) -> str:
    """Return what the tests want of a case."""
    if case in test_golden.WORKS_HERE:
        return WORKS
    if case in test_golden.REFUSED:
        return REFUSED
    if case in test_golden.REFUSED_HERE:
        return REFUSED_HERE
    if case in test_golden.COMPARED:
        return EQUAL if reference.expected(case) is not None else COPIED
    if case in test_golden.RANDOM:
        return RANDOM
    raise ValueError(f"tests/engine/test_golden.py has no place for the case {case!r}")


def method(case: str) -> str:
    """Return the merge method of a case."""
    return str(reference.recipe_data(case)["merge_method"])


def message(case: str) -> str:
    """Return the first line of the message with which a case is refused."""
    with contextlib.chdir(reference.GOLDEN), tempfile.TemporaryDirectory() as folder:
        try:
            recipe = load_recipe(Path("cases") / case / "config.yml")
            merge_to_disk(recipe, Path(folder) / "out", seed=1)
        except EvomergeError as error:
            text = str(error).splitlines()[0].replace(f"{reference.GOLDEN}", ".")
            text = re.sub(r"cases/[^/]+/(config\.yml)", r"\1", text)
            return text if len(text) <= 200 else f"{text[:200].rsplit(maxsplit=1)[0]} …"
    raise ValueError(f"the case {case!r} was merged")


def cases_table() -> str:
    """Return a row for each case."""
    rows = ["| case | method | outcome |", "| --- | --- | --- |"]
    for case in reference.CASES:
        found = outcome(case)
        if found in (REFUSED, REFUSED_HERE):
            found = f"{found}: {message(case)}"
        elif found == WORKS:
            error = reference.meta(case)["error"].splitlines()[0].removesuffix(":")
            found = f"{found} ({error})"
        rows.append(f"| `{case}` | `{method(case)}` | {found.replace('|', '/')} |")
    return "\n".join(rows)


def counts_table() -> str:
    """Return the number of cases with each outcome, by method."""
    outcomes = (EQUAL, COPIED, RANDOM, WORKS, REFUSED, REFUSED_HERE)
    counts = Counter(
        (name if (name := method(case)) in METHODS else _NO_METHOD, outcome(case))
        for case in reference.CASES
    )
    rows = [
        f"| method | cases | {' | '.join(outcomes)} |",
        f"| --- {'| --- ' * (len(outcomes) + 1)}|",
    ]
    for name in (*METHODS, _NO_METHOD):
        numbers = [counts[name, found] for found in outcomes]
        cells = [str(number or "") for number in (sum(numbers), *numbers)]
        shown = f"`{name}`" if name in METHODS else name
        rows.append(f"| {shown} | {' | '.join(cells)} |")
    numbers = [sum(counts[name, found] for name in (*METHODS, _NO_METHOD)) for found in outcomes]
    cells = [f"**{number}**" for number in (sum(numbers), *numbers)]
    rows.append(f"| **all** | {' | '.join(cells)} |")
    return "\n".join(rows)


def put(text: str, name: str, table: str) -> str:
    """Return a page's text with a table between the marks of its name."""
    start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(start)
    _, end, after = rest.partition(stop)
    if not (found and end):
        raise ValueError(f"want {start} and {stop} in the page")
    return f"{before}{start}\n{table}\n{stop}{after}"


if __name__ == "__main__":
    for page, name, make in (
        (CASES_PAGE, "golden_cases", cases_table),
        (COUNTS_PAGE, "golden_counts", counts_table),
    ):
        page.write_text(put(page.read_text(), name, make()))
        print(f"wrote {page}")
