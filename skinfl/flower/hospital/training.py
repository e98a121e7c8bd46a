"""What a hospital computes on its own images: statistics, training, evaluation.

The very same :class:`~skinfl.federation.hospital.HospitalAgent` works here as on virtual workers.
"""

from __future__ import annotations

import secrets
from typing import Any, Dict, NamedTuple, Tuple

import numpy as np
import torch

from skinfl.assembly import local_plan, personal_plan, preparation_of, rules_of, training_parts
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.data.splits import train_test_split
from skinfl.devices import compute_on
from skinfl.errors import DataError, ProtectionError
from skinfl.federation.common import NO_ROUND, STATISTICS_ROUND, CommonState
from skinfl.federation.hospital import ClientUpdate, HospitalAgent
from skinfl.federation.rules import EVALUATE, STATISTICS, TRAIN, Rules, Task
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.adding import digest_of, keep, ledger_of
from skinfl.flower.hospital.following import follow, held, vouchers_of
from skinfl.flower.hospital.joining import join, network, told_settings
from skinfl.flower.hospital.membership import Run, check_others
from skinfl.flower.hospital.store import RunStore
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.networks import learner_of, learnt_from
from skinfl.protection import wire
from skinfl.run_folder import PERSONAL
from skinfl.settings import Settings


class Images(NamedTuple):
    """A hospital's own images, and what identifies the photographs that training images are taken from.

    ``validation`` are taken from them as well. A coordinator chooses how images are held out, and could have
    many sets of training images that are nearly alike; what they are taken from, ``held`` photographs, stays
    the same.
    """

    train: LesionDataset
    validation: LesionDataset
    test: LesionDataset
    identity: str
    held: int

    @property
    def parts(self) -> str:
        """What identifies which photographs are trained on and which validate."""
        return wire.fingerprint(*(sorted(map(str, each.image_ids)) for each in (self.train, self.validation)))


