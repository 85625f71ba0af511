"""Compares search procedures on the playground: how good is what they choose, for how many items?

Every arm searches the same 18 weights with the same seeds and items. The true score of what it
chooses is measured on other items. Results are one file for each arm and seed; those that are in
the folder already are not measured again, and neither are those in a record: one file for all,
without the candidates, that can be kept. docs/bench_search.jsonl has what docs/search.md shows.

    python scripts/bench_search.py --out runs/bench-search --arms mergekit-evolve,evomerge

The arm `mergenetic` needs pymoo. An arm of evomerge is searched with each share of the budget that
--fractions names; `evomerge@0.1` names one of them.
"""

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from bench_search_arms import EVOMERGE, PEERS, measure
from bench_search_problem import SPACES, Protocol
from bench_search_report import plot, print_tables, summarize

from evomerge.files import replacing


def result_file(out: Path, arm: str, seed: int) -> Path:
    """Return where the result of one arm with one seed is."""
    return out / f"{arm}.seed-{seed}.json"


def write_json(file: Path, content: Any) -> None:
    """Write a file that is whole or not there."""
    with replacing(file) as opened:
        opened.write((json.dumps(content, indent=1) + "\n").encode())


def read_result(file: Path, protocol: Protocol) -> dict[str, Any]:
    """Read a result and check that it may be compared with others of this protocol."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if found["protocol"] != protocol.identity():
        raise SystemExit(
            f"{file} was measured with {found['protocol']}, now it is {protocol.identity()}; give "
            "the same options, or another folder to --out"
        )
    return found


def read_record(file: Path) -> list[dict[str, Any]]:
    """Return the results in a record, whatever their protocol; none where there is no file."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_record(file: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Add results to a record, one a line, in the place of those of the same arm and seed."""
    kept = {
        (json.dumps(each["protocol"]), each["arm"], each["seed"]): each
        for each in (*read_record(file), *results)
    }
    lines = [
        json.dumps({key: value for key, value in kept[place].items() if key != "candidates"})
        for place in sorted(kept)
    ]
    with replacing(file) as opened:
        opened.write("".join(f"{line}\n" for line in lines).encode())


def run_missing(
    arms: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol,
    out: Path,
    known: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Measure what is neither known nor in the folder; return all results asked for."""
    there = {(e["arm"], e["seed"]): e for e in known if e["protocol"] == protocol.identity()}
    results = []
    for arm in arms:
        for seed in seeds:
            file = result_file(out, arm, seed)
            if (arm, seed) in there and not file.is_file():
                results.append(there[arm, seed])
                continue
            if not file.is_file():
                found = measure(arm, seed, protocol, out / "unfinished" / f"{arm}.seed-{seed}")
                write_json(file, found)
                last = found["choices"][-1]
                print(
                    f"{arm}, seed {seed}: true score {last['true']:.4f} (search score "
                    f"{last['search']:.4f}), {last['spent']} item evaluations, "
                    f"{found['seconds']:.0f} s",
                    flush=True,
                )
            results.append(read_result(file, protocol))
    return results


def arm_names(text: str, fractions: Sequence[float]) -> list[str]:
    """Return the arms of a command line, one for each share of the budget.

    Raises:
        SystemExit: if there is no such arm.
    """
    found: list[str] = []
    for wanted in text.split(","):
        name, _, fraction = wanted.strip().partition("@")
        if name in PEERS and not fraction:
            found.append(name)
        elif name in EVOMERGE:
            shares = [float(fraction)] if fraction else fractions
            found += [f"{name}@{share:g}" for share in shares]
        else:
            known = ", ".join([*PEERS, *EVOMERGE])
            raise SystemExit(f"there is no arm {wanted!r} (there are {known})")
    return list(dict.fromkeys(found))


def seed_numbers(text: str) -> list[int]:
    """Return the seeds of `0-19` or `3,5,8-9`.

    Raises:
        SystemExit: if it is something else.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise SystemExit(f"--seeds is like 0-19 or 3,5,8-9, got {text!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--arms", default=",".join([*PEERS, *EVOMERGE]), help="what is compared")
    parser.add_argument("--seeds", default="0-19", help="like 0-19 or 3,5,8-9")
    parser.add_argument("--fractions", default="0.1,1", help="shares of the budget for evomerge")
    parser.add_argument(
        "--space", type=Path, default=SPACES / "bench_search.yml", help="what is searched"
    )
    parser.add_argument("--budget", type=int, default=135_000, help="item evaluations")
    parser.add_argument("--search-items", type=int, default=150, help="search items a skill")
    parser.add_argument(
        "--holdout-items", type=int, default=150, help="items a skill for evomerge's final choice"
    )
    parser.add_argument(
        "--true-items", type=int, default=1200, help="other items a skill for the true score"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="all results, known and new (JSON lines)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw there (SVG)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, print the tables, write the summary, draw it."""
    options = parse_arguments(arguments)
    protocol = Protocol(
        budget=options.budget,
        search_items=options.search_items,
        holdout_items=options.holdout_items,
        true_items=options.true_items,
        space=options.space.resolve(),
    )
    arms = arm_names(options.arms, [float(share) for share in options.fractions.split(",")])
    options.out.mkdir(parents=True, exist_ok=True)
    known = read_record(options.record) if options.record else []
    results = run_missing(arms, seed_numbers(options.seeds), protocol, options.out, known)
    if options.record:
        write_record(options.record, results)
    summary = summarize(results)
    print_tables(summary)
    write_json(options.out / "summary.json", summary)
    if options.plot:
        plot(summary, options.plot)


if __name__ == "__main__":
    main()
