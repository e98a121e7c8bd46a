"""Before it serves or connects, a deployment proves to itself that its guards are in place."""

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from skinfl.errors import SettingsError
from skinfl.flower import environment, superlink
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.flower.provisioning.provision import provision
from skinfl.flower.superlink import INNER_PROBES, Fence, fence, prove_fence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def app_that(answer):
    """Return an app that answers each path with a status, or dies where ``answer`` gives None."""

    async def app(scope, receive, send):
        status = answer(scope["path"])
        if status is None:
            raise RuntimeError("no state")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    return app


def test_a_fenced_app_is_proved():
    asyncio.run(prove_fence(Fence(app_that(lambda path: 415))))


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (app_that(lambda path: 200), "would let other machines reach /v1/control/start-run"),
        (app_that(lambda path: 403), "would let other machines reach"),  # another's refusal proves nothing
        (app_that(lambda path: None), "would let other machines reach"),
        (Fence(app_that(lambda path: 404)), "does not answer hospitals"),
        (Fence(app_that(lambda path: None)), "does not answer hospitals"),
    ],
)
def test_an_app_that_is_not_fenced_or_not_the_superlinks_is_refused(app, reason):
    with pytest.raises(SettingsError, match=reason):
        asyncio.run(prove_fence(app))


def test_a_hole_in_the_fence_is_found(monkeypatch):
    for path in INNER_PROBES:
        with monkeypatch.context() as holed:
            holed.setattr(superlink, "PUBLIC_PATHS", ("/v1/fleet/", path))
            with pytest.raises(SettingsError, match=f"reach {path}"):
                asyncio.run(prove_fence(Fence(app_that(lambda path: 200))))
    monkeypatch.setattr(superlink, "PUBLIC_PATHS", ())
    with pytest.raises(SettingsError, match="does not answer hospitals"):
        asyncio.run(prove_fence(Fence(app_that(lambda path: 200))))


def served(server, app):
    """Serve an app as uvicorn would; say whether it came to that."""
    asyncio.run(server.serve(SimpleNamespace(config=SimpleNamespace(app=app), served=(done := []))))
    return done == ["served"]


@pytest.fixture
def fake_uvicorn():
    class Server:
        async def serve(self, sockets=None):
            self.served.append("served")

    return SimpleNamespace(Server=Server)


def test_no_server_starts_with_an_app_that_was_not_fenced(fake_uvicorn):
    class App:
        def __init__(self):
            self.call = app_that(lambda path: 415)

        def add_middleware(self, middleware):
            self.call = middleware(self.call)

        async def __call__(self, *arguments):
            await self.call(*arguments)

    module = SimpleNamespace(create_app=App)
    fence(module, fake_uvicorn)
    assert served(fake_uvicorn.Server, module.create_app())
    with pytest.raises(SettingsError, match="nothing was started"):
        served(fake_uvicorn.Server, App())


def test_a_flower_without_the_places_to_fence_is_refused(fake_uvicorn):
    for module, server in (
        (SimpleNamespace(), fake_uvicorn),
        (SimpleNamespace(create_app=1), SimpleNamespace()),
    ):
        with pytest.raises(SettingsError, match="cannot be fenced"):
            fence(module, server)


def test_no_second_way_in_is_opened_by_the_environment():
    found = environment.flower_environment(
        Path("home"), {"FORWARDED_ALLOW_IPS": "*", "FLWR_INTERNAL_GRPC_CONTROL_API": "1"}
    )
    assert found["FORWARDED_ALLOW_IPS"] == "127.0.0.1"
    assert found["FLWR_INTERNAL_GRPC_CONTROL_API"] == found["FLWR_INTERNAL_GRPC_FLEET_API"] == "0"


def test_the_extras_allow_the_tried_versions_and_no_others():
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as f:
        extras = tomllib.load(f)["project"]["optional-dependencies"]
    assert extras["flower"] == [f"flwr{environment.ALLOWED}"]
    assert extras["simulation"] == [f"flwr[simulation]{environment.ALLOWED}"]
    minors = [int(tried.split(".")[1]) for tried in environment.TRIED]
    assert f">=1.{minors[0]},<1.{minors[-1] + 1}" == environment.ALLOWED


