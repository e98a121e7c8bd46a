"""The commands ``skinfl serve`` and ``skinfl diagnose``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Union

import typer

from skinfl.console import report
from skinfl.errors import DataError, ProtectionError, SettingsError
from skinfl.paths import path
from skinfl.run_folder import model_in

if TYPE_CHECKING:
    import numpy as np

    from skinfl.inference.clinic.remote import RemoteModel
    from skinfl.inference.local import LocalModel

#: what a clinic may send beside what data sets consist of
_MORE_EXTENSIONS = (".bmp", ".tif", ".tiff", ".webp")
NO_DEVICE = "This is research software, not a medical device: no diagnosis or treatment may rest on it."


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(
        epilog="Examples:\n\nskinfl serve --model runs/RUN\n\n"
        "skinfl serve --model runs/RUN --host 0.0.0.0 --tls-certificate c.pem --tls-key k.pem"
    )(serve)
    app.command(
        epilog="Examples:\n\nskinfl diagnose lesion.jpg --local --model runs/RUN\n\n"
        "skinfl diagnose photographs --server http://127.0.0.1:8000"
    )(diagnose)


def serve(
    model: Path = typer.Option(
        ..., "--model", parser=path, help="folder of a run, or the model.npz that it wrote"
    ),
    host: str = typer.Option("127.0.0.1", "--host", help="address to listen on"),
    port: int = typer.Option(8000, "--port", help="port to listen on"),
    workers: int = typer.Option(0, "--workers", help="processes that evaluate images; 0: one for each core"),
    batches: bool = typer.Option(False, "--batches", help="take batches of thousands of images as well"),
    clients: int = typer.Option(16, "--clients", help="clients whose keys are held at once, 45 MB each"),
    key_lifetime: float = typer.Option(3600.0, "--key-lifetime", help="seconds after which unused keys go"),
    timeout: float = typer.Option(30.0, "--timeout", help="seconds that one evaluation may take"),
    body_timeout: float = typer.Option(60.0, "--body-timeout", help="seconds that one upload may take"),
    tls_certificate: Optional[Path] = typer.Option(
        None, "--tls-certificate", parser=path, help="PEM file, for https"
    ),
    tls_key: Optional[Path] = typer.Option(
        None, "--tls-key", parser=path, help="PEM file of the certificate's key"
    ),
) -> None:
    """Serve a model to clients that send encrypted images.

    The server never sees an image or an answer. See docs/inference.md for what each side learns.
    """
    from skinfl.inference.circuit.prepare import prepare
    from skinfl.inference.server.app import bind, check_certificate, create_app, listen
    from skinfl.inference.server.pool import Limits
    from skinfl.models import load_model

    if (tls_certificate is None) != (tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key belong together: give both or neither")
    numbers = (("--clients", clients), ("--key-lifetime", key_lifetime))
    for flag, value in (*numbers, ("--timeout", timeout), ("--body-timeout", body_timeout)):
        if not value > 0:
            raise SettingsError(f"{flag} {value} is impossible: give a positive number")
    if workers < 0 or not 0 < port < 65536:
        raise SettingsError(
            f"--workers {workers} --port {port} is impossible: give 0 or more, and 1 to 65535"
        )
    tls = None if tls_certificate is None else (str(tls_certificate), str(tls_key))
    if tls is not None:
        check_certificate(*tls)
    served = prepare(load_model(model_in(model)), batches=batches)
    listeners = bind(host, port)
    app = create_app(
        served,
        workers=workers or os.cpu_count() or 1,
        limits=Limits(clients=clients, key_lifetime=key_lifetime, compute_timeout=timeout),
        body_timeout=body_timeout,
    )
    listen(app, listeners, tls)


def diagnose(
    images: List[Path] = typer.Argument(..., parser=path, help="image files, or folders of them"),
    server: Optional[str] = typer.Option(
        None, "--server", help="address of a server, e.g. https://host:8000"
    ),
    local: bool = typer.Option(False, "--local", help="do without a server: both sides in this process"),
    model: Optional[Path] = typer.Option(
        None, "--model", parser=path, help="folder of a run, or its model file, with --local"
    ),
    ca: Optional[Path] = typer.Option(
        None, "--ca", parser=path, help="PEM file of authorities to trust for https"
    ),
    batch: bool = typer.Option(False, "--batch", help="encrypt all images together: for hundreds and more"),
) -> None:
    """Classify images without showing them: they are encrypted here, and only here are answers read.

    What is wrong with one image is said on stderr, with exit status 2 at the end; the others are classified.
    """
    import numpy as np

    from skinfl.inference.clinic.preprocess import probabilities, read_images

    if local == (server is not None):
        raise SettingsError("say who evaluates: --server ADDRESS, or --local --model FILE")
    if local != (model is not None):
        raise SettingsError("--local and --model belong together: give both, or --server alone")
    files = [file for given in images for file in _files_of(given)]
    evaluator: Union[LocalModel, RemoteModel]
    if model is not None:
        from skinfl.inference.circuit.prepare import prepare
        from skinfl.inference.local import LocalModel
        from skinfl.models import load_model

        evaluator = LocalModel(prepare(load_model(model_in(model)), batches=batch))
    else:
        from skinfl.inference.clinic.remote import RemoteModel

        evaluator = RemoteModel(str(server), None if ca is None else str(ca))
    info = evaluator.info
    failed = []

    def read(file: Path) -> np.ndarray:
        return read_images(
            [file],
            channels=info.latency.channels,
            preparation=info.preparation,
            mean=info.mean,
            std=info.std,
        )

    def show(file: Path, logits: np.ndarray) -> None:
        shares = probabilities(logits[None] / info.temperature)[0]
        ranked = sorted(zip(shares, info.titles or info.class_names), reverse=True)
        typer.echo(f"{file}: " + ", ".join(f"{name} {share:.1%}" for share, name in ranked))

    pixels = {}
    for file in files:
        try:
            if batch:
                pixels[file] = read(file)
            else:
                show(file, evaluator.logits(read(file))[0])
        except (DataError, ProtectionError) as error:
            failed.append(file)
            report(f"{file}: {error}" if str(file) not in str(error) else error)
    if pixels:
        for file, row in zip(pixels, evaluator.batch_logits(np.concatenate(list(pixels.values())))):
            show(file, row)
    if len(failed) < len(files):
        typer.echo(NO_DEVICE)
    if failed:
        raise typer.Exit(2)


def _files_of(given: Path) -> List[Path]:
    """Return the image files that ``given`` means: itself, or those in it where it is a folder."""
    from skinfl.data.images import EXTENSIONS

    try:
        if not given.is_dir():
            return [given]
        found = sorted(
            file
            for file in given.iterdir()
            if file.suffix.lower() in {*EXTENSIONS, *_MORE_EXTENSIONS} and not file.name.startswith(".")
        )
    except OSError as error:
        raise DataError(f"cannot read {given}: {error.strerror}") from None
    if not found:
        raise DataError(f"{given} holds no images: give image files, or a folder that holds some itself")
    return found
