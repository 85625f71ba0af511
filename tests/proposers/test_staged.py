"""Search in stages: the same suite as every proposer, and what stages are for."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import SpaceError, StudyError
from evomerge.proposers import StagePlan, Told, make_proposer, plan_for
from evomerge.proposers.conformance import CONDITIONAL, MIXED, PLANE, ProposerConformance
from evomerge.proposers.plain_space import PlainSpace
from evomerge.proposers.staged import Stage, StagedProposer
from evomerge.proposers.tied import TiedSpace
from evomerge.space import OPTIMIZERS, Condition, Dimension, SearchSettings, parse_space
from tests.search.conftest import Harness, InstantPool

TOGETHER = {id(MIXED): ("weight", "density"), id(PLANE): ("weight", "t")}
WHEN = Condition("method", ("ties",))
SPARSE = PlainSpace(
    Dimension("method", "choice", choices=("ties", "linear")),
    Dimension("weight", "float", 0.0, 2.0),
    Dimension("density", "float", 0.0, 1.0, condition=WHEN),
    Dimension("density2", "float", 0.01, 1.0, log=True, condition=WHEN),
    Dimension("weight2", "float", -1.0, 1.0),
)
SPARSE_GROUPS = (("weight", "weight2"), ("density", "density2"))


def staged(space, groups, stages, name="cma", *, start=None, known=(), seed=0, num_objectives=1):
    """Stages whose first ones have groups, as pairs of the ends in questions and in items."""
    settings = SearchSettings(optimizer=name, seed=seed, population=5, stages=False)

    def make(stage, view, begin, results):
        return make_proposer(
            view, settings, start=begin, known=results, num_objectives=num_objectives
        )

    ended = [Stage(groups, *end) for end in stages]
    start = start or space.from_unit([0.5] * len(space.dimensions))
    return StagedProposer(
        space, [*ended, Stage()], make, start=start, known=known, num_objectives=num_objectives
    )


class Staged(ProposerConformance):
    name = ""
    ends = ((6, None),)

    def make(self, space, *, start, known, seed, num_objectives):
        groups = SPARSE_GROUPS if space is SPARSE else ()
        if id(space) in TOGETHER:
            groups = (TOGETHER[id(space)],)
        return staged(
            space,
            groups,
            self.ends,
            self.name,
            start=start,
            known=known,
            seed=seed,
            num_objectives=num_objectives,
        )

    @property
    def takes_conditions(self):
        return OPTIMIZERS[self.name].conditions

    @property
    def takes_several(self):
        return OPTIMIZERS[self.name].several

    def test_recalled_where_groups_have_conditions(self):
        if self.takes_conditions:
            self._check_resume(SPARSE, 1)


class TestCma(Staged):
    name = "cma"


class TestCmaByItems(Staged):
    """Items are known only when they are told."""

    name = "cma"
    ends = ((None, 200), (None, 400))


class TestTpe(Staged):
    name = "tpe"
    num_known = 11
    ends = ((5, None), (10, 500))


class TestNsga2(Staged):
    name = "nsga2"
    num_known = 3


class TestQmc(Staged):
    name = "qmc"


class TestSurrogate(Staged):
    name = "surrogate"
    num_trials = 9
    num_known = 6
    ends = ((4, None),)


class TestTiedSpace:
    START = MIXED.from_unit([0.2, 0.7, 0.5, 0.5, 0.5])
    VIEW = TiedSpace(MIXED, [("weight", "density")], START)

    def test_the_start_is_at_no_shift(self):
        tied = self.VIEW.contract(self.START)
        assert tied["weight and 1 more"] == 0
        assert self.VIEW.expand(tied) == self.START

    def test_members_move_alike_and_stop_at_their_ends(self):
        tied = {**self.VIEW.contract(self.START), "weight and 1 more": 1024}
        moved = MIXED.to_unit(self.VIEW.expand(tied))
        assert moved[:2] == pytest.approx([0.45, 0.95])
        tied["weight and 1 more"] = 2048
        moved = MIXED.to_unit(self.VIEW.expand(tied))
        assert moved[:2] == pytest.approx([0.7, 1.0])

    def test_the_ends_of_the_shift_are_the_ends_of_all_members(self):
        low = self.VIEW.expand(self.VIEW.from_unit([0.0] * 4))
        high = self.VIEW.expand(self.VIEW.from_unit([1.0] * 4))
        assert (low["weight"], low["density"]) == (-1.0, 0.01)
        assert (high["weight"], high["density"]) == (1.0, 1.0)

    @given(
        low=st.floats(-1e3, 1e3),
        width=st.floats(1e-3, 1e3),
        starts=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4),
        unit=st.floats(0.0, 1.0),
        log=st.booleans(),
    )
    def test_a_shift_is_found_again_exactly(self, low, width, starts, unit, log):
        low = abs(low) + 0.001 if log else low
        space = PlainSpace(
            *(
                Dimension(f"x{i}", "float", low, low + width * (i + 1), log=log)
                for i in range(len(starts))
            )
        )
        view = TiedSpace(space, [[d.name for d in space.dimensions]], space.from_unit(starts))
        for tied in (view.from_unit([unit]), view.from_unit([0.0]), view.from_unit([1.0])):
            point = view.expand(tied)
            assert view.contract(point) == tied
            assert view.holds(point)

    def test_points_that_moved_otherwise_are_not_held(self):
        other = dict(self.START) | {"weight": 0.9}
        assert not self.VIEW.holds(other)

    @pytest.mark.parametrize("names", [("weight", "count"), ("weight", "nothing")])
    def test_only_numbers_move_together(self, names):
        with pytest.raises(ValueError, match=repr(names[1])):
            TiedSpace(MIXED, [names], self.START)

    def test_only_what_exists_together_moves_together(self):
        with pytest.raises(ValueError, match="weight, density do not"):
            TiedSpace(CONDITIONAL, [("weight", "density")], {})


WIDE = PlainSpace(*(Dimension(f"x{i}", "float", 0.0, 1.0) for i in range(8)))
HALVES = (tuple(f"x{i}" for i in range(4)), tuple(f"x{i}" for i in range(4, 8)))


def height(point):
    best = [0.75] * 4 + [0.3] * 4
    return -sum((value - at) ** 2 for value, at in zip(point.values(), best, strict=True))


class TestStages:
    def test_values_move_together_first_and_alone_later(self):
        proposer = staged(WIDE, HALVES, [(10, None)])
        for number in range(20):
            point = list(proposer.ask(number).values())
            assert (len(set(point)) <= 2) == (number < 10)
            proposer.tell(number, Told((0.0,), (0.0,), 10))

    @pytest.mark.parametrize(
        ("results", "best"),
        [
            ([Told((0.9,), (0.2,)), Told((0.5,), (0.0,)), Told((0.6,), (0.05,))], 1),
            ([Told((0.9,), (0.5,)), Told((0.6,), (0.05,))], 1),
            ([Told((0.9,), (0.2,)), Told((0.6,), (0.05,))], 0),
            ([Told((0.5,)), Told((0.6,))], 1),
            ([Told((0.5, 0.9)), Told((0.6, 0.1))], 1),
            ([Told(None), Told(None)], None),
        ],
    )
    def test_the_next_stage_starts_from_the_best(self, results, best):
        begun = []

        def make(stage, view, begin, known):
            begun.append((stage, view.expand(begin) if stage == 0 else begin, known))
            settings = SearchSettings(optimizer="random")
            num = max(len(each.values or (0.0,)) for each in results)
            return make_proposer(view, settings, start=begin, known=known, num_objectives=num)

        start = WIDE.from_unit([0.5] * 8)
        stages = [Stage(HALVES, questions=len(results)), Stage()]
        num = max(len(each.values or (0.0,)) for each in results)
        proposer = StagedProposer(WIDE, stages, make, start=start, known=[], num_objectives=num)
        points = []
        for number, told in enumerate(results):
            points.append(proposer.ask(number))
            proposer.tell(number, told)
        assert [each[0] for each in begun] == [0]
        proposer.ask(99)
        assert [each[0] for each in begun] == [0, 1]
        assert begun[0][1] == start
        assert begun[1][1] == (start if best is None else points[best])
        valued = [(p, t) for p, t in zip(points, results, strict=True) if t.values is not None]
        assert begun[1][2] == valued

    def test_a_result_that_comes_late_moves_nothing(self):
        late, never = (staged(WIDE, HALVES, [(4, None)]) for _ in range(2))
        for proposer in (late, never):
            for number in range(5):
                proposer.ask(number)
        late.tell(2, Told((5.0,), (0.0,)))
        for number in range(5, 12):
            point = late.ask(number)
            assert point == never.ask(number)
            for proposer in (late, never):
                proposer.tell(number, Told((height(point),), (0.0,)))

    def test_a_stage_with_nothing_left_is_over(self):
        class Once:
            def __init__(self, begin):
                self.point, self.left = begin, 1

            def ask(self, _):
                self.left -= 1
                return self.point

            def tell(self, number, told):
                pass

            def should_stop(self):
                return None if self.left else "once is enough"

        proposer = StagedProposer(
            WIDE,
            [Stage(HALVES, questions=50), Stage()],
            lambda stage, view, begin, known: Once(begin),
            start=WIDE.from_unit([0.5] * 8),
            known=[],
        )
        proposer.ask(0)
        assert proposer.should_stop() is None
        proposer.ask(1)
        assert proposer.should_stop() == "once is enough"

    def test_a_point_of_another_search_is_refused(self):
        proposer = staged(WIDE, HALVES, [(4, None)])
        point = proposer.ask(0)
        again = staged(WIDE, HALVES, [(4, None)])
        with pytest.raises(StudyError, match=r"trial 0: the study holds x\d"):
            again.recall(0, {**point, "x1": point["x1"] / 2 + 0.1})

    def test_many_values_are_found_with_fewer_trials(self):
        """Median over seeds, at the same number of trials."""

        def reached(stages, seed):
            proposer = staged(WIDE, HALVES, stages, seed=seed)
            heights = []
            for number in range(40):
                heights.append(height(proposer.ask(number)))
                proposer.tell(number, Told((heights[-1],), (0.0,)))
            return max(heights)

        with_stages = [reached([(20, None)], seed) for seed in range(9)]
        without = [reached([], seed) for seed in range(9)]
        assert np.median(with_stages) > np.median(without) / 2  # both are below 0


RECIPE = """
recipe:
  merge_method: task_arithmetic
  base_model: m/base
  models:
    - {model: m/math, parameters: {weight: WEIGHT}}
    - {model: m/code, parameters: {weight: WEIGHT}}
