"""Programs run as native loops: each source is read once and the result written once.

What a loop computes has the same bits as the blocked kernels and facts: every operation is a
float32 operation of its own, or a float64 one, in the same order, and sums are exact or taken in a
fixed order. The functions of these modules take a `Native` and return None where a loop cannot do
it.
"""

from evomerge.engine.native.choice import native_loops
from evomerge.engine.native.jobs import Native, prompt_threads

__all__ = ["Native", "native_loops", "prompt_threads"]
