"""What a coordinator alone gets out of hospitals that follow the protocol: it should be sums and no more."""

from __future__ import annotations

import threading
from importlib.util import find_spec

import numpy as np
import pytest
from attacks import refused, reveals, succeeded_if
from flower_helpers import HOSPITALS, settings_of
from hostile_coordinator import (
    CLASSES,
    EVALUATE,
    FOUR,
    STATISTICS,
    TRAIN,
    Contributions,
    HostileCoordinator,
    UnprovedSum,
    hospitals_in,
    protocol,
)

from skinfl.data.normalisation import Normalisation
from skinfl.errors import DataError, ProtectionError, SkinflError, TrainingError, WriteError
from skinfl.federation.hospital import HospitalAgent
from skinfl.federation.messages import News, encode_common, encode_told, hand_over
from skinfl.federation.validation import validation_segment
from skinfl.flower import keys
from skinfl.flower.hospital.membership import open_run
from skinfl.flower.provisioning.defaults import Limits
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.protection.encoder import Tally

PROTECTIONS = {
    "smpc": {"protection": "smpc"},
    "he-ckks": {"protection": "he", "he_scheme": "ckks-vector"},
    "he-bfv": {"protection": "he", "he_scheme": "bfv"},
}
SHAMIR = {"protection": "smpc", "smpc_scheme": "shamir"}
FIVE = (*FOUR, "hospital-5")


def settings_for(protection, **changes):
    """One step over all images as they are, so that an update is one gradient."""
    if protection["protection"] == "he":
        pytest.importorskip("tenseal")
    values = {"strategy": "fedavg", "weight_decay": 0.0, "batch_size": 1000, "augment": False}
    return settings_of(**{**protection, **values, **changes})


@pytest.fixture(params=PROTECTIONS)
def settings(request):
    return settings_for(PROTECTIONS[request.param])


@pytest.fixture(scope="module", autouse=True)
def the_honest_protocol_works(tmp_path_factory):
    """With the tools of all attacks below, coordinators that ask what they should get the sums."""
    for protection, names in [*((p, HOSPITALS) for p in PROTECTIONS.values()), (SHAMIR, FOUR)]:
        if protection["protection"] == "he" and find_spec("tenseal") is None:
            continue
        with pytest.MonkeyPatch.context() as patch:
            contributions = Contributions(patch)
            hospitals = hospitals_in(tmp_path_factory.mktemp("honest"), names)
            coordinator = HostileCoordinator(hospitals, settings_for(protection, hospitals=len(names)), names)
            news = b""
            asks = ((STATISTICS, 0), (TRAIN, 1), (TRAIN, 2), (EVALUATE, 2))
            for kind, round in asks:
                task = coordinator.task(kind, round, evaluate=round == 2 and kind == TRAIN)
                messages = asked(coordinator, task, news)
                opened = coordinator.sum_of(messages, task=task)
                assert opened.senders == tuple(names)
                assert coordinator.verified(names[1], opened, task)
                expected = sum(contributions.last(name, round, kind) for name in names)
                np.testing.assert_allclose(
                    opened.total, expected, atol=1e-3 if "bfv" in str(protection) else 1e-4
                )
                if kind != EVALUATE:
                    coordinator.move(task, opened)
                    news = coordinator.news()


def asked(coordinator, task, news=b"", names=None):
    """Ask hospitals for their contributions to a task, and return the messages."""
    ask = {
        STATISTICS: lambda name: coordinator.statistics(name),
        TRAIN: lambda name: coordinator.train(
            name, news, round=task.round, participants=list(task.participants), evaluate=task.evaluate
        ),
        EVALUATE: lambda name: coordinator.evaluate(
            name, news, round=task.round, participants=list(task.participants)
        ),
    }[task.kind]
    return {name: ask(name)["messages"] for name in names or task.participants}


def summed(coordinator, task, news=b"", names=None):
    """Have a task's contributions added up and opened."""
    return coordinator.sum_of(asked(coordinator, task, news, names), task=task)


def dropping(coordinator, task, news, cohort):
    """Have a task's contributions added up without those who are said to have dropped out."""
    messages = asked(coordinator, task, news)
    if not coordinator.roles.aggregators:
        return coordinator.sum_of(messages, cohort, task=task)
    again = {name: coordinator.protect(name, cohort, round=task.round)["messages"] for name in cohort}
    exchange = coordinator.exchange(task, cohort=tuple(cohort), attempt=1)
    return coordinator.opened_by(cohort[0], coordinator.encrypted_sum(again, cohort, exchange), task)


def begun(hospitals, settings, names=HOSPITALS, **options):
    """Return a coordinator of a run whose statistics are added up, and the news of them."""
    coordinator = HostileCoordinator(hospitals, settings.replace(hospitals=len(names)), names, **options)
    coordinator.begin()
    return coordinator, coordinator.news()


# One task for all: where two of three hospitals are given one that changes nothing, the sum is the third's.


