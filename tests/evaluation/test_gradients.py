"""Slopes by one backward pass, against differences of real scores and against exact autograd."""

import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.evaluation.calibration import Logistic
from evomerge.evaluation.gradients import GoldGradient
from evomerge.search import worker_spec
from evomerge.space import load_space
from evomerge.workers import Assignment, Failed, Scored, Sloped, open_pool
from tests.conftest import ROOT, small_space

PLAYGROUND = ROOT / "search_spaces" / "playground"
EXPERTS = ("add", "reverse", "sort")
STEP = 0.02


def path(name):
    return str(PLAYGROUND / name)


def weighted(method, *, dtype="float32", **parameters):
    weight = [{"filter": "self_attn", "value": {"search": [0, 1]}}, {"value": {"search": [0, 1]}}]
    models = [{"model": path(each), "parameters": {"weight": weight}} for each in EXPERTS]
    recipe = {"merge_method": method, "models": models, "dtype": dtype}
    return {**recipe, "base_model": path("base"), "parameters": parameters}


RECIPES = {
    "task_arithmetic": weighted("task_arithmetic"),
    "ties": weighted("ties", density=0.6, normalize=False),
    "slerp": {
        "merge_method": "slerp",
        "base_model": path("add"),
        "models": [{"model": path("add")}, {"model": path("sort")}],
        "parameters": {"t": {"search": [0, 1], "layers": 3}},
        "dtype": "float32",
    },
}


def open_space(folder, recipe, **options):
    return load_space(small_space(folder / "space.yml", recipe=recipe, **options))


def ask(pool, **assignment):
    pool.submit(Assignment(0, split="search", **assignment))
    return pool.wait()


def recipe_at(space, vector):
    return space.decode(space.from_unit(vector)).to_dict()


def beside(space, vector, step=STEP):
    points = np.array(vector) + step * np.eye(len(vector))
    return tuple(recipe_at(space, each) for each in points)


def slopes_at(pool, space, vector, step=STEP, **options):
    tangents = beside(space, vector, step)
    found = ask(pool, recipe=recipe_at(space, vector), tangents=tangents, **options)
    assert isinstance(found, Sloped), found
    return found, np.array(found.slopes) / step


WORTH = {"playground_add": Logistic(5.0, -1.2), "playground_sort": Logistic(9.0, -0.8)}


def worths(task, probabilities, worth):
    if task not in worth:
        return probabilities
    curve = worth[task]
    return 1 / (1 + np.exp(-curve.slope * (np.log(probabilities) - curve.middle)))


def true_value(pool, recipe, items=None, worth=()):
    scored = ask(pool, recipe=recipe, items=items)
    assert isinstance(scored, Scored), scored
    return sum(
        pool.info.objective[name] * worths(name, task.values, worth).mean()
        for name, task in scored.scores.smooth.items()
    )


@pytest.mark.parametrize(
    ("name", "worth"), [*((name, {}) for name in RECIPES), ("task_arithmetic", WORTH)]
)
def test_slopes_are_those_of_the_real_scores(tmp_path, name, worth):
    space = open_space(tmp_path, RECIPES[name])
    vector = np.linspace(0.3, 0.6, len(space.dimensions))
    with open_pool(worker_spec(space, device="cpu")) as pool:
        found, forward = slopes_at(pool, space, vector, worth=worth)
        _, backward = slopes_at(pool, space, vector, -STEP, worth=worth)
        slopes = (forward + backward) / 2
        wanted = true_value(pool, recipe_at(space, vector), worth=worth)
        assert found.value == pytest.approx(wanted, rel=1e-4)
        ups, downs = beside(space, vector), beside(space, vector, -STEP)
        measured = np.array(
            [
                true_value(pool, up, worth=worth) - true_value(pool, down, worth=worth)
                for up, down in zip(ups, downs, strict=True)
            ]
        )
        measured /= 2 * STEP
    assert slopes @ measured > 0.999 * np.linalg.norm(slopes) * np.linalg.norm(measured)
    assert slopes == pytest.approx(measured, abs=float(0.1 * np.abs(measured).max()))


