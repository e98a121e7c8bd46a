"""Whole runs by messages, against runs on virtual workers."""

import json
import re
from html import escape

import numpy as np
import pytest
from flower_helpers import (
    HOSPITALS,
    LocalMessaging,
    coordinator_of,
    federation_of,
    final_model,
    patterns_of,
    settings_of,
    virtual_progress,
)

from skinfl.errors import CheckpointError, ProtectionError, SettingsError, SkinflError, TrainingError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.flower import protocol
from skinfl.flower.provisioning.folders import HOSPITAL_FILE
from skinfl.run import CHECKPOINT, RESULT


@pytest.fixture
def federation(tmp_path):
    return federation_of(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"protection": "plaintext"},
        {"protection": "smpc"},
        {"protection": "smpc", "smpc_scheme": "shamir", "strategy": "fednova", "batchnorm": "average"},
        {"protection": "smpc", "parties": "2", "strategy": "fedavg"},
        {"protection": "he"},
        {"protection": "smpc", "transforms": "clipping", "clip_norm": 0.05},
        {"protection": "he", "transforms": "clipping", "clip_norm": 0.05},
        {"protection": "smpc", "loss": "balanced_softmax", "lr_schedule": "cosine"},
        {"protection": "he", "loss": "focal", "mixup": 0.2, "warmup_rounds": 1},
    ],
    ids=[
        *("plaintext", "additive", "shamir", "two-parties", "he", "additive-clipping", "he-clipping"),
        *("additive-balanced-cosine", "he-focal-mixup"),
    ],
)
def test_the_model_equals_the_virtual_workers_bit_for_bit(federation, tmp_path, changes):
    folder, federated = federation
    settings = settings_of(**changes)
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)
    lines = []
    coordinator = coordinator_of(folder, federated, settings, post, tmp_path / "out", lines.append)
    result = coordinator.run(HOSPITALS)
    np.testing.assert_array_equal(final_model(tmp_path / "out"), virtual.server.model)
    kept = virtual.kept_record
    assert result["best_round"] == kept.round
    assert result["final"]["confusion"] == kept.metrics["confusion"]  # no temperature changes a class
    assert result["validation"] == kept.validation and kept.validation["images"] > 0
    records = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records
    for mine, theirs in zip(records, virtual.records):
        for key in (
            "trained",
            "train_loss",
            "metrics",
            "hospital_metrics",
            "validation",
            "clipped",
            "transforms",
        ):
            assert getattr(mine, key) == getattr(theirs, key), key
    assert json.loads((tmp_path / "out" / RESULT).read_text())["workers"] == "in this process"
    table = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert len(table) == 1 + len(federated.split.test)
    assert not any(name in line for name in HOSPITALS for line in table)
    assert not (tmp_path / "out" / "trained_on.csv").exists()
    confusions = [metrics["confusion"] for metrics in result["hospital_final"].values()]
    assert result["hospitals_together"]["confusion"] == np.sum(confusions, axis=0).tolist()
    loss = result["hospitals_together"]["loss"]
    assert loss == pytest.approx(kept.hospitals_together["loss"], rel=1e-5)
    assert "3 hospitals joined" in lines[0]
    by_round = {}
    for kind, round, *_ in post.log:
        by_round.setdefault(round, set()).add(kind)
    exchanges = {"plaintext": {"train"}, "smpc": {"train", "combine", "verify"}}
    expected = exchanges.get(settings.protection, {"train", "release", "open", "verify"})
    assert by_round[1] == expected
    assert by_round[2] == {*expected, "evaluate"}


