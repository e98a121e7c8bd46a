"""One file with all state of a run, written whole or not at all, and checked before it is believed.

The file is a line of JSON with the SHA-256 of the rest, then a numpy archive of arrays (never pickled)
whose entry ``header`` is JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, Dict, NamedTuple

import numpy as np

from skinfl.data.normalisation import Normalisation
from skinfl.errors import CheckpointError
from skinfl.federation.common import Prepared
from skinfl.federation.records import RoundRecord
from skinfl.federation.rounds import RunState
from skinfl.federation.selection import Best
from skinfl.federation.state import ServerState
from skinfl.files import write_bytes

_FORMAT = "skinfl-checkpoint"
_VERSION = 4


class Checkpoint(NamedTuple):
    """A run after some round: its state, the hospitals' own state, its settings, and its data's digest.

    ``data`` is empty where who writes the checkpoint does not hold the data.
    """

    state: RunState
    hospitals: Dict[str, np.ndarray]
    settings: Dict[str, Any]
    data: str = ""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``, replacing an older one only when it is complete."""
    p = checkpoint.state
    arrays = {f"hospitals/{name}": array for name, array in checkpoint.hospitals.items()}
    arrays.update({f"server/{name}": array for name, array in p.server.items()})
    if p.ranges is not None:
        arrays["ranges"] = p.ranges
    if p.prepared is not None:
        arrays["class_shares"] = p.prepared.class_shares
        if p.prepared.class_weights is not None:
            arrays["class_weights"] = p.prepared.class_weights
    if p.best is not None:
        arrays["best"] = p.best.model
    header = {
        "run": p.run,
        "round": p.round,
        "server": p.server.declared,
        "normalisation": None if p.prepared is None else list(p.prepared.normalisation),
        "accepted": p.accepted,
        "summed": p.summed,
        "best": None if p.best is None else p.best.round,
        "ended": p.ended,
        "records": [record.to_json() for record in p.records],
        "settings": checkpoint.settings,
        "data": checkpoint.data,
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # newer numpy types an option there
    body = buffer.getvalue()
    line = {"format": _FORMAT, "version": _VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    write_bytes(path, json.dumps(line).encode() + b"\n" + body)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote.

    Raises :class:`~skinfl.errors.CheckpointError` for a file that is missing, cut short, damaged, or
    no checkpoint.
    """
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"no checkpoint at {path} ({error.strerror}): name a run's folder that holds one, or start anew"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): allow it to be read") from None
    first, _, body = content.partition(b"\n")
    try:
        line = json.loads(first.decode())
        if line["format"] != _FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is not a checkpoint of this package") from None
    if line.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {line.get('version')}, this package reads {_VERSION}: "
            "resume with the version that wrote it"
        )
    if hashlib.sha256(body).hexdigest() != line.get("sha256"):
        raise CheckpointError(f"{path} is cut short or damaged: start the run anew, or restore the file")
    try:
        return _parse(body)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): start the run anew") from None


def _parse(body: bytes) -> Checkpoint:
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes().decode())
    prepared = None
    if header["normalisation"] is not None:
        mean, std = header["normalisation"]
        normalisation = Normalisation(tuple(mean), tuple(std))
        prepared = Prepared(normalisation, arrays.get("class_weights"), arrays["class_shares"])
    state = RunState(
        run=header["run"],
        round=header["round"],
        server=ServerState(header["server"], _below("server/", arrays)),
        prepared=prepared,
        accepted=header["accepted"],
        records=tuple(map(RoundRecord.from_json, header["records"])),
        ranges=arrays.get("ranges"),
        summed=header["summed"],
        best=None if header["best"] is None else Best(header["best"], arrays["best"]),
        ended=header["ended"],
    )
    return Checkpoint(state, _below("hospitals/", arrays), header["settings"], header["data"])


def _below(prefix: str, arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
