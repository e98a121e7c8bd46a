"""From settings to a federation on virtual workers, ready to run."""

from __future__ import annotations

import copy
import secrets
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from torch import nn

from skinfl import seeds
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.data.partitions import PARTITIONS, partition
from skinfl.data.preparation import Preparation
from skinfl.data.splits import Split, hold_out, train_test_split
from skinfl.data.transforms import Augmentation
from skinfl.devices import Compute, compute_on
from skinfl.errors import SettingsError
from skinfl.federation.audit import Audit
from skinfl.federation.checkpoint import Checkpoint
from skinfl.federation.hospital import ClientUpdate, HospitalAgent
from skinfl.federation.local import LocalPlan
from skinfl.federation.losses import LOSSES
from skinfl.federation.personal import PERSONAL, PersonalPlan
from skinfl.federation.rounds import LEAST_SENDERS, Federation, RunState, Schedule
from skinfl.federation.rules import Rules, Task
from skinfl.federation.schedule import LR_SCHEDULES
from skinfl.federation.selection import Selection
from skinfl.federation.strategies import Averaged, Strategy, build_strategy
from skinfl.federation.transforms import Pipeline, build_pipeline
from skinfl.federation.transport import LocalTransport, Transport
from skinfl.federation.update import StateLayout, has_batchnorm
from skinfl.models.registry import ALL, MODELS
from skinfl.networks import Learner, learner_of, learnt_from
from skinfl.networks import check as check_network
from skinfl.protection.base import Protection
from skinfl.protection.build import protection_of
from skinfl.protection.wire import fingerprint
from skinfl.registry import resolve
from skinfl.settings import Settings, chosen
from skinfl.workers import WORKERS, build_network
from skinfl.workers.base import Worker

Progress = Callable[[int, int, str], None]


class FederatedData(NamedTuple):
    """What is learnt from, split and shared out; the same for all protections that are compared.

    ``partition``: by hospital, the indices of all its photographs, training and test.
    """

    dataset: LesionDataset
    split: Split
    partition: Dict[str, np.ndarray]

    @property
    def test(self) -> LesionDataset:
        """The common test set."""
        return self.dataset.subset(self.split.test)

    def train_of(self, hospital: str) -> LesionDataset:
        """Return a hospital's training photographs, those of its validation part among them."""
        return self.dataset.subset(self.train_indices(hospital))

    def train_indices(self, hospital: str) -> np.ndarray:
        """Return which photographs :meth:`train_of` gives."""
        return self.split.train[np.isin(self.split.train, self.partition[hospital])]

    def test_of(self, hospital: str) -> LesionDataset:
        """Return a hospital's share of the test photographs, which may be empty."""
        return self.dataset.subset(self.split.test[np.isin(self.split.test, self.partition[hospital])])


class TrainingParts(NamedTuple):
    """A hospital's training photographs: those that are trained on, and those that choose between models."""

    train: LesionDataset
    validation: LesionDataset


def training_parts(settings: Settings, photographs: LesionDataset, hospital: str) -> TrainingParts:
    """Divide a hospital's training photographs, alike in a simulation and in a deployment.

    ``validation`` is empty where no part is asked for, or where there are too few lesions.
    """
    return TrainingParts(*map(photographs.subset, divided(settings, photographs, hospital)))


def divided(settings: Settings, photographs: LesionDataset, hospital: str) -> Tuple[np.ndarray, np.ndarray]:
    """Return which of a hospital's training photographs :func:`training_parts` puts into its two parts."""
    if not settings.validation_fraction:
        return np.arange(len(photographs)), np.zeros(0, np.int64)
    return hold_out(photographs, settings.validation_fraction, seed=settings.seed, hospital=hospital)


class Assembly(NamedTuple):
    """A federation and what reports say about it."""

    federation: Federation
    transport: Transport
    model: nn.Module
    layout: StateLayout
    protection: Protection
    workers: str
    learner: Learner


def check(settings: Settings) -> None:
    """Refuse what is bound to fail, before any data is read.

    Raises a :class:`~skinfl.errors.SkinflError`: of an optional library or a device that is missing, a
    protection whose sum has no room, a partition for another number of hospitals.
    """
    compute_of(settings)
    check_network(settings)
    for _, entry in chosen(settings):
        if entry.check is not None:
            resolve(entry.check)(settings)
    if settings.workers != "auto":
        resolve(WORKERS[settings.workers].build)  # the import says whether its library is there
    # where the data decides how many hospitals there are, only the fewest possible can be tried
    counted = "hospitals" in PARTITIONS[settings.partition].uses
    protection_of(settings).check(settings.hospitals if counted else LEAST_SENDERS)


