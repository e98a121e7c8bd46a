"""Which diagnoses of different publishers are the same."""

from __future__ import annotations

import pytest

from skinfl.data import ham10000, isic2019, pad_ufes
from skinfl.data.classes import PART_OF, SYNONYMS, described, diagnosis, match
from skinfl.predictions import LesionClass


def told(model, data):
    found = match(model, data)
    names = [each.name for each in found.classes]
    return (
        {each.name: names[k] for each, k in zip(model, found.of_model)},
        {each.name: names[k] if k >= 0 else None for each, k in zip(data, found.of_data)},
    )


def bare(*names):
    return [LesionClass(name, name) for name in names]


@pytest.mark.parametrize("classes", [ham10000.CLASS_INFO, isic2019.CLASS_INFO, pad_ufes.CLASS_INFO])
def test_a_publishers_classes_are_known_and_match_themselves(classes):
    assert {diagnosis(each) for each in classes} <= set(SYNONYMS)
    assert match(classes, classes) == (tuple(classes), *2 * (tuple(range(len(classes))),))
    assert match(classes, bare(*(each.full_name.upper() for each in classes))).of_data == tuple(
        range(len(classes))
    )


def test_no_name_stands_for_two_diagnoses():
    names = [name for short, others in SYNONYMS.items() for name in (short, *others)]
    assert len(set(names)) == len(names) and set(PART_OF) | set(PART_OF.values()) <= set(SYNONYMS)


def test_parts_count_as_the_wider_class_that_the_network_knows():
    _, data = told(ham10000.CLASS_INFO, isic2019.CLASS_INFO)
    assert data["ak"] == data["scc"] == "akiec" and data["mel"] == "mel" and None not in data.values()
    _, data = told(ham10000.CLASS_INFO, pad_ufes.CLASS_INFO)
    assert data == {"ack": "akiec", "bcc": "bcc", "mel": "mel", "nev": "nv", "scc": "akiec", "sek": "bkl"}


def test_parts_that_the_network_knows_add_up_to_the_wider_class_of_the_data():
    model, data = told(isic2019.CLASS_INFO, ham10000.CLASS_INFO)
    assert model["ak"] == model["scc"] == "akiec" and data["akiec"] == "akiec"
    assert len(match(isic2019.CLASS_INFO, ham10000.CLASS_INFO).classes) == 7
    found = match(bare("ak", "nv"), ham10000.CLASS_INFO)
    assert found.classes[0] == ham10000.CLASS_INFO[0]


def test_a_class_is_not_widened_where_the_other_side_has_it():
    model, data = told(bare("akiec", "scc"), bare("SCC", "AK"))
    assert model == {"akiec": "akiec", "scc": "scc"} and data == {"SCC": "scc", "AK": "akiec"}


def test_what_has_no_counterpart_is_none():
    model, data = told(bare("nv", "wart"), bare("Nevus", "scar", "NV"))
    assert model == {"nv": "nv", "wart": "wart"} and data == {"Nevus": "nv", "scar": None, "NV": "nv"}
    assert match(bare("a"), bare("b")).common == ()
    assert told(bare("黒", "赤"), bare("赤", "青"))[1] == {"赤": "赤", "青": None}


def test_short_names_of_a_publisher_are_described():
    assert described(bare(*ham10000.CLASSES)) == ham10000.CLASS_INFO
    assert described(bare("nv", "mel")) == tuple(bare("nv", "mel"))
    own = (LesionClass("akiec", "something else"), *ham10000.CLASS_INFO[1:])
    assert described(own) == own
