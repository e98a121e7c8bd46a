"""Measure what more hospitals cost on Flower, as Markdown.

    python benchmarks/flower_scaling.py [--hospitals 10,30,100] [--protection smpc] [--data PATH]

Runs Flower's simulation engine once for each number of hospitals, with the same data shared out more and
more thinly. Needs the extra ``simulation``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from skinfl.console import fail
from skinfl.errors import SkinflError
from skinfl.files import write_json
from skinfl.flower.local.experiment import run_experiment
from skinfl.flower.local.simulation import load_to_hand_out
from skinfl.settings import Settings

CHECKOUT = Path(__file__).resolve().parent.parent
_HEADER = (
    "| hospitals | asked per round | set-up s | set-up MB through the coordinator | round s | "
    "MB up per hospital and round | MB through the coordinator per round | memory MiB |"
)


def measure(settings: Settings, out: Path, app: Path) -> Dict[str, Any]:
    """Run one simulation and return a row of the table; sizes in bytes, times in seconds."""
    result = run_experiment(settings, load_to_hand_out(settings), out, app, simulation=True, show=_quiet)
    traffic = result["traffic"]
    setup = [traffic[kind] for kind in ("join", "statistics") if kind in traffic]
    sums = traffic.get("combine", traffic.get("open", _NOTHING))
    # One of the exchanges that add up belongs to the statistics: it takes as long, but its bytes are few.
    rounds = result["rounds"]
    share = rounds / max(1, sums["exchanges"])
    moved = sum(kind["bytes_up"] + kind["bytes_down"] for kind in (traffic["train"], sums))
    return {
        "hospitals": result["hospitals"],
        "asked": traffic["train"]["messages"] // rounds,
        "setup_s": sum(kind["seconds"] for kind in setup),
        "setup_bytes": sum(kind["bytes_up"] + kind["bytes_down"] for kind in setup),
        "round_s": (traffic["train"]["seconds"] + share * sums["seconds"]) / rounds,
        "up_bytes": result["bytes"]["up_per_hospital_per_round"],
        "coordinator_bytes": moved / rounds,
        "memory_bytes": result["memory"]["peak_bytes"],
    }


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = [_HEADER, "|" + " ---: |" * 8]
    for row in rows:
        memory = "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.0f}"
        cells = [
            row["hospitals"],
            row["asked"],
            f"{row['setup_s']:.0f}",
            f"{row['setup_bytes'] / 1e6:.2f}",
            f"{row['round_s']:.1f}",
            f"{row['up_bytes'] / 1e6:.2f}",
            f"{row['coordinator_bytes'] / 1e6:.2f}",
            memory,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


_NOTHING = {"exchanges": 1, "messages": 0, "bytes_up": 0, "bytes_down": 0, "seconds": 0.0}


def _quiet(line: str) -> None:
    pass


def numbers(text: str) -> List[int]:
    """Return whole numbers that stand between commas; argparse makes one line of what is none."""
    return [int(part) for part in text.split(",")]


def main(argv: Optional[List[str]] = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--hospitals", type=numbers, default=[10, 30, 100], help="numbers of hospitals, by comma"
    )
    parser.add_argument("--asked", type=int, default=10, help="hospitals asked in each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each run")
    parser.add_argument("--protection", default="smpc", help="smpc (three parties), he or plaintext")
    parser.add_argument("--data", default="synthetic", help="as for skinfl train")
    parser.add_argument("--out", type=Path, default=Path("runs") / "scaling", help="folder to write to")
    given = parser.parse_args(argv)
    rows = []
    for count in given.hospitals:
        settings = Settings(
            data=given.data,
            hospitals=count,
            partition="iid",
            protection=given.protection,
            parties="3" if given.protection == "smpc" else None,
            rounds=given.rounds,
            sample=min(1.0, given.asked / count),
            local_epochs=1,
            evaluate_every=given.rounds,
        )
        rows.append(measure(settings, given.out / str(count), CHECKOUT))
        print(table(rows[-1:]), flush=True)
    write_json(given.out / "scaling.json", rows)
    print("\n" + table(rows))


if __name__ == "__main__":
    try:
        main()
    except SkinflError as error:
        fail(error)
