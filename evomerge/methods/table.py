"""The one table of merge methods.

The schema, the search space, the error messages and the reference page are derived from it. Adding
a method is a new function and a new row here; nothing in this module imports torch.
"""

from collections.abc import Mapping
from types import MappingProxyType

from evomerge.methods.spec import MethodSpec, ParameterSpec

__all__ = ["IGNORED_PARAMETERS", "METHODS", "SYMBOLS", "parameter_names"]

_LINEAR_WEIGHT = ParameterSpec(
    "weight",
    "share of this model",
    per_model=True,
    usual=1.0,
    required=True,
)
_TASK_WEIGHT = ParameterSpec(
    "weight",
    "factor on this model's task vector (its difference to the base)",
    per_model=True,
    usual=0.5,
    required=True,
)
_TRIM_DENSITY = ParameterSpec(
    "density",
    "share of the task vector's elements that is kept, those of largest magnitude",
    per_model=True,
    low=0.0,
    high=1.0,
    usual=0.5,
    default=1.0,
)
_DROP_DENSITY = ParameterSpec(
    "density",
    "probability with which an element of the task vector is kept",
    per_model=True,
    low=0.0,
    high=1.0,
    usual=0.5,
    default=1.0,
)
_RESCALE = ParameterSpec(
    "rescale",
    "make up for the dropped elements by a factor on the kept ones",
    kind="bool",
    usual=True,
    default=True,
)
_RESCALE_NORM = ParameterSpec(
    "rescale_norm",
    "that factor: 'l1' restores the tensor's L1 norm, 'density' is the paper's 1 / density",
    kind="choice",
    usual="l1",
    default="l1",
    choices=("l1", "density"),
)
_LAMBDA = ParameterSpec(
    "lambda",
    "factor on the merged task vector, after normalize",
    usual=1.0,
    default=1.0,
)


def _normalize(*, default: bool) -> ParameterSpec:
    return ParameterSpec(
        "normalize",
        "divide by the sum of the weights that took part",
        kind="bool",
        usual=default,
        default=default,
    )


_GAMMA = ParameterSpec(
    "gamma",
    "share of the task vector's elements that is dropped at the top, those of largest magnitude",
    per_model=True,
    low=0.0,
    high=1.0,
    usual=0.01,
    default=0.01,
)
_EPSILON = ParameterSpec(
    "epsilon",
    "half the range of the probabilities: density - epsilon for the smallest element of a row, "
    "density + epsilon for the largest",
    per_model=True,
    low=0.0,
    high=0.5,
    usual=0.15,
    default=0.15,
)
_CHANGE = ParameterSpec(
    "epsilon",
    "a difference to the base above this counts as a change",
    low=0.0,
    usual=1e-5,
    default=1e-5,
)


_TASK_ARITHMETIC_PAPER = "Ilharco et al. 2023, Task Arithmetic, arXiv:2212.04089"
_TIES_PAPER = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
_DARE_PAPER = "Yu et al. 2024, Language Models are Super Mario, arXiv:2311.03099"
_BREADCRUMBS_PAPER = "Davari and Belilovsky 2023, Model Breadcrumbs, arXiv:2312.06795"
_DELLA_PAPER = "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617"
_RAM_PAPER = "Behavior Knowledge Merge in Reinforced Agentic Models (2026), arXiv:2601.13572"
_GUIDE = "mergekit, merge method guide"

SYMBOLS = (
    "x_i are the models, b is base_model, d_i = x_i - b the task vectors (x and d where there is "
    "one), n is the number of elements, |.| the Euclidean norm of a tensor or the magnitude of an "
    "element, |.|_1 the sum of magnitudes. Each tensor is merged by itself, in float32, and "
    "rounded once."
)
"""What the letters of `MethodSpec.formula` mean."""

_SUM = "out = b + lambda sum_i D_i   (normalize: the sum is divided by sum_i w_i)"
_ELECT = (
    "s   = sign(sum_i D_i), where 0 counts as plus\n"
    "out = b + lambda sum_i D_i over the i with D_i s > 0\n"
    "      (normalize: the sum is divided by the sum of these w_i)"
)
_DARE = (
    "M_i = 1 with probability density_i, else 0\n"
    "D_i = w_i r_i M_i d_i,  r_i = |d_i|_1 / |M_i d_i|_1 (rescale_norm: density: 1 / density_i)"
)
_DELLA = (
    "M_i = 1 with a probability that rises evenly with the rank of |d_i| in its row,\n"
    "      from density_i - epsilon_i to density_i + epsilon_i, else 0\n"
    "D_i = w_i r_i M_i d_i,  r_i = |d_i|_1 / |M_i d_i|_1 (rescale_norm: density: 1 / density_i)"
)
_CRUMBS = (
    "D_i = w_i d_i without the int(gamma_i n) largest |d_i|, of the rest the int(density_i n) "
    "largest"
)

