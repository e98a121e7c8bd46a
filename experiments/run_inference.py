"""Diagnose encrypted test images: train shortly, or take a trained model, and compare with plain answers."""

from pathlib import Path
from typing import Any, Dict, Optional

import typer
from rich.console import Console

from skinfl.cli import Invocation, experiment, train_and_report
from skinfl.console import loading
from skinfl.errors import SettingsError
from skinfl.paths import path
from skinfl.run_folder import model_in


def main(
    invocation: Invocation,
    trained: Optional[Path] = typer.Option(
        None, parser=path, help="model file, or folder of a run, to take instead of training one"
    ),
    images: int = typer.Option(200, min=0, help="test images to diagnose; 0 for all"),
    batch: bool = typer.Option(False, help="encrypt all images together instead of one by one"),
) -> None:
    """Diagnose encrypted test images and compare with plain answers: logits, accuracy, seconds, bytes."""
    from skinfl.assembly import load_federated_data
    from skinfl.files import write_json
    from skinfl.inference.evaluation import compare_with_plain, images_to_test
    from skinfl.models import load_model

    if trained is not None and invocation.resume:
        raise SettingsError("--trained is instead of training, --resume goes on with it: give one of them")
    if trained is None:
        train_and_report(invocation)
    stored = load_model(model_in(trained or invocation.out))
    test = images_to_test(stored, load_federated_data(invocation.settings).test, images)
    with loading(Console()) as progress:
        result = compare_with_plain(stored, test, batch=batch, progress=progress)
    if trained is not None:
        invocation.folder.begin(invocation.settings)
    write_json(invocation.out / "inference.json", result)
    show(result)
    typer.echo(f"figures: {invocation.out / 'inference.json'}")


def show(result: Dict[str, Any]) -> None:
    """Print what a reader wants to know first."""
    plain, encrypted = result["plain"], result["encrypted"]
    note = " (synthetic)" if result["synthetic"] else ""
    typer.echo(f"{result['images']} encrypted test images of {result['data']}{note}, {result['mode']} mode")
    for name in plain:
        typer.echo(f"  {name}: {encrypted[name]:.4f}, plain {plain[name]:.4f}")
    typer.echo(
        f"  logits: off by at most {result['logit_error_max']:.4f}, "
        f"{result['rel_logit_error_max']:.2%} of the largest; same class in {result['argmax_agreement']:.2%}"
    )
    if result["mode"] == "latency":
        typer.echo(
            f"  an image: server {result['server_ms_median']:.0f} ms, client "
            f"{result['client_encrypt_ms']:.0f} + {result['client_decrypt_ms']:.0f} ms; "
            f"{result['upload_bytes'] / 1e3:.0f} kB up, "
            f"{result['download_bytes'] / 1e3:.0f} kB down; keys once {result['keys_bytes'] / 1e6:.1f} MB"
        )
    else:
        typer.echo(
            f"  an image: server {result['ms_per_image']:.1f} ms, "
            f"{result['upload_bytes_per_image'] / 1e3:.1f} kB up"
        )


if __name__ == "__main__":
    experiment("inference", main, {"protection": "plaintext"})
