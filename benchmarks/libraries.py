"""Measure SyMPC's and PySyft 0.2.9's own sharing beside the package's, on the same vectors.

Each needs its environment (docs/environments.md); what is not installed is left out. The package's
sharing runs with what the libraries do: a ring of 64 bits, 16 fractional bits, values cut towards zero.

    python benchmarks/libraries.py --params 30000 --hospitals 5
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

import skinfl.openmined  # noqa: F401 - registers the libraries
from skinfl.errors import SettingsError
from skinfl.protection.base import Exchange, Protection
from skinfl.protection.build import build_protection
from skinfl.protection.layout import Layout, Segment

OWN: Dict[str, Any] = {"ring": 64, "precision": 16, "rounding": "truncate"}


class Row(NamedTuple):
    """``seconds`` of processor time for a whole sum: protect, send, add, open; ``sent`` in bytes."""

    name: str
    setup: float
    seconds: float
    sent: int
    error: float
    total: np.ndarray


def measure(protection: Protection, vectors: Dict[str, np.ndarray], repeats: int) -> Row:
    """Return the median processor time of a sum, its size and its largest error."""
    started = time.process_time()
    roles = protection.setup(tuple(vectors))
    setup = time.process_time() - started
    layout = Layout([Segment("weights", len(next(iter(vectors.values()))))])
    taken = []
    for round in range(repeats):
        exchange = Exchange("benchmark", round, layout)
        started, sent = time.process_time(), 0
        for name, vector in vectors.items():
            for party, message in roles.hospitals[name].protect(vector, exchange).messages.items():
                roles.aggregators[party].receive(message, exchange)
                sent += len(message)
        combined = {name: side.combine(tuple(vectors), exchange) for name, side in roles.aggregators.items()}
        opened = roles.opener.open(combined, exchange)
        taken.append(time.process_time() - started)
    exact = sum(vector.astype(np.float64) for vector in vectors.values())
    error = float(np.abs(opened.total - exact).max())
    return Row(protection.name, setup, float(np.median(taken)), sent, error, opened.total)


def main(arguments: Optional[Sequence[str]] = None) -> List[Row]:
    """Print a row for the package's own sharing and each installed library's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=int, default=30_000, help="values of a vector")
    parser.add_argument("--hospitals", type=int, default=5, help="number of hospitals")
    parser.add_argument("--repeats", type=int, default=9, help="times that a sum is timed")
    asked = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    vectors = {
        f"hospital-{i + 1}": rng.standard_normal(asked.params, dtype=np.float32)
        for i in range(asked.hospitals)
    }
    rows = [measure(build_protection("smpc", **OWN), vectors, asked.repeats)]
    for name in ("sympc", "pysyft"):
        try:
            rows.append(measure(build_protection(name), vectors, asked.repeats))
        except SettingsError as error:
            print(f"{name} is left out: {error}")
    print(f"{asked.params} values, {asked.hospitals} hospitals, 3 parties, median of {asked.repeats}")
    print(f"{'':8}{'set-up s':>10}{'sum s':>10}{'bytes sent':>14}{'error':>10}  the sum")
    for row in rows:
        same = "same to the last bit" if np.array_equal(row.total, rows[0].total) else "DIFFERS"
        print(f"{row.name:8}{row.setup:10.3f}{row.seconds:10.3f}{row.sent:14,}{row.error:10.1e}  {same}")
    return rows


if __name__ == "__main__":
    main()
