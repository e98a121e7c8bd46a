"""Flower's client app: hands each message to the hospital's :class:`~skinfl.flower.hospital.site.Site`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from skinfl import plugins
from skinfl.errors import MessageError, SkinflError, printable
from skinfl.flower import protocol
from skinfl.flower.environment import flower_home, simulated_federation, wait_for_federation
from skinfl.flower.hospital.site import Site, refusal_of
from skinfl.flower.provisioning.folders import HospitalFolder, read_coordinator, read_hospital

app = ClientApp()

#: the place of a simulated node among all
_PLACE = "partition-id"


def hospital_folder(context: Context) -> HospitalFolder:
    """Return this node's folder: the one its SuperNode was started with, or its place in a simulation."""
    folder = context.node_config.get("folder")
    if folder is not None:
        return read_hospital(Path(str(folder)))
    federation = wait_for_federation(simulated_federation(flower_home(), context.run_id))
    hospitals = read_coordinator(federation / "coordinator").hospitals
    return read_hospital(federation / hospitals[int(context.node_config[_PLACE]) % len(hospitals)])


def _answer(message: Message, context: Context) -> Message:
    started = time.perf_counter()
    try:
        request, server = (_body(message, part) for part in ("request", "server"))
        plugins.load_for([])
        folder = hospital_folder(context)
        name, answer = folder.name, Site(folder).answer(request, server)
    except SkinflError as error:
        print(f"hospital refuses: {printable(str(error))}", flush=True)
        name, answer = "hospital", protocol.encode_refusal(refusal_of(error, "the hospital"))
    kind, round = message.metadata.message_type.rpartition(".")[2], printable(message.metadata.group_id, 20)
    print(
        f"run {context.run_id} round {round}: {name} answers {kind} with {len(answer)} bytes "
        f"after {time.perf_counter() - started:.1f} s",
        flush=True,
    )
    return Message(RecordDict({"answer": ConfigRecord({"body": answer})}), reply_to=message)


def _body(message: Message, part: str) -> bytes:
    record = message.content.get(part)
    body = record.get("body") if isinstance(record, ConfigRecord) else None
    if not isinstance(body, bytes):
        raise MessageError(protocol.COORDINATOR, f"its {part} is no bytes")
    return body


def _who(message: Message, context: Context) -> Message:
    found: Any = {}
    if "folder" in context.node_config:
        found["name"] = hospital_folder(context).name
    else:
        found["place"] = int(context.node_config[_PLACE])
    return Message(RecordDict({"answer": ConfigRecord(found)}), reply_to=message)


for _kind in protocol.REQUESTS:
    app.query(_kind)(_answer)
app.query(protocol.WHO)(_who)
