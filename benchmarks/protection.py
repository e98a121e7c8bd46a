"""Measure every protection side by side, with what people use today as reference.

    python benchmarks/protection.py [--params N] [--hospitals K] [--json FILE] [--chart FILE]

Each row runs in a process of its own, on one core. Times are medians of processor time, which on an idle
machine is the time on the clock; a row's protecting is timed in turns with the plain sum of K float32
vectors, so that a busy machine slows both alike, and their ratio is reported.
Columns, all per parameter or per million of them:

- up: what one hospital sends; down: what the opener is sent, by all parties together.
- protect: at one hospital; combine: checking and adding at the busiest party; open: at the opener.
- verify: at a hospital that is told the sum. Openers of encryption do it, too: it is in their time.
- memory: the process's peak over that before the vector was made, so it includes the vector.
- error: the largest difference of the opened sum from the float64 sum. ``exact`` says whether the
  opened sum is, bit for bit, the sum of the integers that the values were rounded to; of plaintext,
  the float64 sum rounded to float32 once.

References are measured on fewer parameters where they are slow; they have no authentication.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.protection import build_protection
from skinfl.protection.base import Exchange, Protected, Protection, Roles
from skinfl.protection.layout import Layout, Segment

BFV = {"he_scheme": "bfv"}
OWN: Dict[str, Tuple[str, Dict[str, Any]]] = {
    "plaintext": ("plaintext", {}),
    "smpc-additive-32": ("smpc", {"ring": 32}),
    "smpc-additive-64": ("smpc", {"ring": 64}),
    "smpc-shamir": ("smpc", {"smpc_scheme": "shamir", "ring": 32}),
    "smpc-shamir-64": ("smpc", {"smpc_scheme": "shamir", "ring": 64}),
    "he-bfv-16": ("he", {**BFV, "bits": 16}),
    "he-bfv-12": ("he", {**BFV, "bits": 12}),
    "he-bfv-8": ("he", {**BFV, "bits": 8}),
    "he-ckks-pfhe": ("he", {"he_scheme": "ckks-layers"}),
    "he-ckks-vector": ("he", {"he_scheme": "ckks-vector"}),
    "he-ckks-4096": ("he", {"he_scheme": "ckks-vector", "degree": 4096}),
}
#: name, and the most parameters that it is measured on
REFERENCES = {"published-128": 20_000, "flare-ckks": 200_000, "secagg-mask": 10**9}
ROWS = (*OWN, *REFERENCES)


class Times(NamedTuple):
    """Seconds of a row's steps."""

    protect: float
    combine: float
    open: float
    verify: Optional[float]


def layout_of(params: int) -> Layout:
    """Return a network-like layout: layers of growing size with a bias each, and one count."""
    shares = np.arange(1, 13) / np.arange(1, 13).sum()
    weights = np.maximum(1, (shares * (params - 12 * 16)).astype(int))
    weights[-1] += params - 12 * 16 - weights.sum()
    segments = []
    for i, size in enumerate(weights):
        segments += [Segment(f"layer{i}.weight", int(size)), Segment(f"layer{i}.bias", 16)]
    return Layout([*segments, Segment("weight", 1, "count")])


def vector_of(layout: Layout, hospital: int) -> np.ndarray:
    vector = np.random.default_rng(hospital).standard_normal(layout.size, dtype=np.float32)
    vector *= np.float32(0.05)
    vector[-1] = 0.2
    return vector