@pytest.mark.parametrize("tested", [True, False])
def test_a_report_shows_photographs_of_the_coordinators_own_test_data_only(federation, tmp_path, tested):
    folder, federated = federation
    options = {} if tested else {"test_data": ""}
    settings = settings_of(protection="plaintext", rounds=1)
    out = tmp_path / "out"
    result = coordinator_of(folder, federated, settings, LocalMessaging(folder), out, **options).run(
        HOSPITALS
    )
    text = (out / "report.html").read_text("utf-8")
    shown = set(re.findall(r'alt="[^"]*(?:photograph|picture) (\S+) of ', text))
    own = (folder / "coordinator" / "test" / "HAM10000_metadata.csv").read_text()
    assert all(image in own for image in shown) and bool(shown) == tested
    assert bool(result.get("intervals")) == (out / "predictions.csv").exists() == tested
    assert result["sentences"] and escape(result["sentences"][0]) in text
    assert "None" not in re.sub("<table.*?</table>", "", text, flags=re.S)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_run_ends_and_keeps_the_round_that_virtual_workers_keep(federation, tmp_path, ema):
    folder, federated = federation
    restless = {"strategy": "fedavg", "lr": 0.05, "server_lr": 20.0, "select": "loss", "patience": 1}
    settings = settings_of(protection="smpc", rounds=8, validation_fraction=0.3, ema=ema, **restless)
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)
    result = coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    state = load_checkpoint(tmp_path / "out" / CHECKPOINT).state
    assert virtual.ended and virtual.round < 8 and result["stopped_early"]
    assert (state.round, state.kept.round) == (virtual.round, virtual.kept.round)
    np.testing.assert_array_equal(state.kept.model, virtual.kept.model)
    assert [r.validation for r in state.records] == [r.validation for r in virtual.records]
    assert max(round for kind, round, *_ in post.log if kind == "train") == virtual.round
    assert result["thresholds"]["malignant"]["validation"]["sensitivity"] >= 0.95


def test_the_keys_are_forgotten_after_the_last_round(federation, tmp_path):
    folder, federated = federation
    coordinator_of(
        folder, federated, settings_of(protection="he"), LocalMessaging(folder), tmp_path / "out"
    ).run(HOSPITALS)
    left = [path.name for name in HOSPITALS for path in (folder / name / "state").rglob("*.msgpack")]
    assert "joined.msgpack" in left
    assert "keys.msgpack" not in left
    assert (folder / "hospital-1" / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "out" / "coordinator.key").stat().st_mode & 0o077 == 0


class Killed(Exception):
    """The coordinator's process ends here."""


def killed_at(moment, at):
    """Return what ends the coordinator once the last hospital has answered a request of a round."""

    def tamper(kind, round, name, request, answer):
        if (kind, round, name) == (moment, at, HOSPITALS[-1]):
            raise Killed
        return answer

    return tamper


def test_a_sum_begun_before_a_restart_is_finished_over_the_same_hospitals(federation, tmp_path):
    folder, federated = federation
    settings = settings_of(protection="smpc")
    post = LocalMessaging(folder)
    post.tamper = lambda kind, round, name, request, answer: (
        None
        if (kind, name) in (("train", "hospital-3"), ("combine", "hospital-3")) and round == 2
        else answer
    )
    with pytest.raises(ProtectionError, match="hospital-3 did not add up"):
        coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    coordinator_of(folder, federated, settings, LocalMessaging(folder), tmp_path / "out", resume=True).run(
        HOSPITALS
    )
    last = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records[-1]
    assert last.trained == ("hospital-1", "hospital-2")
    assert "was begun before" in last.left_out["hospital-3"]


@pytest.mark.parametrize("moment", ["train", "combine"])
def test_a_restarted_coordinator_goes_on_and_gets_the_same_model(federation, tmp_path, moment):
    folder, federated = federation
    settings = settings_of(protection="smpc")
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)

    post.tamper = killed_at(moment, 2)
    coordinator = coordinator_of(folder, federated, settings, post, tmp_path / "out")
    with pytest.raises(Killed):
        coordinator.run(HOSPITALS)
    with pytest.raises(SettingsError, match="resume=true"):
        coordinator.run(HOSPITALS)
    fresh = LocalMessaging(folder)
    coordinator_of(folder, federated, settings, fresh, tmp_path / "out", resume=True).run(HOSPITALS)
    np.testing.assert_array_equal(final_model(tmp_path / "out"), virtual.server.model)
    before = {(k, r, n): a for k, r, n, _, a in post.log}
    for kind, round, name, _, answer in fresh.log:
        if kind in ("join", "train") and round in (0, 2):
            assert before[kind, round, name] == answer  # no second contribution to one sum


