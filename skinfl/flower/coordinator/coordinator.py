"""The coordinator's run: gather hospitals, agree on keys, train, keep checkpoints, write the result.

The rounds are :class:`~skinfl.federation.rounds.Federation`'s, unchanged; this module gives them a
transport and listens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.assembly import (
    Assembly,
    compute_of,
    initial_state,
    network_of,
    preparation_of,
    rules_of,
    schedule_of,
)
from skinfl.data import load
from skinfl.data.classes import described
from skinfl.data.dataset import LesionDataset
from skinfl.errors import CheckpointError, SettingsError, TrainingError, printable
from skinfl.federation.checkpoint import Checkpoint, save_checkpoint
from skinfl.federation.events import Listener, RoundFinished
from skinfl.federation.records import write_records
from skinfl.federation.rounds import Federation
from skinfl.federation.rules import TRAIN
from skinfl.federation.update import StateLayout
from skinfl.files import write_text
from skinfl.flower.coordinator.asking import Timeouts
from skinfl.flower.coordinator.gathering import Joined, gather, read_joined, take_roles, write_joined
from skinfl.flower.coordinator.messaging import Messaging
from skinfl.flower.coordinator.options import Options
from skinfl.flower.coordinator.summing import BEGUN
from skinfl.flower.coordinator.traffic import CountedMessaging
from skinfl.flower.coordinator.transport import RemoteTransport
from skinfl.networks import learnt_from
from skinfl.protection.build import protection_of
from skinfl.protection.keys import private_bytes, read_key_file, write_key_file
from skinfl.run import (
    CHECKPOINT,
    CONFIG,
    ROUNDS,
    leave,
    load_matching,
    summarise,
)
from skinfl.settings import Settings, to_toml

KEY = "coordinator.key"
JOINED = "joined.msgpack"


class Coordinator:
    """One run. ``say`` prints a line; ``describe`` is what reports call the workers."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        out: Path,
        messaging: Messaging,
        say: Callable[[str], None],
        describe: str,
    ):
        self._settings = settings
        self._options = options
        self._out = out
        self._messaging = CountedMessaging(messaging)
        self._say = lambda line: say(printable(line))
        self._describe = describe
        self._test_set: Optional[LesionDataset] = None

    def run(self, hospitals: Sequence[str], listeners: Sequence[Listener] = ()) -> Dict[str, Any]:
        """Train with those of ``hospitals`` that are there; return the content of ``result.json``.

        Raises a :class:`~skinfl.errors.SkinflError` where too few hospitals take part, where a sum
        cannot be opened, and for whatever else a user can mend. Finished rounds are kept.
        """
        checkpoint = self._checkpoint()
        private = self._key()
        write_text(self._out / CONFIG, to_toml(self._settings))
        if checkpoint is None:
            joined = gather(self._settings, self._options, self._messaging, hospitals, private, self._say)
            write_joined(self._out / JOINED, joined)
        else:
            joined = read_joined(self._out / JOINED)
            self._messaging.connected(joined.members.hospitals, self._options.connect_timeout)
        transport = RemoteTransport(
            self._messaging,
            take_roles(self._settings, joined, private),
            Timeouts(self._options.round_timeout, self._options.sum_timeout),
            self._out,
        )
        assembly = self._assemble(joined, transport, checkpoint)
        transport.resume(assembly.federation.state.common)
        self._save(assembly)
        for event in assembly.federation.run():
            if isinstance(event, RoundFinished):
                self._save(assembly)
            for listener in listeners:
                listener(event)
        transport.end(joined.run)
        return self._finish(assembly, joined)

    def _checkpoint(self) -> Optional[Checkpoint]:
        path = self._out / CHECKPOINT
        if not self._options.resume:
            if path.exists():
                raise SettingsError(f"{self._out} holds a run already: resume=true, or name another out")
            return None
        checkpoint = load_matching(path, self._settings)
        # as long as nothing was asked of hospitals there is nothing to keep, and members may change
        begun = checkpoint.state.round or (self._out / BEGUN).exists()
        return checkpoint if begun else None

    def _key(self) -> bytes:
        """Return the coordinator's private key of this run; a resumed run needs the same one."""
        path = self._out / KEY
        if not path.exists():
            self._out.mkdir(parents=True, exist_ok=True)
            write_key_file(path, private_bytes(X25519PrivateKey.generate()).hex().encode())
        return bytes.fromhex(read_key_file(path).decode())

    def _assemble(
        self, joined: Joined, transport: RemoteTransport, checkpoint: Optional[Checkpoint]
    ) -> Assembly:
        settings = self._settings
        torch.set_num_threads(settings.threads)
        blank = joined.blank()
        network = network_of(settings, blank, self._options.unit)
        model, layout, strategy, local_batchnorm, learner = network
        self._test_set = self._load_test(blank, layout)
        hospitals = joined.members.hospitals
        rules = rules_of(settings, network, hospitals, blank, self._options.unit, joined.terms)
        theirs = joined.first.get("weights", "")
        if learner.sha256 != theirs:
            raise TrainingError(
                f"the hospitals start from other weights (SHA-256 {theirs[:16] or 'of none'}) than the "
                f"coordinator's {settings.pretrained} ({learner.sha256[:16] or 'none'}): give all one file"
            )
        state = initial_state(strategy, model, layout)._replace(run=joined.run)
        if (rules.vectors(TRAIN).digest, state.common.digest) != (
            joined.first["layout"],
            joined.first["model"],
        ):
            raise TrainingError(
                "the hospitals build another network than the coordinator: install one release"
            )
        if checkpoint is not None:
            if checkpoint.state.server.declared != state.server.declared:
                raise CheckpointError(
                    f"{self._out / CHECKPOINT} holds another network's state: start a new run"
                )
            state = checkpoint.state
        federation = Federation(
            transport,
            rules,
            model,
            schedule_of(settings),
            state=state,
            test=self._test_set,
            unsynchronised_batchnorm=local_batchnorm,
            compute=compute_of(settings),
        )
        protection = protection_of(settings)
        return Assembly(federation, transport, model, layout, protection, self._describe, learner)

    def _load_test(self, blank: LesionDataset, layout: StateLayout) -> Optional[LesionDataset]:
        if not self._options.test_data:
            return None
        if layout.personal:
            raise SettingsError(
                f"with personal = {self._settings.personal} there is no common model to try on test-data: "
                "leave that out, hospitals tell in sums how theirs do"
            )
        test = load(self._options.test_data, **preparation_of(self._settings)._asdict())
        if test.classes != blank.classes or test.photograph_shape != blank.image_shape:
            raise SettingsError(
                f"test-data = {self._options.test_data}: not of the hospitals' classes and image shape"
            )
        return learnt_from(self._settings, test)

    def _save(self, assembly: Assembly) -> None:
        state = assembly.federation.state
        save_checkpoint(self._out / CHECKPOINT, Checkpoint(state, {}, self._settings.asdict()))
        write_records(self._out / ROUNDS, state.records)

    def _finish(self, assembly: Assembly, joined: Joined) -> Dict[str, Any]:
        result = summarise(self._settings, joined.federated(), assembly, self._out.name)
        # the coordinator is not told what hospitals hold
        result["data"] = {"name": None, "images": None, "synthetic": None, "leaked_lesions": None}
        result["data"]["classes"] = joined.first["classes"]
        named = described(joined.blank().class_info)
        result["data"]["class_info"] = [each._asdict() for each in named]
        result["partition"] = None
        result["traffic"] = self._messaging.kinds
        # the test set is its own: of a hospital's photographs it has none to show
        leave(self._out, self._settings, joined.blank(), assembly, result, self._test_set)
        return result


def run_folder(coordinator: Path, options: Options, protection: str, now: str) -> Tuple[Path, bool]:
    """Return the run's folder, and whether its name was given."""
    if options.out:
        return coordinator / options.out, True
    if options.resume:
        raise SettingsError("resume=true needs out: the folder of the run to go on with")
    return coordinator / "runs" / f"{now}-{protection}", False