def median_in_turns(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> Tuple[float, float]:
    """Return the median seconds of two functions that are called in turns."""
    taken: List[List[float]] = [[], []]
    for _ in range(repeats):
        for seconds, function in zip(taken, (first, second)):
            started = time.process_time()
            function()
            seconds.append(time.process_time() - started)
    return float(np.median(taken[0])), float(np.median(taken[1]))


def plain_sum(vectors: Sequence[np.ndarray]) -> Callable[[], None]:
    out = np.empty_like(vectors[0])

    def add() -> None:
        np.add(vectors[0], vectors[1], out=out)
        for vector in vectors[2:]:
            np.add(out, vector, out=out)

    return add


def resident() -> int:
    """Return the process's resident bytes now."""
    try:
        import psutil

        return psutil.Process().memory_info().rss
    except ImportError:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Tracker:
    """Shows on a terminal how far a long step is."""

    def __init__(self, what: str):
        self._what = what
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // total
        if sys.stderr.isatty() and percent > self._shown:
            self._shown = percent
            print(f"\r  {self._what}: {percent} %", end="\n" if done == total else "", file=sys.stderr)


def combine(
    roles: Roles, protected: Dict[str, Protected], exchange: Exchange
) -> Tuple[Dict[str, bytes], float]:
    """Have every party add; return the sums and the busiest party's seconds."""
    combined, longest = {}, 0.0
    for party, side in roles.aggregators.items():
        started = time.process_time()
        for sent in protected.values():
            side.receive(sent.messages[party], exchange)
        releases = {name: sent.release for name, sent in protected.items()}
        combined[party] = side.combine(list(protected), exchange, releases)
        longest = max(longest, time.process_time() - started)
    return combined, longest


def rounded_sum(
    protection: Protection, vectors: Sequence[np.ndarray], layout: Layout, clips: Optional[np.ndarray]
) -> np.ndarray:
    """Return the sum of the values as the scheme's grid has them, rounded to the nearest; counts apart."""
    described = protection.describe()
    if protection.name == "plaintext":
        return np.sum([v.astype(np.float64) for v in vectors], axis=0).astype(np.float32)
    if described.get("bits") is None:
        steps = np.full(layout.size, 2.0 ** -protection.precision_for(len(vectors)))
    else:
        half = 2 ** (described["bits"] - 1) - 1
        sizes = [s.size for s in layout.segments if s.kind != "count"]
        steps = np.append(np.repeat(clips / half, sizes), 1.0)
    whole = np.zeros(layout.size)
    for vector in vectors:
        whole += np.rint(vector * (1 / steps))
    return whole * steps


def measure_own(name: str, params: int, hospitals: int, repeats: int) -> Dict[str, Any]:
    """Measure one of the package's protections."""
    kind, options = OWN[name]
    layout, names = layout_of(params), [f"hospital-{i + 1}" for i in range(hospitals)]
    protection = build_protection(kind, **options)
    roles = protection.setup(names)

    small = Layout([Segment(s.name, 1, s.kind) for s in layout.segments])  # loads what is loaded once
    roles.hospitals[names[0]].protect(np.zeros(small.size, np.float32), Exchange("warm", 0, small))
    before = resident()
    vectors = [vector_of(layout, 0)]
    clips = np.full(sum(s.kind != "count" for s in layout.segments), 0.5)
    for side in roles.hospitals.values():
        side.set_ranges(clips)  # ranges as after a first round
    first = roles.hospitals[names[0]]
    first.progress = Tracker(f"{name}: protecting {params} parameters")
    first.protect(vectors[0], Exchange("memory", 0, layout))
    first.progress = None
    memory = peak_resident() - before

    vectors += [vector_of(layout, i) for i in range(1, hospitals)]
    exchange = Exchange("time", 0, layout)
    protect, plain = median_in_turns(lambda: first.protect(vectors[0], exchange), plain_sum(vectors), repeats)
    times: List[Times] = []
    for number in range(1, max(1, repeats // 4) + 1):
        exchange = Exchange("run", number, layout)
        protected = {h: roles.hospitals[h].protect(v, exchange) for h, v in zip(names, vectors)}
        up = np.mean([len(p.release) + sum(map(len, p.messages.values())) for p in protected.values()])
        combined, seconds = combine(roles, protected, exchange)
        started = time.process_time()
        opened = roles.opener.open(combined, exchange)
        ended = time.process_time()
        verified = first.verify(opened.words, opened.senders, exchange)
        times.append(Times(protect, seconds, ended - started, time.process_time() - ended))
        assert np.array_equal(verified.total, opened.total)
    plain_total = np.sum([v.astype(np.float64) for v in vectors], axis=0)
    error = np.abs(opened.total - plain_total).max()

    if kind == "he" and options["he_scheme"] == "bfv":  # rounding that can be foreseen
        protection = build_protection(kind, **options, rounding="nearest")
        roles = protection.setup(names)
        for side in roles.hospitals.values():
            side.set_ranges(clips)
    exchange = Exchange("exact", 1, layout)
    protected = {h: roles.hospitals[h].protect(v, exchange) for h, v in zip(names, vectors)}
    opened = roles.opener.open(combine(roles, protected, exchange)[0], exchange)
    expected = rounded_sum(protection, vectors, layout, clips)
    return row(
        name,
        params,
        up=up,
        down=sum(map(len, combined.values())),
        times=Times(*np.median(times, axis=0).tolist()),
        plain=plain,
        error=error,
        memory=memory,
        exact=bool(np.array_equal(opened.total[:-1], expected[:-1])),
    )


def measure_reference(name: str, params: int, hospitals: int, repeats: int) -> Dict[str, Any]:
    """Measure a reference, on fewer parameters if it is slow."""
    import references

    build = {"published-128": references.published, "flare-ckks": references.flare}
    reference = build.get(name, references.SecAggMask)(hospitals)
    params = min(params, REFERENCES[name])
    layout = layout_of(params)
    reference.protect(np.zeros(8, np.float32), 0)
    before = resident()
    vectors = [vector_of(layout, 0)]
    reference.protect(vectors[0], 0)
    memory = peak_resident() - before
    vectors += [vector_of(layout, i) for i in range(1, hospitals)]
    protect, plain = median_in_turns(
        lambda: reference.protect(vectors[0], 0), plain_sum(vectors), min(3, repeats)
    )
    messages = [reference.protect(vector, i) for i, vector in enumerate(vectors)]
    started = time.process_time()
    combined = reference.combine(messages)
    added = time.process_time()
    total = reference.open(combined)
    ended = time.process_time()
    plain_total = np.sum([v.astype(np.float64) for v in vectors], axis=0)
    return row(
        name,
        params,
        up=len(messages[0]),
        down=len(combined),
        times=Times(protect, added - started, ended - added, None),
        plain=plain,
        error=np.abs(total - plain_total).max(),
        memory=memory,
        exact=None,
    )


def row(
    name: str,
    params: int,
    *,
    up: float,
    down: float,
    times: Times,
    plain: float,
    error: float,
    memory: float,
    exact: Optional[bool],
) -> Dict[str, Any]:
    scale = 1e6 / params
    return {
        "name": name,
        "up_bytes_per_param": up / params,
        "down_bytes_per_param": down / params,
        "protect_s": times.protect * scale,
        "combine_s": times.combine * scale,
        "open_s": times.open * scale,
        "verify_s": None if times.verify is None else times.verify * scale,
        "peak_memory_bytes": memory,
        "max_error": float(error),
        "exact": exact,
        "ratio_to_plain_sum": times.protect / plain,
        "plain_sum_s": plain * scale,
        "params": params,
    }


def measure(arguments: Tuple[str, int, int, int]) -> Dict[str, Any]:
    name, params, hospitals, repeats = arguments
    function = measure_own if name in OWN else measure_reference
    return function(name, params, hospitals, repeats)


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = (
        "| | up B | down B | protect ms | combine ms | open ms | verify ms | memory MB | largest error "
        "| exact | x plain sum |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|"
    )
    lines = [head]
    for r in rows:
        exact = {True: "yes", False: "no", None: ""}[r["exact"]]
        verify = "" if r["verify_s"] is None else f"{r['verify_s'] * 1e3:.4g}"
        memory = f"{r['peak_memory_bytes'] / 1e6:.0f}"
        if r["params"] < max(other["params"] for other in rows):
            memory = f"({memory})"  # of fewer parameters
        lines.append(
            f"| {r['name']} | {r['up_bytes_per_param']:.4g} | {r['down_bytes_per_param']:.4g} "
            f"| {r['protect_s'] * 1e3:.4g} | {r['combine_s'] * 1e3:.4g} | {r['open_s'] * 1e3:.4g} "
            f"| {verify} | {memory} | {r['max_error']:.1e} | {exact} | {r['ratio_to_plain_sum']:.3g} |"
        )
    return "\n".join(lines)


def chart(rows: Sequence[Dict[str, Any]], path: Path) -> None:
    """Draw bytes sent and time to protect, on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [r["name"] for r in rows][::-1]
    colours = ["tab:grey" if name in REFERENCES else "tab:blue" for name in names]
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.32 * len(rows) + 1.2), sharey=True)
    for axis, key, label, unit in (
        (axes[0], "up_bytes_per_param", "bytes sent per parameter", 1.0),
        (axes[1], "protect_s", "milliseconds to protect a million parameters", 1e3),
    ):
        values = [r[key] * unit for r in rows][::-1]
        axis.barh(names, values, color=colours)
        axis.set_xscale("log")
        axis.set_xlabel(label)
        for i, value in enumerate(values):
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axis.text(value, i, f" {text}", va="center", fontsize=8)
        axis.set_xlim(min(values) / 3, max(values) * 8)
    axes[0].axvline(4.0, color="black", linewidth=0.8, linestyle=":")
    axes[0].set_title("dotted: float32, grey: reference", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--params", type=int, default=1_000_000, help="parameters of the network")
    parser.add_argument("--hospitals", type=int, default=5, help="number of hospitals")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--chart", type=Path, help="draw the rows to this file")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="measure these only")
    parser.add_argument("--repeats", type=int, default=15, help="times that protecting is timed")
    found = parser.parse_args(arguments)
    if found.params < 1000 or found.hospitals < 2 or found.repeats < 1:
        parser.error("--params must be at least 1000, --hospitals 2, --repeats 1")
    return found


def main(arguments: Optional[Sequence[str]] = None) -> List[Dict[str, Any]]:
    options = parse(arguments)
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    rows = []
    context = multiprocessing.get_context("spawn")
    for i, name in enumerate(options.rows):
        print(f"[{i + 1}/{len(options.rows)}] {name}", file=sys.stderr, flush=True)
        with context.Pool(1) as pool:  # a fresh process, whose memory starts small
            job = (name, options.params, options.hospitals, options.repeats)
            rows.append(pool.apply(measure, (job,)))
    print(f"{options.params} parameters, {options.hospitals} hospitals\n")
    print(table(rows))
    if options.json:
        content = {"params": options.params, "hospitals": options.hospitals, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.chart:
        chart(rows, options.chart)
    return rows


if __name__ == "__main__":
    main()