@pytest.mark.parametrize("name", ["joined.msgpack", "news-1.msgpack", "begun"])
@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:-1] + bytes([d[-1] ^ 1])], ids=["cut", "altered"]
)
def test_a_run_whose_files_are_damaged_is_not_resumed_and_says_which(federation, tmp_path, name, damage):
    folder, federated = federation
    settings = settings_of(protection="smpc")
    post = LocalMessaging(folder)
    post.tamper = killed_at("combine", 2)
    with pytest.raises(Killed):
        coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    path = tmp_path / "out" / name
    path.write_bytes(damage(path.read_bytes()))
    again = coordinator_of(folder, federated, settings, LocalMessaging(folder), tmp_path / "out", resume=True)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read .*start a new run in another out"):
        again.run(HOSPITALS)


def test_a_resumed_run_may_have_more_rounds_and_fewer_hospitals(federation, tmp_path):
    folder, federated = federation
    settings = settings_of(protection="smpc", smpc_scheme="shamir", batchnorm="average")
    post = LocalMessaging(folder)
    post.tamper = killed_at("evaluate", 2)  # a run that has ended has no keys left to go on with
    with pytest.raises(Killed):
        coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    post = LocalMessaging(folder)
    post.away = {"hospital-2"}
    longer = settings.replace(rounds=3)
    lines = []
    coordinator = coordinator_of(folder, federated, longer, post, tmp_path / "out", lines.append, resume=True)
    result = coordinator.run(HOSPITALS)
    assert result["rounds"] == 3
    assert load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records[-1].trained == (
        "hospital-1",
        "hospital-3",
    )


def test_a_hospital_that_vanishes_is_left_out_of_that_round_only(federation, tmp_path):
    folder, federated = federation
    post = LocalMessaging(folder)
    post.tamper = lambda kind, round, name, request, answer: (
        None if (kind, round, name) == ("train", 1, "hospital-2") else answer
    )
    settings = settings_of(protection="smpc")
    result = coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    assert result["left_out"] == [
        {"round": 1, "hospital": "hospital-2", "reason": "hospital-2 did not answer within 1 s"}
    ]
    records = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records
    assert [r.trained for r in records] == [("hospital-1", "hospital-3"), HOSPITALS]


def test_a_lost_party_is_borne_by_shamir_and_named_by_additive_sharing(federation, tmp_path):
    folder, federated = federation
    for scheme in ("shamir", "additive"):
        settings = settings_of(protection="smpc", smpc_scheme=scheme)
        post = LocalMessaging(folder)
        post.tamper = lambda kind, round, name, request, answer: (
            None if kind == "combine" and round and name == "hospital-3" else answer
        )
        coordinator = coordinator_of(folder, federated, settings, post, tmp_path / scheme)
        if scheme == "shamir":
            coordinator.run(HOSPITALS)
            virtual = virtual_progress(settings, federated)
            np.testing.assert_array_equal(final_model(tmp_path / scheme), virtual.server.model)
        else:
            with pytest.raises(ProtectionError, match="hospital-3 did not add up"):
                coordinator.run(HOSPITALS)


def spoil_a_share(kind, round, name, request, answer):
    """Alter the share that hospital-2 sends to hospital-1 in the first round."""
    if (kind, round, name) != ("train", 1, "hospital-2"):
        return answer
    fields = protocol.decode_answer("train", name, answer)
    message = bytearray(fields["messages"]["hospital-1"])
    message[-1] ^= 1
    fields["messages"]["hospital-1"] = bytes(message)
    return protocol.encode_answer(fields)


