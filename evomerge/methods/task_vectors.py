"""The task-vector family: one composition of sparsify, consensus and scale.

With task vectors `d_i = x_i - base`:

    out = base + lambda * consensus_i(w_i * sparsify(d_i))

| method | sparsify | consensus |
|---|---|---|
| task_arithmetic | none | sum |
| ties | keep the largest magnitudes | elected sign |
| breadcrumbs | keep large magnitudes but the largest | sum |
| breadcrumbs_ties | the same | elected sign |
| dare_linear | drop at random, rescale | sum |
| dare_ties | the same | elected sign |
| della_linear | drop small magnitudes more often, rescale | sum |
| della | the same | elected sign |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from evomerge.errors import RecipeError
from evomerge.methods.draws import draw_bound, draw_level, keep, level_bound
from evomerge.methods.fields import Sparse, TaskVector
from evomerge.methods.interface import Block, Facts, Field, Kernel, Settings, Threshold, Value
from evomerge.methods.program import Program
from evomerge.methods.sparsifiers import (
    Clear,
    Drop,
    RankedDrop,
    Selection,
    Sparsifier,
    trim,
    window,
)

__all__ = [
    "NO_WEIGHT",
    "TaskVectors",
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "task_arithmetic",
    "ties",
]

NO_WEIGHT = 1e-8
"""A sum of weights nearer to 0 is none, and nothing is divided by it."""

_FIRST_TERM = 2  # scratch 0 and 1 belong to sparsifiers and to the election


@dataclass(frozen=True, slots=True)
class TaskVectors:
    """The kernel of the family; input 0 is the base.

    Attributes:
        weights: w_i of inputs 1, 2, ….
        gains: Factors on the sparse task vectors: w_i times the rescaling.
        sparsifiers: One for each task vector, or None to keep all of it.
        elect: Whether a sign is elected and only what agrees is summed.
        normalize: Whether to divide by the sum of the weights that took part.
        scale: lambda.
        select: Keeps the elements where a field common to all task vectors is among the largest.
        plain_vote: Whether each task vector counts the same in the election, whatever its gain.
    """

    weights: tuple[float, ...]
    gains: tuple[float, ...]
    sparsifiers: tuple[Sparsifier | None, ...]
    elect: bool
    normalize: bool
    scale: float
    select: Selection | None = None
    plain_vote: bool = False

    def __call__(self, block: Block, out: torch.Tensor) -> None:
        """Merge one block."""
        base = block.load(0)
        selected = self.select.mask(block) if self.select is not None else None
        if self.elect:
            self._sum_agreeing(block, base, selected, out)
        else:
            self._sum_all(block, base, out)
        if self.factor != 1.0:
            out.mul_(self.factor)
        out.add_(base)

    @property
    def factor(self) -> float:
        """What the sum is multiplied by: lambda, over the sum of all weights if all take part."""
        total = sum(self.weights)
        shared = self.normalize and not self.elect and abs(total) > NO_WEIGHT
        return self.scale / total if shared else self.scale

    def _sum_all(self, block: Block, base: torch.Tensor, out: torch.Tensor) -> None:
        for i in range(len(self.weights)):
            term = out if i == 0 else block.scratch(_FIRST_TERM)
            self._sparse(i, block, base, term)
            term.mul_(self.gains[i])
            if i:
                out.add_(term)

    def _sum_agreeing(
        self, block: Block, base: torch.Tensor, selected: torch.Tensor | None, out: torch.Tensor
    ) -> None:
        """Elect the sign of the sum and add what has it (Yadav et al. 2023, section 3)."""
        terms = [block.scratch(_FIRST_TERM + i) for i in range(len(self.weights))]
        for i, term in enumerate(terms):
            self._sparse(i, block, base, term)
            if selected is not None:
                # keep spoils its mask
                keep(term, block.integers(0).copy_(selected))
            if not self.plain_vote:
                term.mul_(self.gains[i])
            out.copy_(term) if i == 0 else out.add_(term)
        # gamma = sgn(sum_i w_i d_i), where a sum of 0 counts as plus
        sign, spare = block.scratch(0), block.scratch(1)
        torch.ge(out, 0.0, out=sign)
        sign.mul_(2.0).sub_(1.0)
        # Times the sign, what agrees is positive: the rest is clamped away and 0 never agrees.
        for i, term in enumerate(terms):
            term.mul_(sign).clamp_(min=0.0)
            if self.plain_vote:
                term.mul_(self.gains[i])
            out.copy_(term) if i == 0 else out.add_(term)
        out.mul_(sign)
        if self.normalize:
            # The sign is not needed any more: its memory takes the divisor.
            divisor = sign.zero_()
            for weight, term in zip(self.weights, terms, strict=True):
                divisor.add_(torch.gt(term, 0.0, out=spare).mul_(weight))
            torch.abs(divisor, out=spare)
            # Nothing agrees: 0 / (0 + 1)
            divisor.add_(torch.lt(spare, NO_WEIGHT, out=spare))
            out.div_(divisor)

    def write(self, program: Program) -> str:
        """Write the same for one element."""
        terms = [program.task_vector(i + 1) for i in range(len(self.weights))]
        terms = [
            term if sparsify is None else sparsify.write(program, term)
            for term, sparsify in zip(terms, self.sparsifiers, strict=True)
        ]
        gains = [program.number(gain) for gain in self.gains]
        total = (
            self._write_agreeing(program, terms, gains)
            if self.elect
            else program.sum(_write_products(program, terms, gains))
        )
        return program.let(f"{total} * {program.number(self.factor)} + {program.load(0)}")

    def _write_agreeing(self, program: Program, terms: list[str], gains: list[str]) -> str:
        if self.select is not None:
            terms = [self.select.write(program, term) for term in terms]
        votes = terms if self.plain_vote else _write_products(program, terms, gains)
        sign = program.let(f"where({program.sum(votes)} >= F(0.0), F(1.0), F(-1.0))")
        terms = [program.let(f"at_least({vote} * {sign}, F(0.0))") for vote in votes]
        if self.plain_vote:
            terms = _write_products(program, terms, gains)
        total = program.let(f"{program.sum(terms)} * {sign}")
        if not self.normalize:
            return total
        weights = [program.number(weight) for weight in self.weights]
        shares = [
            program.let(f"where({term} > F(0.0), {weight}, F(0.0))")
            for term, weight in zip(terms, weights, strict=True)
        ]
        divisor = program.sum(shares)
        none = f"abs({divisor}) < F({NO_WEIGHT!r})"
        divisor = program.let(f"where({none}, {divisor} + F(1.0), {divisor})")
        return program.let(f"{total} / {divisor}")

    def _sparse(self, i: int, block: Block, base: torch.Tensor, term: torch.Tensor) -> None:
        torch.sub(block.load(i + 1), base, out=term)
        sparsifier = self.sparsifiers[i]
        if sparsifier is not None:
            sparsifier(block, term)


def _write_products(program: Program, terms: list[str], factors: list[str]) -> list[str]:
    pairs = zip(terms, factors, strict=True)
    return [program.let(f"{term} * {factor}") for term, factor in pairs]


def task_arithmetic(settings: Settings, facts: Facts) -> Kernel:
    """`out = base + lambda sum_i w_i d_i` (Ilharco et al. 2023, section 2)."""
    del facts
    weights = settings.numbers("weight")
    return _compose(settings, weights, (None,) * len(weights), elect=False)


def ties(settings: Settings, facts: Facts) -> Kernel:
    """Trim, elect sign, disjoint merge (Yadav et al. 2023, section 3)."""
    sparsifiers = tuple(
        trim(facts, _threshold(facts, i), float(values["density"]))
        for i, values in enumerate(settings.own, start=1)
    )
    return _compose(settings, settings.numbers("weight"), sparsifiers, elect=True)


def breadcrumbs(settings: Settings, facts: Facts) -> Kernel:
    """Mask both tails (Davari and Belilovsky 2023, section 3), then the weighted sum."""
    return _breadcrumbs(settings, facts, elect=False)


def breadcrumbs_ties(settings: Settings, facts: Facts) -> Kernel:
    """Mask both tails (Davari and Belilovsky 2023, section 3), elect sign, disjoint merge."""
    return _breadcrumbs(settings, facts, elect=True)


def _breadcrumbs(settings: Settings, facts: Facts, *, elect: bool) -> Kernel:
    sparsifiers = tuple(
        window(facts, _threshold(facts, i), float(values["density"]), float(values["gamma"]))
        for i, values in enumerate(settings.own, start=1)
    )
    return _compose(settings, settings.numbers("weight"), sparsifiers, elect=elect)


def dare_linear(settings: Settings, facts: Facts) -> Kernel:
    """Drop and rescale (Yu et al. 2024, section 3.2), then the weighted sum."""
    return _randomly(settings, facts, _drop, elect=False)


def dare_ties(settings: Settings, facts: Facts) -> Kernel:
    """Drop and rescale (Yu et al. 2024, section 3.2), then elect sign and disjoint merge."""
    return _randomly(settings, facts, _drop, elect=True)


def check_probabilities(settings: Settings) -> None:
    """Refuse densities of DELLA whose range, density +- epsilon, leaves (0, 1).

    A density of 0 or 1 drops or keeps everything, whatever the range.
    """
    for values in settings.own:
        density, epsilon = float(values["density"]), float(values["epsilon"])
        if not 0.0 < density < 1.0 or (density - epsilon > 0.0 and density + epsilon < 1.0):
            continue
        raise RecipeError(
            "della keeps elements with probabilities from density - epsilon to density + epsilon, "
            f"which must lie between 0 and 1: got {density:g} - {epsilon:g} and "
            f"{density:g} + {epsilon:g}; choose a smaller epsilon"
        )


def della_linear(settings: Settings, facts: Facts) -> Kernel:
    """Magnitude-based sampling (Deep et al. 2024, section 3), then the weighted sum."""
    check_probabilities(settings)
    return _randomly(settings, facts, _ranked_drop, elect=False)


def della(settings: Settings, facts: Facts) -> Kernel:
    """Magnitude-based sampling, elect sign, fuse (Deep et al. 2024, section 3)."""
    check_probabilities(settings)
    return _randomly(settings, facts, _ranked_drop, elect=True)


def _randomly(
    settings: Settings,
    facts: Facts,
    make: Callable[[Facts, int, Mapping[str, Value]], Sparsifier],
    *,
    elect: bool,
) -> Kernel:
    sparsifiers: list[Sparsifier | None] = []
    for i, values in enumerate(settings.own, start=1):
        density = float(values["density"])
        if density >= 1.0:
            sparsifiers.append(None)
        elif density <= 0.0:
            sparsifiers.append(Clear())
        else:
            sparsifiers.append(make(facts, i, values))
    gains = settings.numbers("weight")
    if settings.flag("rescale"):
        factors = _rescaling(settings, facts, sparsifiers)
        gains = tuple(gain * factor for gain, factor in zip(gains, factors, strict=True))
    return _compose(settings, gains, tuple(sparsifiers), elect=elect)


def _drop(facts: Facts, i: int, values: Mapping[str, Value]) -> Sparsifier:
    return Drop(facts.draws(i), level_bound(draw_level(float(values["density"]))))


def _ranked_drop(facts: Facts, i: int, values: Mapping[str, Value]) -> Sparsifier:
    """Keep with a probability that rises with the rank in the row, density +- epsilon."""
    density, epsilon = float(values["density"]), float(values["epsilon"])
    steps = max((facts.shape[-1] if facts.shape else 1) - 1, 0)
    # A row of one element has no order: it is kept with the density.
    low = draw_bound(density - epsilon if steps else density)
    step = (draw_bound(density + epsilon) - low) // steps if steps else 0
    return RankedDrop(facts.draws(i), facts.ranks(i), low, step)


def _rescaling(
    settings: Settings, facts: Facts, sparsifiers: Sequence[Sparsifier | None]
) -> list[float]:
    """Return the factors that make up for what was dropped."""
    factors = [1.0] * len(sparsifiers)
    dropped = [i for i, step in enumerate(sparsifiers) if isinstance(step, Drop | RankedDrop)]
    if settings.shared["rescale_norm"] == "density":
        densities = settings.numbers("density")
        for i in dropped:
            factors[i] = 1.0 / densities[i]  # Yu et al. 2024, equation 2: divide by 1 - p
        return factors
    fields: list[Field] = []
    for i in dropped:
        sparsify = sparsifiers[i]
        assert sparsify is not None  # noqa: S101 - it drops
        fields += [TaskVector(i + 1), Sparse(i + 1, sparsify)]
    totals = facts.totals(fields)
    for i, whole, kept in zip(dropped, totals[::2], totals[1::2], strict=True):
        factors[i] = whole / kept if kept > 0.0 else 1.0
    return factors


def _threshold(facts: Facts, i: int) -> Callable[[int], Threshold]:
    return lambda kept: facts.threshold(TaskVector(i), kept)


def _compose(
    settings: Settings,
    gains: tuple[float, ...],
    sparsifiers: tuple[Sparsifier | None, ...],
    *,
    elect: bool,
) -> TaskVectors:
    return TaskVectors(
        weights=settings.numbers("weight"),
        gains=gains,
        sparsifiers=sparsifiers,
        elect=elect,
        normalize=settings.flag("normalize"),
        scale=settings.number("lambda"),
    )
