"""A real server on a port of this machine, real clients, real worker processes."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from encrypted_networks import random_images, random_network

from skinfl.data.preparation import Preparation
from skinfl.errors import MessageError
from skinfl.inference.circuit.batch import BatchCircuit
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.network import Bounds
from skinfl.inference.circuit.prepare import Served
from skinfl.inference.clinic.client import LatencyClient
from skinfl.inference.info import ModelInfo, from_json
from skinfl.inference.messages import pack, unpack
from skinfl.inference.server.pool import Limits
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

NETWORK = random_network(6, maps=3, units=6, classes=3, kernel=3)
BOUNDS = Bounds(30.0, 60.0)
CLIENTS = 3


def described(network):
    latency = LatencyCircuit(network, BOUNDS).spec
    batch = BatchCircuit(network, BOUNDS, workers=1).spec
    names = tuple("abcdefgh"[: network.classes])
    means, stds = (0.5,) * network.channels, (0.25,) * network.channels
    return Served(
        ModelInfo("random", names, means, stds, Preparation(latency.image_size), latency, batch),
        network,
        BOUNDS,
    )


class Running:
    """The application under uvicorn in a thread."""

    def __init__(self, served, tls=None, **options):
        from skinfl.inference.server.app import create_app

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = create_app(served, **options)
        extra = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", **extra)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        deadline = time.time() + 120
        while not self.server.started and time.time() < deadline and self.thread.is_alive():
            time.sleep(0.05)
        assert self.server.started
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"

    def stop(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def served():
    return described(NETWORK)


@pytest.fixture(scope="module")
def running(served):
    limits = Limits(clients=CLIENTS, key_lifetime=600.0, compute_timeout=60.0)
    running = Running(served, workers=2, limits=limits, body_timeout=5.0)
    yield running
    running.stop()


@pytest.fixture
def remote(running):
    from skinfl.inference.clinic.remote import RemoteModel

    remote = RemoteModel(running.url)
    yield remote
    remote.close()


def metric(url, name):
    lines = [line for line in httpx.get(url + "/metrics").text.splitlines() if line.startswith(name)]
    return [float(line.rsplit(" ", 1)[1]) for line in lines]


def worker_pids():
    """Worker processes are this process's children, except for batches' own helpers."""
    children = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as command:
                if (
                    int(stat.read().rsplit(")", 1)[1].split()[1]) == os.getpid()
                    and "worker" in command.read()
                ):
                    children.append(int(pid))
        except OSError:
            continue
    return children


def test_answers_are_those_of_the_network(remote):
    images = random_images(NETWORK, 3)
    expected = NETWORK.logits(images)
    assert np.abs(remote.logits(images) - expected).max() < 0.01 * np.abs(expected).max()
    assert np.abs(remote.batch_logits(images) - expected).max() < 0.01 * np.abs(expected).max()


def test_description_health_metrics_and_openapi(running, remote, served):
    assert remote.info == served.info
    assert httpx.get(running.url + "/health").json()["status"] == "ok"
    assert metric(running.url, 'skinfl_requests_total{path="/health",status="200"}')[0] >= 1
    paths = httpx.get(running.url + "/openapi.json").json()["paths"]
    assert {"/v1/model", "/v1/keys", "/v1/images", "/v1/batches", "/health", "/metrics"} <= set(paths)
    assert "requestBody" in paths["/v1/images"]["post"]
    assert httpx.get(running.url + "/docs").status_code == 200


def test_no_weight_leaves_the_server(running):
    text = httpx.get(running.url + "/v1/model").text
    for array in NETWORK[:6]:
        assert not any(f"{value:.6g}"[:6] in text for value in array.reshape(-1)[:20])


def test_many_clients_get_their_own_answers(running):
    """More clients than keys are held for: some must send theirs again, none gets another's answer."""
    from skinfl.inference.clinic.remote import RemoteModel

    images = random_images(NETWORK, 40)
    expected = NETWORK.logits(images)

    def client(number):
        remote = RemoteModel(running.url)
        mine = range(number, len(images), 4)
        found = [remote.logits(images[i : i + 1])[0] for i in mine]
        remote.close()
        return [(i, logits) for i, logits in zip(mine, found)]

    with ThreadPoolExecutor(4) as pool:
        answers = dict(pair for pairs in pool.map(client, range(4)) for pair in pairs)
    assert sorted(answers) == list(range(40))
    for i, logits in answers.items():
        assert np.abs(logits - expected[i]).max() < 0.01 * np.abs(expected).max()
    assert metric(running.url, "skinfl_clients") == [CLIENTS]


