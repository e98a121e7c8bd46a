"""Train on Flower: a SuperLink and SuperNodes on this machine, with TLS and authentication."""

import shutil
from pathlib import Path

import typer

from skinfl.cli import experiment
from skinfl.flags import Invocation
from skinfl.run_folder import CHECKPOINT

CHECKOUT = Path(__file__).resolve().parent.parent


def main(
    invocation: Invocation,
    simulation: bool = typer.Option(False, help="run all hospitals in Flower's simulation engine"),
    timeout: float = typer.Option(86400.0, help="seconds after which the run is given up"),
) -> None:
    """Train on Flower: a SuperLink and SuperNodes on this machine, with TLS and authentication.

    Everything it starts is stopped, whatever happens.
    """
    from skinfl.flower.local.experiment import flower_settings, run_experiment
    from skinfl.flower.local.simulation import load_to_hand_out

    settings = flower_settings(invocation.settings)
    federated = load_to_hand_out(settings)
    invocation.folder.begin(settings)
    try:
        result = run_experiment(
            settings,
            federated,
            invocation.out,
            CHECKOUT,
            simulation=simulation,
            resume=invocation.resume,
            timeout=timeout,
            show=lambda line: print(line) if line.startswith("run ") else None,
        )
    finally:
        if not (invocation.out / CHECKPOINT).exists():  # keys of a federation that never trained
            shutil.rmtree(str(invocation.out / "federation"), ignore_errors=True)
    final, memory = result["final"], result["memory"]["peak_bytes"]
    print(f"final: accuracy {final['accuracy']:.3f}, balanced accuracy {final['balanced_accuracy']:.3f}")
    if memory is not None:
        print(f"memory of all processes: at most {memory / 2**20:.0f} MiB")
    print(f"report: {invocation.out / 'report.html'}")


if __name__ == "__main__":
    experiment("flower", main, {})