@pytest.fixture
def behind(four_hospitals, settings):
    """A coordinator after a round that hospital-4 was not asked in: it may be handed the state before."""
    coordinator, news = begun(four_hospitals, settings, FOUR)
    task = coordinator.task(participants=HOSPITALS)
    coordinator.move(task, summed(coordinator, task, news))
    return coordinator


def scaled(told, factor):
    return told._replace(words=told.words * factor)


def one_float_off(base):
    weights = base.server["parameters"].copy()
    weights[0] = np.nextafter(weights[0], np.float32(9))
    return replaced(base, server=base.server.replace(parameters=weights))


def replaced(base, **changes):
    from dataclasses import replace

    return replace(base, **changes)


def dead(base):
    return replaced(base, server=base.server.replace(parameters=np.zeros_like(base.server["parameters"])))


def weightless(base):
    return replaced(base, prepared=base.begun._replace(class_weights=np.eye(CLASSES)[0] * CLASSES))


def blank(base):
    return replaced(base, prepared=base.begun._replace(normalisation=Normalisation((0.5,), (1e12,))))


OTHER_STATES = {
    "a model that cannot learn": dead,
    "class weights of nothing": weightless,
    "a normalisation that blanks images": blank,
    "one float of the model": one_float_off,
    "who was in the last sum": lambda base: replaced(base, accepted={"hospital-4": base.round}),
    "another run": lambda base: replaced(base, run="ab" * 16),
    "another round": lambda base: replaced(base, round=base.round - 1),
}


def test_no_hospital_trains_from_another_state(behind, contributions):
    for change in OTHER_STATES.values():
        other = change(behind.base)
        told = behind.told._replace(base=other.digest)
        with refused("0 other hospitals vouch for the state|not the one the last sum started from"):
            behind.train("hospital-4", behind.news(told, other), round=2)
        with refused("not the one the last sum started from"):
            behind.train("hospital-4", behind.news(base=other), round=2)
    assert contributions.all("hospital-4", 2) == []
    # and the true one is taken: all four hold the same state
    task = behind.task(round=2)
    opened = summed(behind, task, behind.news(base=behind.base))
    expected = sum(contributions.last(name, 2) for name in FOUR)
    np.testing.assert_allclose(opened.total, expected, atol=1e-3)


FORGERIES = {
    "words of its own": lambda told: told._replace(
        words=told.words + np.eye(1, len(told.words), dtype=int)[0]
    ),
    "twice the sum": lambda told: scaled(told, 2),
    "nothing": lambda told: scaled(told, 0),
    "other senders": lambda told: told._replace(senders=(*HOSPITALS[:2], "hospital-4")),
    "more senders": lambda told: told._replace(senders=FOUR),
    "other participants": lambda told: told._replace(participants=FOUR),
    "evaluate": lambda told: told._replace(evaluate=True),
    "another round": lambda told: told._replace(round=2),
    "another kind": lambda told: told._replace(kind=STATISTICS),
}


def test_no_hospital_follows_a_forged_sum(behind, contributions):
    for forge in FORGERIES.values():
        told = forge(behind.told)
        for name, base in (("hospital-1", None), ("hospital-4", behind.base)):
            for ask in (behind.train, behind.evaluate):
                with refused(f"{UnprovedSum.MARK}|expected .* signed|with another task|hospitals vouch"):
                    ask(name, behind.news(told, base), round=3)
    assert all(contributions.all(name, 3, kind) == [] for name in FOUR for kind in (TRAIN, EVALUATE))


def test_an_accomplice_cannot_vouch_for_others(behind, contributions):
    """A hospital that works with the coordinator holds the secret that proves sums: it makes tags at will."""
    accomplice = read_hospital(behind._folder / "hospital-1")
    run = open_run(accomplice, behind.run, {})
    side = run.keying().hospital("hospital-1", run.own, run.coordinator)
    for change in (dead, weightless, blank):
        state = change(behind.base)
        told = behind.told._replace(base=state.digest, senders=HOSPITALS[:2])
        exchange = behind.rules.exchange(told.task(state))
        told = told._replace(words=proved_words(side, HOSPITALS[:2], exchange))
        assert side.verify(told.words, told.senders, exchange)  # the forgery is good
        voucher = voucher_of(accomplice, "hospital-4", run.terms, told)
        news = hand_over(News(encode_told(told), encode_common(state), {"hospital-1": voucher}))
        with refused("1 other hospitals vouch for the state|not the one the last sum started from"):
            behind.train("hospital-4", news, round=2)
        with refused("has missed the rounds"):
            behind.train("hospital-2", behind.news(told), round=2)
        with refused("not the one the last sum started from|0 other hospitals vouch"):
            behind.train("hospital-2", behind.news(told, state, to="hospital-2"), round=2)
    assert contributions.all("hospital-4", 2) == contributions.all("hospital-2", 2) == []