def exact(pool, vector, dtype):
    """The same by autograd through a merge of its own, with another tokenization."""
    models = {
        name: AutoModelForCausalLM.from_pretrained(path(name), dtype=torch.float32)
        for name in ("base", *EXPERTS)
    }
    model, tokenizer = models["base"], AutoTokenizer.from_pretrained(path("base"))
    tensors = {
        name: {key: value.detach().to(dtype).float() for key, value in each.named_parameters()}
        for name, each in models.items()
    }
    weights = torch.tensor(vector, dtype=torch.float32).reshape(3, 2).requires_grad_()

    def log_probability(merged, prompt, answer):
        head = tokenizer("1")["input_ids"][:-1]
        prompt, answer = (
            tokenizer(x, add_special_tokens=False)["input_ids"] for x in (prompt, answer)
        )
        ids = torch.tensor([head + prompt + answer])
        logits = functional_call(model, merged, (ids,)).logits[0, :-1].log_softmax(-1)
        return logits.gather(1, ids[0, 1:, None])[-len(answer) :].sum()

    merged = {
        key: base
        + sum(
            weights[i, 0 if "self_attn" in key else 1] * (tensors[name][key] - base)
            for i, name in enumerate(EXPERTS)
        )
        for key, base in tensors["base"].items()
    }
    tasks, items = pool._worker._tasks.tasks, pool._worker.info.ids["search"]
    total = 0.0
    for item in items["playground_add"]:
        document = tasks["playground_add"].document(item)
        answer = log_probability(merged, document["prompt"], str(document["answer"]))
        total = total + answer.exp() / len(items["playground_add"]) / 2
    for item in items["playground_sort"]:
        document = tasks["playground_sort"].document(item)
        choices = [log_probability(merged, document["prompt"], c) for c in document["choices"]]
        right = torch.stack(choices).softmax(0)[document["answer"]]
        total = total + right / len(items["playground_sort"]) / 2
    total.backward()
    return total.item(), weights.grad.flatten().numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slopes_of_a_linear_merge_are_exact(tmp_path, dtype):
    recipe = weighted("task_arithmetic", dtype=dtype)
    space = open_space(tmp_path, recipe, evaluation={"search_items": 12})
    vector = [0.3, 0.5, 0.45, 0.6, 0.2, 0.35]
    with open_pool(worker_spec(space, device="cpu")) as pool:
        found, slopes = slopes_at(pool, space, vector)
        value, wanted = exact(pool, vector, getattr(torch, dtype))
    # In bfloat16 the live model is the rounded merge, the exact one is not.
    tolerance = 1e-3 if dtype == "float32" else 0.05
    assert found.value == pytest.approx(value, rel=tolerance)
    assert slopes == pytest.approx(wanted, abs=float(tolerance * np.abs(wanted).max()))


@pytest.fixture
def opened(tmp_path):
    space = open_space(tmp_path, None)
    with open_pool(worker_spec(space, device="cpu")) as pool:
        yield pool, space


def test_the_model_is_frozen_after_as_before_and_scores_the_same(opened):
    pool, space = opened
    recipe = recipe_at(space, [0.3, 0.3, 0.3])
    before = ask(pool, recipe=recipe).scores
    slopes_at(pool, space, [0.3, 0.3, 0.3])
    model = pool._worker._evaluator.live_model.model
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert ask(pool, recipe=recipe).scores == before


def test_the_items_asked_for_count(opened):
    pool, space = opened
    ids = pool.info.ids["search"]
    items = {
        "playground_add": ids["playground_add"][:5],
        "playground_sort": ids["playground_sort"][5:8],
    }
    found, _ = slopes_at(pool, space, [0.4, 0.3, 0.2], items=items)
    assert found.items == 8
    wanted = true_value(pool, recipe_at(space, [0.4, 0.3, 0.2]), items)
    assert found.value == pytest.approx(wanted, rel=1e-4)
    assert set(found.seconds) == {"materialize", "score", "tangents"}


def test_smaller_batches_after_out_of_memory_give_the_same_slopes(opened, monkeypatch):
    pool, space = opened
    before, slopes = slopes_at(pool, space, [0.4, 0.3, 0.2])
    sizes = []
    inside = GoldGradient._likelihoods

    def small_memory(self, pairs):
        sizes.append(len(pairs))
        if len(pairs) > 10:
            raise torch.OutOfMemoryError("no room")
        return inside(self, pairs)

    monkeypatch.setattr(GoldGradient, "_likelihoods", small_memory)
    after, same = slopes_at(pool, space, [0.4, 0.3, 0.2])
    assert max(sizes) > 10
    assert after.value == pytest.approx(before.value, rel=1e-5)
    assert same == pytest.approx(slopes, rel=1e-3, abs=1e-5)
    assert pool._worker._evaluator.live_model.batch_size == 64

    def no_memory(self, pairs):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(GoldGradient, "_likelihoods", no_memory)
    failed = ask(pool, recipe=recipe_at(space, [0.4] * 3), tangents=beside(space, [0.4] * 3))
    assert isinstance(failed, Failed)
    assert "ran out of memory in the backward pass of one item" in failed.reason
    assert all(p.grad is None for p in pool._worker._evaluator.live_model.model.parameters())


def test_a_tangent_with_other_tensors_or_a_task_without_gold_fails(tmp_path, opened):
    pool, space = opened
    recipe = recipe_at(space, [0.4] * 3)
    failed = ask(pool, recipe=recipe, tangents=({**recipe, "merge_method": "no such"},))
    assert isinstance(failed, Failed)
    tasks = [{"name": "playground_add", "metric": "exact_match", "smooth": False}]
    plain = load_space(small_space(tmp_path / "plain.yml", tasks=tasks))
    with open_pool(worker_spec(plain, device="cpu")) as pool:
        assert pool.info.climbable == ()
        failed = ask(pool, recipe=recipe, tangents=(recipe,))
    assert isinstance(failed, Failed)
    assert "no probability of a gold answer to climb" in failed.reason


def test_where_there_is_no_memory_for_a_gradient_it_is_refused_before(opened, monkeypatch):
    pool, space = opened
    monkeypatch.setattr("evomerge.evaluation.gradients._free_memory", lambda: 1000)
    here = [0.4] * len(space.dimensions)
    outcome = ask(pool, recipe=recipe_at(space, here), tangents=beside(space, here))
    assert isinstance(outcome, Failed)
    assert "a gradient takes" in outcome.reason
