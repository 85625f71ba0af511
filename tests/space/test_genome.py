"""Files of mergekit-evolve: the same merges as mergekit makes of a vector, and their conversion."""

import copy
import json
import random

import pytest
import yaml

from evomerge.errors import EvomergeError, SpaceError
from evomerge.search.baselines import baselines
from evomerge.space import convert_genome, load_space, mixture_point, parse_space
from tests.conftest import ROOT

GOLDEN = sorted((ROOT / "tests" / "space" / "genomes").glob("*.json"))
NUM_LAYERS = 4
TASKS = [{"name": "a", "metric": "acc"}]
GENOME = {
    "models": ["models/llama_a", "models/llama_b", "models/llama_c"],
    "merge_method": "ties",
    "base_model": "models/llama_base",
}


@pytest.fixture(autouse=True)
def beside_the_models(monkeypatch):
    monkeypatch.chdir(ROOT / "tests" / "golden")


def file_with(tasks=TASKS, top=None, **genome):
    return {"genome": {**GENOME, **genome}, "tasks": tasks, **(top or {})}


def point_of(genome, vector):
    """Name the numbers of a genotype: group of layers, model, group of tensors, parameter."""
    smooth, filters = genome.get("smooth"), [*genome.get("filters", []), None]
    slices = genome.get("layer_granularity", 0) and not smooth
    point = {}
    for group, of_group in enumerate(vector):
        for model, of_model in zip(genome["models"], of_group, strict=True):
            for name_filter, values in zip(filters, of_model, strict=True):
                for parameter, value in zip(("weight", "density"), values, strict=False):
                    parts = [model.removeprefix("models/"), parameter]
                    name = ".".join([*([f"slice{group}"] if slices else []), *parts])
                    name += f".{name_filter}" if name_filter else ""
                    name += f"[{group}]" if smooth and len(vector) > 1 else ""
                    point[name] = value_of(genome, parameter, value)
    return point


def value_of(genome, parameter, value):
    """A space searches what the absolute value is taken of; slerp reads differences alone."""
    if genome["merge_method"] == "slerp":
        return value + 1.5
    signed = parameter == "weight" and genome.get("allow_negative_weights")
    return value if signed else abs(value)


def plain(config):
    """A merge without what has no effect; one slice of all layers is the whole models."""
    config = copy.deepcopy(config)
    slerp = config["merge_method"] == "slerp"
    shared = config.pop("parameters", {})
    shared.pop("int8_mask", None)
    if slerp:
        shared.pop("normalize", None)
    slices = config.get("slices", [])
    if len(slices) == 1:
        (part,) = config.pop("slices")
        for source in part["sources"]:
            assert source.pop("layer_range") == [0, NUM_LAYERS]
        config["models"] = part["sources"]
        config["base_model"] = part.get("base_model", config.get("base_model"))
        shared |= part.get("parameters", {})
    if shared:
        config["parameters"] = shared
    return {key: value for key, value in config.items() if value is not None}