def proved_words(side, senders, exchange):
    """Return zeros with a tag that fits, as whoever holds the hospitals' secret can make them."""
    encoder, authenticator = side._encoder, side._authenticator
    size = encoder.size(exchange.layout)
    tagged = encoder.trailer.tagged(size)
    vectors = [np.zeros(exchange.layout.size) for _ in senders]
    total = np.zeros(size, np.int64)
    for name, vector in zip(senders, vectors):
        own = type(encoder)(encoder.inner, authenticator, name)
        total += np.concatenate([b.copy() for b in own.blocks(vector, exchange, Tally())]).astype(np.int64)
    assert tagged < size
    return total


def voucher_of(accomplice, recipient, terms, told):
    """Return what a hospital vouches for, who says what the coordinator likes."""
    names = (accomplice.name, recipient)
    public = accomplice.sealing_keys[recipient]
    return keys.voucher(accomplice.sealing_key(), public, names, terms, told.kind, told.round, told.base)


def test_no_hospital_follows_the_sum_of_another_run(hospitals, contributions, settings):
    first, news = begun(hospitals, settings)
    second = HostileCoordinator(hospitals, settings)
    with refused("missed the rounds"):
        second.train("hospital-1", news)
    told = first.told._replace(base=second.common.digest)
    with refused(UnprovedSum.MARK):
        second.train("hospital-1", second.news(told))
    assert contributions.all("hospital-1", 1) == []


def test_an_older_sum_moves_no_hospital_back(hospitals, contributions, settings):
    coordinator, old = begun(hospitals, settings)
    coordinator.move(coordinator.task(), summed(coordinator, coordinator.task(), old))
    asked(coordinator, coordinator.task(round=2), coordinator.news())
    task = coordinator.task(round=3)
    opened = summed(coordinator, task, old)  # what they hold is still the state after round 1
    np.testing.assert_allclose(opened.total, sum(contributions.last(n, 3) for n in HOSPITALS), atol=1e-3)
    assert coordinator.verified("hospital-1", opened, task)


def test_the_model_of_an_old_round_adds_up_with_no_other(hospitals, contributions, settings):
    coordinator, news = begun(hospitals, settings)
    task = coordinator.task()
    old = asked(coordinator, task, news)
    coordinator.move(task, coordinator.sum_of(old, task=task))
    task = coordinator.task(round=2)
    messages = asked(coordinator, task, coordinator.news(), HOSPITALS[:1])
    messages.update(asked(coordinator, task, news, HOSPITALS[1:]))  # these are not told the last sum
    if settings.protection == "smpc":
        with refused("another task than this party was given|rests on another task"):
            coordinator.sum_of(messages, task=task)
        return
    with refused("rests on another task"):
        coordinator.sum_of(messages, task=task)
    # the aggregator is the attacker's own: it adds them all the same
    exchange = coordinator.exchange(task)
    releases = [coordinator.release(name, HOSPITALS, round=2) for name in HOSPITALS]
    total = coordinator.added(*(coordinator.ciphertexts(messages, n, exchange) for n in HOSPITALS))
    for name in HOSPITALS:
        model = messages[name]["aggregator"]
        with refused(UnprovedSum.MARK + "|don't hold .* ciphertexts"):
            forged = coordinator.forged_sum(total, HOSPITALS, model, releases)
            coordinator.opened_by("hospital-2", forged, task)


def test_other_hyperparameters_for_all_but_one(hospitals, settings):
    """Keys are bound to what each was told, so that nothing adds up."""

    def still(hospital, told):
        return told if hospital == "hospital-1" else {**told, "lr": 1e-5}

    coordinator = HostileCoordinator(hospitals, settings, rewrite=still)
    with pytest.raises(ProtectionError, match=r"was sealed for another run|isn't hospital-1's key"):
        for name in HOSPITALS:
            coordinator.statistics(name)


# Once a round: what was answered is answered again, and nothing else is.


def test_a_round_is_trained_once_and_with_the_same_participants(four_hospitals, contributions, settings):
    coordinator, news = begun(four_hospitals, settings, FOUR)
    first = coordinator.train("hospital-1", news)
    assert coordinator.train("hospital-1", news) == first
    for changes in ({"participants": list(HOSPITALS)}, {"evaluate": True}, {"participants": FOUR[::-1]}):
        with refused("already answered 'train' for round 1"):
            coordinator.train("hospital-1", news, **changes)
    assert len(contributions.all("hospital-1", 1)) == 1


def test_two_requests_at_once_have_one_answer(hospitals, contributions, settings):
    coordinator, news = begun(hospitals, settings)
    fields = {"run": coordinator.run, "round": 1, "evaluate": False, "sealed": {}}
    participants = [list(HOSPITALS), list(HOSPITALS), list(HOSPITALS[:2]), list(HOSPITALS[:2])]
    answers = []

    def ask(names):
        request = protocol.encode_request("train", {**fields, "participants": names})
        answers.append(coordinator.post.sites["hospital-1"].answer(request, news))

    threads = [threading.Thread(target=ask, args=(names,)) for names in participants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contributions.all("hospital-1", 1)) == 1
    assert len(set(answers)) == 2
    assert sum(b"already answered 'train'" in answer for answer in answers) == 2


