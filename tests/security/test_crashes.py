"""Whoever dies, at whatever moment, and is started again: still one sum a round, and the same model.

Everything that lasts is written by ``skinfl.files``. Each test lets the power go just before the n-th file
that one of the members writes (just after the last): slowly for every n, else for some. Others kill real
processes there.
"""

from __future__ import annotations

import os
import shutil
import signal
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from attacks import reveals
from flower_helpers import HOSPITALS, LocalMessaging, coordinator_of, federation_of, final_model, settings_of

from skinfl import files
from skinfl.assembly import FederatedData
from skinfl.errors import SkinflError
from skinfl.flower.coordinator.messaging import NoAnswer
from skinfl.flower.coordinator.transport import RemoteTransport
from skinfl.flower.hospital.site import Site
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.run import CHECKPOINT

EVERY = pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
PROTECTIONS = {
    "smpc": {"protection": "smpc"},
    "he": {"protection": "he", "he_scheme": "ckks-vector"},
}


class PowerCut(BaseException):
    """A machine goes off; nothing in the package catches it."""


class Power:
    """Lets the power go at the n-th file that is written below ``folder``, or counts them."""

    def __init__(self, patch, folder, at=None, after=False, off=PowerCut):
        self.writes = 0
        self._folder, self._at, self._after, self._off = str(folder), at, after, off
        original = files.whole_file

        def whole_file(path, **options):
            return self._watched(original(path, **options), str(path))

        patch.setattr(files, "whole_file", whole_file)

    def _watched(self, writing, path):
        power = self

        class Watched:
            def __enter__(self):
                if path.startswith(power._folder) and not power._after:
                    power._count()
                return writing.__enter__()

            def __exit__(self, *error):
                found = writing.__exit__(*error)
                if path.startswith(power._folder) and power._after and error[0] is None:
                    power._count()
                return found

        return Watched()

    def _count(self):
        self.writes += 1
        if self.writes - 1 == self._at:
            if self._off is PowerCut:
                raise PowerCut
            self._off()


class Messages(LocalMessaging):
    """Messages to hospitals that may go off: one that did is asked again once it is back, as Flower does.

    ``patient`` False: it is back for the next request only.
    """

    def __init__(self, federation, patient=True):
        super().__init__(federation)
        self._federation, self._patient = federation, patient

    def ask(self, kind, round, requests, timeout, *, insist=False):
        for name, request in requests.items():
            try:
                yield from super().ask(kind, round, {name: request}, timeout, insist=insist)
            except PowerCut:
                self.sites[name] = Site(read_hospital(self._federation / name))
                if self._patient:
                    yield from super().ask(kind, round, {name: request}, timeout, insist=insist)
                else:
                    yield name, NoAnswer(f"{name} lost its connection")


class Opened:
    """Every sum that the coordinator got to see: (kind and round, senders, total)."""

    def __init__(self, patch):
        self.sums = []
        original = RemoteTransport.open

        def open(transport, combined):
            opened = original(transport, combined)
            self.sums.append(
                ((transport._summing.kind, combined.exchange.round), opened.senders, opened.total)
            )
            return opened

        patch.setattr(RemoteTransport, "open", open)

    def assert_one_each(self):
        """See that no two different sums of one kind and round were opened."""
        for (what, senders, total), (other, others, rest) in combinations(self.sums, 2):
            if what == other:
                assert senders == others, f"two sums of {what}: {senders} and {others}"
                assert np.array_equal(total, rest)


class Hospitals(NamedTuple):
    folder: Path
    federated: FederatedData


@pytest.fixture
def hospitals(tmp_path):
    """Three hospitals that let sums of two out and train reproducibly: nothing else than one sum protects."""
    return Hospitals(*federation_of(tmp_path))


@pytest.fixture
def opened(monkeypatch):
    return Opened(monkeypatch)


def settings_for(name, **changes):
    if name == "he":
        pytest.importorskip("tenseal")
    return settings_of(**{**PROTECTIONS[name], "strategy": "fedavg", **changes})


def fresh(hospitals):
    """Let the hospitals forget what they took part in, for a run like the one before."""
    for name in HOSPITALS:
        shutil.rmtree(hospitals.folder / name / "state", ignore_errors=True)


def writes(hospitals, settings, folder, out):
    """Return how many files are written below ``folder`` in a run, and the run's model."""
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, folder)
        coordinator_of(*hospitals, settings, Messages(hospitals.folder), out).run(HOSPITALS)
    fresh(hospitals)
    return power.writes, final_model(out)