_ROWS = (
    MethodSpec(
        name="linear",
        summary="Weighted average of the models",
        formula="out = sum_i w_i x_i / sum_i w_i   (normalize: false: sum_i w_i x_i)",
        use=(
            "First, as a baseline: fine-tunes of one base that are close to each other. Needs no "
            "base."
        ),
        paper="Wortsman et al. 2022, Model Soups, arXiv:2203.05482",
        parameters=(_LINEAR_WEIGHT, _normalize(default=True)),
        base="optional",
        base_is_source=True,
        min_models=1,
        max_models=None,
        function="evomerge.methods.linear:linear",
    ),
    MethodSpec(
        name="slerp",
        summary="Spherical interpolation from the base model (t = 0) to one other (t = 1)",
        formula=(
            "out = sin((1 - t) a) / sin(a) b + sin(t a) / sin(a) x,  a the angle between b and x\n"
            "|cos a| > 0.9995: out = (1 - t) b + t x"
        ),
        use=(
            "Two models, where the length of the weights should stay between the parents'; "
            "gradients of t over the layers choose who leads where."
        ),
        paper="Shoemake 1985, Animating Rotation with Quaternion Curves, doi:10.1145/325165.325242",
        parameters=(
            ParameterSpec(
                "t",
                "position on the arc: 0 is base_model, 1 the other model",
                usual=0.5,
                required=True,
            ),
        ),
        base="required",
        base_is_source=True,
        min_models=2,
        max_models=2,
        function="evomerge.methods.slerp:slerp",
    ),
    MethodSpec(
        name="task_arithmetic",
        summary="The base plus the weighted sum of the task vectors",
        formula="out = b + lambda sum_i w_i d_i   (normalize: the sum is divided by sum_i w_i)",
        use=(
            "Several fine-tunes of one base whose changes hardly collide; cheap, and the first to"
            " search. A negative weight removes a skill."
        ),
        paper=_TASK_ARITHMETIC_PAPER,
        parameters=(_TASK_WEIGHT, _normalize(default=False), _LAMBDA),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:task_arithmetic",
    ),
    MethodSpec(
        name="ties",
        summary="Trim task vectors to their largest elements, elect a sign, sum",
        formula=(
            "D_i = w_i trim(d_i),  trim keeps the int(density_i n) largest |d_i|, at least one\n"
            f"{_ELECT}"
        ),
        use="Several fine-tunes of one base that pull the same weights in opposite directions.",
        paper=_TIES_PAPER,
        parameters=(_TASK_WEIGHT, _TRIM_DENSITY, _normalize(default=True), _LAMBDA),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:ties",
    ),
    MethodSpec(
        name="dare_ties",
        summary="Drop elements of the task vectors at random, rescale, elect a sign, sum",
        formula=f"{_DARE}\n{_ELECT}",
        use="As dare_linear, with sign conflicts between the models settled by election.",
        paper=f"{_DARE_PAPER}; {_TIES_PAPER}",
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _normalize(default=False),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:dare_ties",
        random=True,
    ),
    MethodSpec(
        name="dare_linear",
        summary="Drop elements of the task vectors at random, rescale, sum",
        formula=f"{_DARE}\n{_SUM}",
        use=(
            "Several fine-tunes with many small, redundant changes: low densities thin them out "
            "before they are summed."
        ),
        paper=_DARE_PAPER,
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _normalize(default=False),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:dare_linear",
        random=True,
    ),
    MethodSpec(
        name="breadcrumbs",
        summary="Mask the smallest and the very largest elements of the task vectors, sum",
        formula=f"{_CRUMBS}\n{_SUM}",
        use="Fine-tunes with a few outlying changes that spoil a plain sum.",
        paper=_BREADCRUMBS_PAPER,
        parameters=(
            _TASK_WEIGHT,
            _TRIM_DENSITY,
            _GAMMA,
            _normalize(default=False),
            _LAMBDA,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:breadcrumbs",
    ),
    MethodSpec(
        name="breadcrumbs_ties",
        summary="Mask the smallest and the very largest elements, elect a sign, sum",
        formula=f"{_CRUMBS}\n{_ELECT}",
        use="As breadcrumbs, with sign conflicts between the models settled by election.",
        paper=f"{_BREADCRUMBS_PAPER}; {_TIES_PAPER}",
        parameters=(
            _TASK_WEIGHT,
            _TRIM_DENSITY,
            _GAMMA,
            _normalize(default=False),
            _LAMBDA,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:breadcrumbs_ties",
    ),
    MethodSpec(
        name="della",
        summary="Drop elements, small ones more often, rescale, elect a sign, sum",
        formula=f"{_DELLA}\n{_ELECT}",
        use=(
            "Where ties drops too sharply and dare too blindly: large changes are likely to stay,"
            " signs are elected."
        ),
        paper=_DELLA_PAPER,
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _EPSILON,
            _normalize(default=True),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:della",
        random=True,
        rule="evomerge.methods.task_vectors:check_probabilities",
    ),
    MethodSpec(
        name="della_linear",
        summary="Drop elements at random, small ones more often, rescale, sum",
        formula=f"{_DELLA}\n{_SUM}",
        use="As della for models whose signs hardly collide.",
        paper=_DELLA_PAPER,
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _EPSILON,
            _normalize(default=False),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:della_linear",
        random=True,
        rule="evomerge.methods.task_vectors:check_probabilities",
    ),
    MethodSpec(
        name="sce",
        summary="Weigh task vectors by their energy where they vary most, elect a sign, average",
        formula=(
            "S   = the int(select_topk m) elements where the d_i vary most, m the number of those\n"
            "      that vary at all; select_topk: 1 takes every element\n"
            "w_i = e_i / sum_j e_j,  e_i = sum of d_i^2 over S\n"
            "s   = sign(sum_i d_i), where 0 counts as plus\n"
            "out = b + sum_i w_i d_i / sum_i w_i over the i with d_i s > 0, in S; b elsewhere"
        ),
        use=(
            "Several fine-tunes and no wish to choose weights: the data choose them, tensor by "
            "tensor."
        ),
        paper="Wan et al. 2024, FuseChat, arXiv:2408.07990",
        parameters=(
            ParameterSpec(
                "select_topk",
                "share of the elements that vary which is kept, those that vary most",
                low=0.0,
                high=1.0,
                usual=0.5,
                default=1.0,
            ),
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.sce:sce",
    ),
    MethodSpec(
        name="model_stock",
        summary="Go from the base towards the average, as far as the models' angles say",
        formula=(
            "c   = mean cosine of the pairs of d_i,  k the number of d_i\n"
            "t   = k c / (1 + (k - 1) c)\n"
            "out = b + t mean_i(d_i)"
        ),
        use=(
            "Two or more fine-tunes of one base on the same task, of different seeds or data: no "
            "parameter to choose."
        ),
        paper="Jang et al. 2024, Model Stock, arXiv:2403.19522",
        parameters=(
            ParameterSpec(
                "filter_wise",
                "a distance for each row of a weight in the place of one for the tensor",
                kind="bool",
                usual=False,
                default=False,
            ),
        ),
        base="required",
        base_is_source=False,
        min_models=3,
        max_models=None,
        function="evomerge.methods.model_stock:model_stock",
    ),
    MethodSpec(
        name="nuslerp",
        summary="Spherical interpolation by weights, of two models or of their task vectors",
        formula=(
            "t   = w_2 / (w_1 + w_2)\n"
            "out = slerp(x_1, x_2, t);  with a base: b + slerp(d_1, d_2, t)"
        ),
        use="slerp by weights, of task vectors, or row by row.",
        paper=f"Shoemake 1985, doi:10.1145/325165.325242; {_GUIDE}",
        parameters=(
            _LINEAR_WEIGHT,
            ParameterSpec(
                "nuslerp_flatten",
                "one vector for the whole tensor; false takes each row by itself",
                kind="bool",
                usual=True,
                default=True,
            ),
            ParameterSpec(
                "nuslerp_row_wise",
                "with nuslerp_flatten false: vectors across the rows, each column by itself",
                kind="bool",
                usual=False,
                default=False,
            ),
        ),
        base="optional",
        base_is_source=False,
        min_models=2,
        max_models=2,
        function="evomerge.methods.slerp:nuslerp",
    ),
    MethodSpec(
        name="multislerp",
        summary="Weighted mean on the sphere, of models or of their task vectors",
        formula=(
            "m   = sum_i w_i x_i / |x_i|,  w_i divided by their sum first (normalize_weights)\n"
            "out = (sum_i w_i |x_i|) m / |m|, or sum_i w_i x_i where |m| < eps;\n"
            "      with a base: the same of d_i, plus b"
        ),
        use="slerp of more than two models.",
        paper=_GUIDE,
        parameters=(
            _LINEAR_WEIGHT,
            ParameterSpec(
                "normalize_weights",
                "divide the weights by their sum",
                kind="bool",
                usual=True,
                default=True,
            ),
            ParameterSpec(
                "eps",
                "a mean direction shorter than this is none",
                low=0.0,
                usual=1e-8,
                default=1e-8,
            ),
        ),
        base="optional",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.spherical:multislerp",
    ),
    MethodSpec(
        name="karcher",
        summary="Karcher mean on the sphere, all models alike",
        formula=(
            "m   <- exp_m(mean_i log_m(x_i / |x_i|)), until the step is below tol\n"
            "out = mean_i(|x_i|) m"
        ),
        use="The uniform average of several models on the sphere; nothing to choose.",
        paper="Karcher 1977, Riemannian center of mass, doi:10.1002/cpa.3160300502",
        parameters=(
            ParameterSpec(
                "max_iter",
                "steps at most",
                kind="int",
                low=0,
                usual=10,
                default=10,
            ),
            ParameterSpec(
                "tol",
                "angle in radians below which it has converged",
                low=0.0,
                usual=1e-5,
                default=1e-5,
            ),
        ),
        base="optional",
        base_is_source=True,
        min_models=2,
        max_models=None,
        function="evomerge.methods.spherical:karcher",
    ),
    MethodSpec(
        name="nearswap",
        summary="Go from the base model to another by at most t in each element",
        formula="out = b + d min(1, t / |d|), element by element",
        use=(
            "To tint a model with another where the two are near, and to change it little "
            "elsewhere."
        ),
        paper=_GUIDE,
        parameters=(
            ParameterSpec(
                "t",
                "largest step of an element",
                low=0.0,
                usual=0.001,
                required=True,
            ),
        ),
        base="required",
        base_is_source=True,
        min_models=2,
        max_models=2,
        function="evomerge.methods.nearswap:nearswap",
    ),
    MethodSpec(
        name="arcee_fusion",
        summary="Take from another model the elements whose change matters most",
        formula=(
            "I   = |d| times the row's divergence KL(softmax(x) || softmax(b))\n"
            "out = x where I >= Q50 + 1.5 (Q75 - Q25), else b;  Q: quantiles of I"
        ),
        use="To take only the most important changes of one fine-tune; nothing to choose.",
        paper=_GUIDE,
        parameters=(),
        base="required",
        base_is_source=True,
        min_models=2,
        max_models=2,
        function="evomerge.methods.arcee_fusion:arcee_fusion",
    ),
    MethodSpec(
        name="ram",
        summary="Average the changes that several models made, keep those that only one made",
        formula=(
            "C   = number of models with |d_i| > epsilon\n"
            "out = b + sum_i d_i / max(C, 1) over the i with |d_i| > epsilon"
        ),
        use=(
            "Fine-tunes by reinforcement learning, whose changes are sparse and mostly in "
            "different places."
        ),
        paper=_RAM_PAPER,
        parameters=(_CHANGE,),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.ram:ram",
    ),
    MethodSpec(
        name="ramplus_tl",
        summary="The same, with the changes that only one model made enlarged",
        formula=(
            "C   = number of models with |d_i| > epsilon\n"
            "rho_i = changed elements of i with C > 1 / those with C = 1\n"
            "f_i = 1 + r min(rho_i, alpha) where C = 1, else 1\n"
            "out = b + sum_i f_i d_i / max(C, 1) over the i with |d_i| > epsilon"
        ),
        use="As ram, where the skills that only one model has come out too weak.",
        paper=_RAM_PAPER,
        parameters=(
            _CHANGE,
            ParameterSpec(
                "r",
                "how much they are enlarged for each shared change that a model has per own one",
                usual=0.1,
                default=0.1,
            ),
            ParameterSpec(
                "alpha",
                "the number of shared changes per own one counts up to this",
                low=0.0,
                usual=0.2,
                default=0.2,
            ),
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.ram:ramplus_tl",
    ),
    MethodSpec(
        name="passthrough",
        summary="Copy one model's layers, times a scale: to stack, repeat or drop layers",
        formula="out = scale x",
        use=(
            "To stack, repeat or drop layers with slices, or to write one model again (with an "
            "adapter, another vocabulary or type)."
        ),
        paper="",
        parameters=(
            ParameterSpec(
                "scale", "factor on the copied tensor", per_model=True, usual=1.0, default=1.0
            ),
        ),
        base="none",
        base_is_source=True,
        min_models=1,
        max_models=1,
        function="evomerge.methods.linear:passthrough",
    ),
)

METHODS: Mapping[str, MethodSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""Every merge method by its name, in the order in which they are listed to people."""

IGNORED_PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "int8_mask": "masks take no memory here, so there is nothing to save",
        "embed_slerp": "embeddings are merged like every other tensor",
    }
)
"""Parameters of mergekit files that are accepted without effect, and why."""


def parameter_names() -> tuple[str, ...]:
    """Return the names of all parameters of all methods, each once, in table order."""
    names = (spec.name for row in _ROWS for spec in row.parameters)
    return tuple(dict.fromkeys(names))
