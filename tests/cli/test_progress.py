"""What a person sees while a run goes on."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from evomerge.cli.progress import LiveDisplay, PlainDisplay, make_display
from evomerge.evaluation import Estimate, TaskScore
from evomerge.search import Summary, TrialRecord
from evomerge.workers import PoolInfo

ITEMS = {"search": {"add": 300, "sort": 300}, "holdout": {"add": 600, "sort": 600}}
INFO = PoolInfo(
    workers=2,
    items=ITEMS,
    objective={"add": 0.5, "sort": 0.5},
    load_seconds=3.2,
    bank_bytes=5 * 2**20,
)


def record(number, value, kind="proposed", **changes):
    tasks = {name: TaskScore("acc", value, 0.02, 300) for name in ("add", "sort")}
    summary = Summary(Estimate(value, 0.014, 600), tasks) if value is not None else None
    label = f"trial {number}" if kind == "proposed" else "models/math"
    state = "complete" if summary else "failed"
    return TrialRecord(number, kind, label, state, {}, search=summary, **changes)


def play(display, earlier=()):
    with display:
        display.loading()
        display.ready(INFO, earlier)
        display.stage("baselines", total=1, done=0)
        display.finished(record(0, 0.61, kind="parent"), "baselines", done=1, total=1)
        display.stage("search", total=40, done=0)
        display.finished(record(1, 0.7), "search", done=1, total=40)
        failed = record(2, None, reason="NaN in lm_head.weight")
        display.finished(failed, "search", done=2, total=40)
        display.finished(record(3, 0.65), "search", done=3, total=40)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_panel_that_fits(width):
    terminal = Console(width=width, height=24, force_terminal=True, file=io.StringIO())
    display = LiveDisplay(terminal, "math_code", Path("runs/math_code"), 3)
    play(display)
    frame = Console(width=width, file=io.StringIO())
    frame.print(display._draw())
    shown = frame.file.getvalue().splitlines()
    assert all(len(line) <= width for line in shown)
    text = "\n".join(shown)
    for part in ("search", "3/40", "best so far: trial 1", "0.700 ± 0.014", "best parent: math"):
        assert part in text
    for part in ("items/s", "left", "1 failed", "add", "sort"):
        assert part in text


def test_a_pipe_gets_a_line_for_each_result(capsys):
    display = make_display("math_code", Path("runs/math_code"), 3)
    assert type(display) is PlainDisplay
    play(display)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "math_code: loading models and tasks"
    assert any("failed: NaN in lm_head.weight" in line for line in lines)
    last = lines[-1]
    assert last.startswith("[  3/40] trial 3: 0.650 ± 0.014  (add 0.650  sort 0.650)")
    assert "best 0.700 (trial 1), best parent 0.610" in last
    assert "\x1b" not in "".join(lines)


def test_a_continued_run_knows_its_best(capsys):
    display = make_display("math_code", Path("runs/math_code"), 3)
    play(display, earlier=[record(12, 0.9), record(11, 0.62, kind="parent")])
    last = capsys.readouterr().out.splitlines()[-1]
    assert "best 0.900 (trial 12), best parent 0.620" in last


def test_time_left_counts_items_of_all_that_is_to_come():
    display = PlainDisplay(Console(quiet=True), "s", Path("r"), 3)
    play(display)
    rate = display.rate()
    left = 37 * 600 + (3 + 8) * 1200
    assert display.seconds_left() == pytest.approx(left / rate, rel=0.2)


def test_who_violates_a_constraint_is_not_the_best_so_far():
    display = PlainDisplay(Console(file=io.StringIO()), "space", Path("run"), 3)
    for number, value, violation in ((1, 0.9, 0.2), (2, 0.5, -0.1), (3, 0.95, 0.1), (4, 0.6, 0.0)):
        found = record(number, value)
        scores = dataclasses.replace(found.search, violations={"add": violation})
        display._compare(dataclasses.replace(found, search=scores))
    assert display.best.number == 4


def climb(display):
    display.ready(INFO, ())
    display.stage("climb", total=40, done=0)
    display.climbed(0.5123, done=1, total=40)


def test_a_climb_shows_a_line_a_step(capsys):
    climb(make_display("math_code", Path("runs/math_code"), 3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "climb: 40 to go"
    assert lines[-1] == "[  1/40] climb: expected score 0.512"


def test_a_climb_moves_the_panels_bar():
    terminal = Console(width=80, height=24, force_terminal=True, file=io.StringIO())
    display = LiveDisplay(terminal, "math_code", Path("runs/math_code"), 3)
    climb(display)
    frame = Console(width=80, file=io.StringIO())
    frame.print(display._draw())
    assert "climb" in frame.file.getvalue()
    assert "1/40" in frame.file.getvalue()


def test_a_baseline_whose_result_waits_is_shown_and_counted_once(capsys):
    display = PlainDisplay(Console(), "s", Path("r"), 3)
    display.ready(INFO, ())
    display.stage("baselines", total=2, done=0)
    display.waits(record(0, None, kind="parent"), 600, done=1, total=2)
    assert capsys.readouterr().out.splitlines()[-1].startswith("[  1/2] math: 600 items scored  ")
    assert display._items_done == 600
    assert display.seconds_left() > 0
    display.finished(record(0, 0.6, kind="parent"), "baselines", done=1, total=2)
    display.finished(record(1, 0.7, kind="parent"), "baselines", done=2, total=2)
    assert display._items_done == 1200


def test_a_budget_that_is_spent_has_nothing_to_go(capsys):
    display = PlainDisplay(Console(), "s", Path("r"), 3)
    display.stage("search", total=3, done=5)
    assert capsys.readouterr().out == "search: 0 to go, 5 there\n"
