"""What is written down of each round, and the one place that writes and reads it.

``rounds.jsonl`` holds one JSON object a round, with the keys of :meth:`RoundRecord.to_json`. Checkpoints
hold the same objects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from skinfl.errors import DataError
from skinfl.files import PathLike, write_text

_DIFFERENCE = "max_abs_difference_from_plaintext_sum"


class Seconds(NamedTuple):
    """Wall-clock seconds of a round by phase; ``train`` and ``protect`` are summed over hospitals."""

    train: float
    protect: float
    combine: float
    open: float
    evaluate: float

    @property
    def total(self) -> float:
        """Return the seconds of all phases together."""
        return sum(self)


class RoundRecord(NamedTuple):
    """One round. Mappings are by hospital.

    ``round`` counts from one. ``trained`` are the hospitals in the opened sum, ``left_out`` the others
    that were asked, and why. ``mean_loss`` is the training loss weighted by images, ``mean_clipped`` the
    mean share of values, 0 to 1, that the protection cut off: both are from the opened sum, None where there
    is none. ``train_loss`` and ``clipped`` are the same of each hospital that lets its own out.
    ``transforms`` are the public figures of each update transform, by its name. ``metrics`` are those of
    :func:`skinfl.federation.evaluation.evaluate` on the common test set, None where it was not evaluated;
    ``hospitals_together`` those of all hospitals' test images, as
    :func:`skinfl.federation.figures.unpack_evaluation` gives them; ``hospital_metrics`` those on each
    hospital's own, of hospitals that let them out. ``personal_together`` and ``personal_metrics`` are
    the same of the hospitals' own models, which the last round has where there are any. ``bytes_up`` and
    ``bytes_down`` are what each hospital sent and received, in bytes.
    ``max_abs_difference_from_plaintext_sum`` is the opened sum's, in the contribution's unit; only
    simulations know it.
    """

    round: int
    trained: Tuple[str, ...]
    left_out: Dict[str, str]
    mean_loss: Optional[float]
    mean_clipped: Optional[float]
    train_loss: Dict[str, float]
    clipped: Dict[str, float]
    transforms: Dict[str, Dict[str, float]]
    metrics: Optional[Dict[str, Any]]
    hospitals_together: Optional[Dict[str, Any]]
    hospital_metrics: Dict[str, Dict[str, Any]]
    bytes_up: Dict[str, int]
    bytes_down: Dict[str, int]
    seconds: Seconds
    max_abs_difference_from_plaintext_sum: Optional[float]
    personal_together: Optional[Dict[str, Any]] = None
    personal_metrics: Dict[str, Dict[str, Any]] = {}

    def metric(self, key: str) -> Optional[float]:
        """Return one metric on the common test set, None where there is none."""
        return None if self.metrics is None else self.metrics.get(key)

    def to_json(self) -> Dict[str, Any]:
        """Return the record as JSON has it: plain lists, dicts and numbers."""
        return {
            "round": self.round,
            "trained": list(self.trained),
            "left_out": self.left_out,
            "mean_loss": self.mean_loss,
            "mean_clipped": self.mean_clipped,
            "train_loss": self.train_loss,
            "clipped": self.clipped,
            "transforms": self.transforms,
            "metrics": self.metrics,
            "hospitals_together": self.hospitals_together,
            "hospital_metrics": self.hospital_metrics,
            "personal_together": self.personal_together,
            "personal_metrics": self.personal_metrics,
            "bytes": {"up": self.bytes_up, "down": self.bytes_down},
            "seconds": self.seconds._asdict(),
            _DIFFERENCE: self.max_abs_difference_from_plaintext_sum,
        }

    @classmethod
    def from_json(cls, data: Any) -> RoundRecord:
        """Return the record that :meth:`to_json` gave.

        Raises :class:`ValueError` for a missing or unknown field, or one that is of another kind.
        """
        _check("a round's record", data, _KINDS)
        _check("its bytes", data["bytes"], dict.fromkeys(("up", "down"), dict))
        _check("its seconds", data["seconds"], dict.fromkeys(Seconds._fields, _NUMBER))
        others = {key: value for key, value in data.items() if key not in ("bytes", "seconds", "trained")}
        return cls(
            trained=tuple(data["trained"]),
            bytes_up=data["bytes"]["up"],
            bytes_down=data["bytes"]["down"],
            seconds=Seconds(**data["seconds"]),
            **others,
        )


_NUMBER = (int, float)
_NONE = type(None)
_KINDS = {
    "round": int,
    "trained": list,
    "left_out": dict,
    "mean_loss": (*_NUMBER, _NONE),
    "mean_clipped": (*_NUMBER, _NONE),
    "train_loss": dict,
    "clipped": dict,
    "transforms": dict,
    "metrics": (dict, _NONE),
    "hospitals_together": (dict, _NONE),
    "hospital_metrics": dict,
    "personal_together": (dict, _NONE),
    "personal_metrics": dict,
    "bytes": dict,
    "seconds": dict,
    _DIFFERENCE: (*_NUMBER, _NONE),
}


def write_records(path: PathLike, records: Iterable[RoundRecord]) -> Path:
    """Write ``rounds.jsonl``, whole or not at all, and return its path."""
    return write_text(path, "".join(json.dumps(r.to_json()) + "\n" for r in records))


def read_records(path: PathLike) -> List[RoundRecord]:
    """Read what :func:`write_records` wrote.

    Raises :class:`~skinfl.errors.DataError`, with the line's number, for anything else.
    """
    records = []
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"cannot read {path}: {reason}") from None
    for number, line in enumerate(lines, 1):
        try:
            records.append(RoundRecord.from_json(json.loads(line)))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {error}; it is not as this version writes it: restore the file"
            ) from None
    return records


def _check(what: str, data: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{what} must be an object")
    for key in kinds:
        if key not in data:
            raise ValueError(f"{what} lacks {key!r}")
    for key, value in data.items():
        if key not in kinds:
            raise ValueError(f"{what} has an unknown field {key!r}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise ValueError(f"{what} has a {key!r} of another kind")
