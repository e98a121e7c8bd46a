"""Figures in words, for whoever cannot see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, Sequence

from skinfl.predictions import LesionClass
from skinfl.report import findings, wording

if TYPE_CHECKING:
    from skinfl.federation.records import RoundRecord

#: hospitals that are named one by one
NAMED = 12


def curves(rounds: Sequence[RoundRecord]) -> str:
    """Return where the training curves end."""
    last = rounds[-1] if rounds else None
    if last is None or last.metrics is None:
        return "Loss and metrics over rounds."
    return (
        f"Lines of loss, accuracy, balanced accuracy and macro F1 over {len(rounds)} rounds; at the end, "
        f"accuracy {wording.score(last.metric('accuracy'))}, balanced accuracy "
        f"{wording.score(last.metric('balanced_accuracy'))}."
    )


def confusion(confusion: Sequence[Sequence[int]], classes: Sequence[LesionClass]) -> str:
    """Return how many photographs of each class the model gets right."""
    rows = [
        f"{wording.class_label(each)} {row[k]} of {sum(row)} right"
        for k, (each, row) in enumerate(zip(classes, confusion))
        if sum(row)
    ]
    return "; ".join(rows) + "."


def partition(partition: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Return how many images each hospital holds."""
    held = []
    for name, folds in list(partition.items())[:NAMED]:
        counts = {f"{fold}_images": sum(of.values()) for fold, of in folds.items()}
        held.append(f"{name} {wording.folds(counts) or 'no'} images")
    more = f" and {len(partition) - NAMED} more" if len(partition) > NAMED else ""
    return "; ".join(held) + more + "."


def reliability(bins: findings.Bins) -> str:
    """Return how often the answer is right, by how sure the model is."""
    shown = [
        f"{n} photographs at probability {sure:.2f}, {right:.0%} right"
        for n, sure, right in zip(bins.counts, bins.confidence, bins.accuracy)
        if n
    ]
    return "; ".join(shown) + "."


def last(rounds: Mapping[str, Sequence[RoundRecord]]) -> str:
    """Return balanced accuracy and AUC of each protection after the last round."""
    ends = [
        f"{name} {wording.score(records[-1].metric('balanced_accuracy'))} and "
        f"{wording.score(records[-1].metric('auc'))}"
        for name, records in rounds.items()
        if records
    ]
    return f"At the end: {'; '.join(ends)}."
