"""What a coordinator alone gets out of hospitals that follow the protocol: it should be sums and no more."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from attacks import broken, may_be_refused, reveals, succeeded_if
from flower_helpers import HOSPITALS, settings_of
from hostile_coordinator import CLASSES, FOUR, Contributions, HostileCoordinator, hospitals_in

from skinfl.errors import ProtectionError

PROTECTIONS = {
    "smpc": {"protection": "smpc"},
    "he-ckks": {"protection": "he", "he_scheme": "ckks-vector"},
    "he-bfv": {"protection": "he", "he_scheme": "bfv"},
}
SHAMIR = {"protection": "smpc", "smpc_scheme": "shamir"}


def settings_for(protection, **changes):
    """One step over all images, so that an update is one gradient."""
    if protection["protection"] == "he":
        pytest.importorskip("tenseal")
    values = {**protection, "strategy": "fedavg", "weight_decay": 0.0, "batch_size": 1000, **changes}
    return settings_of(**values)


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
            settings = settings_for(protection, hospitals=len(names))
            coordinator = HostileCoordinator(hospitals, settings, names)
            for round, ask in ((0, coordinator.statistics), (1, coordinator.train)):
                opened = coordinator.sum_of({name: ask(name)["messages"] for name in names}, round=round)
                assert opened.senders == tuple(names)
                expected = sum(contributions.last(name, round) for name in names)
                np.testing.assert_allclose(opened.total, expected, atol=1e-4)
            assert coordinator.evaluate(names[0])["metrics"] is not None


def updates(coordinator, **tasks):
    """Have each hospital train, with what ``tasks`` say for it, and return the messages."""
    return {
        name: coordinator.train(name, **tasks.get(name.replace("-", "_"), {}))["messages"]
        for name in coordinator.names
    }


# One task for all: where two of three hospitals are given one that changes nothing, the sum is the third's.


@broken("nothing binds the class weights of a round: two hospitals can be given others than the third")
def test_class_weights_of_zero_for_all_but_one(hospitals, contributions, settings):
    with may_be_refused():
        coordinator = HostileCoordinator(hospitals, settings)
        nothing = {"class_weights": [0.0] * CLASSES}
        opened = coordinator.sum_of(updates(coordinator, hospital_2=nothing, hospital_3=nothing))
        where = slice(0, coordinator.layout.size)
        secret = contributions.last("hospital-1", 1)[where]
        succeeded_if(reveals(opened.total[where], secret), "hospital-1's update out of the sum of three")


@broken("nothing binds the model of a round: two hospitals can be sent one whose first layer cannot learn")
def test_a_dead_model_for_all_but_one(hospitals, contributions, settings):
    with may_be_refused():
        coordinator = HostileCoordinator(hospitals, settings)
        dead = {"state": coordinator.model(np.zeros(coordinator.layout.size))}
        opened = coordinator.sum_of(updates(coordinator, hospital_2=dead, hospital_3=dead))
        where = coordinator.first_layer()
        secret = contributions.last("hospital-1", 1)[where]
        succeeded_if(reveals(opened.total[where], secret), "hospital-1's first layer out of the sum of three")


@broken("nothing binds the normalisation: two hospitals can be told one that leaves nothing of their images")
def test_a_normalisation_that_blanks_the_images_of_all_but_one(hospitals, contributions, settings):
    with may_be_refused():
        coordinator = HostileCoordinator(hospitals, settings)
        blank = {"normalisation": [[0.5], [1e12]]}
        opened = coordinator.sum_of(updates(coordinator, hospital_2=blank, hospital_3=blank))
        where = coordinator.first_layer()
        secret = contributions.last("hospital-1", 1)[where]
        succeeded_if(reveals(opened.total[where], secret), "hospital-1's first layer out of the sum of three")


def test_other_hyperparameters_for_all_but_one(hospitals, settings):
    """This promise is kept: keys are bound to what each was told, so that nothing adds up."""

    def still(hospital, told):
        return told if hospital == "hospital-1" else {**told, "lr": 1e-8}

    coordinator = HostileCoordinator(hospitals, settings, rewrite=still)
    with pytest.raises(ProtectionError, match=r"was sealed for another run|isn't hospital-1's key"):
        coordinator.sum_of(updates(coordinator))


# Nothing beside the sum: what a hospital says in the clear.


@broken("a hospital trains as often as asked, and its loss in the clear is an oracle for its class counts")
def test_class_counts_out_of_repeated_training(hospitals):
    settings = settings_for(PROTECTIONS["smpc"], batch_size=100_000, lr=1e-8)
    with may_be_refused():
        coordinator = HostileCoordinator(hospitals, settings)
        even = coordinator.model(
            np.zeros(coordinator.layout.size)
        )  # says 1/7 for each class: a loss of log 7
        shares = []
        for k in range(CLASSES):
            loss = coordinator.train("hospital-1", even, class_weights=np.eye(CLASSES)[k].tolist()).get(
                "loss"
            )
            if loss is None:
                return
            shares.append(loss / np.log(CLASSES))

        def misfit(images):
            counts = np.multiply(shares, images)
            return max(np.abs(counts - np.rint(counts)))

        images = next((n for n in range(1, coordinator.unit + 1) if misfit(n) < 2e-4), 0)
        true = hospitals.federated.train_of("hospital-1").class_counts()
        found = np.rint(np.multiply(shares, images))
        succeeded_if(np.array_equal(found, true), f"hospital-1's class counts: {found.astype(int).tolist()}")


@broken("a hospital's confusion matrix leaves it in the clear, whoever asks for it and of whatever model")
def test_class_counts_out_of_an_evaluation(hospitals):
    with may_be_refused():
        coordinator = HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"]))
        metrics = coordinator.evaluate("hospital-1").get("metrics")
        if not metrics or "confusion" not in metrics:
            return
        found = np.sum(metrics["confusion"], axis=1)
        true = hospitals.federated.test_of("hospital-1").class_counts()
        succeeded_if(np.array_equal(found, true), f"hospital-1's test images by class: {found.tolist()}")


# Over runs: a difference of two sums is one hospital's.


def two_runs(hospitals, settings, round):
    """Return what a run with all hospitals and one without the last open for the same round."""
    totals = []
    for names in (HOSPITALS, HOSPITALS[:2]):
        coordinator = HostileCoordinator(hospitals, settings.replace(hospitals=len(names)), names)
        ask = coordinator.train if round else coordinator.statistics
        totals.append(coordinator.sum_of({n: ask(n)["messages"] for n in names}, round=round).total)
    return totals


@broken("no hospital remembers earlier runs: the statistics of one without hospital-3 are opened as well")
def test_statistics_of_two_runs_that_differ_by_one_hospital(hospitals, contributions, settings):
    with may_be_refused():
        all_three, two = two_runs(hospitals, settings, 0)
        secret = contributions.last("hospital-3", 0)
        succeeded_if(reveals(all_three - two, secret), "hospital-3's pixel sums and class counts")


@broken(
    "training is foreseeable and no hospital remembers earlier runs: the difference is hospital-3's update"
)
def test_first_rounds_of_two_runs_that_differ_by_one_hospital(hospitals, contributions, settings):
    with may_be_refused():
        all_three, two = two_runs(hospitals, settings, 1)
        secret = contributions.last("hospital-3", 1)
        succeeded_if(reveals(all_three - two, secret), "hospital-3's update")


# Timeouts of the hospital's own.


@broken(
    "no hospital has a limit for the threshold: at half, two sums over different hospitals open in a round"
)
def test_a_threshold_of_half_the_hospitals(four_hospitals, contributions):
    settings = settings_for(SHAMIR, hospitals=4, threshold=2)
    with may_be_refused():
        coordinator = HostileCoordinator(four_hospitals, settings, FOUR)
        messages = updates(coordinator)
        all_four = coordinator.sum_of(messages, FOUR, hosts=FOUR[:2])
        three = coordinator.sum_of(messages, FOUR[:3], hosts=FOUR[2:])
        secret = contributions.last("hospital-4", 1)
        succeeded_if(reveals(all_four.total - three.total, secret), "hospital-4's update")


def test_keys_on_disk_are_for_their_owner_only(hospitals):
    HostileCoordinator(hospitals, settings_for(PROTECTIONS["smpc"]))
    files = [p for p in hospitals.folder.glob("hospital-*/state/**/*") if p.is_file() and "key" in p.name]
    assert len(files) == len(HOSPITALS)
    readable = sorted(p.name for p in files if p.stat().st_mode & 0o077)
    succeeded_if(bool(readable), f"private keys that others may read: {readable}")


# Opening is no oracle: hospitals decrypt sums, and nothing else.


@pytest.fixture(params=["he-ckks", "he-bfv"])
def encrypted(request, hospitals, contributions):
    """A coordinator that holds the ciphertexts of round 1."""
    coordinator = HostileCoordinator(hospitals, settings_for(PROTECTIONS[request.param]))
    return coordinator, updates(coordinator)


@broken("hospitals decrypt what they are given: a single ciphertext, doubled and labelled as a sum")
def test_one_ciphertext_labelled_as_a_sum(encrypted, contributions):
    coordinator, messages = encrypted
    one = coordinator.ciphertexts(messages, "hospital-1")
    doubled = coordinator.forged_sum(coordinator.added(one, one), ("hospital-1", "hospital-2"))
    with may_be_refused():
        total = coordinator.opened_by("hospital-3", doubled).total
        secret = contributions.last("hospital-1", 1)
        succeeded_if(reveals(total / 2, secret), "hospital-1's update")


@broken("hospitals open any number of sums of one round: two that differ by one hospital give its update")
@pytest.mark.parametrize("second", ["hospital-3", "hospital-1"], ids=["same opener", "another opener"])
def test_two_sums_of_one_round(encrypted, contributions, second):
    coordinator, messages = encrypted
    ciphertexts = {name: coordinator.ciphertexts(messages, name) for name in HOSPITALS}
    three = coordinator.forged_sum(coordinator.added(*ciphertexts.values()), HOSPITALS)
    two = coordinator.forged_sum(
        coordinator.added(ciphertexts["hospital-1"], ciphertexts["hospital-2"]), HOSPITALS[:2]
    )
    with may_be_refused():
        first = coordinator.opened_by("hospital-3", three).total
        difference = first - coordinator.opened_by(second, two).total
        secret = contributions.last("hospital-3", 1)
        succeeded_if(reveals(difference, secret), "hospital-3's update")


@broken("hospitals decrypt a ciphertext (0, D), which is D times their common secret key")
def test_the_common_key_out_of_a_crafted_ciphertext(hospitals):
    coordinator = HostileCoordinator(hospitals, settings_for(PROTECTIONS["he-ckks"]))
    messages = updates(coordinator)
    crafted = multiple_of_the_key(coordinator, 2**40)
    genuine = coordinator.added(*(coordinator.ciphertexts(messages, name) for name in HOSPITALS[:2]))
    message = coordinator.forged_sum([crafted, *genuine[1:]], HOSPITALS[:2])
    with may_be_refused():
        total = coordinator.opened_by("hospital-3", message).total
        key = key_from(coordinator, total, 2**40)
        succeeded_if(key == true_key(coordinator), "the key that opens every hospital's update")


def multiple_of_the_key(coordinator, factor):
    """Return the ciphertext (0, factor), of the level and scale of fresh ones."""
    from skinfl.inference.circuit.residues import from_residues
    from skinfl.inference.ckks import Ckks

    packing = coordinator.packing
    parameters = packing.parameters
    values = np.zeros((2, 1, parameters.degree), np.uint64)
    values[1] = factor  # a constant has the same value in every place of its number-theoretic form
    return from_residues(values, Ckks(parameters.degree, [parameters.prime_bits]), 0, packing.scale)


def key_from(coordinator, total, factor):
    """Return the key's numbers, as SEAL holds them, from slots that hold ``factor`` times the key.

    The opened words are the slots' real parts and then the imaginary ones; encoding divides out what
    decoding multiplied, and rounds to the key's coefficients, which are -1, 0 and 1.
    """
    from skinfl.protection.he.seal import sealapi

    packing = coordinator.packing
    degree = packing.parameters.degree
    assert len(total) >= degree
    words = np.rint(total[:degree] * packing._fixed_point.fixed.scale) * packing.scale / factor
    slots = words[: degree // 2] + 1j * words[degree // 2 :]
    plaintext = sealapi.Plaintext()
    sealapi.CKKSEncoder(packing.context).encode(slots.tolist(), 1.0, plaintext)
    return [plaintext[i] for i in range(degree)]


def true_key(coordinator):
    """Return the hospitals' key in the same form."""
    from skinfl.protection.he import seal

    secret = seal.load(seal.sealapi.SecretKey(), coordinator.packing.context, coordinator.common_key())
    data = secret.data()  # a view of the key: it goes with it
    return [data[i] for i in range(coordinator.packing.parameters.degree)]