def test_altered_shares_cost_a_round_and_both_sides_of_the_complaint_the_next(federation, tmp_path):
    folder, federated = federation
    post = LocalMessaging(folder)

    post.tamper = spoil_a_share
    settings = settings_of(protection="smpc", rounds=3)
    coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    records = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records
    # it is one word against another: of three hospitals one is left, whose sum is never opened
    assert [r.trained for r in records] == [(), (), HOSPITALS]
    for record in records[:2]:
        assert "hospital-1 refused its share: its tag is wrong" in record.left_out["hospital-2"]
        assert "it refused the share of hospital-2" in record.left_out["hospital-1"]


def test_altered_shares_cost_nothing_where_the_other_parties_suffice(federation, tmp_path):
    folder, federated = federation
    settings = settings_of(protection="smpc", smpc_scheme="shamir")
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)

    post.tamper = spoil_a_share
    coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    np.testing.assert_array_equal(final_model(tmp_path / "out"), virtual.server.model)


def test_under_encryption_another_hospital_opens_where_one_is_away(federation, tmp_path):
    folder, federated = federation
    settings = settings_of(protection="he")
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)
    post.tamper = lambda kind, round, name, request, answer: (
        None if kind == "open" and name == "hospital-1" else answer
    )
    coordinator_of(folder, federated, settings, post, tmp_path / "out").run(HOSPITALS)
    np.testing.assert_array_equal(final_model(tmp_path / "out"), virtual.server.model)
    post.tamper = lambda kind, round, name, request, answer: None if kind == "open" and round else answer
    with pytest.raises(ProtectionError, match="no hospital opened the sum"):
        coordinator_of(folder, federated, settings, post, tmp_path / "none").run(HOSPITALS)


def edit(folder, name, old, new):
    path = folder / name / HOSPITAL_FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            'protections = ["smpc", "he", "plaintext"]',
            'protections = ["he"]',
            "lets no update out under 'smpc'",
        ),
        ("maximum_parameters = 30000000", "maximum_parameters = 100", "models of at most 100 values"),
        ("minimum_others = 1", "minimum_others = 3", "sums of at least 4 hospitals, this run has 3"),
        ('data = "data"', 'data = "nowhere"', "cannot do it (DataError): its own log says why"),
        ('test_data = "test"', 'test_data = "nowhere"', "cannot do it (DataError): its own log says why"),
    ],
)
def test_a_hospital_refuses_what_its_folder_does_not_allow(federation, tmp_path, capsys, old, new, reason):
    folder, federated = federation
    edit(folder, "hospital-2", old, new)
    lines = []
    settings = settings_of(protection="smpc", rounds=1)
    result = coordinator_of(
        folder, federated, settings, LocalMessaging(folder), tmp_path / "out", lines.append
    ).run(HOSPITALS)
    assert any("hospital-2 does not take part" in line and reason in line for line in lines), lines
    assert ("nowhere" in new) == (str(folder / "hospital-2" / "nowhere") in capsys.readouterr().out)
    assert not any(str(folder) in line for line in lines)
    assert result["hospitals"] == 2


def test_a_hospital_larger_than_the_unit_and_a_stranger_are_refused(federation, tmp_path):
    folder, federated = federation
    settings = settings_of(protection="smpc")
    lines = []
    with pytest.raises(TrainingError, match="0 of 3 hospitals take part"):
        coordinator_of(
            folder, federated, settings, LocalMessaging(folder), tmp_path / "a", lines.append, unit=4
        ).run(HOSPITALS)
    assert sum("more images than the agreed unit of 4" in line for line in lines) == 3
    (folder / "hospital-1" / HOSPITAL_FILE).write_text(
        "".join(
            line
            for line in (folder / "hospital-1" / HOSPITAL_FILE).read_text().splitlines(keepends=True)
            if not line.startswith("hospital-3 =")
        )
    )
    lines.clear()
    coordinator_of(folder, federated, settings, LocalMessaging(folder), tmp_path / "b", lines.append).run(
        HOSPITALS
    )
    assert any("hospital-1 has no key of 'hospital-3'" in line for line in lines)