@EVERY
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_hospital_that_goes_off_at_any_write_and_comes_back(hospitals, opened, tmp_path, protection, every):
    settings = settings_for(protection)
    folder = hospitals.folder / "hospital-1" / "state"
    count, model = writes(hospitals, settings, folder, tmp_path / "whole")
    assert count > 15
    for at in range(every // 2, count, every):
        opened.sums.clear()
        with pytest.MonkeyPatch.context() as patch:
            # after a write is before the next one, but for the last
            power = Power(patch, folder, at, after=at == count - 1)
            out = tmp_path / f"out-{at}"
            coordinator_of(*hospitals, settings, Messages(hospitals.folder), out).run(HOSPITALS)
        fresh(hospitals)
        assert power.writes > at, "the power did not go"
        opened.assert_one_each()
        assert np.array_equal(final_model(out), model)


@EVERY
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_hospital_that_goes_off_at_any_write_and_misses_the_round(
    hospitals, opened, tmp_path, protection, every
):
    """The others go on without it, or the sum is lost; nobody opens a second one."""
    settings = settings_for(protection, **({"smpc_scheme": "shamir"} if protection == "smpc" else {}))
    folder = hospitals.folder / "hospital-3" / "state"
    count, _ = writes(hospitals, settings, folder, tmp_path / "whole")
    for at in range(every // 2, count, every):
        opened.sums.clear()
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, folder, at)
            out = tmp_path / f"out-{at}"
            post = Messages(hospitals.folder, patient=False)
            try:
                coordinator_of(*hospitals, settings, post, out).run(HOSPITALS)
            except SkinflError as error:  # the sums before training have no second try in one run
                assert "round 0" in str(error) or "statistics" in str(error)
        fresh(hospitals)
        opened.assert_one_each()


@EVERY
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_coordinator_that_goes_off_at_any_write_and_is_resumed(
    hospitals, opened, tmp_path, protection, every
):
    settings = settings_for(protection)
    whole = tmp_path / "whole"
    count, model = writes(hospitals, settings, whole, whole)
    assert count > 8
    for at in range(every // 2, count, every):
        opened.sums.clear()
        out = tmp_path / f"out-{at}"
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, out, at)
            with pytest.raises(PowerCut):
                coordinator_of(*hospitals, settings, Messages(hospitals.folder), out).run(HOSPITALS)
        resumed = (out / CHECKPOINT).exists()
        coordinator_of(*hospitals, settings, Messages(hospitals.folder), out, resume=resumed).run(HOSPITALS)
        fresh(hospitals)
        opened.assert_one_each()
        assert np.array_equal(final_model(out), model)


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("round", [0, 1, 2])
def test_a_run_that_is_resumed_after_a_sum_was_opened_and_without_a_hospital(
    hospitals, contributions, opened, tmp_path, protection, round
):
    """The coordinator dies with a sum in its hands; one that was in it is away when it is started again."""
    settings = settings_for(protection, class_weights="none")
    original = RemoteTransport.tell

    def die(transport, task, sum):
        if task.round == round:
            raise PowerCut
        return original(transport, task, sum)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteTransport, "tell", die)
        with pytest.raises(PowerCut):
            coordinator_of(*hospitals, settings, Messages(hospitals.folder), tmp_path / "out").run(HOSPITALS)
    post = Messages(hospitals.folder)
    post.away = {"hospital-3"}
    try:
        coordinator_of(*hospitals, settings, post, tmp_path / "out", resume=True).run(HOSPITALS)
    except SkinflError:
        pass  # additive shares need all parties
    opened.assert_one_each()
    for (what, senders, total), (_, fewer, rest) in combinations(opened.sums, 2):
        alone = set(senders) ^ set(fewer)
        if total.shape == rest.shape and len(alone) == 1:
            name, difference = alone.pop(), total - rest
            assert not any(
                reveals(sign * difference, secret)
                for secret in contributions.all(name, what[1])
                for sign in (1, -1)
            )


class ForkedSite:
    """Answers in a process of its own, as Flower has it, which is killed at its n-th write."""

    def __init__(self, folder, at, after):
        self._folder, self._at, self._after = folder, at, after

    def answer(self, request, server=b""):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                with pytest.MonkeyPatch.context() as patch:
                    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
                    Power(patch, self._folder.state, self._at, self._after, kill)
                    answer = Site(self._folder).answer(request, server)
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(answer)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            found = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            raise PowerCut
        return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_hospital_whose_process_is_killed_in_every_request(hospitals, opened, tmp_path, protection, after):
    """Each request's process is killed at its second write; then it is asked again."""
    settings = settings_for(protection)
    _, model = writes(hospitals, settings, tmp_path / "nowhere", tmp_path / "whole")
    opened.sums.clear()
    post = Messages(hospitals.folder)
    folder = read_hospital(hospitals.folder / "hospital-2")
    post.sites["hospital-2"] = site = ForkedSite(folder, 1, after)
    killed = []

    def once(request, server=b""):
        try:
            return site.answer(request, server)
        except PowerCut:
            killed.append(1)
            return Site(folder).answer(request, server)

    post.sites["hospital-2"] = type("Killed", (), {"answer": staticmethod(once)})
    coordinator_of(*hospitals, settings, post, tmp_path / "out").run(HOSPITALS)
    assert len(killed) >= 5
    opened.assert_one_each()
    assert np.array_equal(final_model(tmp_path / "out"), model)