def load_federated_data(settings: Settings, progress: Optional[Progress] = None) -> FederatedData:
    """Load, split and share out the data.

    Raises a :class:`~skinfl.errors.SkinflError` for settings that :func:`check` refuses and for data that
    cannot be read or shared out.
    """
    check(settings)
    dataset = load(
        settings.data,
        **preparation_of(settings)._asdict(),
        progress=progress,
        metadata=settings.metadata,
    )
    return share_out(settings, dataset, progress)


def preparation_of(settings: Settings) -> Preparation:
    """Return how photographs become pixels."""
    return Preparation(settings.image_size, settings.fit, settings.colour_constancy)


def share_out(
    settings: Settings, dataset: LesionDataset, progress: Optional[Progress] = None
) -> FederatedData:
    """Split a data set, and share it out among hospitals; of a frozen trunk, its features take their place.

    Raises :class:`~skinfl.errors.DataError` where it is too small or too uneven for what is asked.
    """
    split = train_test_split(
        dataset, test_fraction=settings.test_fraction, seed=settings.seed, protocol=settings.protocol
    )
    parts = partition(
        dataset,
        hospitals=settings.hospitals,
        scheme=settings.partition,
        seed=settings.seed,
        train=split.train,
        **{option.name: getattr(settings, option.name) for option in PARTITIONS[settings.partition].options},
    )
    return FederatedData(learnt_from(settings, dataset, progress), split, parts)


def model_options(settings: Settings) -> Dict[str, Any]:
    """Return the network's own options."""
    return {option.name: getattr(settings, option.name) for option in MODELS[settings.model].options}


def strategy_of(settings: Settings, unit: int) -> Strategy:
    """Return the strategy; ``unit`` is the public number of images that has weight one."""
    strategy = build_strategy(settings.strategy, settings.asdict(), unit)
    return Averaged(strategy, settings.ema) if settings.ema else strategy


class Network(NamedTuple):
    """What is trained: the network with its first weights, its state as a vector, and how it is combined.

    ``local_batchnorm``: whether BatchNorm's statistics stay at the hospitals. ``learner``: what surrounds the
    model, where only a part of a pretrained network is trained.
    """

    model: nn.Module
    layout: StateLayout
    strategy: Strategy
    local_batchnorm: bool
    learner: Learner


def network_of(settings: Settings, dataset: LesionDataset, unit: int) -> Network:
    """Return what is trained; coordinator and hospitals make the very same from the same settings."""
    learner = learner_of(settings, dataset.photograph_shape, len(dataset.classes))
    model = learner.model
    local_batchnorm = settings.batchnorm == "local" and has_batchnorm(model)
    personal = PERSONAL.build(settings.personal, settings.asdict(), model=model)
    layout = StateLayout(model, share_statistics=not local_batchnorm, personal=personal)
    return Network(model, layout, strategy_of(settings, unit), local_batchnorm, learner)


def local_plan(settings: Settings) -> LocalPlan:
    """Return how hospitals train."""
    return LocalPlan(
        epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        optimiser=settings.optimiser,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        augmentation=augmentation_of(settings),
        loss=settings.loss,
        loss_options={
            option.name: getattr(settings, option.name) for option in LOSSES[settings.loss].options
        },
        label_smoothing=settings.label_smoothing,
        mixup=settings.mixup,
        rate=LR_SCHEDULES.build(settings.lr_schedule, settings.asdict()),
    )


def augmentation_of(settings: Settings) -> Optional[Augmentation]:
    """Return how training photographs are changed; features have no pixels to turn, their views are drawn."""
    if settings.augment and settings.trainable == ALL:
        return Augmentation(settings.augment_strength, settings.cutout)
    return None


def personal_plan(settings: Settings) -> PersonalPlan:
    """Return what each hospital trains for itself."""
    return PersonalPlan(
        ditto=settings.ditto_lambda if settings.personal == "ditto" else None,
        fine_tune_epochs=settings.fine_tune_epochs,
        fine_tune_lr=settings.fine_tune_lr,
        evaluated=settings.personal != "none" or settings.fine_tune_epochs > 0,
    )


def compute_of(settings: Settings) -> Compute:
    """Return where this machine computes; raises SettingsError for a device or precision it has not."""
    return compute_on(
        settings.device,
        settings.amp,
        image_size=settings.image_size,
        deterministic=settings.deterministic,
        smaller=settings.oom_smaller,
    )


def schedule_of(settings: Settings) -> Schedule:
    """Return who is asked when."""
    return Schedule(
        rounds=settings.rounds,
        sample=settings.sample,
        dropout=settings.dropout,
        evaluate_every=settings.evaluate_every,
        seed=settings.seed,
        selection=Selection(settings.select, settings.patience),
    )