def test_too_few_hospitals_and_unlike_data_end_the_run_with_the_reason(federation, tmp_path):
    folder, federated = federation
    post = LocalMessaging(folder)
    post.away = {"hospital-1", "hospital-2"}
    with pytest.raises(TrainingError, match=r"1 of 3 hospitals take part \(hospital-3\)"):
        coordinator_of(folder, federated, settings_of(), post, tmp_path / "a").run(HOSPITALS)

    def other_classes(kind, round, name, request, answer):
        if kind == "join" and name == "hospital-3":
            fields = protocol.decode_answer("join", name, answer)
            return protocol.encode_answer({**fields, "classes": ["nv", "mel"]})
        return answer

    post = LocalMessaging(folder)
    post.tamper = other_classes
    lines = []
    result = coordinator_of(folder, federated, settings_of(), post, tmp_path / "b", lines.append).run(
        HOSPITALS
    )
    assert result["hospitals"] == 2
    assert any("hospital-3 and hospital-1 differ in classes" in line for line in lines)
    post.away = {"hospital-2"}
    with pytest.raises(TrainingError, match="differ in classes"):
        coordinator_of(folder, federated, settings_of(), post, tmp_path / "c").run(HOSPITALS)


def test_nothing_but_sums_can_be_found_in_what_passes_the_coordinator(federation, tmp_path):
    """Search all messages for a known update, as floats and as fixed-point words of either width."""
    folder, federated = federation
    seen = {}
    for protection in ("plaintext", "smpc", "he"):
        post = LocalMessaging(folder)
        settings = settings_of(protection=protection, rounds=1, strategy="fedavg")
        coordinator_of(folder, federated, settings, post, tmp_path / protection).run(HOSPITALS)
        seen[protection] = b"".join(
            request.body + request.server + answer for _, _, _, request, answer in post.log
        )
        if protection == "plaintext":
            answer = next(a for k, r, n, _, a in post.log if (k, n) == ("train", "hospital-1"))
            message = protocol.decode_answer("train", "hospital-1", answer)["messages"]["aggregator"]
            floats = np.frombuffer(message[-4 * 4000 - 4 : -4], "<f4").astype(np.float64)
    patterns = patterns_of(floats, 3)
    assert any(pattern in seen["plaintext"] for pattern in patterns)
    for protection in ("smpc", "he"):
        assert not any(pattern in seen[protection] for pattern in patterns), protection


def test_a_second_sum_over_others_is_refused_and_a_repeated_request_changes_nothing(federation, tmp_path):
    folder, federated = federation
    post = LocalMessaging(folder)
    settings = settings_of(protection="smpc", rounds=1)
    coordinator = coordinator_of(folder, federated, settings, post, tmp_path / "out")
    requests = {}

    def stop(kind, round, name, request, answer):
        requests[kind, round, name] = request
        if kind == "evaluate":
            raise Killed
        return answer

    post.tamper = stop
    with pytest.raises(Killed):
        coordinator.run(HOSPITALS)
    site = post.sites["hospital-2"]
    request = requests["combine", 1, "hospital-2"]
    first = next(a for k, r, n, _, a in post.log if (k, r, n) == ("combine", 1, "hospital-2"))
    assert site.answer(request.body) == first
    kind, fields = protocol.decode_request(request.body)
    fewer = {**fields, "senders": fields["senders"][:2]}
    with pytest.raises(ProtectionError, match="already answered 'combine-train' for round 1"):
        protocol.decode_answer("combine", "x", site.answer(protocol.encode_request(kind, fewer)))
    alone = {**fields, "senders": fields["senders"][:1]}
    with pytest.raises(ProtectionError, match="at least 2 hospitals, the sum of round 1 has 1"):
        protocol.decode_answer("combine", "x", site.answer(protocol.encode_request(kind, alone)))
    other = {**fields, "round": 9, "messages": {"hospital-1": fields["messages"]["hospital-2"]}}
    with pytest.raises(ProtectionError, match="does not play hospital-1"):
        protocol.decode_answer("combine", "x", site.answer(protocol.encode_request(kind, other)))
    train = requests["train", 1, "hospital-2"]
    kind, fields = protocol.decode_request(train.body)
    lonely = protocol.encode_request(kind, {**fields, "participants": ["hospital-2"]})
    with pytest.raises(ProtectionError, match="round 1 has 1"):
        protocol.decode_answer("train", "x", site.answer(lonely, train.server))
    with pytest.raises(SkinflError, match="not the news of the last sum"):
        changed = protocol.encode_request(kind, {**fields, "round": 2})
        protocol.decode_answer("train", "x", site.answer(changed, b"short"))
    stale = protocol.encode_request(kind, {**fields, "run": "0" * 32})
    with pytest.raises(ProtectionError, match="has not joined run 00000000"):
        protocol.decode_answer("train", "x", site.answer(stale, train.server))
    strange = protocol.encode_request(kind, {**fields, "run": "../../etc"})
    with pytest.raises(ProtectionError, match="run is not 8 to 64 hexadecimal digits"):
        protocol.decode_answer("train", "x", site.answer(strange, train.server))


