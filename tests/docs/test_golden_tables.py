"""The tables of the reference merges list every case and what the tests want of it."""

import importlib.util
import re

import pytest

from tests.conftest import ROOT
from tests.engine import reference, test_golden

script = ROOT / "scripts" / "make_golden_tables.py"
spec = importlib.util.spec_from_file_location("make_golden_tables", script)
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


@pytest.mark.parametrize(
    ("page", "name", "make"),
    [
        (tables.CASES_PAGE, "golden_cases", tables.cases_table),
        (tables.COUNTS_PAGE, "golden_counts", tables.counts_table),
    ],
)
def test_the_tables_are_current(page, name, make):
    text = page.read_text()
    assert text == tables.put(text, name, make()), "run python scripts/make_golden_tables.py"


def test_every_case_has_one_row():
    page = tables.CASES_PAGE.read_text()
    _, _, rest = page.partition("<!-- golden_cases -->")
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+) \|$", rest, flags=re.MULTILINE)
    assert [case for case, _, _ in rows] == list(reference.CASES)
    assert len(rows) == 137
    refused = [case for case, _, outcome in rows if outcome.startswith("refused")]
    assert sorted(refused) == sorted([*test_golden.REFUSED, *test_golden.REFUSED_HERE])


def test_a_case_without_a_place_is_noticed():
    with pytest.raises(ValueError, match="no place for the case 'linear_new'"):
        tables.outcome("linear_new")


def test_a_page_without_marks_is_noticed():
    with pytest.raises(ValueError, match="golden_cases"):
        tables.put("# A page\n", "golden_cases", "| table |")
