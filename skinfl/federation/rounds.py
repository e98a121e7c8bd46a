"""The rounds: ask hospitals, have their contributions added, open the sum, apply it, evaluate.

A loop over events; it prints, writes and draws nothing itself.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from torch import nn

from skinfl import seeds
from skinfl.data.dataset import LesionDataset
from skinfl.data.transforms import Normalisation, normalisation_from_sums
from skinfl.errors import SkinflError, TrainingError
from skinfl.federation.audit import Audit
from skinfl.federation.evaluation import evaluate
from skinfl.federation.events import (
    Aggregated,
    Event,
    HospitalLeftOut,
    HospitalTrained,
    RoundFinished,
    RoundStarted,
    RunStarted,
)
from skinfl.federation.hospital import STATISTICS_ROUND, ClientUpdate, Task, statistics_layout
from skinfl.federation.messages import server_bytes
from skinfl.federation.records import RoundRecord, Seconds
from skinfl.federation.state import ServerState
from skinfl.federation.strategies.base import Strategy
from skinfl.federation.transforms import Figures, Pipeline, ServerContext
from skinfl.federation.transport import Transport
from skinfl.federation.update import StateLayout
from skinfl.protection.base import Exchange

#: the sum of a single hospital is that hospital's update: it is never opened
LEAST_SENDERS = 2


class Prepared(NamedTuple):
    """What all hospitals train with, derived from protected sums before the first round."""

    normalisation: Normalisation
    class_weights: Optional[np.ndarray]


class RunState(NamedTuple):
    """Everything that a run has produced so far; with the hospitals' state, all of a checkpoint."""

    run: str
    round: int
    server: ServerState
    prepared: Optional[Prepared]
    accepted: Dict[str, int]
    records: Tuple[RoundRecord, ...]
    ranges: Optional[np.ndarray] = None

    @property
    def begun(self) -> Prepared:
        """What was prepared. Raises TrainingError where nothing was, before the first round."""
        if self.prepared is None:
            raise TrainingError("no round was begun yet: normalisation and class weights are not known")
        return self.prepared


class Schedule(NamedTuple):
    """Who is asked when: number of rounds, shares asked and vanishing, rounds between evaluations."""

    rounds: int
    sample: float
    dropout: float
    evaluate_every: int
    class_weights: str
    seed: int