@pytest.fixture(scope="module")
def exchange(running, served):
    """Valid messages to spoil: the fingerprint, keys' id, a client, its keys' and its image's message."""
    spec = served.info.latency
    client = LatencyClient(spec)
    galois, relin = client.evaluation_keys()
    keys = pack("keys", spec.fingerprint, galois=galois, relin=relin)
    answer = httpx.post(running.url + "/v1/keys", content=keys, timeout=60)
    name = unpack(answer.content, "registered", spec.fingerprint, "server")["keys"]
    image = pack("image", spec.fingerprint, keys=name, image=client.encrypt(random_images(NETWORK, 1)[0]))
    return spec.fingerprint, name, client, keys, image


def refused(running, path, content, status, code):
    answer = httpx.post(running.url + path, content=content, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.json()["detail"]


def test_bad_requests_each_get_a_clear_4xx(running, served, exchange):
    fingerprint, name, client, keys, image = exchange
    spec = served.info.latency
    fresh = client.encrypt(random_images(NETWORK, 1)[0])
    refused(running, "/v1/images", image[:-100], 400, "malformed")
    refused(running, "/v1/images", b"", 400, "malformed")
    refused(running, "/v1/images", os.urandom(1000), 400, "malformed")
    refused(running, "/v1/images", image + bytes(spec.image_bytes + (1 << 16)), 413, "too-large")
    refused(running, "/v1/keys", bytes(spec.key_bytes + (1 << 17)), 413, "too-large")
    refused(
        running, "/v1/images", pack("image", fingerprint, keys="f" * 32, image=fresh), 404, "unknown-keys"
    )
    refused(running, "/v1/images", pack("image", "0" * 32, keys=name, image=fresh), 409, "parameters")
    refused(running, "/v1/images", image.replace(b"\xa6skinfl\x02", b"\xa6skinfl\x09"), 409, "version")
    refused(running, "/v1/images", keys[:1000], 400, "malformed")
    refused(running, "/v1/images", pack("image", fingerprint, keys=name, image=[]), 400, "invalid")
    refused(running, "/v1/images", pack("image", fingerprint, keys=name, image=[b"x"]), 400, "invalid")
    refused(
        running, "/v1/images", pack("image", fingerprint, keys=name, image=[fresh[0][:-9]]), 400, "invalid"
    )
    refused(running, "/v1/keys", pack("keys", fingerprint, galois=b"", relin=b""), 400, "invalid")
    refused(
        running, "/v1/batches", pack("batch", served.info.batch.fingerprint, pixels=fresh), 400, "invalid"
    )
    other = LatencyClient(spec._replace(bits=(54, 52, 52, 60)))
    galois, relin = other.evaluation_keys()
    refused(running, "/v1/keys", pack("keys", fingerprint, galois=galois, relin=relin), 400, "invalid")
    refused(
        running,
        "/v1/images",
        pack("image", fingerprint, keys=name, image=other.encrypt(np.zeros((1, 6, 6)))),
        400,
        "invalid",
    )
    assert httpx.get(running.url + "/health").status_code == 200


def chunked(size):
    for _ in range(size // 65536):
        yield bytes(65536)


def test_an_upload_that_does_not_say_its_size_is_cut_off(running, served):
    size = served.info.latency.image_bytes + (1 << 20)
    answer = httpx.post(running.url + "/v1/images", content=chunked(size), timeout=60)
    assert answer.status_code == 413


def test_an_upload_that_does_not_come_is_given_up(running):
    host, port = running.url[7:].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in connection.recv(4096)


def test_an_image_under_a_key_of_another_client_gives_no_answer(running, exchange):
    """The server cannot tell, the sender can: what comes back does not decrypt."""
    fingerprint, name, _, _, _ = exchange
    stranger = LatencyClient(from_json(httpx.get(running.url + "/v1/model").json()).latency)
    message = pack("image", fingerprint, keys=name, image=stranger.encrypt(random_images(NETWORK, 1)[0]))
    answer = httpx.post(running.url + "/v1/images", content=message, timeout=60)
    with pytest.raises(MessageError, match="keys differ"):
        stranger.decrypt(unpack(answer.content, "answer", fingerprint, "server")["answer"])


def spoiled(rng, message):
    """Return the message with a few bytes changed, cut, or put where they do not belong."""
    message = bytearray(message)
    for _ in range(rng.choice([1, 1, 2, 10])):
        if not message:
            break
        at = rng.choice([rng.randrange(min(400, len(message))), rng.randrange(len(message))])
        kind = rng.randrange(4)
        if kind == 0:
            message[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            message[at : at + rng.randrange(1, 50)] = os.urandom(rng.randrange(50))
        elif kind == 2:
            del message[at:]
            message += b"\x00"
        else:
            message[at:at] = struct.pack("<Q", rng.choice([0, 1, 1 << 20, 1 << 40, (1 << 64) - 1]))
    return bytes(message)


def fuzz(running, exchange, rounds, seed):
    rng = random.Random(seed)
    _, _, _, keys, image = exchange
    statuses = set()
    with httpx.Client(timeout=60) as http:
        for i in range(rounds):
            path, message = ("/v1/keys", keys) if i % 20 == 0 else ("/v1/images", image)
            content = os.urandom(rng.randrange(2000)) if i % 7 == 3 else spoiled(rng, message)
            statuses.add(http.post(running.url + path, content=content).status_code)
    # A changed bit in a ciphertext's numbers is still a ciphertext: that may answer 200.
    assert statuses <= {200, 400, 404, 409, 413}


def test_spoiled_messages_do_not_bring_the_server_down(running, exchange, remote):
    fuzz(running, exchange, 100, 1)
    assert metric(running.url, "skinfl_worker_restarts") == [0.0, 0.0, 0.0]
    remote.logits(random_images(NETWORK, 1))


@pytest.mark.slow
def test_two_thousand_spoiled_messages(running, exchange, remote):
    fuzz(running, exchange, 2000, 2)
    remote.logits(random_images(NETWORK, 1))


def test_a_message_that_unpacks_to_gigabytes_is_refused(running, exchange):
    """Zstandard repeats one byte 131,072 times in four bytes: 100 KB become 3 GB."""
    fingerprint, name, _, _, _ = exchange
    block = struct.pack("<I", (1 << 17) << 3 | 1 << 1)[:3] + b"\x00"
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + block * 24_000
    version = seal.dump(sealapi.Plaintext())[3:5]
    bomb = struct.pack("<HB2sBHQ", 0xA15E, 16, version, 2, 0, 16 + len(frame)) + frame
    refused(running, "/v1/images", pack("image", fingerprint, keys=name, image=[bomb]), 400, "invalid")
    refused(running, "/v1/keys", pack("keys", fingerprint, galois=bomb, relin=bomb), 400, "invalid")
    assert max(metric(running.url, "skinfl_worker_rss_bytes")) < 1 << 30


def test_a_worker_that_dies_is_replaced_and_its_clients_send_keys_again(running, remote):
    images = random_images(NETWORK, 1)
    expected = NETWORK.logits(images)
    remote.logits(images)
    for pid in worker_pids():
        os.kill(pid, signal.SIGKILL)
    from skinfl.inference.clinic.remote import ServerError

    for _ in range(4):  # whoever meets the loss is told; after that all is well
        try:
            found = remote.logits(images)
            break
        except ServerError as error:
            assert "given up" in str(error)
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    assert sum(metric(running.url, "skinfl_worker_restarts")) >= 1


def test_keys_unused_for_a_while_are_forgotten_and_sent_again(served):
    from skinfl.inference.clinic.remote import RemoteModel

    running = Running(served._replace(info=served.info._replace(batch=None)), limits=Limits(key_lifetime=2.0))
    try:
        remote = RemoteModel(running.url)
        images = random_images(NETWORK, 1)
        first = remote.logits(images)
        name = remote._keys
        time.sleep(2.5)
        assert np.abs(remote.logits(images) - first).max() < 0.05
        assert remote._keys != name
        refused(running, "/v1/batches", b"", 404, "no-batches")
    finally:
        running.stop()


def test_an_evaluation_that_takes_too_long_is_given_up(served):
    running = Running(
        served._replace(info=served.info._replace(batch=None)), limits=Limits(compute_timeout=0.001)
    )
    try:
        spec = served.info.latency
        galois, relin = LatencyClient(spec).evaluation_keys()
        answer = httpx.post(
            running.url + "/v1/keys",
            content=pack("keys", spec.fingerprint, galois=galois, relin=relin),
            timeout=60,
        )
        assert (answer.status_code, answer.json()["error"]) == (504, "lost")
    finally:
        running.stop()


def test_what_cannot_be_reached_is_one_clear_error():
    from skinfl.inference.clinic.remote import RemoteModel, ServerError

    with pytest.raises(ServerError, match="cannot be reached"):
        RemoteModel("http://127.0.0.1:1")
    with pytest.raises(ServerError, match="cannot be read as certificates"):
        RemoteModel("https://127.0.0.1:1", certificates="/nowhere.pem")


def self_signed(folder):
    """Write a certificate for 127.0.0.1 and its key; return both paths."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return tuple(str(path) for path in paths)


def test_tls_with_an_authority_of_ones_own(served, tmp_path):
    from skinfl.inference.clinic.remote import RemoteModel, ServerError

    tls = self_signed(tmp_path)
    running = Running(served._replace(info=served.info._replace(batch=None)), tls=tls)
    try:
        images = random_images(NETWORK, 1)
        remote = RemoteModel(running.url, certificates=tls[0])
        found = remote.logits(images)
        remote.close()  # a server waits long for the other end of a TLS connection
        assert np.abs(found - NETWORK.logits(images)).max() < 0.05
        with pytest.raises(ServerError, match="certificate"):
            RemoteModel(running.url)
    finally:
        running.stop()