def rules_of(
    settings: Settings,
    network: Network,
    hospitals: Sequence[str],
    dataset: LesionDataset,
    unit: int,
    terms: str = "",
) -> Rules:
    """Return how sums move the common state, with transforms of their own; of ``dataset``, shape and classes.

    ``terms``: see :class:`~skinfl.federation.rules.Rules`. Pretrained weights are among what all agree on.
    """
    learner = network.learner
    if learner.described:
        terms = fingerprint(terms, learner.described)
    return Rules(
        network.strategy,
        network.layout,
        transforms_of(settings),
        hospitals=hospitals,
        channels=learner.channels,
        classes=dataset.classes,
        class_weights=settings.class_weights,
        effective_beta=settings.effective_beta,
        seed=settings.seed,
        unit=unit,
        validates=bool(settings.validation_fraction),
        terms=terms,
        normalisation=learner.normalisation,
        personal=personal_plan(settings).evaluated,
    )


def transforms_of(settings: Settings) -> Pipeline:
    """Return new update transforms; hospitals and server each need their own."""
    return build_pipeline(settings.transforms, settings.asdict())


def initial_state(strategy: Strategy, model: nn.Module, layout: StateLayout) -> RunState:
    """Return the state of a run that has not begun; its name is random, so that no two are alike."""
    server = strategy.init(layout.flatten(model), layout)
    return RunState(secrets.token_hex(16), 0, server, None, {}, ())


def unit_images(largest: int) -> int:
    """Return the public number of images that has weight one: a power of two, so it tells little."""
    return 1 << max(0, int(largest - 1).bit_length())


def assemble(
    settings: Settings, federated: FederatedData, checkpoint: Optional[Checkpoint] = None
) -> Assembly:
    """Put hospitals on workers, set up the protection and return the federation.

    With ``checkpoint`` it goes on where that was written.
    """
    train_sets = {name: federated.train_of(name) for name in federated.partition}
    unit = unit_images(max(len(d) for d in train_sets.values()))
    network = network_of(settings, federated.dataset, unit)
    model, layout, strategy, local_batchnorm, learner = network
    # one process plays all roles here, so that a run can be repeated: what is rounded at random as well
    protection = protection_of(settings, simulation_seed=seeds.derive(settings.seed, "rounding"))
    workers = build_network(settings.workers)
    roles = protection.setup(tuple(train_sets))
    roles = roles._replace(aggregators=workers.host(roles.aggregators))
    audit = Audit()
    compute = compute_of(settings)

    agents: Dict[str, HospitalAgent] = {}
    for name in train_sets:
        parts = training_parts(settings, train_sets[name], name)
        agents[name] = HospitalAgent(
            name,
            copy.deepcopy(model),
            rules_of(settings, network, tuple(train_sets), federated.dataset, unit),
            roles.hospitals[name],
            local_plan(settings),
            seed=settings.seed,
            compute=compute,
            personal=personal_plan(settings),
            audit=audit,
        )
        _host(workers.worker(name), agents[name], parts, federated.test_of(name))
    tag = "#" + federated.dataset.name
    train_pointers = {name: found[0] for name, found in workers.search(tag, "#train").items()}
    test_pointers = {name: found[0] for name, found in workers.search(tag, "#test").items()}
    transport = LocalTransport(train_pointers, test_pointers, agents, roles)

    state = initial_state(strategy, model, layout)
    if checkpoint is not None:
        if checkpoint.state.server.declared != state.server.declared:
            raise SettingsError("the checkpoint holds another network's state: resume with its own settings")
        state = checkpoint.state
        transport.load_state(checkpoint.hospitals)
    federation = Federation(
        transport,
        rules_of(settings, network, tuple(train_sets), federated.dataset, unit),
        model,
        schedule_of(settings),
        state=state,
        test=federated.test,
        unsynchronised_batchnorm=local_batchnorm,
        compute=compute,
        audit=audit,
    )
    return Assembly(federation, transport, model, layout, protection, workers.description, learner)


def _host(worker: Worker, agent: HospitalAgent, parts: TrainingParts, test_set: LesionDataset) -> None:
    """Load a hospital's data at its worker and allow what its agent offers, and nothing else.

    The validation images are not to be asked for: training and report tell of them.
    """

    def report(train_set: LesionDataset, task: Task) -> ClientUpdate:
        return agent.report(None, task, parts.validation)

    worker.install(
        {
            "statistics": agent.statistics,
            "train": partial(agent.compute, validation=parts.validation),
            "evaluate": agent.evaluate,
            "report": report,
            "personalise": agent.personalise,
            "evaluate_personal": agent.evaluate_personal,
        }
    )
    tag = "#" + parts.train.name
    worker.load(parts.train, tags=(tag, "#train"), description=f"training images of {agent.name}")
    if len(test_set):
        worker.load(test_set, tags=(tag, "#test"), description=f"test images of {agent.name}")