def test_hospitals_that_were_told_different_settings_do_not_share_keys(federation, tmp_path):
    folder, federated = federation
    post = LocalMessaging(folder)
    truly = post.sites["hospital-3"].answer

    class Misled:
        def answer(self, request, server=b""):
            kind, fields = protocol.decode_request(request)
            if kind == "join":
                other = {**fields, "settings": {**fields["settings"], "clip": 1.0}}
                request = protocol.encode_request("join", other)
            return truly(request, server)

    post.sites["hospital-3"] = Misled()
    with pytest.raises(TrainingError, match="sealed for another run, hospital or other settings"):
        coordinator_of(folder, federated, settings_of(protection="smpc"), post, tmp_path / "out").run(
            HOSPITALS
        )


def test_fresh_keys_are_sealed_between_hospitals_and_parties_only(tmp_path):
    for protection, parties, pairs in (("smpc", "hospitals", 6), ("smpc", "2", 6), ("he", None, 6)):
        # the same photographs would have to go with the same parties
        folder, federated = federation_of(tmp_path / f"{protection}-{parties}")
        post = LocalMessaging(folder)
        settings = settings_of(protection=protection, parties=parties, rounds=1)
        out = tmp_path / f"{protection}-{parties}" / "out"
        coordinator_of(folder, federated, settings, post, out).run(HOSPITALS)
        joined = [protocol.decode_answer("join", n, a) for k, _, n, _, a in post.log if k == "join"]
        assert sum(len(answer["sealed"]) for answer in joined) == pairs
        assert [len(answer["common"]) for answer in joined] == [2, 0, 0]


@pytest.mark.parametrize("what", ["keys", "public", "missing"])
def test_a_coordinator_that_swaps_keys_is_found_out(federation, tmp_path, what):
    folder, federated = federation
    settings = settings_of(protection="smpc", parties="2", rounds=1)
    post = LocalMessaging(folder)
    sites = dict(post.sites)

    class Swapping:
        def __init__(self, site):
            self.answer_truly = site.answer

        def answer(self, request, server=b""):
            kind, fields = protocol.decode_request(request)
            if kind != "join" and fields["sealed"]:
                sealed = fields["sealed"]
                if what == "missing":
                    sealed["keys"] = {}
                elif what == "keys":
                    sealed["keys"]["hospital-1"] = sealed["keys"]["hospital-2"]
                else:
                    sealed["public"]["hospital-2"] = bytes(32)
                request = protocol.encode_request(kind, fields)
            return self.answer_truly(request, server)

    # hospital-3 plays no party: it authenticates the two that do, and gets no other hospital's key sealed
    post.sites["hospital-3"] = Swapping(sites["hospital-3"])
    coordinator = coordinator_of(folder, federated, settings, post, tmp_path / "out")
    left_out = coordinator.run(HOSPITALS)["left_out"]
    if what == "public":  # it needs no other key; the fingerprints agree, as hospital-2's comes sealed
        assert left_out == []
    else:
        ((name, reason),) = [(left["hospital"], left["reason"]) for left in left_out]
        assert name == "hospital-3"
        assert "sealed for another run" in reason or "is missing" in reason