class Trainer:
    """One hospital's own images and what is computed on them."""

    def __init__(self, folder: HospitalFolder):
        self._folder = folder
        self.name = folder.name

    def join(self, fields: Dict[str, Any], request: bytes) -> bytes:
        """Join a run, see :func:`skinfl.flower.hospital.joining.join`."""
        images = self._data(told_settings(fields))
        return join(self._folder, fields, keys.digest(request), images.train, images.held)

    def statistics(self, run: Run, fields: Dict[str, Any]) -> bytes:
        """Answer with the protected sums of pixels and class counts."""

        def make() -> bytes:
            images, agent, rules, common = self._prepared(run)
            if common.round != NO_ROUND:
                raise ProtectionError(f"{self.name} knows the statistics of run {run.name[:8]} already")
            task = Task(STATISTICS, STATISTICS_ROUND, common, rules.hospitals)
            subjects = self._admitted(run, task, images)
            return self._kept(run, agent, task, subjects, agent.statistics(images.train, task))

        return run.store.once("statistics", STATISTICS_ROUND, digest_of(fields), make)

    def train(self, run: Run, fields: Dict[str, Any], news: bytes) -> bytes:
        """Train on the common model, moved on by ``news``; answer with the protected contribution."""
        round, participants = fields["round"], tuple(fields["participants"])
        self._check_participants(run, participants, f"round {round}")

        def make() -> bytes:
            images, agent, _, common = self._prepared(run, news)
            if not STATISTICS_ROUND <= common.round < round:
                raise ProtectionError(
                    f"{self.name} holds the model after round {common.round}: it does not train for {round}"
                )
            if common.begun.class_weights is not None:
                self._folder.check_class_weights(common.begun.class_weights.tolist())
            task = Task(TRAIN, round, common, participants, fields["evaluate"])
            subjects = self._admitted(run, task, images)
            before = _restore(run.store, agent, round)
            update = agent.train(images.train, task, images.test, images.validation)
            run.store.write_arrays("before", before)
            run.store.write_arrays("after", {**agent.state(), "round": np.asarray(round)})
            return self._kept(run, agent, task, subjects, update)

        return run.store.once("train", round, digest_of(fields), make)

    def evaluate(self, run: Run, fields: Dict[str, Any], news: bytes) -> bytes:
        """Answer with the protected metrics of the common model, moved on by ``news``, on the test images."""
        round, participants = fields["round"], tuple(fields["participants"])
        self._check_participants(run, participants, f"the evaluation after round {round}")

        def make() -> bytes:
            images, agent, _, common = self._prepared(run, news)
            if not STATISTICS_ROUND <= common.round <= round:
                raise ProtectionError(f"{self.name} holds the model after round {common.round}, not {round}")
            task = Task(EVALUATE, round, common, participants)
            subjects = self._admitted(run, task, images)
            state = run.store.read_arrays("after")
            if state is not None:
                agent.load_state(_without_round(state))
            update = agent.report(images.test, task, images.validation, images.train)
            if agent.has_own:
                # with it come figures and tables, which no other answer needs
                from skinfl.run import write_model

                file = self._folder.path / PERSONAL / f"{run.name}.npz"
                file.parent.mkdir(exist_ok=True, mode=0o700)
                settings, train = self._folder.with_own_weights(run.settings), images.train
                learner = learner_of(settings, train.photograph_shape, len(train.classes))
                learner = learner._replace(model=agent.load_personal(common))
                write_model(file, settings, train, learner, common.begun.normalisation)
            return self._kept(run, agent, task, subjects, update)

        return run.store.once("evaluate", round, digest_of(fields), make)

    def _check_participants(self, run: Run, participants: Tuple[str, ...], where: str) -> None:
        check_others(self._folder, participants, where)
        if self.name not in participants or not set(participants) <= set(run.members.hospitals):
            raise ProtectionError(f"{where} names hospitals that are not of this run, or not {self.name}")

    def _prepared(self, run: Run, news: bytes = b"") -> Tuple[Images, HospitalAgent, Rules, CommonState]:
        """Return the images, the agent, its rules, and the common state, moved on by ``news``."""
        images = self._data(run.settings)
        dataset = images.train
        folder = self._folder
        settings = folder.with_own_weights(run.settings)
        torch.set_num_threads(folder.threads or run.settings.threads)
        compute = compute_on(
            folder.device,
            folder.amp,
            image_size=run.settings.image_size,
            deterministic=folder.deterministic,
            smaller=folder.oom_smaller,
        )
        found = network(folder, settings, dataset, run.unit)
        rules = rules_of(settings, found, run.members.hospitals, dataset, run.unit, run.terms)
        common = held(run, rules, found.layout.flatten(found.model))
        # whoever foresees how a hospital trains can tell sums apart by what it would have contributed
        own = run.settings.seed if self._folder.reproducible else secrets.randbits(63)
        agent = HospitalAgent(
            self.name,
            found.model,
            rules,
            run.keying().hospital(self.name, run.own, run.coordinator),
            local_plan(run.settings),
            seed=own,
            personal=personal_plan(run.settings),
            compute=compute,
        )
        return images, agent, rules, follow(self._folder, run, rules, agent.side, common, news)

    def _admitted(self, run: Run, task: Task, images: Images) -> Tuple[str, ...]:
        """Return what a task's sum tells of, for the ledger, which admits it with the participants.

        And with the hospitals that see to it that no two sums of it differ by too few: those that play
        parties, or all that consent. Others, in another run, would not know of the sums of this one. A
        seed goes with one division of the photographs: sums of two that differ by one lesion tell what it is.
        """
        subjects = (f"statistics of {images.identity}",) if task.kind == STATISTICS else task.subjects
        witnesses = tuple(run.members.parties.values()) or run.members.hospitals
        if run.settings.protection != "plaintext":
            division = f"division of {images.identity} by seed {run.settings.seed}"
            ledger_of(self._folder).keep_to(division, images.parts)
        for subject in subjects:
            ledger_of(self._folder).admit(subject, task.participants)
            if run.settings.protection != "plaintext":
                ledger_of(self._folder).bind(f"witnesses of {subject}", witnesses)
        return subjects

    def _kept(
        self,
        run: Run,
        agent: HospitalAgent,
        task: Task,
        subjects: Tuple[str, ...],
        update: ClientUpdate,
    ) -> bytes:
        """Keep what was contributed and return the answer, with own figures only where they may go out."""
        assert agent.last is not None, "a contribution was just made"
        keep(run, task.kind, subjects, agent.last, agent.release)
        figures = update.figures
        shown = None
        if figures is not None and self._folder.own_figures:
            shown = {**figures._asdict(), "loss": figures.loss if task.kind == TRAIN else None}
        vouchers = vouchers_of(self._folder, run, task)
        return protocol.encode_answer({"messages": update.messages, "figures": shown, "vouchers": vouchers})

    def _data(self, settings: Settings) -> Images:
        """Return training and test images, from this hospital's own folders, or a frozen trunk's features."""
        folder = self._folder
        settings = folder.with_own_weights(settings)
        cache = folder.path / "cache"
        prepared = preparation_of(settings)._asdict()
        data = load(folder.data, **prepared, cache_dir=cache)
        own, held = _identity(data), len(data)
        data = learnt_from(settings, data, cache_dir=cache)

        def images(train: LesionDataset, test: LesionDataset) -> Images:
            return Images(*training_parts(settings, train, self.name), test, own, held)

        if folder.test_data is not None:
            if not folder.test_data.is_dir():
                raise DataError(f"{folder.test_data} is no folder: mend test_data of {folder.name}")
            if not any(folder.test_data.iterdir()):  # a hospital without test images
                return images(data, data.subset([]))
            test = load(folder.test_data, **prepared, cache_dir=cache)
            return images(data, learnt_from(settings, test, cache_dir=cache))
        split = train_test_split(data, test_fraction=settings.test_fraction, seed=settings.seed)
        return images(data.subset(split.train), data.subset(split.test))


def _identity(dataset: LesionDataset) -> str:
    """Return what identifies photographs and their labels, however large they are decoded."""
    pairs = sorted(zip(map(str, dataset.image_ids), map(int, dataset.labels)))
    return wire.fingerprint(dataset.classes, pairs)


def _restore(store: RunStore, agent: HospitalAgent, round: int) -> Dict[str, np.ndarray]:
    """Put the agent where it was before ``round`` and return that state.

    A round is asked for twice where the coordinator was restarted in it: then what the first attempt
    changed here is undone.
    """
    state = store.read_arrays("after")
    if state is not None and int(state["round"]) >= round:
        state = store.read_arrays("before")
    if state is None:
        return {**agent.state(), "round": np.asarray(STATISTICS_ROUND)}
    if int(state["round"]) >= round:
        raise ProtectionError(f"round {round} lies behind what {agent.name} remembers: start a new run")
    agent.load_state(_without_round(state))
    return state


def _without_round(arrays: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name != "round"}
