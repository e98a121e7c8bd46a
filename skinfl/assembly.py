"""From settings to a federation on virtual workers, ready to run."""

from __future__ import annotations

import copy
import secrets
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence

import numpy as np
from torch import nn

from skinfl import seeds
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.data.partitions import PARTITIONS, partition
from skinfl.data.splits import Split, train_test_split
from skinfl.data.transforms import Augmentation
from skinfl.devices import Compute, compute_on
from skinfl.errors import SettingsError
from skinfl.federation.audit import Audit
from skinfl.federation.checkpoint import Checkpoint
from skinfl.federation.hospital import HospitalAgent
from skinfl.federation.local import LocalPlan
from skinfl.federation.rounds import LEAST_SENDERS, Federation, RunState, Schedule
from skinfl.federation.rules import Rules
from skinfl.federation.strategies import Strategy, build_strategy
from skinfl.federation.transforms import Pipeline, build_pipeline
from skinfl.federation.transport import LocalTransport, Transport
from skinfl.federation.update import StateLayout, has_batchnorm
from skinfl.models.registry import MODELS
from skinfl.protection.base import Protection
from skinfl.protection.build import protection_of
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
        """Return a hospital's training photographs."""
        return self.dataset.subset(self.split.train[np.isin(self.split.train, self.partition[hospital])])

    def test_of(self, hospital: str) -> LesionDataset:
        """Return a hospital's share of the test photographs, which may be empty."""
        return self.dataset.subset(self.split.test[np.isin(self.split.test, self.partition[hospital])])


class Assembly(NamedTuple):
    """A federation and what reports say about it."""

    federation: Federation
    transport: Transport
    model: nn.Module
    layout: StateLayout
    protection: Protection
    workers: str


def check(settings: Settings) -> None:
    """Refuse what is bound to fail, before any data is read.

    Raises a :class:`~skinfl.errors.SkinflError`: of an optional library or a device that is missing, a
    protection whose sum has no room, a partition for another number of hospitals.
    """
    compute_of(settings)
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
        settings.data, image_size=settings.image_size, progress=progress, metadata=settings.metadata
    )
    return share_out(settings, dataset)


def share_out(settings: Settings, dataset: LesionDataset) -> FederatedData:
    """Split a data set, and share it out among hospitals.

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
    return FederatedData(dataset, split, parts)


def initial_model(settings: Settings, dataset: LesionDataset) -> nn.Module:
    """Return the network with the weights that every hospital starts from."""
    channels, size, _ = dataset.image_shape
    with seeds.seeded(settings.seed, "model"):
        shape = {"in_channels": channels, "image_size": size, "classes": len(dataset.classes)}
        model: nn.Module = MODELS.build(settings.model, settings.asdict(), **shape)
    return model


def model_options(settings: Settings) -> Dict[str, Any]:
    """Return the network's own options."""
    return {option.name: getattr(settings, option.name) for option in MODELS[settings.model].options}


def strategy_of(settings: Settings, unit: int) -> Strategy:
    """Return the strategy; ``unit`` is the public number of images that has weight one."""
    return build_strategy(settings.strategy, settings.asdict(), unit)


class Network(NamedTuple):
    """What is trained: the network with its first weights, its state as a vector, and how it is combined.

    ``local_batchnorm``: whether BatchNorm's statistics stay at the hospitals.
    """

    model: nn.Module
    layout: StateLayout
    strategy: Strategy
    local_batchnorm: bool


def network_of(settings: Settings, dataset: LesionDataset, unit: int) -> Network:
    """Return what is trained; coordinator and hospitals make the very same from the same settings."""
    model = initial_model(settings, dataset)
    local_batchnorm = settings.batchnorm == "local" and has_batchnorm(model)
    layout = StateLayout(model, share_statistics=not local_batchnorm)
    return Network(model, layout, strategy_of(settings, unit), local_batchnorm)


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
        augmentation=Augmentation(settings.augment_strength, settings.cutout) if settings.augment else None,
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

    ``terms``: see :class:`~skinfl.federation.rules.Rules`.
    """
    return Rules(
        network.strategy,
        network.layout,
        transforms_of(settings),
        hospitals=hospitals,
        channels=dataset.image_shape[0],
        classes=dataset.classes,
        class_weights=settings.class_weights,
        seed=settings.seed,
        unit=unit,
        terms=terms,
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
    model, layout, strategy, local_batchnorm = network
    # one process plays all roles here, so that a run can be repeated: what is rounded at random as well
    protection = protection_of(settings, simulation_seed=seeds.derive(settings.seed, "rounding"))
    workers = build_network(settings.workers)
    roles = protection.setup(tuple(train_sets))
    roles = roles._replace(aggregators=workers.host(roles.aggregators))
    audit = Audit()
    compute = compute_of(settings)

    agents: Dict[str, HospitalAgent] = {}
    for name, train_set in train_sets.items():
        agents[name] = HospitalAgent(
            name,
            copy.deepcopy(model),
            rules_of(settings, network, tuple(train_sets), federated.dataset, unit),
            roles.hospitals[name],
            local_plan(settings),
            seed=settings.seed,
            compute=compute,
            audit=audit,
        )
        _host(workers.worker(name), agents[name], train_set, federated.test_of(name))
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
    return Assembly(federation, transport, model, layout, protection, workers.description)


def _host(worker: Worker, agent: HospitalAgent, train_set: LesionDataset, test_set: LesionDataset) -> None:
    """Load a hospital's data at its worker and allow what its agent offers, and nothing else."""
    worker.install({"statistics": agent.statistics, "train": agent.compute, "evaluate": agent.evaluate})
    tag = "#" + train_set.name
    worker.load(train_set, tags=(tag, "#train"), description=f"training images of {agent.name}")
    if len(test_set):
        worker.load(test_set, tags=(tag, "#test"), description=f"test images of {agent.name}")
