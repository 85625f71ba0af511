"""The outcome of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge.evaluation import Comparison
from evomerge.search.fronts import Fronts
from evomerge.search.optimism import Optimism
from evomerge.search.records import TrialRecord
from evomerge.search.verdicts import Verdict

__all__ = ["Preference", "RunResult", "VersusBaseline"]


@dataclass(frozen=True)
class VersusBaseline:
    """The winner against one baseline, paired on the held-out items.

    Attributes:
        baseline: The baseline's trial.
        comparison: Winner minus baseline.
    """

    baseline: TrialRecord
    comparison: Comparison


@dataclass(frozen=True)
class Preference:
    """Why the winner is where the climb led, though another finalist's held-out score is higher.

    Attributes:
        best: That finalist's trial.
        comparison: It minus the winner: no significant difference.
    """

    best: TrialRecord
    comparison: Comparison

    def sentence(self) -> str:
        """Return what a report says about it."""
        return (
            f"On held-out items {self.best.label} is better than the winner by "
            f"{self.comparison.difference:.3f} ± {self.comparison.stderr:.3f}: where that is not "
            "significant, the climb's end wins, because nobody chose it for its search score."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the form of ``result.json``."""
        found = self.comparison
        return {
            "trial": self.best.number,
            "difference": found.difference,
            "stderr": found.stderr,
        }


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        space: Name of the space.
        seed: The run's seed.
        trials: Every trial of the study, by number.
        finalists: The candidates scored on held-out items, the winner first, then by these scores.
        comparisons: The winner against each baseline.
        optimism: How much too high the winner's search score was, if it was scored on both.
        fronts: Pareto fronts and what they cover; None with one objective.
        verdicts: Finalist -> what became of each constraint on the held-out items.
        seconds: Where the time went, over all sessions of the run.
        climb: What the climb was, as ``result.json`` has it; None without one.
        preference: Why the winner is not the finalist with the best held-out score; None if it is.
        proxy: What made the models that search items were scored with others than those that are
            exported; None where nothing did.
    """

    space: str
    seed: int
    trials: tuple[TrialRecord, ...]
    finalists: tuple[TrialRecord, ...]
    comparisons: tuple[VersusBaseline, ...]
    seconds: Mapping[str, float]
    climb: Mapping[str, Any] | None = None
    preference: Preference | None = None
    proxy: str | None = None
    optimism: Optimism | None = None
    fronts: Fronts | None = None
    verdicts: Mapping[int, tuple[Verdict, ...]] = field(default_factory=dict)

    @property
    def winner(self) -> TrialRecord:
        """The finalist that was chosen on the held-out items."""
        return self.finalists[0]

    @property
    def winner_verdicts(self) -> tuple[Verdict, ...]:
        """What became of each constraint for the winner; empty without constraints."""
        return self.verdicts.get(self.winner.number, ())

    @property
    def pareto_front(self) -> tuple[TrialRecord, ...]:
        """The finalists' Pareto front on the held-out items; empty with one objective."""
        return () if self.fronts is None else self.fronts.holdout

    @property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the objectives, where there are several."""
        summary = self.winner.holdout
        return () if summary is None else tuple(summary.objectives)

    @property
    def baselines(self) -> tuple[TrialRecord, ...]:
        """The trials nobody searched for."""
        return tuple(record for record in self.trials if record.is_baseline)

    @property
    def item_evaluations(self) -> int:
        """Items that the models were asked for in all, search and held-out, the climb included."""
        climb = 0 if self.climb is None else int(self.climb["item_evaluations"])
        return climb + sum(n for record in self.trials for n in record.scored_items.values())

    def notes(self) -> tuple[str, ...]:
        """Return what has to be said about the winner and its scores."""
        found = [self.preference.sentence()] if self.preference else []
        found += [self.optimism.sentence()] if self.optimism else []
        if self.proxy is not None:
            found.append(
                f"Search scores are those of a proxy, the engine with {self.proxy}; held-out "
                "scores are those of the weights that are exported."
            )
        return tuple(found)

    def versus(self, kind: str) -> VersusBaseline | None:
        """Return the comparison with the best baseline of a kind on held-out items."""
        found = [c for c in self.comparisons if c.baseline.kind == kind and c.baseline.holdout]
        return max(found, key=_holdout_value, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``result.json``."""
        states = [record.state for record in self.trials]
        return {
            **self._fronts_dict(),
            **self._constraints_dict(),
            "space": self.space,
            "seed": self.seed,
            "item_evaluations": self.item_evaluations,
            **({} if self.climb is None else {"climb": dict(self.climb)}),
            **({} if self.proxy is None else {"proxy": self.proxy}),
            "trials": {state: states.count(state) for state in ("complete", "failed", "pruned")},
            "seconds": {key: round(value, 4) for key, value in self.seconds.items()},
            "winner": {"trial": self.winner.number, **_scores(self.winner)},
            **({} if self.preference is None else {"preferred_to": self.preference.to_dict()}),
            "finalists": [
                {"trial": r.number, **_scores(r), **self._verdicts_dict(r)} for r in self.finalists
            ],
            "baselines": [
                {"name": r.label, "kind": r.kind, "trial": r.number, **_scores(r)}
                for r in self.baselines
            ],
            "comparisons": [
                {
                    "baseline": versus.baseline.label,
                    "kind": versus.baseline.kind,
                    "difference": versus.comparison.difference,
                    "stderr": versus.comparison.stderr,
                    "interval": list(versus.comparison.interval),
                    "p_value": versus.comparison.p_value,
                }
                for versus in self.comparisons
            ],
            "optimism": self.optimism.to_dict() if self.optimism else {},
            "failures": [
                {"trial": r.number, "reason": r.reason} for r in self.trials if r.state == "failed"
            ],
        }

    def _fronts_dict(self) -> dict[str, Any]:
        if self.fronts is None:
            return {}
        names = self.objective_names
        return {
            "pareto_front": [
                {
                    "trial": record.number,
                    "surpassed_by": list(self.fronts.surpassed.get(record.number, ())),
                    **_scores(record),
                    **self._verdicts_dict(record),
                }
                for record in self.fronts.holdout
            ],
            "search_front": [
                {
                    "trial": record.number,
                    "objectives": {n: asdict(e) for n, e in record.search.objectives.items()},
                }
                for record in self.fronts.search
                if record.search is not None
            ],
            "hypervolume": {
                split: cover.to_dict(names) for split, cover in self.fronts.coverage.items()
            },
        }

    def _constraints_dict(self) -> dict[str, Any]:
        mine = self.winner_verdicts
        if not mine:
            return {}
        verdicts = [each.to_dict() for each in mine]
        return {"constraints": {"hold": all(each.holds for each in mine), "winner": verdicts}}

    def _verdicts_dict(self, record: TrialRecord) -> dict[str, Any]:
        mine = self.verdicts.get(record.number, ())
        return {"constraints": [each.to_dict() for each in mine]} if mine else {}


def _holdout_value(versus: VersusBaseline) -> float:
    summary = versus.baseline.holdout
    return summary.objective.value if summary else float("-inf")


def _scores(record: TrialRecord) -> dict[str, Any]:
    return {
        "search": record.search.to_dict() if record.search else {},
        "holdout": record.holdout.to_dict() if record.holdout else {},
    }
