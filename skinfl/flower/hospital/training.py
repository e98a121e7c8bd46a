"""What a hospital computes on its own images: statistics, training, evaluation.

The very same :class:`~skinfl.federation.hospital.HospitalAgent` works here as on virtual workers.
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

import numpy as np
import torch

from skinfl.assembly import initial_model, local_plan, transforms_of
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.data.splits import train_test_split
from skinfl.data.transforms import Normalisation
from skinfl.errors import DataError, MessageError, ProtectionError
from skinfl.federation.hospital import STATISTICS_ROUND, HospitalAgent, Task
from skinfl.federation.messages import decode_server
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.adding import digest_of
from skinfl.flower.hospital.joining import join, network
from skinfl.flower.hospital.membership import Run, check_others, end_run
from skinfl.flower.hospital.store import Answer, RunStore
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.settings import Settings, from_mapping


class Trainer:
    """One hospital's own images and what is computed on them."""

    def __init__(self, folder: HospitalFolder):
        self._folder = folder
        self.name = folder.name

    def join(self, fields: Dict[str, Any], request: bytes) -> bytes:
        """Join a run, see :func:`skinfl.flower.hospital.joining.join`."""
        train, _ = self._data(from_mapping(fields["settings"]))
        return join(self._folder, fields, keys.digest(request), train)

    def statistics(self, run: Run) -> bytes:
        """Answer with the protected sums of pixels and class counts."""
        known = run.store.answered("statistics")
        if known is not None:
            return known.answer
        train, _ = self._data(run.settings)
        protected = self._agent(run, train).statistics(train, run.name)
        answer = protocol.encode_answer({"messages": protected.messages, "clipped": float(protected.clipped)})
        run.store.keep_answer("statistics", Answer("", STATISTICS_ROUND, answer))
        return answer

    def train(self, run: Run, fields: Dict[str, Any], server: bytes) -> bytes:
        """Train on the model state ``server``; answer with the protected contribution."""
        check_others(self._folder, fields["participants"], f"round {fields['round']}")
        request = digest_of(fields, server)
        known = run.store.answered("train")
        if known is not None and known.request == request:
            return known.answer
        train, test = self._data(run.settings)
        agent = self._agent(run, train)
        task = _task(fields, server, agent)
        before = _restore(run.store, agent, task.round)
        metrics = agent.evaluate(test, task) if fields["evaluate"] and len(test) else None
        update = agent.train(train, task)
        answer = protocol.encode_answer(
            {
                "messages": update.messages,
                "loss": float(update.loss),
                "clipped": float(update.clipped),
                "seconds": update.seconds,
                "metrics": metrics,
            }
        )
        run.store.write_arrays("before", before)
        run.store.write_arrays("after", {**agent.state(), "round": np.asarray(task.round)})
        run.store.keep_answer("train", Answer(request, task.round, answer))
        return answer

    def evaluate(self, run: Run, fields: Dict[str, Any], server: bytes) -> bytes:
        """Answer with the metrics of the model state ``server`` on the test images."""
        _, test = self._data(run.settings)
        agent = self._agent(run, test)
        task = _task(fields, server, agent)
        metrics = None
        if len(test):
            state = run.store.read_arrays("after")
            if state is not None:
                agent.load_state(_without_round(state))
            metrics = agent.evaluate(test, task)
        if fields["last"]:
            end_run(run)
        return protocol.encode_answer({"metrics": metrics})

    def _agent(self, run: Run, dataset: LesionDataset) -> HospitalAgent:
        torch.set_num_threads(run.settings.threads)
        layout, strategy = network(self._folder, run.settings, dataset, run.unit)
        return HospitalAgent(
            self.name,
            initial_model(run.settings, dataset),
            layout,
            strategy,
            run.keying().hospital(self.name, run.own, run.coordinator),
            local_plan(run.settings),
            seed=run.settings.seed,
            unit=run.unit,
            transforms=transforms_of(run.settings),
        )

    def _data(self, settings: Settings) -> Tuple[LesionDataset, LesionDataset]:
        """Return training and test images, from this hospital's own folders."""
        folder = self._folder
        cache = folder.path / "cache"
        data = load(folder.data, image_size=settings.image_size, cache_dir=cache)
        if folder.test_data is not None:
            if not folder.test_data.is_dir():
                raise DataError(f"{folder.test_data} is no folder: mend test_data of {folder.name}")
            if not any(folder.test_data.iterdir()):  # a hospital without test images
                return data, data.subset([])
            return data, load(folder.test_data, image_size=settings.image_size, cache_dir=cache)
        split = train_test_split(data, test_fraction=settings.test_fraction, seed=settings.seed)
        return data.subset(split.train), data.subset(split.test)


def _task(fields: Dict[str, Any], server: bytes, agent: HospitalAgent) -> Task:
    weights = fields["class_weights"]
    try:
        mean, std = fields["normalisation"]
        normalisation = Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
        class_weights = None if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise MessageError(
            protocol.COORDINATOR, "its normalisation or class weights are no numbers"
        ) from None
    return Task(
        fields["run"],
        fields["round"],
        decode_server(server, agent.server_arrays),
        normalisation,
        class_weights,
        fields["accepted_round"],
        None if fields["ranges"] is None else np.frombuffer(fields["ranges"], "<f8").astype(np.float64),
    )


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