def test_a_run_is_never_joined_anew(hospitals, contributions, settings):
    coordinator, news = begun(hospitals, settings)
    kept = coordinator.train("hospital-1", news)
    site, request = coordinator.post.sites["hospital-1"], coordinator.post.joins["hospital-1"]
    kind, fields = protocol.decode_request(request)
    first = site.answer(request)
    assert "model" in protocol.decode_answer("join", "hospital-1", first)
    others = {"settings": {**fields["settings"], "lr": 0.02}, "hospitals": HOSPITALS[:2], "unit": 64}
    for name, value in others.items():
        with refused("has joined run .* on other terms"):
            again = protocol.encode_request(kind, {**fields, name: value})
            protocol.decode_answer("join", "hospital-1", site.answer(again))
    assert coordinator.train("hospital-1", news) == kept
    # another run in between deletes what was kept of this one, but for that it was joined
    HostileCoordinator(hospitals, settings)
    with refused("has joined run .* on other terms"):
        protocol.decode_answer("join", "hospital-1", site.answer(request))
    with pytest.raises(ProtectionError, match=r"has not joined run .*, or has ended it"):
        coordinator.train("hospital-1", news)


# Nothing beside the sum: what a hospital says in the clear.


@pytest.mark.parametrize("shown", [False, True])
def test_own_figures_leave_a_hospital_only_where_its_folder_says_so(tmp_path, settings, shown):
    hospitals = hospitals_in(tmp_path, minimum_others=1, own_figures=shown)
    coordinator, news = begun(hospitals, settings)
    answers = [coordinator.train("hospital-1", news), coordinator.evaluate("hospital-1", news)]
    assert [answer["figures"] is not None for answer in answers] == [shown, shown]
    assert all(set(answer) == {"messages", "figures", "vouchers"} for answer in answers)
    for kind, fields in protocol.ANSWERS.items():
        if kind not in ("statistics", "train", "evaluate", "protect"):
            assert not {"figures", "seconds", "loss", "metrics", "clipped"} & set(fields._fields)
    assert coordinator.statistics("hospital-1")["figures"] is None


def test_training_is_as_often_asked_no_oracle(hospitals, contributions, settings):
    """Class counts came out of losses for class weights of the coordinator's choice: both are gone."""
    coordinator, news = begun(hospitals, settings)
    losses = [coordinator.train("hospital-1", news, round=round)["figures"] for round in range(1, CLASSES)]
    assert losses == [None] * (CLASSES - 1)
    assert {"class_weights", "normalisation"}.isdisjoint(protocol.REQUESTS["train"]._fields)


@pytest.mark.parametrize("folder_for_tests", [True, False])
def test_how_many_images_it_holds_is_not_told_by_what_it_refuses(hospitals, monkeypatch, folder_for_tests):
    """Shares that are held out can be chosen finely, and so could a number that is compared after them."""
    if not folder_for_tests:
        without_test_folders(hospitals, HOSPITALS)
    monkeypatch.setattr("hostile_coordinator.largest_part", lambda federated: 16)
    for held_out in (0.1, 0.5):
        changes = {"validation_fraction": held_out, "test_fraction": held_out}
        with refused("holds more images than the agreed unit of 16"):
            HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"], **changes))


WHAT_BREAKS = {
    "its images": DataError("/data/patients/wards.csv: 3 of 817 photographs are missing"),
    "its device": TrainingError("NVIDIA H100 NVL has not the memory for a batch of 64: 16 images fit"),
    "how long it trained": TrainingError("weights are not finite after 23 steps: lower --lr"),
    "its disk": WriteError("/data/patients/state/run", "No space left on device"),
}


@pytest.mark.parametrize("what", WHAT_BREAKS)
def test_what_goes_wrong_at_a_hospital_is_for_its_own_log(hospitals, monkeypatch, capsys, what):
    coordinator, news = begun(hospitals, settings_for(PROTECTIONS["smpc"]))

    error = WHAT_BREAKS[what]

    def train(*given):
        raise error

    monkeypatch.setattr(HospitalAgent, "train", train)
    with refused(rf"^hospital-1 cannot do it \({type(error).__name__}\): its own log says why$"):
        coordinator.train("hospital-1", news)
    assert f"hospital-1 refuses: {error}" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_not_named_to_the_coordinator(hospitals, capsys):
    folder = hospitals.folder / "hospital-1"
    (folder / "data").rename(folder / "moved")
    with pytest.raises(SkinflError) as caught:
        HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"]))
    assert "hospital-1 cannot do it (DataError): its own log says why" in str(caught.value)
    assert str(hospitals.folder) not in str(caught.value)
    assert str(folder) in capsys.readouterr().out


