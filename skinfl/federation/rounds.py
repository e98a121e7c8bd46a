"""The rounds: ask hospitals, have their contributions added, open the sum, apply it, evaluate.

A loop over events; it prints, writes and draws nothing itself.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
from torch import nn

from skinfl import seeds
from skinfl.data.dataset import LesionDataset
from skinfl.devices import Compute
from skinfl.errors import ProtectionError, SkinflError, TrainingError, UnprovedSum
from skinfl.federation.audit import Audit
from skinfl.federation.common import STATISTICS_ROUND, CommonState, Prepared
from skinfl.federation.evaluation import evaluate, predict
from skinfl.federation.events import (
    Aggregated,
    Event,
    HospitalLeftOut,
    HospitalTrained,
    RoundFinished,
    RoundStarted,
    RunStarted,
)
from skinfl.federation.figures import pack_evaluation, unpack_evaluation
from skinfl.federation.hospital import ClientUpdate
from skinfl.federation.records import RoundRecord, Seconds
from skinfl.federation.rules import EVALUATE, STATISTICS, TRAIN, Applied, Rules, Task
from skinfl.federation.selection import Best, Selection
from skinfl.federation.state import ServerState
from skinfl.federation.transport import Messages, Transport
from skinfl.protection.base import Opened

#: the sum of a single hospital is that hospital's update: it is never opened
LEAST_SENDERS = 2


class RunState(NamedTuple):
    """Everything that a run has produced so far; with the hospitals' state, all of a checkpoint.

    ``summed`` is the round of the last sum, which all but ``records`` and what follows follow from. ``best``:
    the model that the validation images choose, None where nothing has chosen yet. ``ended``: whether the run
    is over before its last round, as nothing got better.
    """

    run: str
    round: int
    server: ServerState
    prepared: Optional[Prepared]
    accepted: Dict[str, int]
    records: Tuple[RoundRecord, ...]
    ranges: Optional[np.ndarray] = None
    summed: int = -1
    best: Optional[Best] = None
    ended: bool = False

    @property
    def kept(self) -> Best:
        """The model that the run gives, and the round after which it was: the best one, else the last."""
        return Best(self.round, self.server.evaluated) if self.best is None else self.best

    @property
    def kept_record(self) -> RoundRecord:
        """The record of the round whose model is kept."""
        return next(record for record in self.records if record.round == self.kept.round)

    @property
    def begun(self) -> Prepared:
        """What was prepared. Raises TrainingError where nothing was, before the first round."""
        return self.common.begun

    @property
    def common(self) -> CommonState:
        """What the hospitals hold alike."""
        return CommonState(self.run, self.summed, self.server, self.prepared, self.accepted, self.ranges)

    @property
    def kept_common(self) -> CommonState:
        """What the hospitals hold alike, but with the kept model: what their own models are made of."""
        common = self.common
        return replace(common, server=common.server.with_evaluated(self.kept.model))

    def moved(self, common: CommonState) -> RunState:
        """Return the state with what a sum has made of it."""
        return self._replace(
            summed=common.round,
            server=common.server,
            prepared=common.prepared,
            accepted=dict(common.accepted),
            ranges=common.ranges,
        )


class Schedule(NamedTuple):
    """Who is asked when: number of rounds, shares asked and vanishing, rounds between evaluations.

    ``selection``: which round's model is kept, and when there are no more rounds.
    """

    rounds: int
    sample: float
    dropout: float
    evaluate_every: int
    seed: int
    selection: Selection = Selection()


class AtHospitals(NamedTuple):
    """Metrics on hospitals' test images: of all together, and of each hospital that lets its own out.

    ``validation``: of all their validation images together.
    """

    together: Optional[Dict[str, Any]] = None
    by_hospital: Dict[str, Any] = {}
    validation: Optional[Dict[str, Any]] = None


class Sum(NamedTuple):
    """A sum that was asked for: who is not in it and why, seconds by phase, and what it gave.

    ``opened`` and ``applied`` are None where nothing was opened, or nothing that could be applied. ``told``:
    bytes that each hospital is told of it.
    """

    left_out: Dict[str, str]
    seconds: Dict[str, float]
    opened: Optional[Opened] = None
    applied: Optional[Applied] = None
    told: int = 0


class Federation:
    """A federation that trains one network.

    ``rules``: how sums move the common state; their transforms' server halves run here. ``test`` is the
    common test set, ``None`` where there is none. ``unsynchronised_batchnorm`` says that BatchNorm
    statistics stay at the hospitals. ``compute``: where the test set is evaluated, by default on the
    processor. ``audit`` exists in simulations only.
    """

    def __init__(
        self,
        transport: Transport,
        rules: Rules,
        model: nn.Module,
        schedule: Schedule,
        *,
        state: RunState,
        test: Optional[LesionDataset] = None,
        unsynchronised_batchnorm: bool = False,
        compute: Optional[Compute] = None,
        audit: Optional[Audit] = None,
    ):
        self._transport = transport
        self._rules = rules
        self._model = model
        self._schedule = schedule
        self._test = test
        self._local_batchnorm = unsynchronised_batchnorm
        self._compute = Compute("cpu") if compute is None else compute
        self._audit = audit
        self._predicted: Optional[Tuple[Best, np.ndarray]] = None
        self.state = state

    def run(self) -> Iterator[Event]:
        """Run the rounds that are left; after each :class:`RoundFinished`, ``state`` is complete."""
        first = self.state.round + 1
        yield RunStarted(first, self._schedule.rounds, self._transport.hospitals)
        if self.state.prepared is None:
            yield from self._prepare()
        for round in range(first, self._schedule.rounds + 1):
            if self.state.ended:
                return
            yield from self._round(round)

    def predict(self) -> Optional[Tuple[np.ndarray, np.ndarray]]:
        """Return what the kept model says of the common test set: probabilities (n, classes) and labels (n,).

        None where there is none, or no common model.
        """
        if self._test is None or self._rules.layout.personal:
            return None
        kept = self.state.kept
        if self._predicted is not None and self._predicted[0].model is kept.model:
            return self._predicted[1], self._test.labels
        self._rules.layout.write(self._model, kept.model)
        with self._compute.place(self._model):
            probabilities, _ = predict(
                self._model,
                self._test,
                self.state.begun.normalisation,
                batch_statistics=self._local_batchnorm,
            )
        self._predicted = kept, probabilities
        return probabilities, self._test.labels

    @property
    def classes(self) -> Tuple[str, ...]:
        """The names of the classes."""
        return tuple(self._rules.classes)

    @property
    def malignant(self) -> Tuple[Optional[bool], ...]:
        """Which classes of the common test set are malignant, None where it is not known or there is none."""
        return () if self._test is None else tuple(each.malignant for each in self._test.class_info)

    def _prepare(self) -> Iterator[Event]:
        """Derive normalisation and class weights from sums over the hospitals' training images."""
        task = Task(STATISTICS, STATISTICS_ROUND, self.state.common, self._transport.hospitals)
        messages, failures = {}, {}
        for name, answer in self._transport.statistics(task).items():
            if isinstance(answer, SkinflError):
                failures[name] = str(answer)
            else:
                messages[name] = answer.messages
        found = self._sum(task, messages)
        failures.update(found.left_out)
        if found.applied is None:
            name, reason = next(iter(failures.items()))
            raise TrainingError(f"{name} could not take part in the statistics before training: {reason}")
        for name, reason in failures.items():
            yield HospitalLeftOut(STATISTICS_ROUND, name, reason)

    def _round(self, round: int) -> Iterator[Event]:
        asked, vanishing = self._participants(round)
        yield RoundStarted(round, asked)
        evaluate = (
            self._reports and round > 1 and self._evaluated(round - 1) and not self._reported(round - 1)
        )
        task = Task(TRAIN, round, self.state.common, asked, evaluate)
        seconds = {"train": 0.0, "protect": 0.0}
        updates: Dict[str, ClientUpdate] = {}
        left_out: Dict[str, str] = {}
        for name, answer in self._transport.train(task):
            if isinstance(answer, SkinflError):
                left_out[name] = str(answer)
            elif name in vanishing:
                left_out[name] = "vanished before it sent (simulated)"
            else:
                updates[name] = answer
                own = answer.figures
                for phase in seconds:
                    seconds[phase] += 0.0 if own is None else own.seconds[phase]
                size = sum(map(len, answer.messages.values()))
                if own is None:
                    yield HospitalTrained(round, name, size)
                else:
                    yield HospitalTrained(round, name, size, own.loss, own.clipped, sum(own.seconds.values()))
        if not updates and not vanishing:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise TrainingError(f"round {round}: no hospital's update arrived ({reasons})")

        found = self._sum(task, {name: update.messages for name, update in updates.items()})
        for name, reason in found.left_out.items():
            left_out.setdefault(name, reason)
        opened, applied = found.opened, found.applied
        senders: Tuple[str, ...] = () if opened is None else opened.senders
        difference = None
        if self._audit is not None and opened is not None:
            difference = self._audit.difference(round, opened)
        seconds.update(found.seconds)
        for name, reason in left_out.items():
            yield HospitalLeftOut(round, name, reason)
        yield Aggregated(round, senders)

        own_figures = {name: u.figures for name, u in updates.items() if u.figures is not None}
        if evaluate:
            previous = {name: own.metrics for name, own in own_figures.items() if own.metrics is not None}
            self._fill_in(round - 1, applied, previous, task.common.server.evaluated)
        # decided by what is known now, not by the last model's own figures: a run of more rounds would not
        # know these either
        selection = self._schedule.selection
        ended = selection.ends(self.state.best, self.state.records)

        started = time.perf_counter()
        metrics, at_hospitals, personal = self._evaluate(round, ended)
        seconds["evaluate"] = time.perf_counter() - started
        record = RoundRecord(
            round=round,
            trained=tuple(senders),
            left_out=left_out,
            mean_loss=None if applied is None else applied.loss,
            mean_clipped=None if opened is None else opened.clipped / len(senders),
            train_loss={name: own.loss for name, own in own_figures.items()},
            clipped={name: own.clipped for name, own in own_figures.items()},
            transforms={} if applied is None else applied.transforms,
            metrics=metrics,
            hospitals_together=at_hospitals.together,
            hospital_metrics=at_hospitals.by_hospital,
            personal_together=personal.together,
            personal_metrics=personal.by_hospital,
            bytes_up={name: sum(map(len, u.messages.values())) for name, u in updates.items()},
            bytes_down=dict.fromkeys(asked, found.told),
            seconds=Seconds(**seconds),
            max_abs_difference_from_plaintext_sum=difference,
            validation=at_hospitals.validation,
        )
        records = (*self.state.records, record)
        best = selection.better(self.state.best, records, round, self.state.server.evaluated)
        self.state = self.state._replace(round=round, records=records, best=best, ended=ended)
        if (ended or round == self._schedule.rounds) and self._rules.personal:
            self._evaluate_personal()
        yield RoundFinished(round, self.state.records[-1])

    def _evaluate_personal(self) -> None:
        """Have hospitals make their own models of the kept one, and put how they do into the last record.

        Where sums say it, they have said it of the last model, which is the kept one there.
        """
        if self._transport.reports_in_sums:
            return
        started = time.perf_counter()
        own = self._together(self._transport.evaluate_personal(self.state.kept_common))
        *before, last = self.state.records
        seconds = last.seconds._replace(evaluate=last.seconds.evaluate + time.perf_counter() - started)
        last = last._replace(
            personal_together=own.together, personal_metrics=own.by_hospital, seconds=seconds
        )
        self.state = self.state._replace(records=(*before, last))

    def _sum(self, task: Task, messages: Messages) -> Sum:
        """Have contributions to a task added up and opened, and apply the sum.

        One that is not proved, or cannot be applied, leaves all as it was: one false number must not end the
        run.
        """
        started = time.perf_counter()
        combined = self._transport.combine(messages, self._rules.exchange(task), LEAST_SENDERS)
        found = Sum(dict(combined.refused), {"combine": time.perf_counter() - started, "open": 0.0})
        if not combined.messages:
            for name in combined.senders:
                found.left_out[name] = "alone in this round: the sum of one hospital is never opened"
            return found
        started = time.perf_counter()
        opened, applied = None, None
        try:
            opened = self._transport.open(combined)
        except UnprovedSum as error:
            reason = str(error)
        if opened is not None:
            try:
                applied = self._rules.apply(task, opened)
            except SkinflError as error:
                reason = str(error)
        if opened is None or applied is None:
            found.left_out.update(dict.fromkeys(combined.senders, reason))
        else:
            told = 0
            if task.kind != EVALUATE:
                told = self._transport.tell(task, opened)
                self.state = self.state.moved(applied.common)
            found = found._replace(opened=opened, applied=applied, told=told)
        found.seconds["open"] = time.perf_counter() - started
        return found

    def _participants(self, round: int) -> Tuple[Tuple[str, ...], List[str]]:
        """Return who is asked in this round, and who of them will vanish."""
        hospitals, schedule = self._transport.hospitals, self._schedule
        rng = seeds.numpy_rng(schedule.seed, "participants", round)
        count = min(len(hospitals), max(LEAST_SENDERS, int(np.ceil(schedule.sample * len(hospitals) - 1e-9))))
        chosen = sorted(rng.permutation(len(hospitals))[:count])
        asked = tuple(hospitals[i] for i in chosen)
        return asked, [name for name in asked if rng.random() < schedule.dropout]

    def _evaluated(self, round: int) -> bool:
        return round % self._schedule.evaluate_every == 0 or round == self._schedule.rounds

    def _reported(self, round: int) -> bool:
        """Say whether hospitals have told how they fare: not twice, as others may be in the second sum."""
        told = [r for r in self.state.records if r.round == round]
        in_sums = self._transport.reports_in_sums  # else what they tell together is not from a sum
        return any(r.validation is not None or (in_sums and r.hospitals_together is not None) for r in told)

    @property
    def _reports(self) -> bool:
        """Whether sums tell how the model does, at least on validation images."""
        return self._transport.reports_in_sums or self._rules.validates

    def _evaluate(self, round: int, ended: bool) -> Tuple[Optional[Dict[str, Any]], AtHospitals, AtHospitals]:
        """Return the metrics on the common test set, and at hospitals of the common and of their own models.

        The latter only where sums tell them, see :meth:`_evaluate_personal`.

        Nothing where this round is not evaluated. What hospitals report in sums is that of the last round
        only: the others' come with the next contributions. Their own models are the last round's. Where parts
        of the network stay at hospitals there is no common model, and the common test set is what hospitals
        hold of it, each evaluated by its own.
        """
        last = ended or round == self._schedule.rounds
        if not self._evaluated(round) and not ended:
            return None, AtHospitals(), AtHospitals()
        common, own = AtHospitals(), AtHospitals()
        if self._reports and last:
            common, own = self._final_report(round)
        if not self._transport.reports_in_sums:
            found = self._together(self._transport.evaluate(self.state.common))
            common = found._replace(validation=common.validation)
        if self._test is None:
            return None, common, own
        if self._rules.layout.personal:
            return common.together, common, own
        self._rules.layout.write(self._model, self.state.server.evaluated)
        with self._compute.place(self._model):
            metrics = evaluate(
                self._model,
                self._test,
                self.state.begun.normalisation,
                batch_statistics=self._local_batchnorm,
            )
        return metrics, common, own

    def _together(self, by_hospital: Dict[str, Any]) -> AtHospitals:
        """Return hospitals' metrics with what the sum of their reports would say."""
        classes, unit = self._rules.classes, self._rules.unit
        reports = [pack_evaluation(metrics, len(classes), unit) for metrics in by_hospital.values()]
        together = unpack_evaluation(np.sum(reports, axis=0), classes, unit) if reports else None
        return AtHospitals(together, by_hospital)

    def _final_report(self, round: int) -> Tuple[AtHospitals, AtHospitals]:
        """Ask how the final model does; where the sum cannot be opened the run ends without."""
        task = Task(EVALUATE, round, self.state.common, self._transport.hospitals)
        answers = {n: a for n, a in self._transport.report(task).items() if isinstance(a, ClientUpdate)}
        figures = {name: a.figures for name, a in answers.items() if a.figures is not None}
        metrics = {name: own.metrics for name, own in figures.items() if own.metrics is not None}
        personal = {name: own.personal for name, own in figures.items() if own.personal is not None}
        try:
            found = self._sum(task, {name: answer.messages for name, answer in answers.items()})
        except ProtectionError:
            found = Sum({}, {})
        if found.applied is None:
            return AtHospitals(None, metrics), AtHospitals(None, personal)
        applied = found.applied
        common = AtHospitals(applied.evaluation, metrics, applied.validation)
        return common, AtHospitals(applied.personal, personal)

    def _fill_in(
        self, round: int, applied: Optional[Applied], each: Dict[str, Any], model: np.ndarray
    ) -> None:
        """Put what a later round's contributions tell of ``model`` into the record of its own round."""
        told: Dict[str, Any] = {"validation": None if applied is None else applied.validation}
        if self._transport.reports_in_sums:
            together = None if applied is None else applied.evaluation
            told.update(hospitals_together=together, hospital_metrics=each)
        records = tuple(r._replace(**told) if r.round == round else r for r in self.state.records)
        best = self._schedule.selection.better(self.state.best, records, round, model)
        self.state = self.state._replace(records=records, best=best)
