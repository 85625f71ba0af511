"""Makes the files beside it: runs mergekit's genomes, from outside, on vectors.

    pip install mergekit==0.1.5 torch==2.13.0 transformers==5.23.0 cma ray
    cd tests/golden && python ../space/genomes/make.py

Each file holds a genome, a vector for each case, and the merge that mergekit makes of it.
"""

import json
import random
from pathlib import Path

import numpy as np
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition

HERE = Path(__file__).parent
MODELS = [f"models/llama_{letter}" for letter in "abc"]
BASE = {"base_model": "models/llama_base"}
GENOMES = {
    "linear": {"merge_method": "linear"},
    "linear_blocks": {"merge_method": "linear", "layer_granularity": 1, "normalize": False},
    "linear_smooth": {"merge_method": "linear", "layer_granularity": 1, "smooth": True},
    "task_arithmetic": {
        "merge_method": "task_arithmetic",
        "layer_granularity": 2,
        "allow_negative_weights": True,
        "tokenizer_source": "base",
        **BASE,
    },
    "task_arithmetic_base_listed": {
        "merge_method": "task_arithmetic",
        "base_model": "models/llama_a",
        "normalize": True,
    },
    "ties_filters": {
        "merge_method": "ties",
        "layer_granularity": 2,
        "filters": ["self_attn", "mlp"],
        **BASE,
    },
    "dare_ties_smooth": {
        "merge_method": "dare_ties",
        "layer_granularity": 2,
        "smooth": True,
        "filters": ["mlp"],
        "normalize": False,
        **BASE,
    },
    "slerp": {"merge_method": "slerp"},
    "slerp_blocks": {
        "merge_method": "slerp",
        "layer_granularity": 1,
        "base_model": "models/llama_b",
    },
}


def main() -> None:
    for name, settings in GENOMES.items():
        chance = random.Random(name)
        genome = {"models": MODELS, **settings}
        made = ModelGenome(ModelGenomeDefinition.model_validate(genome))
        shape = tuple(made.initial_genotype().shape)
        cases = []
        for _ in range(2):
            vector = [round(chance.uniform(-1, 1), 3) for _ in range(int(np.prod(shape)))]
            merge = made.genotype_merge_config(np.array(vector, dtype=np.float32))
            config = json.loads(merge.model_dump_json(exclude_none=True))
            cases.append({"vector": np.array(vector).reshape(shape).tolist(), "config": config})
        text = json.dumps({"source": "mergekit 0.1.5", "genome": genome, "cases": cases})
        (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
