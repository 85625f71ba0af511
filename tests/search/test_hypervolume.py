"""Hypervolume: against Optuna's, against counting, and its rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from evomerge.search.hypervolume import (
    estimated_steps,
    exclusive_volume,
    hypervolume,
    is_quick,
    is_surpassed,
    spread_out,
    volume_steps,
)


def drawn(seed, num, objectives, *, steps=0):
    """Return random points; with ``steps`` on a grid, so that many coordinates are equal."""
    generator = np.random.default_rng(seed)
    if steps:
        return generator.integers(0, steps, size=(num, objectives)).astype(float)
    return generator.random((num, objectives))


def counted(points, reference, top):
    """Count the unit cells of a grid that points on it cover."""
    sides = [np.arange(low, top) for low in reference]
    cells = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(reference))
    return sum(any((np.asarray(p) > cell).all() for p in points) for cell in cells)


def test_by_hand():
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (0, 0)) == 6
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (1, 1)) == 1
    assert hypervolume([(1, 1, 2), (2, 1, 1), (1, 2, 1)], (0, 0, 0)) == 4
    assert hypervolume([(-1, 9), (9, -1), (0, 5)], (0, 0)) == 0, "not better than the reference"
    assert hypervolume([(2,), (5,), (3,)], (1,)) == 4
    assert hypervolume([], (0, 0)) == 0
    with pytest.raises(ValueError, match="points have 2 objectives, the reference 3"):
        hypervolume([(1, 2)], (0, 0, 0))


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("num", [1, 3, 9])
def test_it_counts_cells(objectives, num):
    points = drawn(num, num, objectives, steps=5)
    assert hypervolume(points, [0] * objectives) == counted(points, [0] * objectives, 5)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
@pytest.mark.parametrize("steps", [0, 4])
def test_it_is_optunas(objectives, steps):
    """Optuna's routine is private and minimizes; here it is only the reference."""
    for seed in range(5):
        points = drawn(seed, 25, objectives, steps=steps)
        inside = points[(points > 0).all(axis=1)]
        wanted = compute_hypervolume(-inside, np.zeros(objectives))
        assert hypervolume(points, np.zeros(objectives)) == pytest.approx(wanted)
        assert volume_steps(points, np.zeros(objectives))[-1] == pytest.approx(wanted)


@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([0, 3]))
def test_rules(seed, objectives, steps):
    points = drawn(seed, 8, objectives, steps=steps)
    reference = np.full(objectives, 0.1)
    whole = hypervolume(points, reference)
    turned = np.random.default_rng(seed).permutation(8)
    assert hypervolume(points[turned], reference) == pytest.approx(whole)
    assert hypervolume(points[:, ::-1], reference) == pytest.approx(whole)
    assert hypervolume(points + 5, reference + 5) == pytest.approx(whole)
    assert hypervolume(np.vstack([points, points[:3]]), reference) == pytest.approx(whole)
    growth = volume_steps(points, reference)
    assert growth == sorted(growth)
    for count in (1, 4, 8):
        assert growth[count - 1] == pytest.approx(hypervolume(points[:count], reference))
        added = exclusive_volume(points[0], points[1:count], reference)
        without = hypervolume(points[1:count], reference)
        assert without + added == pytest.approx(growth[count - 1])


def test_who_is_surpassed():
    points = [(1, 1), (2, 0), (1, 1), (0, 3), (0, 2), (2, -1)]
    assert is_surpassed(points).tolist() == [False, False, False, False, True, True]
    assert is_surpassed([]).tolist() == []
    points = drawn(3, 60, 3, steps=6)
    slow = [
        any((other >= mine).all() and (other > mine).any() for other in points) for mine in points
    ]
    assert is_surpassed(points).tolist() == slow


def test_the_estimate_is_near_and_used_for_large_fronts_only():
    points = drawn(0, 40, 5)
    wanted = hypervolume(points, [0.2] * 5)
    assert estimated_steps(points, [0.2] * 5)[-1] == pytest.approx(wanted, rel=0.05)
    assert estimated_steps([(-1.0, 2.0)], [0, 0]) == [0]
    assert is_quick(points)
    assert is_quick(drawn(0, 5000, 2))
    sphere = np.abs(np.random.default_rng(0).normal(size=(150, 5)))
    assert not is_quick(sphere / np.linalg.norm(sphere, axis=1, keepdims=True))


def test_spreading_out():
    """Of ten points in a row, four of them crowded at one end, those are taken that cover most."""
    points = [(i / 10, 1 - i / 10) for i in (1, 2, 3, 4, 5, 6, 9)] + [(0.91, 0.09), (0.92, 0.08)]
    chosen = spread_out(points, (0, 0), 3, first=(0, 8))
    assert chosen[:2] == [0, 8]
    assert points[chosen[2]] == (0.5, 0.5)
    assert spread_out(points, (0, 0), 20)[:1] == [4]
    assert sorted(spread_out(points, (0, 0), 20)) == list(range(9))
    assert spread_out(points, (2, 2), 2) == [0, 1], "nothing adds anything: the given order"
    assert spread_out(points, (0, 0), 1, first=(3, 3, 5)) == [3]
