"""A run that climbs before it searches: its cost, its refusals, the same after a kill."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import evomerge
from evomerge.errors import EvomergeError
from evomerge.evaluation import Estimate
from evomerge.evaluation.calibration import Logistic
from evomerge.search import SilentMonitor, inspect_file, open_run
from evomerge.search.climb import COST, Climb, ClimbState, plan_climb
from evomerge.search.finalists import choose_finalists
from evomerge.search.ledger import Ledger
from evomerge.search.objectives import ObjectiveFacts
from evomerge.search.records import Summary, TrialRecord
from evomerge.space import ClimbSettings, parse_space
from evomerge.workers import Failed, PoolInfo, Sloped
from evomerge.workers.local import LocalPool
from tests.conftest import ROOT, read_result, small_space

from .conftest import InstantPool

MODELS = ROOT / "search_spaces" / "playground"
STEPS = 6
TASKS = ("playground_add", "playground_sort")
METRICS = {"add": "exact_match", "reverse": "exact_match", "sort": "acc"}
SURE = [
    {"name": f"playground_{name}", "metric": metric, "smooth": "gold_probability"}
    for name, metric in METRICS.items()
]
CLIMB = {"steps": STEPS, "items": 8, "rate": 0.05}


def info(items=40, climbable=TASKS):
    counts = dict.fromkeys(TASKS, items)
    return PoolInfo(
        workers=1,
        items={"search": counts, "holdout": counts},
        objective=dict.fromkeys(TASKS, 0.5),
        load_seconds=0.0,
        bank_bytes=0,
        ids={"search": {name: tuple(f"{name}{i}" for i in range(items)) for name in TASKS}},
        climbable=climbable,
    )


def plan(space, climbable=TASKS):
    facts = ObjectiveFacts.from_info(info())
    return plan_climb(space, facts, info().items["search"], climbable, spent=0)


def space_with(folder, *, tasks=None, recipe=None, evaluation=None, **search):
    search = {"trials": 9, "optimizer": "cma", "climb": CLIMB, **search}
    path = folder / "space.yml"
    small_space(path, search=search, tasks=tasks, recipe=recipe, evaluation=evaluation)
    return evomerge.load_space(path)


class Watch(SilentMonitor):
    def __init__(self):
        self.stages, self.steps, self.notes, self.waiting = [], [], [], []

    def stage(self, name, *, total, done):
        self.stages.append((name, total, done))

    def climbed(self, value, *, done, total):
        self.steps.append((done, total, value))

    def note(self, text):
        self.notes.append(text)

    def waits(self, record, items, *, done, total):
        self.waiting.append((record.number, items, done, total))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("climb")


@pytest.fixture(scope="module")
def run(folder):
    watch = Watch()
    evomerge.run(space_with(folder), folder / "run", device="cpu", monitor=watch)
    return folder / "run", watch


def trials(run):
    return [
        (r.number, r.kind, r.label, r.state, r.point, r.asked_after, r.order, r.value, r.reason)
        for r in open_run(run).study.records.values()
    ]


def state(run):
    return open_run(run).study.attributes["climb"]


def test_the_climb_stands_between_baselines_and_search(run):
    path, watch = run
    assert [name for name, _, _ in watch.stages] == ["baselines", "climb", "search", "holdout"]
    assert [done for done, _, _ in watch.steps] == list(range(1, STEPS + 1))
    assert [value for _, _, value in watch.steps] == state(path)["values"]
    kinds = [(record[1], record[2]) for record in trials(path)]
    assert kinds[6] == ("climbed", "climbed")
    assert {kind for kind, _ in kinds[7:]} == {"proposed"}


def test_who_watches_learns_of_baselines_at_once_and_why_the_search_ended(run):
    _, watch = run
    # What guides the search is known with the last of them; till then no result is.
    assert watch.waiting == [(number, 80, number + 1, 6) for number in range(5)]
    assert "the search ended (trials: 9 of 9)" in watch.notes


def test_a_budget_that_the_baselines_spend_is_told(folder):
    watch = Watch()
    evomerge.run(space_with(folder, trials=2), folder / "spent", device="cpu", monitor=watch)
    assert "nothing is searched (trials: 6 of 2)" in watch.notes
    assert "search" not in [name for name, _, _ in watch.stages]


def test_the_result_is_the_mean_of_the_last_half_and_has_a_point(run):
    path, _ = run
    kept = state(path)
    record = open_run(path).study.records[6]
    space = open_run(path).space
    mean = np.array(kept["total"]) / (STEPS // 2)
    assert space.to_unit(record.point) == pytest.approx(mean)
    assert record.recipe == space.decode(record.point).to_dict()


def test_where_it_leads_is_a_finalist_and_no_baseline(run):
    path, _ = run
    result = read_result(path)
    assert 6 in [each["trial"] for each in result["finalists"]]
    assert 6 not in [each["trial"] for each in result["baselines"]]
    assert "climbed" not in [each["baseline"] for each in result["comparisons"]]


def finished(number, kind, value):
    scores = Summary(Estimate(value, 0.01, 9), {})
    return TrialRecord(number, kind, f"trial {number}", "complete", {}, search=scores)


@pytest.mark.parametrize(
    ("climbed", "count", "chosen"),
    [
        (0.2, 3, [5, 4, 0]),
        (0.45, 3, [5, 0, 4]),
        (0.2, 1, [5]),
        (0.9, 1, [0]),
        (0.2, 9, [5, 4, 3, 0]),
    ],
)
def test_it_is_always_among_several_finalists(climbed, count, chosen):
    records = [finished(0, "climbed", climbed)]
    records += [finished(number, "proposed", number / 10) for number in (3, 4, 5)]
    study = SimpleNamespace(records={record.number: record for record in records})
    assert [record.number for record in choose_finalists(study, count)] == chosen


def test_a_climb_that_violates_a_constraint_has_no_such_place():
    records = [finished(number, "proposed", number / 10) for number in (3, 4, 5)]
    climbed = finished(0, "climbed", 0.2)
    violated = replace(climbed.search, violations={"task": 0.1})
    records.append(replace(climbed, search=violated))
    study = SimpleNamespace(records={record.number: record for record in records})
    assert [record.number for record in choose_finalists(study, 3)] == [5, 4, 3]


def test_the_climb_improves_the_probability_of_the_gold_answers(folder):
    climb = {"steps": 20, "items": 16}
    out = folder / "improves"
    evomerge.run(space_with(folder, tasks=SURE, climb=climb, trials=7), out, device="cpu")
    study = open_run(out).study
    best = max(record.value for record in study.records.values() if record.number < 6)
    assert study.records[6].value > best + 0.02


def test_its_cost_counts(run):
    path, _ = run
    result = read_result(path)
    cost = COST * STEPS * 8 * 2
    assert result["climb"]["item_evaluations"] == cost
    trials_cost = sum(
        sum(record.scored_items.values()) for record in open_run(path).study.records.values()
    )
    assert result["item_evaluations"] == trials_cost + cost
    ended = open_run(path).study.attributes["ended"]
    search = [record.search.num_items for record in open_run(path).study.records.values()]
    assert ended["items"] == sum(search) + cost


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [2, STEPS, STEPS + 1, STEPS + 2])
def test_a_killed_climb_goes_on_with_the_same_points(run, folder, monkeypatch, after):
    out = folder / f"killed-{after}"
    inside = LocalPool.wait
    left = 6 + after

    def until(self):
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        return inside(self)

    monkeypatch.setattr(LocalPool, "wait", until)
    with pytest.raises(KilledError):
        evomerge.run(space_with(folder), out, device="cpu")
    monkeypatch.setattr(LocalPool, "wait", inside)
    watch = Watch()
    evomerge.run(space_with(folder), out, device="cpu", monitor=watch)
    assert state(out) == state(run[0])
    assert trials(out) == trials(run[0])
    assert len(watch.steps) == max(STEPS - after, 0)


def test_a_climb_that_is_interrupted_early_is_no_candidate_and_goes_on(run, folder):
    out, watch = folder / "interrupted", Watch()
    evomerge.run(
        space_with(folder), out, device="cpu", monitor=watch, interrupted=lambda: watch.steps[2:]
    )
    assert len(watch.steps) == 3
    assert len(trials(out)) == 6
    evomerge.run(space_with(folder), out, device="cpu")
    assert state(out) == state(run[0])
    assert trials(out) == trials(run[0])


def test_an_early_interrupt_settles_no_stages_before_the_climb_has_shown_what_it_shows(folder):
    weight = {"weight": {"search": [0.0, 1.0], "layers": 4}}
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(MODELS / name), "parameters": weight} for name in METRICS],
    }
    space, out, watch = space_with(folder, recipe=recipe), folder / "unsettled", Watch()
    evomerge.run(space, out, device="cpu", monitor=watch, interrupted=lambda: watch.steps[2:])
    assert "nothing is searched (interrupted)" in watch.notes
    assert "stages" not in open_run(out).study.attributes
    evomerge.run(space, out, device="cpu", monitor=watch)
    assert "stages" in open_run(out).study.attributes
    assert "climbed" in [record.kind for record in open_run(out).study.records.values()]


@pytest.mark.parametrize("why", ["late", "interrupted"])
@pytest.mark.parametrize(("taken", "is_candidate"), [(9, False), (10, True), (12, True)])
def test_a_climb_that_is_to_end_is_scored_where_it_is(
    folder, monkeypatch, taken, is_candidate, why
):
    out, watch = folder / f"{why}-{taken}", Watch()
    space = space_with(folder, seconds=9_999, climb={"steps": 20, "items": 4})

    def is_time():
        return len(watch.steps) >= taken

    with monkeypatch.context() as patched:
        if why == "late":
            patched.setattr(Ledger, "seconds", property(lambda _: 10_000 * is_time()))
        asked = is_time if why == "interrupted" else bool
        evomerge.run(space, out, device="cpu", monitor=watch, interrupted=asked)
    kept, record = state(out), open_run(out).study.records.get(6)
    assert len(kept["values"]) == taken
    assert (record is not None) == is_candidate
    if record is not None:
        mean = np.array(kept["total"]) / (taken - 10) if taken > 10 else kept["point"]
        assert space.to_unit(record.point) == pytest.approx(mean)
        reason = {"late": "seconds: 10000 of 9999", "interrupted": "interrupted"}[why]
        assert f"the climb was cut after {taken} steps ({reason})" in watch.notes
        assert 6 in [each["trial"] for each in read_result(out)["finalists"]]
    # The run goes on: with the climb if that came to nothing.
    evomerge.run(space, out, device="cpu")
    assert len(state(out)["values"]) == (taken if is_candidate else 20)
    kinds = [record.kind for record in open_run(out).study.records.values()]
    assert kinds[6:] == ["climbed", "proposed", "proposed"]


def test_a_run_that_goes_on_with_more_trials_does_not_climb_again(run, folder):
    shorter = folder / "shorter"
    evomerge.run(space_with(folder, trials=8), shorter, device="cpu")
    watch = Watch()
    evomerge.run(space_with(folder, trials=9), shorter, device="cpu", monitor=watch)
    assert not watch.steps
    assert trials(shorter) == trials(run[0])


def test_several_workers_climb_to_the_same_point(run, folder):
    pytest.importorskip("ray")
    evomerge.run(space_with(folder, trials=7), folder / "two", device="cpu", workers=2)
    assert state(folder / "two")["point"] == state(run[0])["point"]


def test_false_changes_nothing(folder):
    evomerge.run(space_with(folder, climb=False), folder / "never", device="cpu")
    study = open_run(folder / "never").study
    assert "climb" not in study.attributes
    assert "climb" not in json.loads((folder / "never" / "result.json").read_text())
    assert [r.kind for r in study.records.values()][6:] == ["proposed"] * 3


def test_a_step_that_fails_ends_the_climb_and_not_the_run(folder, monkeypatch):
    from evomerge.evaluation import Evaluator

    inside, calls = Evaluator.gold_gradient, []

    def broken(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("out of luck")
        return inside(self, *arguments)

    monkeypatch.setattr(Evaluator, "gold_gradient", broken)
    watch, out = Watch(), folder / "failed"
    evomerge.run(space_with(folder), out, device="cpu", monitor=watch)
    assert "the climb ended in step 3: RuntimeError: out of luck" in watch.notes
    assert [record[1] for record in trials(out)][6:] == ["proposed"] * 3
    assert read_result(out)["climb"]["failed"] == "RuntimeError: out of luck"
    assert read_result(out)["climb"]["item_evaluations"] == 2 * COST * 16
    again = Watch()
    evomerge.run(space_with(folder, trials=10), out, device="cpu", monitor=again)
    assert len(calls) == 3


def recipe_with(**changes):
    weight = {"weight": {"search": [0.0, 1.0]}}
    models = [{"model": str(MODELS / name), "parameters": dict(weight)} for name in ("add", "sort")]
    base = str(MODELS / "base")
    recipe = {"merge_method": "task_arithmetic", "base_model": base, "models": models}
    return {**recipe, **changes}


ADD = {"name": "playground_add", "metric": "exact_match"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"evaluation": {"backend": "vllm"}}, "backend: vllm has no gradients"),
        (
            {"recipe": recipe_with(merge_method={"choice": ["task_arithmetic", "ties"]})},
            "merge_method is a choice, and only continuous values have a slope",
        ),
        (
            {"tasks": [{**ADD, "smooth": False}]},
            "task 'playground_add' has smooth: false, and what is climbed is the probability",
        ),
        ({"tasks": [{"name": "playground_sort", "metric": "acc", "smooth": "margin"}]}, "margin"),
        ({"from_baselines": False}, "a climb begins at the best baseline"),
    ],
)
def test_what_cannot_be_climbed_is_refused_or_left_alone(tmp_path, options, reason):
    with pytest.raises(EvomergeError, match=f"search.climb.*cannot be climbed: .*{reason}"):
        space_with(tmp_path, **options)
    space = space_with(tmp_path, climb="auto", **options)
    assert plan(space).steps == 0


@pytest.mark.parametrize("objective", ["min", ["playground_add", "playground_sort"]])
def test_objectives_that_are_no_weighted_sum_are_not_climbed(tmp_path, objective):
    space = space_with(tmp_path, climb="auto", trials=500, optimizer="auto")
    data = space.document.model_dump(mode="json", exclude_unset=True) | {"objective": objective}
    assert plan(parse_space(data)).steps == 0
    data["search"]["climb"] = True
    with pytest.raises(EvomergeError, match="only one weighted_sum is climbed"):
        parse_space(data)


def test_a_task_that_turns_out_to_have_no_gold_answer_is_refused(tmp_path):
    explicit = space_with(tmp_path)
    with pytest.raises(EvomergeError, match="task 'playground_sort' has no gold answer"):
        plan(explicit, climbable=("playground_add",))
    auto = space_with(tmp_path, climb="auto", trials=500)
    assert plan(auto, climbable=("playground_add",)).steps == 0


def test_auto_climbs_where_the_baselines_show_what_a_probability_is_worth(tmp_path):
    space = space_with(tmp_path, climb="auto", trials=500)
    facts = replace(ObjectiveFacts.from_info(info()), blended=TASKS)
    items = info().items["search"]
    known = Logistic(3.0, -1.0)
    assert (
        plan_climb(space, facts, items, TASKS, spent=0, worth=dict.fromkeys(TASKS, known)).steps
        == 25
    )
    found = plan_climb(space, facts, items, TASKS, spent=0, worth={TASKS[0]: known})
    assert found.steps == 0
    assert found.reason.startswith("what the baselines got on 'playground_sort' does not rise")
    asked = space_with(tmp_path, trials=500)
    assert plan_climb(asked, facts, items, TASKS, spent=0, worth={}).steps == STEPS


def test_settings_are_checked(tmp_path):
    with pytest.raises(EvomergeError, match="climb is auto, false, or settings such as"):
        space_with(tmp_path, climb="always")
    assert space_with(tmp_path, climb=True).document.search.climb == ClimbSettings()


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        ({"items": 100_000}, (25, 32)),
        ({"items": 3_600}, (25, 16)),
        ({"items": 1_000}, (13, 8)),
        ({"items": 720}, (10, 8)),
        ({"items": 719}, (0, 0)),
        ({"trials": 40}, (25, 14)),
        ({"trials": 100, "items": 1_000}, (13, 8)),
        ({"seconds": 60}, (0, 0)),
    ],
)
def test_auto_takes_at_most_two_thirds_of_the_budget(tmp_path, search, wanted):
    space = space_with(tmp_path, **{"climb": "auto", "trials": None, **search})
    found = plan(space)
    assert (found.steps, found.items) == wanted
    budget = min(search.get("items", 10**9), search.get("trials", 10**9) * 80)
    assert COST * 2 * found.steps * found.items <= budget * 2 / 3


@pytest.mark.parametrize(
    ("items", "wanted"),
    # 80 search items; a step costs 48.
    [(None, 6), (80 + 6 * 48, 6), (80 + 6 * 48 - 1, 5), (80 + 2 * 48, 2), (80 + 2 * 48 - 1, 0)],
)
def test_a_climb_that_is_asked_for_leaves_room_to_score_where_it_leads(tmp_path, items, wanted):
    space = space_with(tmp_path, trials=None, items=items, seconds=9)
    assert plan(space).steps == wanted


class Notes:
    records = ()

    def set_attribute(self, key, value):
        assert key == "climb"
        self.kept = json.loads(json.dumps(value))


def hill(space, top):
    """What a worker would answer if the value were a hill in the unit cube."""

    def ask(assignment):
        points = [
            np.array([m["parameters"]["weight"] for m in recipe["models"]])
            for recipe in (assignment.recipe, *assignment.tangents)
        ]
        assert all((point >= 0).all() and (point <= 1).all() for point in points)
        slope = 2 * (top - points[0])
        slopes = tuple(float(slope @ (point - points[0])) for point in points[1:])
        count = sum(map(len, assignment.items.values()))
        return Sloped(0, -float(((points[0] - top) ** 2).sum()), slopes, count)

    return ask


def test_it_reaches_the_top_and_stays_in_the_cube(tmp_path):
    space = space_with(tmp_path)
    top = np.array([0.3, 1.4, -0.2])
    climb = Climb(space, info(), Notes(), ClimbState(60, 8, 0.05))
    climb.begin([0.5, 0.98, 0.02])
    while not climb.state.ended:
        climb.step(hill(space, top))
    assert climb.state.average() == pytest.approx([0.3, 1.0, 0.0], abs=0.02)
    assert climb.state.spent == COST * 60 * 16


def test_every_item_comes_before_one_comes_again(tmp_path):
    space, seen = space_with(tmp_path), []
    climb = Climb(space, info(items=30), Notes(), ClimbState(9, 8, 0.05))
    climb.begin([0.5] * 3)

    def ask(assignment):
        seen.append(assignment.items["playground_add"])
        return hill(space, np.zeros(3))(assignment)

    while not climb.state.ended:
        climb.step(ask)
    drawn = [item for batch in seen for item in batch]
    assert sorted(drawn[:30]) == sorted(info(items=30).ids["search"]["playground_add"])
    assert drawn[:30] != sorted(drawn[:30])
    assert all(len(set(batch)) == len(batch) for batch in seen)


def test_a_failure_is_kept_and_is_no_result(tmp_path):
    notes = Notes()
    climb = Climb(space_with(tmp_path), info(), notes, ClimbState(5, 8, 0.05))
    climb.begin([0.5] * 3)
    climb.step(lambda assignment: Failed(0, "search", "no luck"))
    kept = ClimbState.from_dict(notes.kept)
    assert kept.ended
    assert kept.failed == "no luck"
    assert kept.average() is None


def test_workers_without_gradients_are_left_alone(harness):
    run = harness(climb="auto")
    assert len(run.drive(InstantPool()).records) == 30


@pytest.mark.parametrize(
    ("climb", "fact"),
    [
        ("auto", "climb: 20 steps of 8 items a task (fits into 67% of the budget)"),
        (False, "climb: none (search.climb is false)"),
        (CLIMB, "climb: 6 steps of 8 items a task (search.climb asks for it)"),
    ],
)
def test_check_says_what_the_climb_will_be(tmp_path, climb, fact):
    # 20 search items a task; two thirds of what 6 baselines leave of 42 trials are 960 items.
    evaluation = {"search_items": 20, "holdout_items": 20}
    space_with(tmp_path, climb=climb, trials=42, evaluation=evaluation)
    assert fact in inspect_file(tmp_path / "space.yml").facts


def test_the_search_goes_on_near_where_the_climb_led(folder, monkeypatch):
    from evomerge.search import driver

    made = []

    def make(space, settings, **options):
        made.append((settings.sigma, options["start"]))
        return make_proposer(space, settings, **options)

    make_proposer = driver.make_proposer
    monkeypatch.setattr(driver, "make_proposer", make)
    for climb in ({"steps": 20, "items": 16}, False):
        out = folder / f"near {climb}"
        space = space_with(folder, tasks=SURE, climb=climb, sigma=0.4, trials=8)
        evomerge.run(space, out, device="cpu")
        study = open_run(out).study
        best = max((r for r in study.records.values() if r.number < 7), key=lambda r: r.value)
        if climb:
            assert best.kind == "climbed"
            assert made[-1] == (pytest.approx(0.1), best.point)
            reason = "no stages: the climb has moved every value alone already"
            assert study.attributes["stages"] == {"stages": [], "reason": reason}
        else:
            assert made[-1][0] == 0.4
