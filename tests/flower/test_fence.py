"""Other machines reach the hospitals' part of the SuperLink only."""

import asyncio

import pytest

from skinfl.flower.superlink import Fence


def answer(path, client, server=("10.0.0.1", 8000), kind="http"):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "client": client, "server": server}
    asyncio.run(Fence(app)(scope, None, send))
    return sent[0]["status"]


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/health"])
def test_hospitals_reach_their_interface(path):
    assert answer(path, ("192.0.2.7", 50000)) == 200


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs", "/"]
)
@pytest.mark.parametrize("client", [("192.0.2.7", 50000), ("2001:db8::7", 50000), None, ("proxy", 1)])
def test_other_machines_do_not_reach_the_rest(path, client):
    assert answer(path, client) == 403


@pytest.mark.parametrize("client", [("127.0.0.1", 50000), ("::1", 50000), ("10.0.0.1", 50000)])
def test_the_coordinators_own_machine_does(client):
    assert answer("/v1/control/start-run", client) == 200


def test_websockets_are_fenced_and_the_servers_own_start_is_not():
    assert answer("/v1/control/x", ("192.0.2.7", 1), kind="websocket") == 403
    assert answer("", None, kind="lifespan") == 200