class TestWithFlower:
    """What needs Flower itself."""

    @pytest.fixture(autouse=True)
    def flower(self, tmp_path, monkeypatch):
        pytest.importorskip("flwr", reason="needs the extra [flower]")
        monkeypatch.setattr(os, "environ", {**os.environ})
        monkeypatch.setattr(os, "umask", lambda mode: None)

    @pytest.fixture
    def supernode(self, monkeypatch):
        """Return Flower's module, put back afterwards."""
        from flwr.supercore import heartbeat
        from flwr.supernode import fleet_http_connection, start_client_internal

        for module in (heartbeat, fleet_http_connection):
            monkeypatch.setattr(module, "HEARTBEAT_DEFAULT_INTERVAL", module.HEARTBEAT_DEFAULT_INTERVAL)
        for name in ("_verify_fab", "_pull_and_store_message"):
            monkeypatch.setattr(start_client_internal, name, getattr(start_client_internal, name))
        return start_client_internal

    @pytest.fixture
    def folder(self, tmp_path):
        provision(["a", "b"], "localhost", tmp_path / "fed")
        hospital = read_hospital(tmp_path / "fed" / "a")
        hospital.approved_code.write_text("0" * 64 + "\n")
        return hospital

    def test_another_release_is_refused_at_the_start(self, tmp_path, monkeypatch):
        environment.prepare(tmp_path / "home")
        for other in ("1.40.9", "1.43.0", "2.0.0", "1.4.2"):
            monkeypatch.setattr(environment, "version", lambda name, other=other: other)
            with pytest.raises(SettingsError, match=rf"Flower {other} is installed.*pip install 'flwr>="):
                environment.prepare(tmp_path / "home")

    def test_the_superlinks_own_app_is_fenced_and_proved(self, tmp_path, monkeypatch, fake_uvicorn):
        from flwr.superlink import main

        unfenced = main.create_app
        monkeypatch.setattr(main, "create_app", unfenced)
        fence(main, fake_uvicorn)
        assert served(fake_uvicorn.Server, main.create_app())
        with pytest.raises(SettingsError, match="nothing was started"):
            served(fake_uvicorn.Server, unfenced())

    def test_a_supernode_refuses_made_up_code_where_its_messages_come_in(self, supernode, folder, capfd):
        from skinfl.flower.supernode import adapt, prove_approval

        adapt(folder)
        patched = supernode._verify_fab
        prove_approval(folder)
        assert supernode._verify_fab is patched
        assert capfd.readouterr() == ("", "")

    def test_a_supernode_that_was_not_adapted_does_not_start(self, supernode, folder):
        from skinfl.flower.supernode import prove_approval

        with pytest.raises(SettingsError, match="would run code that a did not approve: nothing was started"):
            prove_approval(folder)

    @pytest.mark.parametrize("gone", ["_verify_fab", "_pull_and_store_message"])
    def test_a_flower_without_the_places_to_check_code_is_refused(self, supernode, folder, monkeypatch, gone):
        from skinfl.flower.supernode import adapt

        monkeypatch.delattr(supernode, gone)
        with pytest.raises(SettingsError, match="cannot be made to check code"):
            adapt(folder)

    def test_a_flower_that_checks_and_takes_the_code_anyway_is_refused(self, supernode, folder, monkeypatch):
        from skinfl.flower.supernode import adapt, prove_approval

        def careless(**known):
            known["receive"]()
            fab = known["get_fab"]("hash", 1)
            supernode._verify_fab(fab, known["trusted_entities"])
            known["state"].store_fab(fab)
            return 1

        def blind(**known):
            known["receive"]()
            return 1

        for pull in (careless, blind):
            monkeypatch.setattr(supernode, "_pull_and_store_message", pull)
            adapt(folder)
            with pytest.raises(SettingsError, match="nothing was started"):
                prove_approval(folder)

    def test_a_list_that_approves_everything_is_found(self, supernode, folder, monkeypatch):
        from skinfl.flower import supernode as ours

        ours.adapt(folder)
        monkeypatch.setattr(ours, "is_approved", lambda folder, bundle: True)
        with pytest.raises(SettingsError, match="nothing was started"):
            ours.prove_approval(folder)

    def test_a_flower_that_receives_messages_in_another_way_is_refused(self, supernode, folder, monkeypatch):
        from skinfl.flower.supernode import adapt, prove_approval

        adapt(folder)
        monkeypatch.setattr(supernode, "start_client_internal", lambda: None)
        with pytest.raises(SettingsError, match="nothing was started"):
            prove_approval(folder)
