"""`tfbig.parity.diagnose` on injected faults, on pairs of them, and on correct loops.

    python tests/benchmarks/bench_diagnose.py [--split=tune|report] [--only=D11,D13] [--limit=N]
        [--jobs=N] [--kinds=single,pair,correct,thread] [--output=DIRECTORY] [--stub]

`tune` takes two networks (dense, cnn) and the seeds 0 and 1; `report` takes all networks with seeds
that tuning never saw, three networks it never saw among them. Prints accuracies, the confusion
matrix, what was excluded and why; writes `diagnose.json` and `diagnose.md` if nothing is left out.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from faults import correct, effect
from faults.inject import NOT_ATTEMPTED
from faults.inject_update import FAULTS
from faults.networks import BATCH, LOSSES, NETWORKS, Setup, build, data, draw

HERE = Path(__file__).parent
PAIRS, CORRECT = 40, 100
TUNED_NETWORKS = ("dense", "cnn")
GOALS = {"single": 0.95, "pair": 0.85, "correct": 1.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """One diagnosis to be made. `index` is the number of a correct or thread loop."""

    kind: str  # single, pair, correct, thread
    ids: tuple[str, ...]
    setup: Setup | None = None
    index: int = 0
    split: str = "report"
    shift: int = 0


@dataclasses.dataclass
class Outcome:
    """What came of a case; `reason` says why it was excluded."""

    kind: str
    name: str
    expected: list[str]
    reported: list[str] = dataclasses.field(default_factory=list)
    reason: str = ""
    error: str = ""
    seconds: float = 0.0
    any_of: bool = False  # any of the expected is right as the first

    @property
    def top(self) -> str:
        return "error" if self.error else self.reported[0] if self.reported else "none"

    @property
    def right(self) -> bool:
        if self.any_of or not self.expected:
            return self.soft
        first = self.reported[: len(self.expected)]
        return not self.error and sorted(first) == sorted(self.expected)

    @property
    def soft(self) -> bool:
        return not self.error and self.top in (self.expected or ["none"])


def singles(split: str, shift: int) -> list[Case]:
    networks, first, seeds = (TUNED_NETWORKS, 0, 2) if split == "tune" else (NETWORKS, 2, 3)
    return [
        Case("single", (id,), fault.setup(draw(network, loss, first + shift + i % seeds)))
        for id, fault in FAULTS.items()
        for network in networks
        for i, loss in enumerate(LOSSES[network])
    ]


def pairs(split: str, shift: int) -> Iterator[Case]:
    """Pairs by chance without end; most of them exclude each other."""
    networks = TUNED_NETWORKS if split == "tune" else NETWORKS
    rng = np.random.default_rng(1 if split == "tune" else 2 + shift)
    while True:
        ids = tuple(str(v) for v in rng.choice(list(FAULTS), 2, replace=False))
        network = str(rng.choice(networks))
        loss = str(rng.choice(LOSSES[network]))
        seed = int(rng.integers(0, 2) if split == "tune" else rng.integers(2, 1000))
        yield Case("pair", ids, draw(network, loss, seed))


def corrects(split: str, shift: int) -> list[Case]:
    return [Case("correct", (), index=i, split=split, shift=shift) for i in range(CORRECT)]


def threads() -> list[Case]:
    try:
        import thread_loops
    except ImportError:
        return []
    count = len(thread_loops.FAULTY) + len(thread_loops.CORRECT)
    return [Case("thread", (), index=i) for i in range(count)]


def _diagnose(stub: bool) -> Any:
    if stub:
        return lambda *args, **kwargs: type("Report", (), {"causes": ()})()
    from tfbig.parity import diagnose

    return diagnose


def _ask(outcome: Outcome, stub: bool, arguments: dict) -> None:
    """Calls `diagnose` and notes the answer."""
    begin = time.perf_counter()
    try:
        outcome.reported = [cause.id for cause in _diagnose(stub)(**arguments).causes]
    except Exception:
        outcome.error = traceback.format_exc(limit=-3)
    outcome.seconds = time.perf_counter() - begin


def _asked(setup: Setup, stub: bool, make: Any, mode: str, outcome: Outcome) -> Outcome:
    given = data(setup, effect.rows_of(mode))
    model = build(setup)
    arguments: dict[str, Any] = {"model": model, **dataclasses.asdict(given)}
    fn = make(setup, model)
    if mode == "train":
        arguments |= {"train": fn, "epochs": 2, "batch_size": BATCH, "shuffle": setup.shuffle}
    else:
        arguments |= {"loop": fn, "steps": 3}
    if setup.unseeded:
        tf.random.set_seed(None)
    _ask(outcome, stub, arguments)
    return outcome


def _single_or_pair(case: Case, stub: bool) -> Outcome:
    setup = case.setup
    assert setup is not None
    outcome = Outcome(
        case.kind,
        f"{'+'.join(case.ids)} {setup.network} {setup.loss} {setup.seed}",
        [id.split("/")[0] for id in case.ids],
    )
    if case.kind == "pair":
        outcome.reason = effect.why_no_pair(case.ids, setup)
        for id in case.ids:
            setup = FAULTS[id].setup(setup)
    outcome.reason = outcome.reason or effect.why_excluded(case.ids, setup)
    if outcome.reason:
        return outcome
    mode = effect.mode_of(case.ids)
    return _asked(setup, stub, effect.faulty(case.ids, mode), mode, outcome)


def _correct(case: Case, stub: bool) -> Outcome:
    networks, seed = (TUNED_NETWORKS, 0) if case.split == "tune" else (NETWORKS, 2 + case.shift)
    found = correct.cases(case.index + 1, networks, seed)
    style, setup = next(itertools.islice(found, case.index, None))
    outcome = Outcome("correct", f"{style.name}: {setup.network} {setup.loss} {setup.seed}", [])
    outcome.reason = effect.why_not_correct(style.make, style.mode, setup)
    if outcome.reason:
        return outcome
    return _asked(setup, stub, style.make, style.mode, outcome)


def _thread(case: Case, stub: bool) -> Outcome:
    import thread_loops

    thread = [*thread_loops.FAULTY, *thread_loops.CORRECT][case.index]
    outcome = Outcome("thread", thread.name, sorted(thread.expected), any_of=True)
    keras.utils.set_random_seed(0)
    names = ("x", "y", "sample_weight")
    arguments = {"model": thread.build(), "class_weight": thread.class_weight}
    arguments |= dict(zip(names, thread.data(), strict=False)) | dict(thread.options)
    functions = {"train": thread.train, "loop": thread.loop}
    _ask(outcome, stub, arguments | {k: fn for k, fn in functions.items() if fn is not None})
    return outcome


def run(case: Case, stub: bool) -> Outcome:
    """One case, whatever happens in it."""
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    keras.backend.clear_session()
    keras.utils.set_random_seed(case.setup.seed if case.setup else 0)
    try:
        does = {"correct": _correct, "thread": _thread}.get(case.kind, _single_or_pair)
        return does(case, stub)
    except Exception:
        return Outcome(case.kind, str(case), [*case.ids], error=traceback.format_exc(limit=-3))


class Runner:
    """Runs cases here, or in other processes, and prints every answer as it comes."""

    def __init__(self, jobs: int, stub: bool) -> None:
        self.jobs, self.stub = jobs, stub
        self.pool = None
        if jobs > 1:
            context = multiprocessing.get_context("spawn")
            self.pool = concurrent.futures.ProcessPoolExecutor(jobs, context)

    def __call__(self, cases: list[Case]) -> list[Outcome]:
        each = self.pool.map if self.pool else map
        outcomes = []
        for outcome in each(run, cases, itertools.repeat(self.stub)):
            outcomes.append(outcome)
            if len(outcomes) % 50 == 0:
                print(f"  ... {len(outcomes)} of {len(cases)}", flush=True)
            if not outcome.reason and not outcome.right:
                print(f"  {outcome.name}: {outcome.reported}", outcome.error, flush=True)
        return outcomes

    def pairs(self, candidates: Iterator[Case], count: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while (missing := count - sum(not o.reason for o in outcomes)) > 0:
            outcomes += self(list(itertools.islice(candidates, missing)))
        return outcomes


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """The numbers of one kind of cases."""
    made = [o for o in outcomes if not o.reason]
    matrix: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    excluded: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for o in outcomes:
        key = ("/" if o.any_of else "+").join(o.expected) or "none"
        if o.reason:
            excluded[key][o.reason] += 1
        else:
            pair = "+".join(o.reported[:2]) or o.top
            matrix[key][pair if o.kind == "pair" else o.top] += 1
    return {
        "attempted": len(made),
        "excluded": len(outcomes) - len(made),
        "right": sum(o.right for o in made),
        "top_is_one_of_them": sum(o.soft for o in made),
        "seconds_median": round(statistics.median([o.seconds for o in made] or [0.0]), 2),
        "matrix": {k: dict(v) for k, v in sorted(matrix.items())},
        "excluded_reasons": {k: dict(v) for k, v in sorted(excluded.items())},
        "wrong": [
            {"case": o.name, "reported": o.reported, "error": o.error} for o in made if not o.right
        ],
    }


def markdown(kinds: dict[str, dict], split: str) -> str:
    """Tables for the README."""
    lines = ["| loops | attempted | excluded | right | goal | s per diagnosis |", "|---" * 6 + "|"]
    for kind, s in kinds.items():
        rate = f"{s['right']} ({s['right'] / max(1, s['attempted']):.1%})"
        goal = f"{GOALS[kind]:.0%}" if kind in GOALS else ""
        lines.append(
            f"| {kind} | {s['attempted']} | {s['excluded']} | {rate} | {goal} "
            f"| {s['seconds_median']} |"
        )
    lines += [
        "",
        f"Split `{split}`. Each cause alone:",
        "",
        "| injected | attempted | right | taken for | excluded |",
        "|---" * 5 + "|",
    ]
    single = kinds.get("single", {"matrix": {}, "excluded_reasons": {}})
    for id in sorted(single["matrix"].keys() | single["excluded_reasons"].keys()):
        row, reasons = single["matrix"].get(id, {}), single["excluded_reasons"].get(id, {})
        others = ", ".join(f"{k} {v}" for k, v in row.items() if k != id)
        why = "; ".join(f"{v}: {k}" for k, v in reasons.items())
        lines.append(f"| {id} | {sum(row.values())} | {row.get(id, 0)} | {others} | {why} |")
    lines += [f"| {id} | 0 | | | not attempted: {why} |" for id, why in NOT_ATTEMPTED.items()]
    return "\n".join(lines) + "\n"


def report(kind: str, s: dict) -> None:
    rate = s["right"] / max(1, s["attempted"])
    print(
        f"\n{kind}: {s['attempted']} attempted, {s['excluded']} excluded, {s['right']} right "
        f"({rate:.1%}), top is one of them {s['top_is_one_of_them']}, "
        f"{s['seconds_median']} s per diagnosis"
    )
    for key, row in s["matrix"].items():
        print(f"  {key:8s}", "  ".join(f"{k}:{v}" for k, v in sorted(row.items())))
    for key, reasons in s["excluded_reasons"].items() if kind != "pair" else ():
        print(f"  {key:8s} excluded", "; ".join(f"{v}: {k}" for k, v in reasons.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("tune", "report"), default="report")
    parser.add_argument("--shift", type=int, default=0, help="of the seeds: other cases")
    parser.add_argument("--only", default="", help="ids, of single faults")
    parser.add_argument("--kinds", default="single,pair,correct,thread")
    parser.add_argument("--limit", type=int, default=0, help="cases of each kind")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--stub", action="store_true", help="a diagnosis that finds nothing")
    arguments = parser.parse_args()
    split, shift, limit = arguments.split, arguments.shift, arguments.limit or None
    only = set(filter(None, arguments.only.split(",")))
    wanted = ["single"] if only else arguments.kinds.split(",")
    runner = Runner(arguments.jobs, arguments.stub)
    cases = {
        "single": singles(split, shift),
        "correct": corrects(split, shift),
        "thread": threads(),
    }
    cases["single"] = [c for c in cases["single"] if not only or only & {*c.ids[0].split("/")}]
    kinds = {}
    for kind in wanted:
        if kind == "pair":
            kinds[kind] = summary(runner.pairs(pairs(split, shift), min(PAIRS, limit or PAIRS)))
        elif cases[kind]:
            kinds[kind] = summary(runner(cases[kind][:limit]))
        else:
            continue
        report(kind, kinds[kind])
    print("\nnot attempted:", "; ".join(f"{id}: {why}" for id, why in NOT_ATTEMPTED.items()))
    if not only and not limit and not arguments.stub:
        suffix = "" if split == "report" else "_tune"
        name = arguments.output / f"diagnose{suffix}"
        name.with_suffix(".json").write_text(json.dumps(kinds, indent=1) + "\n")
        name.with_suffix(".md").write_text(markdown(kinds, split))


if __name__ == "__main__":
    main()