def close(value):
    if isinstance(value, dict):
        return {key: close(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [close(inner) for inner in value]
    return pytest.approx(value, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_vector_gives_the_merge_that_mergekit_makes_of_it(path):
    golden = json.loads(path.read_text())
    space = parse_space({"genome": golden["genome"], "tasks": TASKS})
    assert golden["cases"]
    for case in golden["cases"]:
        point = point_of(golden["genome"], case["vector"])
        assert sorted(point) == sorted(d.name for d in space.dimensions)
        recipe = space.decode(point).to_dict()
        assert recipe == close(plain(case["config"]))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_converted_file_has_the_same_dimensions_and_recipes(path, tmp_path):
    golden = json.loads(path.read_text())
    file = tmp_path / "genome.yml"
    file.write_text(yaml.safe_dump({"genome": golden["genome"], "tasks": TASKS}))
    mine = load_space(file)
    text, notes = convert_genome(file)
    (tmp_path / "space.yml").write_text(text)
    native = load_space(tmp_path / "space.yml")
    assert native.dimensions == mine.dimensions
    assert not notes
    chance = random.Random(0)
    for _ in range(5):
        vector = [chance.random() for _ in mine.dimensions]
        assert native.from_unit(vector) == mine.from_unit(vector)
        assert native.decode(native.from_unit(vector)) == mine.decode(mine.from_unit(vector))
    assert native.document == mine.document


def test_every_field_of_a_file_arrives(tmp_path):
    data = file_with(
        tasks=[
            "plain",
            {"name": "weighed", "weight": 0.5, "metric": "exact_match,strict-match"},
            {"name": "lower", "weight": -2.0, "metric": "word_perplexity"},
            {"name": "unknown", "weight": -1.0, "metric": "my_metric,none", "num_fewshot": 2},
        ],
        top={
            "limit": 40,
            "num_fewshot": 3,
            "random_init": True,
            "search": {"trials": 12},
            "evaluation": {"batch_size": 8},
        },
        tokenizer_source="union",
        normalize=False,
        layer_granularity=None,
    )
    space = parse_space(data)
    tasks = [(t.name, t.metric, t.weight, t.num_fewshot) for t in space.document.tasks]
    assert tasks == [
        ("plain", "acc,none", 1.0, None),
        ("weighed", "exact_match,strict-match", 0.5, None),
        ("lower", "word_perplexity", 2.0, None),
        ("unknown", "my_metric,none", -1.0, 2),
    ]
    evaluation = space.document.evaluation
    assert (evaluation.limit, evaluation.num_fewshot, evaluation.batch_size) == (40, 3, 8)
    assert evaluation.apply_chat_template
    assert evaluation.fewshot_as_multiturn
    assert space.document.search.trials == 12
    assert space.document.recipe["tokenizer_source"] == "union"
    assert space.document.recipe["parameters"] == {"normalize": False}
    assert {d.high for d in space.dimensions if "weight" in d.name} == {1.5}
    assert space.notes == ("random_init has no effect: the search starts from the best baseline",)


def test_shuffled_limits_and_plain_prompts():
    top = {"limit": 40, "shuffle": True, "apply_chat_template": False}
    evaluation = parse_space(file_with(top=top)).document.evaluation
    assert (evaluation.limit, evaluation.search_items) == (None, 40)
    own = file_with(top=top | {"evaluation": {"holdout_items": 300}})
    assert parse_space(own).document.evaluation.holdout_items == 300
    assert parse_space(file_with(top=top | {"limit": 1})).document.evaluation.search_items == 2
    assert not evaluation.apply_chat_template
    assert not evaluation.fewshot_as_multiturn
    notes = parse_space(file_with(top={"shuffle": True})).notes
    assert notes == ("shuffle has no effect: the seed chooses the search items anyway",)


def test_models_may_be_mappings():
    models = [
        {"model": {"path": "org/one", "revision": "main"}},
        {"model": "org/two", "lora": {"path": "org/adapter"}},
        "org/three",
    ]
    space = parse_space(file_with(models=models, base_model={"model": {"path": "org/base"}}))
    names = ("org/base", "org/one@main", "org/two+org/adapter", "org/three")
    assert space.model_names() == names


def test_blocks_need_not_divide_the_layers():
    space = parse_space(file_with(layer_granularity=3, merge_method="task_arithmetic"))
    ranges = [part["sources"][0]["layer_range"] for part in space.document.recipe["slices"]]
    assert ranges == [[0, 3], [3, 4]]
    smooth = parse_space(file_with(layer_granularity=3, smooth=True))
    assert "llama_a.weight[1]" in [d.name for d in smooth.dimensions]
    alone = parse_space(file_with(layer_granularity=4, smooth=True))
    assert "llama_a.weight" in [d.name for d in alone.dimensions]


def test_slerp_starts_from_mixtures():
    space = parse_space(file_with(merge_method="slerp", base_model=None, layer_granularity=2))
    found = {b.name: b for b in baselines(space)}
    part = space.decode(found["models/llama_b"].start).slices[1]
    assert (part.base_model, part.parameters["t"]) == (
        "models/llama_b",
        pytest.approx(0.018, abs=1e-3),
    )
    assert next(d.name for d in space.dimensions) == "slice0.llama_a.weight"
    shares = {"models/llama_a": 0.3, "models/llama_c": 0.7}
    part = space.decode(mixture_point(space, shares)).slices[0]
    assert [source.model for source in part.sources] == ["models/llama_c", "models/llama_a"]
    assert part.parameters["t"] == pytest.approx(0.3)
    assert set(found) == {*GENOME["models"], "average", "default"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"merge_method": "della"},
            r"genome.merge_method: .*mergekit-evolve knows; .*valid: linear",
        ),
        ({"base_model": None}, "genome: ties needs a base_model"),
        ({"merge_method": "linear"}, "gives the base_model 'models/llama_base' none"),
        ({"merge_method": "slerp"}, "gives the base_model 'models/llama_base' none"),
        ({"merge_method": "slerp", "smooth": True}, "slerp and 'smooth' do not go together"),
        ({"merge_method": "slerp", "filters": ["mlp"]}, "slerp and 'filters' do not go together"),
        ({"merge_method": "slerp", "models": ["a"]}, "slerp takes at least 2 models"),
        ({"models": ["a", "b", "a"]}, "every model is listed once; a stands here twice"),
        ({"smoth": True}, "unknown key 'smoth'; did you mean 'smooth'"),
        ({"layer_granularity": 2, "models": ["nosuch/x"]}, "nosuch/x"),
    ],
)
def test_bad_genomes_name_the_place(changes, message):
    with pytest.raises(EvomergeError, match=message):
        parse_space(file_with(**changes))


def test_a_line_is_named(tmp_path):
    text = yaml.safe_dump(file_with(top={"num_fewshots": 3}), sort_keys=False)
    path = tmp_path / "genome.yml"
    path.write_text(text)
    line = text.splitlines().index("num_fewshots: 3") + 1
    with pytest.raises(SpaceError, match=rf"genome.yml:{line}: .*did you mean 'num_fewshot'"):
        load_space(path)


def test_what_is_no_genome_is_not_converted(tmp_path):
    path = tmp_path / "file.yml"
    path.write_text("recipe: {}")
    with pytest.raises(SpaceError, match="a search space already"):
        convert_genome(path)
    path.write_text("merge_method: linear")
    with pytest.raises(SpaceError, match="has no 'genome'"):
        convert_genome(path)