def test_how_models_do_on_validation_images_leaves_hospitals_in_sums_only(hospitals, contributions, settings):
    coordinator, news = begun(hospitals, settings.replace(validation_fraction=0.5))
    task = coordinator.task(evaluate=True)
    messages = {}
    for name in HOSPITALS:
        answer = coordinator.train(name, news, evaluate=True)
        assert answer["figures"] is None
        messages[name] = answer["messages"]
    if settings.protection == "smpc":  # encryption's lengths are those of random numbers
        assert len({sum(map(len, by_party.values())) for by_party in messages.values()}) == 1
    opened = coordinator.sum_of(messages, task=task)
    size = validation_segment(CLASSES).size
    own = [contributions.last(name, 1)[-size:] for name in HOSPITALS]
    assert all(each.any() for each in own)
    for each in own:
        succeeded_if(reveals(opened.total[-size:], each), "one hospital's histograms")
    images = sum(each[: CLASSES**2].sum() for each in own) * coordinator.unit
    assert coordinator.rules.apply(task, opened).validation["images"] == pytest.approx(images)
    # a round that does not evaluate tells nothing of them
    coordinator.move(task, opened)
    second = coordinator.task(round=2)
    summed(coordinator, second, coordinator.news())
    assert not any(contributions.last(name, 2)[-size:].any() for name in HOSPITALS)


def test_weights_by_effective_numbers_are_within_limits_as_well(tmp_path, contributions):
    hospitals = hospitals_in(tmp_path, minimum_others=1, limits=Limits(class_weights=(2.0, 3.0)))
    settings = settings_for(PROTECTIONS["smpc"], class_weights="effective", effective_beta=0.9)
    coordinator, news = begun(hospitals, settings)
    with refused("takes part with class_weights from 2.0 to 3.0, or 0"):
        coordinator.train("hospital-1", news)
    assert contributions.all("hospital-1", 1) == []


def test_fine_tuning_is_no_way_around_a_hospitals_limits(hospitals):
    with refused("takes part with fine_tune_epochs of at most 50"):
        HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"], fine_tune_epochs=51))


BEYOND = {"lr": 1e-8, "batch_size": 2, "local_epochs": 1000, "validation_fraction": 0.01}


@pytest.mark.parametrize("name", [*BEYOND, "large batch_size", "large lr"])
def test_settings_outside_a_hospitals_limits_are_refused_on_joining(hospitals, name):
    settings = settings_for(PROTECTIONS["smpc"])
    values = {**BEYOND, "large batch_size": 100_000, "large lr": 100.0}
    with refused(f"takes part with {name.split()[-1]} from"):
        HostileCoordinator(hospitals, settings.replace(**{name.split()[-1]: values[name]}))


