"""Tests of the embedded classifier and photographs."""

import csv
import pathlib

import numpy as np
import pytest

import keras_uap
from keras_uap import samples

COUNTS = {"fit": (136, 26), "held_out": (54, 12)}


@pytest.mark.parametrize("split", COUNTS)
def test_photos(split):
    crops, photographs = COUNTS[split]
    photos = samples.load_photos(split)
    assert photos.shape == (crops, 224, 224, 3)
    assert photos.dtype == np.uint8
    groups = samples.photo_groups(split)
    assert len(groups) == crops
    assert len(set(groups)) == photographs
    # No crop stands twice, and none is empty.
    assert len({photo.tobytes() for photo in photos}) == crops
    assert photos.reshape(crops, -1).std(axis=1).min() > 5


def test_no_photograph_is_on_both_sides():
    fit, held_out = (set(samples.photo_groups(s)) for s in COUNTS)
    assert not fit & held_out


def test_credits_name_every_photograph():
    folder = pathlib.Path(samples.__file__).parent / "photos"
    with open(folder / "CREDITS.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in COUNTS:
        of_split = [row for row in rows if row["split"] == split]
        counts = {
            pathlib.Path(row["source_photo"]).stem.lower(): int(row["crops"])
            for row in of_split
        }
        names, found = np.unique(
            samples.photo_groups(split), return_counts=True
        )
        assert counts == dict(zip(names.tolist(), found.tolist()))
        assert all(row["author"] and row["licence"] for row in of_split)


def test_class_names():
    names = samples.class_names()
    assert len(names) == len(set(names)) == 1000
    assert all(name.strip() == name and name for name in names)


def test_unknown_split():
    with pytest.raises(ValueError, match="split='train'"):
        samples.load_photos("train")


@pytest.mark.slow
def test_classifier_is_sure_of_the_photographs():
    classifier = samples.load_classifier()
    assert classifier.input_shape == (None, 224, 224, 3)
    assert classifier.output_shape == (None, 1000)
    photos = samples.load_photos("held_out")[::6].astype("float32")
    logits = np.asarray(
        keras_uap.logits_function(classifier)(photos), "float64"
    )
    assert logits.shape == (9, 1000)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    assert p.max(-1).min() >= 0.35 - 0.01


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 10), ("l2", 2000)])
def test_ready_made_perturbation(norm, epsilon):
    v, card = samples.load_perturbation(norm)
    assert v.shape == (224, 224, 3)
    assert v.dtype == np.float32
    length = keras_uap.LpBall(epsilon, norm).norm_of(v)
    assert 0.9 * epsilon < length <= card["epsilon"] == epsilon
    assert card["norm"] == norm


def test_unknown_norm_of_a_perturbation():
    with pytest.raises(ValueError, match="norm='l1'"):
        samples.load_perturbation("l1")


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_graphs")
def test_ready_made_perturbations_fool_what_their_cards_say():
    classifier = samples.load_classifier()
    photos = samples.load_photos("held_out").astype("float32")

    def labels(images):
        return classifier.predict(images, verbose=0).argmax(-1)

    clean = labels(photos)
    for norm in ("linf", "l2"):
        v, card = samples.load_perturbation(norm)
        held_out = card["held_out"]
        assert len(photos) == held_out["num_images"]
        rate = np.mean(labels(np.clip(photos + v, 0, 255)) != clean)
        # A picture on the edge may fall either way with another processor.
        assert abs(rate - held_out["fooling_rate"]) < 0.04
    noise = keras_uap.analysis.fooling_report(
        classifier, v, photos, norm=norm, verbose=0
    ).random_rate
    assert abs(noise - held_out["random_noise_rate"]) < 0.04


def test_reference_audits_are_audits():
    rows = samples.reference_audits()
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        low, high = row["fooling_interval"]
        assert low <= row["fooling_rate"] <= high
        assert 0 <= row["random_rate"] <= 1
        assert row["num_groups"] <= row["num_images"]
        assert row["commit"]
        assert row["date"]
