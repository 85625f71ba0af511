"""Measures how far each merge method is from the speed of memory.

For every method of the table, on checkpoints made for this (Llama shape, bfloat16, a base and three
variants): the time of the static facts about the sources (the first candidate minus a later one),
the time of each further candidate into resident tensors, and its ratio to the floor: the time that
the same bytes take at copy bandwidth. The floor counts every source read once and the result
written once; the bandwidth counts bytes read and bytes written of a plain tensor copy, the best of
several copies taken between the candidates with the same number of threads.

A machine that does other things too makes all numbers worse, so the best of several repeats counts;
compare the ratios of one run, not times of different ones.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from benchmark_models import BASE, PARAMETERS, VARIANTS, checkpoints, chosen, print_table, recipe

from evomerge.checkpoints import open_checkpoint
from evomerge.engine import Bank, MergePlan, materialize, plan_merge
from evomerge.engine.facts import FactStore
from evomerge.errors import EvomergeError
from evomerge.methods import MethodSpec
from evomerge.recipe import parse_recipe

COLUMNS = (
    "method",
    "models",
    "cold stats s",
    "warm s",
    "median s",
    "moved GB",
    "floor s",
    "floor / warm",
    "peak MiB",
)


class Memory:
    """Peak memory of this process, or of its GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        """Forget earlier peaks, where the system can."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return

    def peak(self) -> int:
        """Return the bytes of the peak since the last reset."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        status = Path("/proc/self/status")
        if status.is_file():
            line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
            return int(line.split()[1]) << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Copies:
    """Copy bandwidth: bytes read and written per second by `Tensor.copy_`."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        # Not zeros: memory that was never written is one page that lies in the cache.
        self._source = torch.ones(num_bytes // 2, dtype=torch.bfloat16, device=device)
        self._goal = torch.full_like(self._source, 2.0)
        self.seconds: list[float] = []

    def measure(self, repeats: int = 3) -> None:
        """Take some more copies."""
        for _ in range(repeats):
            start = now(self._source.device)
            self._goal.copy_(self._source)
            self.seconds.append(now(self._source.device) - start)

    @property
    def bandwidth(self) -> float:
        """The best so far."""
        return 2 * self._source.nbytes / min(self.seconds)


def now(device: torch.device) -> float:
    """Return the seconds of a clock, everything before being done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Bench:
    """One machine state: resident sources, resident results, copies."""

    def __init__(self, folder: Path, device: torch.device, repeats: int) -> None:
        self._folder = folder
        self._device = device
        self._repeats = repeats
        names = [str(folder / name) for name in (BASE, *VARIANTS)]
        self._opened = {name: open_checkpoint(name) for name in names}
        self._bank = Bank(self._opened, device)
        base = self._opened[names[0]]
        self._out = {
            name: torch.zeros(info.shape, dtype=torch.bfloat16, device=device)
            for name, info in base.tensors.items()
        }
        self.copies = Copies(max(base.num_bytes, 1 << 24), device)
        self._memory = Memory(device)

    def method(self, spec: MethodSpec) -> dict[str, Any]:
        """Measure one method."""
        self._candidate(spec, 0)  # kernels and buffers are made once, whatever is searched
        self._bank.facts = FactStore(keep=True)
        self._memory.reset()
        first = self._candidate(spec, 1)
        warm = []
        for i in range(self._repeats):
            self.copies.measure()
            warm.append(self._candidate(spec, 2 + i))
        peak = self._memory.peak()
        self._bank.facts = FactStore(keep=True)
        plan = self._plan(spec, 0)
        return {
            "method": spec.name,
            "num_inputs": len(plan.outputs[0].inputs),
            "cold_seconds": max(first - statistics.median(warm), 0.0),
            "first_seconds": first,
            "warm_seconds": min(warm),
            "warm_median_seconds": statistics.median(warm),
            "bytes": self._moved(plan),
            "peak_bytes": peak,
        }

    def _plan(self, spec: MethodSpec, candidate: int) -> MergePlan:
        wanted = parse_recipe(recipe(spec, self._folder, candidate))
        return plan_merge(wanted, {name: self._opened[name] for name in wanted.model_names()})

    def _candidate(self, spec: MethodSpec, number: int) -> float:
        plan = self._plan(spec, number)
        start = now(self._device)
        materialize(plan, self._bank, self._out, seed=0)
        return now(self._device) - start

    def _moved(self, plan: MergePlan) -> int:
        read = sum(
            self._opened[model].tensors[name].num_bytes
            for tensor in plan.outputs
            for model, name in tensor.inputs
        )
        written = sum(self._out[tensor.name].nbytes for tensor in plan.outputs)
        return read + written


def main() -> None:
    """Measure, print a table, write JSON."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    methods = chosen(options.methods)
    with checkpoints(options.folder, options.parameters) as folder:
        bench = Bench(folder, device, options.repeats)
        results = []
        for spec in methods:
            try:
                results.append(bench.method(spec))
            except EvomergeError as error:
                results.append({"method": spec.name, "error": str(error)})
            took = results[-1].get("warm_seconds", float("nan"))
            print(f"measured {spec.name}: {took:.3f} s", flush=True)
    bandwidth = bench.copies.bandwidth
    for result in results:
        if "bytes" in result:
            result["floor_seconds"] = result["bytes"] / bandwidth
            result["ratio"] = result["floor_seconds"] / result["warm_seconds"]
    report = {
        "parameters": sum(tensor.numel() for tensor in bench._out.values()),  # noqa: SLF001
        "copy_bytes_per_second": bandwidth,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "results": results,
    }
    print(
        f"{report['parameters'] / 1e6:.1f}M parameters, bfloat16, {report['device']}, "
        f"{report['threads']} threads, copies at {bandwidth / 1e9:.1f} GB/s (read + written)"
    )
    print_table(COLUMNS, [row(result) for result in results])
    for result in results:
        if "error" in result:
            print(f"{result['method']}: {result['error']}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def row(result: dict[str, Any]) -> list[str]:
    """Return a result as a row of the table."""
    if "error" in result:
        return [result["method"], "failed"]
    return [
        result["method"],
        str(result["num_inputs"]),
        f"{result['cold_seconds']:.3f}",
        f"{result['warm_seconds']:.3f}",
        f"{result['warm_median_seconds']:.3f}",
        f"{result['bytes'] / 1e9:.2f}",
        f"{result['floor_seconds']:.3f}",
        f"{result['ratio']:.2f}",
        f"{result['peak_bytes'] / 2**20:,.0f}",
    ]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--parameters", type=float, default=PARAMETERS, help="size of a checkpoint (160e6)"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice)")
    parser.add_argument("--repeats", type=int, default=5, help="candidates a method (5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--folder", type=Path, help="where the checkpoints go for a while")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