def test_class_weights_are_derived_from_proved_counts_and_within_limits(tmp_path, contributions, settings):
    hospitals = hospitals_in(tmp_path, minimum_others=1, limits=Limits(class_weights=(2.0, 3.0)))
    coordinator, news = begun(hospitals, settings)
    told = coordinator.told
    for word in (0, 5, len(told.words) // 2):
        words = told.words.copy()
        words[word] += 1 << 20
        with refused(UnprovedSum.MARK):
            coordinator.train("hospital-1", coordinator.news(told._replace(words=words)))
    with refused("takes part with class_weights from 2.0 to 3.0, or 0, this run has 1"):
        coordinator.train("hospital-1", news)
    assert contributions.all("hospital-1", 1) == []


def test_updates_are_not_repeated_from_run_to_run(hospitals, contributions):
    """With batches and augmentation nobody can foresee an update, and subtract it."""
    settings = settings_for(PROTECTIONS["smpc"], batch_size=16, augment=True)
    for _ in range(2):
        coordinator, news = begun(hospitals, settings)
        coordinator.train("hospital-1", news)
    one, other = contributions.all("hospital-1", 1)
    assert not reveals(one[coordinator.first_layer()], other[coordinator.first_layer()])


# Over runs and rounds: a difference of two sums is one hospital's.


def two_sums(hospitals, first, second, names=FOUR):
    """Return the sums of two runs, the second without hospital-4; each is (settings, kind, changes)."""
    totals = []
    for cohort, (settings, kind, changes) in ((names, first), (names[:-1], second)):
        if kind == STATISTICS:
            coordinator = HostileCoordinator(hospitals, settings.replace(hospitals=len(cohort)), cohort)
            task, news = coordinator.task(kind, 0), b""
        else:
            coordinator, news = begun(hospitals, settings, names)
            task = coordinator.task(kind, participants=cohort, **changes)
        totals.append(summed(coordinator, task, news).total)
    return totals


@pytest.mark.parametrize("minimum", [1, 2])
@pytest.mark.parametrize("kind", [STATISTICS, TRAIN, EVALUATE])
def test_two_runs_that_differ_by_one_hospital(tmp_path, contributions, settings, minimum, kind):
    hospitals = hospitals_in(tmp_path, FOUR, minimum_others=minimum)
    with refused("has taken part in this task .* would show too few"):
        all_four, three = two_sums(hospitals, (settings, kind, {}), (settings, kind, {}))
        secret = contributions.last("hospital-4", 0 if kind == STATISTICS else 1, kind)
        succeeded_if(reveals(all_four - three, secret), "what hospital-4 contributed")


SAME_GRADIENT = {
    "another strategy": {"strategy": "fedavgm"},
    "another protection": {"protection": "smpc", "smpc_scheme": "shamir"},
    "another clip": {"clip": 30.0},
    "another learning rate": {"lr": 0.02},
    "other class weights": {"class_weights": "none"},
}


@pytest.mark.parametrize("change", SAME_GRADIENT)
def test_two_runs_of_other_settings_from_one_model(four_hospitals, contributions, change):
    """The first model comes of the seed, and its gradient is the same under many settings."""
    settings = settings_for(PROTECTIONS["smpc"])
    other = settings.replace(**SAME_GRADIENT[change])
    with refused("has taken part in this task .* would show too few"):
        all_four, three = two_sums(four_hospitals, (settings, TRAIN, {}), (other, TRAIN, {}))
        where = slice(0, 100)
        secret = contributions.last("hospital-4", 1)[where]
        succeeded_if(reveals(all_four[where] - three[where], secret), "hospital-4's gradient")


def without_test_folders(hospitals, names):
    """Have hospitals take test images from their others, as a run's settings say."""
    for name in names:
        path = hospitals.folder / name / "hospital.toml"
        text = path.read_text()
        assert 'test_data = "test"' in text
        path.write_text(text.replace('test_data = "test"', 'test_data = ""'))


@pytest.mark.parametrize("changes", [{"validation_fraction": 0.2}, {"test_fraction": 0.45}])
def test_two_divisions_under_one_seed(hospitals, changes):
    """Over the same hospitals: where one lesion is held out more, the difference is that lesion's."""
    without_test_folders(hospitals, HOSPITALS)
    settings = settings_for(PROTECTIONS["smpc"], validation_fraction=0.5, test_fraction=0.3)
    totals = []
    with refused(r"has divided its photographs otherwise under this seed.* take another seed"):
        for chosen in (settings, settings, settings.replace(**changes)):
            coordinator = HostileCoordinator(hospitals, chosen)
            totals.append(summed(coordinator, coordinator.task(STATISTICS, 0)).total)
        lesion = np.abs(totals[2] - totals[0]).max() * coordinator.unit
        succeeded_if(lesion > 0.5, "classes and brightness of the images that differ")
    np.testing.assert_array_equal(*totals)  # of one division there may be many runs
    begun(hospitals, settings.replace(seed=9, **changes))  # which differs in many lesions everywhere


@pytest.mark.parametrize("changes", [{"seed": 9}, {"test_fraction": 0.45}])
def test_statistics_of_another_split_of_the_same_images(four_hospitals, contributions, changes):
    """Which images are held out is the coordinator's choice, where a hospital has no test folder."""
    without_test_folders(four_hospitals, FOUR)
    settings = settings_for(PROTECTIONS["smpc"])
    with refused(
        r"has taken part in this task \(statistics.* would show too few|divided its photographs other"
    ):
        first, second = (settings, STATISTICS, {}), (settings.replace(**changes), STATISTICS, {})
        all_four, three = two_sums(four_hospitals, first, second)
        secret = contributions.last("hospital-4", 0)
        off = np.abs(all_four - three - secret).max() / secret.max()
        succeeded_if(off < 0.2, "hospital-4's statistics, nearly")


def test_an_evaluation_beside_a_round_that_evaluates(four_hospitals, contributions, settings):
    coordinator, news = begun(four_hospitals, settings, FOUR)
    told = summed(coordinator, coordinator.task(evaluate=True), news).total
    task = coordinator.task(EVALUATE, participants=HOSPITALS)
    with refused(r"has taken part in this task \(evaluation"):
        three = summed(coordinator, task, news).total
        secret = contributions.last("hospital-4", 1)[-len(three) :]
        succeeded_if(reveals(told[-len(three) :] - three, secret), "hospital-4's confusion matrix")


def test_rounds_from_one_model_that_differ_by_one_hospital(four_hospitals, contributions, settings):
    """The news of the first sum is withheld, so that the second round starts from the same model."""
    coordinator, news = begun(four_hospitals, settings, FOUR)
    all_four = summed(coordinator, coordinator.task(), news).total
    with refused(r"has taken part in this task \(model"):
        three = summed(coordinator, coordinator.task(round=2, participants=HOSPITALS), news).total
        succeeded_if(reveals(all_four - three, contributions.last("hospital-4", 1)), "hospital-4's update")
    with refused(r"has taken part in this task \(sum of model"):
        three = dropping(coordinator, coordinator.task(round=3), news, HOSPITALS).total
        succeeded_if(reveals(all_four - three, contributions.last("hospital-4", 1)), "hospital-4's update")


@pytest.mark.parametrize("other_run", [False, True])
def test_sums_at_parties_that_contribute_nothing(tmp_path, contributions, other_run):
    """Parties that are not asked to train know from the messages what they are about."""
    hospitals = hospitals_in(tmp_path, FIVE, minimum_others=1)
    settings = settings_for(PROTECTIONS["smpc"], parties="2")
    hosts = {"party_hospitals": FIVE[3:]}
    coordinator, news = begun(hospitals, settings, FIVE, **hosts)
    totals = []
    with refused(r"has taken part in this task \(sum of model"):
        for round, senders in enumerate((FIVE[:3], FIVE[:2]), 1):
            if other_run and round == 2:
                coordinator, news = begun(hospitals, settings, FIVE, **hosts)
            task = coordinator.task(round=round)
            totals.append(summed(coordinator, task, news, senders).total)
        succeeded_if(reveals(totals[0] - totals[1], contributions.last("hospital-3", 1)), "an update")
    with refused("adds up no statistics before it has told its own"):
        coordinator = HostileCoordinator(hospitals, settings.replace(hospitals=5, seed=3), FIVE, **hosts)
        summed(coordinator, coordinator.task(STATISTICS, 0), names=FIVE[:3])


def test_two_runs_with_other_parties(tmp_path, contributions):
    """Parties of a second run would not know of the first one's sums: contributors do."""
    hospitals = hospitals_in(tmp_path, FOUR, minimum_others=1)
    settings = settings_for(PROTECTIONS["smpc"], parties="2", hospitals=4)
    for hosts in (FOUR[:2], FOUR[2:]):
        coordinator = HostileCoordinator(hospitals, settings, FOUR, party_hospitals=hosts)
        if hosts == FOUR[2:]:
            with refused(r"has taken part in this task \(witnesses of"):
                coordinator.statistics("hospital-3")
        else:
            coordinator.begin()


def test_a_threshold_of_half_the_hospitals(four_hospitals):
    """At half, two halves of the parties could open sums over different hospitals in one round."""
    settings = settings_for(SHAMIR, hospitals=4, threshold=2)
    with refused("takes part with threshold above half of the 4 parties"):
        HostileCoordinator(four_hospitals, settings, FOUR)


def test_a_party_adds_up_one_set_of_shares_in_a_round(four_hospitals, contributions):
    coordinator, news = begun(four_hospitals, settings_for(SHAMIR), FOUR)
    messages = asked(coordinator, coordinator.task(), news)
    coordinator.sum_of(messages, hosts=FOUR[:3])
    with refused("already answered 'combine-train' for round 1"):
        three = coordinator.sum_of(messages, HOSPITALS, hosts=FOUR[1:])
        succeeded_if(bool(three.senders), "a second sum of the round")
    again = {name: coordinator.protect(name, HOSPITALS)["messages"] for name in HOSPITALS}
    with refused("already answered 'combine-train' for round 1"):
        coordinator.sum_of(again, HOSPITALS, hosts=FOUR[:3])


def test_keys_on_disk_are_for_their_owner_only(hospitals):
    HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"]))
    files = [p for p in hospitals.folder.glob("hospital-*/state/**/*") if p.is_file() and "key" in p.name]
    assert len(files) == len(HOSPITALS)
    readable = sorted(p.name for p in files if p.stat().st_mode & 0o077)
    succeeded_if(bool(readable), f"private keys that others may read: {readable}")


# Opening is no oracle: hospitals decrypt the sum that they consented to, and nothing else. The coordinator
# also has the common key here, from a friend among the hospitals.


@pytest.fixture(params=["he-ckks", "he-bfv"])
def encrypted(request, hospitals, contributions):
    """A coordinator that holds the messages of round 1."""
    coordinator, news = begun(hospitals, settings_for(PROTECTIONS[request.param]))
    return coordinator, asked(coordinator, coordinator.task(), news)


def consented(coordinator, cohort=HOSPITALS, attempt=0):
    return [coordinator.release(name, cohort, attempt) for name in cohort]


def test_what_the_common_key_opens(encrypted, contributions):
    """The whole sum, which is no secret; this is what the attacks below use."""
    coordinator, messages = encrypted
    lists = [coordinator.ciphertexts(messages, name) for name in HOSPITALS]
    total = coordinator.decrypted(coordinator.added(*lists), consented(coordinator), 3)
    np.testing.assert_allclose(total, sum(contributions.last(n, 1) for n in HOSPITALS), atol=1e-3)


def test_one_ciphertext_labelled_as_a_sum(encrypted, contributions):
    coordinator, messages = encrypted
    releases = consented(coordinator)
    one = coordinator.ciphertexts(messages, "hospital-1")
    model, secret = messages["hospital-1"]["aggregator"], contributions.last("hospital-1", 1)
    doubled = coordinator.added(one, one)
    for senders in (HOSPITALS, HOSPITALS[:2]):
        with refused(UnprovedSum.MARK):
            forged = coordinator.forged_sum(doubled, senders, model, [releases[0]] * 2)
            coordinator.opened_by("hospital-3", forged)
    for given in ([], releases[:1], releases):
        found = coordinator.decrypted(one, given)
        succeeded_if(found is not None and reveals(found, secret), "hospital-1's update")


def test_a_hospital_that_is_said_to_have_dropped_out(encrypted, contributions):
    """Attempt 0 is of all, attempt 1 of two: whoever opens both has the third's update."""
    coordinator, messages = encrypted
    two, secret = HOSPITALS[:2], contributions.last("hospital-3", 1)
    again = {name: coordinator.protect(name, two)["messages"] for name in two}
    for name in two:
        with refused("has protected round 1 for other hospitals"):
            coordinator.release(name, HOSPITALS)
    third = coordinator.release("hospital-3", HOSPITALS)
    exchange = coordinator.exchange(cohort=two, attempt=1)
    sums = [coordinator.ciphertexts(again, name, exchange) for name in two]
    fewer = coordinator.decrypted(coordinator.added(*sums), consented(coordinator, two, 1), 2)
    np.testing.assert_allclose(fewer, sum(contributions.last(n, 1) for n in two), atol=1e-3)
    for name in two:
        with refused("already answered 'release-train'|has protected round 1 for other"):
            coordinator.release(name, HOSPITALS)
        with refused("has consented to another sum of round 1 already"):
            coordinator.protect(name, HOSPITALS, 2)
    first = coordinator.added(*(coordinator.ciphertexts(messages, name) for name in HOSPITALS))
    forged = coordinator.forged_sum(first, HOSPITALS, messages["hospital-1"]["aggregator"], [third])
    for name in HOSPITALS:  # the third consented to attempt 0, whose other releases are withheld for good
        with refused(f"{UnprovedSum.MARK}|another attempt|expected"):
            coordinator.opened_by(name, forged)
    found = coordinator.decrypted(first, [third], 3)
    succeeded_if(found is not None and reveals(found - fewer, secret), "hospital-3's update")


def test_two_attempts_are_not_both_released(encrypted):
    coordinator, _ = encrypted
    consented(coordinator)
    for name in HOSPITALS[:2]:
        with refused("has consented to another sum of round 1 already"):
            coordinator.protect(name, HOSPITALS[:2])
        with refused("has protected round 1 for other hospitals"):
            coordinator.release(name, HOSPITALS[:2], 1)


def test_two_sums_of_one_round(encrypted, contributions):
    coordinator, messages = encrypted
    releases = consented(coordinator)
    ciphertexts = [coordinator.ciphertexts(messages, name) for name in HOSPITALS]
    model = messages["hospital-1"]["aggregator"]
    three = coordinator.forged_sum(coordinator.added(*ciphertexts), HOSPITALS, model, releases)
    opened = coordinator.opened_by("hospital-3", three)
    assert opened.senders == HOSPITALS
    two = coordinator.forged_sum(coordinator.added(*ciphertexts[:2]), HOSPITALS[:2], model, releases[:2])
    for name in HOSPITALS:
        with refused(UnprovedSum.MARK):
            coordinator.opened_by(name, two)
    found = coordinator.decrypted(coordinator.added(*ciphertexts[:2]), releases[:2], 2)
    secret = contributions.last("hospital-3", 1)
    succeeded_if(found is not None and reveals(opened.total - found, secret), "hospital-3's update")


def test_nothing_is_opened_that_nobody_consented_to(encrypted):
    coordinator, messages = encrypted
    lists = [coordinator.ciphertexts(messages, name) for name in HOSPITALS]
    forged = coordinator.forged_sum(
        coordinator.added(*lists), HOSPITALS, messages["hospital-1"]["aggregator"]
    )
    with refused("has not consented to a sum of round 1"):
        coordinator.opened_by("hospital-1", forged)


def test_sums_that_prove_nothing_are_opened_a_few_times_only(encrypted):
    coordinator, messages = encrypted
    consented(coordinator)
    one = coordinator.ciphertexts(messages, "hospital-1")
    forged = coordinator.forged_sum(one, HOSPITALS, messages["hospital-1"]["aggregator"])
    for _ in range(8):
        with refused(UnprovedSum.MARK):
            coordinator.opened_by("hospital-1", forged)
    with refused("opens no more of this run"):
        coordinator.opened_by("hospital-1", forged)


def test_the_common_key_out_of_a_crafted_ciphertext(hospitals):
    """A ciphertext (0, D) decrypts to D times the key."""
    coordinator, news = begun(hospitals, settings_for(PROTECTIONS["he-ckks"]))
    messages = asked(coordinator, coordinator.task(), news)
    releases = consented(coordinator)
    genuine = coordinator.added(*(coordinator.ciphertexts(messages, name) for name in HOSPITALS))
    crafted = multiple_of_the_key(coordinator, 2**40)
    message = coordinator.forged_sum(
        [crafted, *genuine[1:]], HOSPITALS, messages["hospital-1"]["aggregator"], releases
    )
    with refused(UnprovedSum.MARK):
        coordinator.opened_by("hospital-3", message)


def multiple_of_the_key(coordinator, factor):
    """Return the ciphertext (0, factor), of the level and scale of fresh ones."""
    from skinfl.inference.circuit.residues import from_residues
    from skinfl.inference.ckks import Ckks

    packing = coordinator.packing
    parameters = packing.parameters
    values = np.zeros((2, 1, parameters.degree), np.uint64)
    values[1] = factor  # a constant has the same value in every place of its number-theoretic form
    return from_residues(values, Ckks(parameters.degree, [parameters.prime_bits]), 0, packing.scale)