class Federation:
    """A federation that trains one network.

    ``transforms`` are those that the hospitals' contributions went through; here their server's halves run.
    ``test`` is the common test set, ``None`` where there is none. ``unsynchronised_batchnorm`` says
    that BatchNorm statistics stay at the hospitals. ``audit`` exists in simulations only.
    """

    def __init__(
        self,
        transport: Transport,
        strategy: Strategy,
        layout: StateLayout,
        model: nn.Module,
        schedule: Schedule,
        *,
        state: RunState,
        channels: int,
        classes: int,
        transforms: Optional[Pipeline] = None,
        test: Optional[LesionDataset] = None,
        unsynchronised_batchnorm: bool = False,
        audit: Optional[Audit] = None,
    ):
        self._transport = transport
        self._strategy = strategy
        self._layout = layout
        self._contribution = strategy.contribution_layout(layout)
        self._transforms = Pipeline() if transforms is None else transforms
        self._model = model
        self._schedule = schedule
        self._statistics_layout = statistics_layout(channels, classes)
        self._channels = channels
        self._test = test
        self._local_batchnorm = unsynchronised_batchnorm
        self._audit = audit
        self.state = state

    def run(self) -> Iterator[Event]:
        """Run the rounds that are left; after each :class:`RoundFinished`, ``state`` is complete."""
        first = self.state.round + 1
        yield RunStarted(first, self._schedule.rounds, self._transport.hospitals)
        if self.state.prepared is None:
            self.state = self.state._replace(prepared=self._prepare())
        for round in range(first, self._schedule.rounds + 1):
            yield from self._round(round)

    def _prepare(self) -> Prepared:
        """Derive normalisation and class weights from sums over all hospitals' training images."""
        exchange = Exchange(self.state.run, STATISTICS_ROUND, self._statistics_layout)
        messages, failures = {}, {}
        for name, answer in self._transport.statistics(self.state.run).items():
            if isinstance(answer, SkinflError):
                failures[name] = str(answer)
            else:
                messages[name] = answer.messages
        combined = self._transport.combine(messages, exchange, LEAST_SENDERS)
        failures.update(combined.refused)
        if failures:
            name, reason = next(iter(failures.items()))
            raise TrainingError(f"{name} could not take part in the statistics before training: {reason}")
        total = self._transport.open(combined, exchange).total
        pixels, counts = total[: 2 * self._channels + 1], total[2 * self._channels + 1 :]
        weights = class_weights(counts, self._schedule.class_weights)
        return Prepared(normalisation_from_sums(pixels), weights)

    def _round(self, round: int) -> Iterator[Event]:
        asked, vanishing = self._participants(round)
        yield RoundStarted(round, asked)
        exchange = Exchange(self.state.run, round, self._transforms.layout(self._contribution))
        seconds = {"train": 0.0, "protect": 0.0}
        updates: Dict[str, ClientUpdate] = {}
        left_out: Dict[str, str] = {}
        for name, answer in self._transport.train({name: self._task(name, round) for name in asked}):
            if isinstance(answer, SkinflError):
                left_out[name] = str(answer)
            elif name in vanishing:
                left_out[name] = "vanished before it sent (simulated)"
            else:
                updates[name] = answer
                for phase in seconds:
                    seconds[phase] += answer.seconds[phase]
                size = sum(map(len, answer.messages.values()))
                took = sum(answer.seconds.values())
                yield HospitalTrained(round, name, answer.loss, size, answer.clipped, took)
        if not updates and not vanishing:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise TrainingError(f"round {round}: no hospital's update arrived ({reasons})")

        started = time.perf_counter()
        combined = self._transport.combine(
            {name: f.messages for name, f in updates.items()}, exchange, LEAST_SENDERS
        )
        seconds["combine"] = time.perf_counter() - started
        left_out.update(combined.refused)
        started = time.perf_counter()
        senders: Tuple[str, ...] = ()
        difference = None
        figures: Dict[str, Figures] = {}
        if combined.messages:
            opened = self._transport.open(combined, exchange)
            senders = opened.senders
            seed = partial(seeds.derive, self._schedule.seed, "transform", round)
            restored, figures = self._transforms.at_server(
                opened.total, ServerContext(exchange.run, round, self._contribution, seed, senders)
            )
            total = self._strategy.unpack(restored, self._layout)
            server = self._strategy.apply(
                self.state.server, total, self._layout, len(self._transport.hospitals)
            )
            accepted = {**self.state.accepted, **dict.fromkeys(senders, round)}
            self.state = self.state._replace(server=server, accepted=accepted, ranges=opened.ranges)
            if self._audit is not None:
                difference = self._audit.difference(round, opened)
        else:
            for name in combined.senders:
                left_out[name] = "alone in this round: the sum of one hospital is never opened"
        seconds["open"] = time.perf_counter() - started
        for name, reason in left_out.items():
            yield HospitalLeftOut(round, name, reason)
        yield Aggregated(round, senders)

        started = time.perf_counter()
        metrics, hospital_metrics = self._evaluate(round)
        seconds["evaluate"] = time.perf_counter() - started
        record = RoundRecord(
            round=round,
            trained=tuple(senders),
            left_out=left_out,
            train_loss={name: f.loss for name, f in updates.items()},
            clipped={name: f.clipped for name, f in updates.items()},
            transforms=figures,
            metrics=metrics,
            hospital_metrics=hospital_metrics,
            bytes_up={name: sum(map(len, f.messages.values())) for name, f in updates.items()},
            bytes_down=self._bytes_down(asked, combined.messages),
            seconds=Seconds(**seconds),
            max_abs_difference_from_plaintext_sum=difference,
        )
        records = (*self.state.records, record)
        self.state = self.state._replace(round=round, records=records)
        yield RoundFinished(round, record)

    def _task(self, name: str, round: int) -> Task:
        p = self.state
        accepted = p.accepted.get(name, -1)
        return Task(
            p.run,
            round,
            p.server.sent(),
            p.begun.normalisation,
            p.begun.class_weights,
            accepted,
            p.ranges,
        )

    def _participants(self, round: int) -> Tuple[Tuple[str, ...], List[str]]:
        """Return who is asked in this round, and who of them will vanish."""
        hospitals, schedule = self._transport.hospitals, self._schedule
        rng = seeds.numpy_rng(schedule.seed, "participants", round)
        count = min(len(hospitals), max(LEAST_SENDERS, int(np.ceil(schedule.sample * len(hospitals) - 1e-9))))
        chosen = sorted(rng.permutation(len(hospitals))[:count])
        asked = tuple(hospitals[i] for i in chosen)
        return asked, [name for name in asked if rng.random() < schedule.dropout]

    def _evaluate(self, round: int) -> Tuple[Optional[Dict[str, Any]], Dict[str, Any]]:
        """Return the metrics on the common test set and at each hospital, or nothing this round."""
        if round % self._schedule.evaluate_every and round != self._schedule.rounds:
            return None, {}
        tasks = {name: self._task(name, round) for name in self._transport.hospitals}
        at_hospitals = self._transport.evaluate(tasks)
        if self._test is None:
            return None, at_hospitals
        self._layout.write(self._model, self.state.server.model)
        common = evaluate(
            self._model,
            self._test,
            self.state.begun.normalisation,
            batch_statistics=self._local_batchnorm,
        )
        return common, at_hospitals

    def _bytes_down(self, asked: Tuple[str, ...], combined: Mapping[str, bytes]) -> Dict[str, int]:
        """Return what each hospital downloads for this round: the sum to open, or the next state."""
        if self._transport.hospitals_open:
            size = sum(map(len, combined.values()))
        else:
            size = server_bytes(self.state.server)
        return dict.fromkeys(asked, size)


def class_weights(counts: np.ndarray, kind: str) -> Optional[np.ndarray]:
    """Return the loss weight of each class, with a mean over all images of one; float64.

    ``counts`` may be in any unit; ``kind`` is ``"none"`` (returns None), ``"inverse"`` of a class's share,
    or ``"sqrt"`` of that, which trades less accuracy for balance and keeps the gradient's variance
    down. A class that no hospital holds has weight 0.
    """
    if kind == "none":
        return None
    shares = counts / counts.sum()
    # An opened share of zero may be off by the encoding's last bit; one image never is that small.
    present = shares > 1e-7
    weights = np.where(present, 1.0 / np.where(present, shares, 1.0), 0.0)
    if kind == "sqrt":
        weights = np.sqrt(weights)
    return weights / (weights * shares).sum()