tasks: [{name: a, metric: acc}]
"""


def space_with(weight):
    return parse_space(yaml.safe_load(RECIPE.replace("WEIGHT", weight)))


LAYERED = space_with("{search: [0.0, 1.5], layers: 8}")
FILTERED = space_with(
    "[{filter: mlp, value: {search: [0, 1], layers: 4}}, "
    "{filter: attn, value: {search: [0, 1], layers: 4}}, {value: {search: [0, 1], layers: 4}}]"
)
PLAIN = space_with("{search: [0.0, 1.5]}")


def plan(space=LAYERED, optimizer="cma", known=0, **search):
    settings = SearchSettings(optimizer=optimizer, **search)
    point = space.from_unit([0.5] * len(space.dimensions))
    return plan_for(space, settings, [(point, Told((0.5,), (0.0,), 100))] * known)


class TestPlan:
    def test_the_budget_is_shared_out(self):
        found = plan(trials=104, known=4)
        assert [each.level for each in found.stages] == ["model", "layer"]
        assert found.reason == (
            "stages: model (2 values, 33% of the budget), then layer (16 values, 67% of the budget)"
        )
        assert [each.questions for each in found.stages] == [33, None]

    def test_items_are_counted_with_those_of_the_baselines(self):
        found = plan(items=10_000, known=4, stages={"model": 0.5, "layer": 0.5})
        assert [each.items for each in found.stages] == [5200, None]
        assert [each.questions for each in found.stages] == [None, None]

    def test_three_levels(self):
        found = plan(FILTERED, trials=100)
        assert [each.level for each in found.stages] == ["model", "filter", "layer"]

    @pytest.mark.parametrize(
        ("space", "search", "reason"),
        [
            (LAYERED, {"optimizer": "surrogate"}, "surrogate compares points by the means"),
            (LAYERED, {"optimizer": "random"}, "random has no start"),
            (LAYERED, {"optimizer": "mine:Mine"}, "mine:Mine is your own"),
            (LAYERED, {"trials": 700}, "700 trials are enough to search 16 values at once"),
            (LAYERED, {"items": 70_000, "known": 3}, "697 trials are enough"),
            (LAYERED, {"seconds": 60}, "nobody knows how many trials"),
            (LAYERED, {"stages": False}, "search.stages is false"),
            (PLAIN, {}, "2 values, of which hardly any belong together"),
            (PLAIN, {"stages": ["model", "layer"]}, "they would all be the same"),
            (MIXED, {}, "5 values, of which hardly any belong together"),
        ],
    )
    def test_without_stages_there_is_a_reason(self, space, search, reason):
        found = plan(space, **search)
        assert found.stages == ()
        assert found.reason.startswith("no stages: ")
        assert reason in found.reason

    def test_levels_that_are_the_same_are_one(self):
        found = plan(trials=100, stages={"model": 0.2, "filter": 0.2, "layer": 0.6})
        assert [(each.level, each.questions) for each in found.stages] == [
            ("filter", 40),
            ("layer", None),
        ]

    def test_one_level_may_be_all(self):
        found = plan(trials=100, stages=["model"])
        assert [(each.level, each.questions) for each in found.stages] == [("model", None)]
        assert plan(seconds=60, stages=["model"]).stages == found.stages

    def test_wanted_stages_need_a_budget_of_trials_or_items(self):
        with pytest.raises(SpaceError, match=r"search.stages: .*search.trials or search.items"):
            plan(seconds=60, stages=["model", "layer"])

    def test_a_plan_is_kept_as_plain_data(self):
        found = plan(trials=100)
        assert StagePlan.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("name", ["cma", "tpe", "nsga2", "surrogate", "random"])
def test_a_real_space_in_stages(name):
    settings = SearchSettings(optimizer=name, trials=12, stages=["model", "layer"])
    start = LAYERED.from_unit([0.4] * 16)
    proposer = make_proposer(LAYERED, settings, start=start, known=[])
    together = []
    for number in range(12):
        point = proposer.ask(number)
        LAYERED.decode(point)
        models = [list(point.values())[:8], list(point.values())[8:]]
        together.append(all(len(set(values)) == 1 for values in models))
        proposer.tell(number, Told((0.1 * number,), (0.0,), 10))
    assert all(together[:4])
    assert not all(together[4:])  # a point of the later stage may be even, too


def test_weights_of_a_simplex_move_together():
    data = yaml.safe_load(RECIPE.replace("WEIGHT", "{search: [0, 1], layers: 4}"))
    data["simplex"] = ["math.weight", "code.weight"]
    space = parse_space(data)
    settings = SearchSettings(optimizer="cma", trials=20, stages=["model", "layer"])

    def make():
        start = space.from_unit([0.5] * 8)
        return make_proposer(space, settings, start=start, known=[])

    first, points = make(), []
    for number in range(20):
        points.append(first.ask(number))
        first.tell(number, Told((points[-1]["math.weight[0]"],), (0.0,)))
        weights = space.decode(points[-1]).to_dict()["models"]
        sums = np.sum([model["parameters"]["weight"] for model in weights], axis=0)
        assert sums == pytest.approx(1.0)
    again = make()
    for number, point in enumerate(points):
        again.recall(number, point)
        again.tell(number, Told((point["math.weight[0]"],), (0.0,)))
    assert again.ask(20) == first.ask(20)


SEARCH = {"trials": 24, "population": 4, "stages": ["model", "layer"]}


class TestDriver:
    """Stages in a whole search, whose study is all that a later process has."""

    def test_a_run_that_goes_on_with_more_trials_keeps_its_stages(self, tmp_path):
        first = Harness(tmp_path, **SEARCH)
        first.drive(InstantPool())
        kept = first.study().attributes["stages"]
        assert [each["level"] for each in kept["stages"]] == ["model", "layer"]
        more = Harness(tmp_path, **(SEARCH | {"trials": 40}))
        study = more.drive(InstantPool())
        assert len(study.records) == 40
        assert study.attributes["stages"] == kept
        together = [
            record.point["code.weight[0]"] == record.point["code.weight[1]"]
            for record in study.records.values()
            if record.kind == "proposed"
        ]
        assert together[:3] == [True] * 3
        assert together[-10:] == [False] * 10

    def test_a_run_that_was_begun_without_stages_goes_on_without(self, tmp_path):
        first = Harness(tmp_path, **(SEARCH | {"trials": 12, "stages": False}))
        first.drive(InstantPool()).set_attribute("stages", None)
        study = Harness(tmp_path, **(SEARCH | {"trials": 16})).drive(InstantPool())
        assert len(study.records) == 16
        assert study.attributes["stages"]["stages"] == []

    @pytest.mark.parametrize("budget", [{"trials": 20}, {"trials": None, "items": 1600}])
    def test_a_run_that_was_stopped_goes_on_the_same(self, tmp_path, budget):
        search = SEARCH | budget
        whole = Harness(tmp_path / "whole", **search)
        whole.drive(InstantPool())
        for stop in (8, 11, 14):
            stopped = Harness(tmp_path / str(stop), **search)
            assert not stopped.drive_until_stopped(InstantPool(stop_after=stop))
            stopped.drive(InstantPool())
            assert stopped.trials() == whole.trials()
