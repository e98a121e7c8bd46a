"""The commands ``skinfl serve`` and ``skinfl diagnose``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional

import typer

from skinfl.errors import SettingsError

NO_DEVICE = "This is research software, not a medical device: no diagnosis or treatment may rest on it."


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(serve)
    app.command()(diagnose)


def serve(
    model: Path = typer.Option(..., "--model", help="model file that training wrote (model.npz)"),
    host: str = typer.Option("127.0.0.1", "--host", help="address to listen on"),
    port: int = typer.Option(8000, "--port", help="port to listen on"),
    workers: int = typer.Option(0, "--workers", help="processes that evaluate images; 0: one for each core"),
    batches: bool = typer.Option(False, "--batches", help="take batches of thousands of images as well"),
    clients: int = typer.Option(16, "--clients", help="clients whose keys are held at once, 45 MB each"),
    key_lifetime: float = typer.Option(3600.0, "--key-lifetime", help="seconds after which unused keys go"),
    timeout: float = typer.Option(30.0, "--timeout", help="seconds that one evaluation may take"),
    body_timeout: float = typer.Option(60.0, "--body-timeout", help="seconds that one upload may take"),
    tls_certificate: Optional[Path] = typer.Option(None, "--tls-certificate", help="PEM file, for https"),
    tls_key: Optional[Path] = typer.Option(None, "--tls-key", help="PEM file of the certificate's key"),
) -> None:
    """Serve a model to clients that send encrypted images.

    The server never sees an image or an answer. See docs/inference.md for what each side learns.
    """
    from skinfl.inference.circuit.prepare import prepare
    from skinfl.inference.server.app import create_app, listen
    from skinfl.inference.server.pool import Limits
    from skinfl.models import load_model

    if (tls_certificate is None) != (tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key belong together: give both or neither")
    for file in (tls_certificate, tls_key):
        if file is not None and not file.is_file():
            raise SettingsError(f"{file} does not exist: give a PEM file")
    numbers = (("--clients", clients), ("--key-lifetime", key_lifetime))
    for flag, value in (*numbers, ("--timeout", timeout), ("--body-timeout", body_timeout)):
        if not value > 0:
            raise SettingsError(f"{flag} {value} is impossible: give a positive number")
    if workers < 0 or not 0 < port < 65536:
        raise SettingsError(
            f"--workers {workers} --port {port} is impossible: give 0 or more, and 1 to 65535"
        )
    app = create_app(
        prepare(load_model(model), batches=batches),
        workers=workers or os.cpu_count() or 1,
        limits=Limits(clients=clients, key_lifetime=key_lifetime, compute_timeout=timeout),
        body_timeout=body_timeout,
    )
    listen(
        app,
        host,
        port,
        tls_certificate=None if tls_certificate is None else str(tls_certificate),
        tls_key=None if tls_key is None else str(tls_key),
    )


def diagnose(
    images: List[Path] = typer.Argument(..., help="image files"),
    server: Optional[str] = typer.Option(
        None, "--server", help="address of a server, e.g. https://host:8000"
    ),
    local: bool = typer.Option(False, "--local", help="do without a server: both sides in this process"),
    model: Optional[Path] = typer.Option(None, "--model", help="model file, with --local"),
    ca: Optional[Path] = typer.Option(None, "--ca", help="PEM file of authorities to trust for https"),
    batch: bool = typer.Option(False, "--batch", help="encrypt all images together: for hundreds and more"),
) -> None:
    """Classify images without showing them: they are encrypted here, and only here are answers read."""
    from skinfl.inference.clinic.preprocess import probabilities, read_images

    if local == (server is not None):
        raise SettingsError("say who evaluates: --server ADDRESS, or --local --model FILE")
    if local != (model is not None):
        raise SettingsError("--local and --model belong together: give both, or --server alone")
    if local:
        from skinfl.inference.circuit.prepare import prepare
        from skinfl.inference.local import LocalModel
        from skinfl.models import load_model

        evaluator = LocalModel(prepare(load_model(model), batches=batch))
    else:
        from skinfl.inference.clinic.remote import RemoteModel

        evaluator = RemoteModel(server, None if ca is None else str(ca))
    info = evaluator.info
    pixels = read_images(
        images,
        channels=info.latency.channels,
        image_size=info.latency.image_size,
        mean=info.mean,
        std=info.std,
    )
    logits = evaluator.batch_logits(pixels) if batch else evaluator.logits(pixels)
    for path, row in zip(images, probabilities(logits)):
        ranked = sorted(zip(row, info.class_names), reverse=True)
        typer.echo(f"{path}: " + ", ".join(f"{name} {share:.1%}" for share, name in ranked))
    typer.echo(NO_DEVICE)
