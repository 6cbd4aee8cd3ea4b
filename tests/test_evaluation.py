"""The judge: what it reads and refuses, what it says of real images, and that each number moves the right way."""

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from ddpm_shared import datasets, files, validation
from ddpm_shared.cache import cached
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import command, corruptions, inception, metrics, samples
from ddpm_shared.evaluation.extractor import DIMENSIONS, SHIPPED, Extractor
from ddpm_shared.evaluation.judge import Judge, class_notes

pytestmark = pytest.mark.usefixtures("cache_of_file")

SPLITS = {split.split: split for split in datasets.load(datasets.EMBEDDED)}
DATA = ["--dataset", datasets.EMBEDDED]


@pytest.fixture(scope="module")
def judge():
    return Judge(SPLITS["train"], SPLITS["test"])


def npz(folder, images, **more):
    file = folder / "samples.npz"
    np.savez(file, images=images, **more)
    return file


# --- The extractor ------------------------------------------------------------------------------------------


def test_the_shipped_classifier_knows_the_classes_and_is_small(judge):
    """Otherwise its features say little of clothes, or the package is heavier than promised."""
    found = judge.other_extracted.probabilities.argmax(1)
    assert np.mean(found == SPLITS["test"].labels) >= 0.935
    assert SHIPPED.stat().st_size <= 2_000_000


def test_features_have_mean_0_and_variance_1_on_training_images(judge):
    """Otherwise distances have no unit. The embedded images are a sixth of those that the file was scaled on."""
    features = judge.reference_extracted.features
    assert np.abs(features.mean(0)).max() < 0.05
    assert np.abs(features.std(0) - 1).max() < 0.05


def test_features_depend_on_the_image_alone():
    """Otherwise a set's scores depend on the order of its images or on how many there are."""
    extractor, pixels = Extractor(), SPLITS["test"].images[:300]
    forwards, backwards, few = extractor(pixels), extractor(pixels[::-1]), extractor(pixels[:7])
    np.testing.assert_array_equal(forwards.features, backwards.features[::-1])
    np.testing.assert_array_equal(forwards.probabilities[:7], few.probabilities)


def test_a_missing_or_foreign_extractor_is_one_sentence(tmp_path):
    """Otherwise a damaged package ends in a traceback of onnxruntime."""
    with pytest.raises(UserError, match=r"there is no .*none\.onnx: it should be the feature extractor, name an"):
        Extractor(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"broken.onnx is not a feature extractor"):
        Extractor(tmp_path / "broken.onnx")
    given, made = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 7]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [given], [made])
    version = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[version]), tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other.onnx is not a feature extractor \(it has {'x': \[7\], 'y': \[7\]}"):
        Extractor(tmp_path / "other.onnx")


# --- What is cached -----------------------------------------------------------------------------------------


def test_features_of_real_images_are_computed_once(judge, monkeypatch):
    """Otherwise every judgement begins with half a minute on the same 70,000 images."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    again = Judge(SPLITS["train"], SPLITS["test"], extractor=judge.extractor)
    np.testing.assert_array_equal(again.moments.covariance, judge.moments.covariance)


def test_what_is_cached_depends_on_every_hash_and_survives_damage(tmp_path, monkeypatch):
    """Otherwise another data set or extractor is judged by old features, or a broken file stops every judgement."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path))
    calls = []

    def compute():
        calls.append(None)
        return {"value": np.arange(3.0)}

    shapes = {"value": (3,)}
    cached("thing", ("a", "b"), compute, shapes)
    cached("thing", ("a", "b"), compute, shapes)
    assert len(calls) == 1
    cached("thing", ("a", "c"), compute, shapes)
    cached("other", ("a", "b"), compute, shapes)
    assert len(calls) == 3
    whole = {}
    for name, other in {"longer": np.arange(4.0), "nan": np.full(3, np.nan), "text": np.array(["a", "b", "c"])}.items():
        files.write_npz(tmp_path / name, value=other)  # whole, and yet not what belongs there
        whole[name] = (tmp_path / name).read_bytes()
    cut = [lambda data: data[:50], lambda data: data[:90] + bytes(20) + data[110:], lambda data: b""]
    for damage in [*cut, *(lambda _, name=name: whole[name] for name in whole)]:
        for file in (tmp_path / "evaluation").iterdir():
            file.write_bytes(damage(file.read_bytes()))
        calls.clear()
        np.testing.assert_array_equal(cached("thing", ("a", "b"), compute, shapes)["value"], np.arange(3.0))
        assert len(calls) == 1


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    """Otherwise a read-only home folder makes judging impossible."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path / "file"))
    assert cached("thing", ("a",), lambda: {"value": np.ones(1)}, {"value": (1,)})["value"] == 1


# --- What is judged -----------------------------------------------------------------------------------------


def test_real_test_images_are_as_good_as_the_floor(judge):
    """Otherwise the floor is not what real images get, and nothing can be compared with it."""
    floor, half = judge.floor(2000), judge.floor(1000)
    assert floor["num_images"] == 2000
    assert floor["fid_fashion"] < half["fid_fashion"] < 2  # it falls with n
    assert abs(floor["kid_fashion"]) < 3 * floor["kid_fashion_std"] + 0.01
    assert 0.75 < floor["precision"] <= 1
    assert 0.75 < floor["recall"] <= 1
    assert 0.9 < floor["density"] < 1.1
    assert floor["coverage"] == pytest.approx(1 - 2**-5, abs=0.03)
    assert sum(floor["class_histogram"]) == 2000


def test_the_floor_of_more_images_than_there_are_is_that_of_all(judge):
    """Otherwise 50,000 samples cannot be judged."""
    assert judge.floor(50_000) == judge.floor(len(SPLITS["test"].images))


# What chance moves: real images against other real images, 1,500 of each.
MARGIN = {
    "fid_fashion": 0.3,
    "kid_fashion": 0.01,
    "inception_score_fashion": 0.1,
    "precision": 0.05,
    "recall": 0.05,
    "coverage": 0.05,
}


def test_each_number_moves_the_right_way(judge):
    """Otherwise docs/evaluation.md tells what is not so, and a worse model may get a better number."""
    rows = list(corruptions.table(judge, corruptions.corrupted(SPLITS["train"], SPLITS["test"], 1500)).values())
    real, blurred, noisy, no_trousers, repeated, copied, mirrored, moved = rows

    def worse(row, *keys):
        for key in keys:
            loss = row[key] - real[key] if key.startswith(("fid", "kid")) else real[key] - row[key]
            assert loss > MARGIN[key], (key, real[key], row[key])

    def unmoved(row, *keys):
        for key in keys:
            assert abs(row[key] - real[key]) <= MARGIN[key], (key, real[key], row[key])

    every = tuple(MARGIN)
    for row in (blurred, noisy):
        worse(row, *every)
    worse(mirrored, "fid_fashion", "kid_fashion")
    worse(no_trousers, "fid_fashion", "kid_fashion", "inception_score_fashion", "recall", "coverage")
    unmoved(no_trousers, "precision")
    assert no_trousers["class_histogram"][SPLITS["test"].class_names.index(corruptions.MISSING)] < 0.02 * 1500
    worse(repeated, "fid_fashion", "recall", "coverage")
    unmoved(repeated, "precision")
    assert repeated["copies_of_each_other"] == 1350
    unmoved(copied, "precision", "recall", "coverage")  # they see nothing wrong with copies ...
    assert copied["fid_fashion"] <= real["fid_fashion"] + MARGIN["fid_fashion"]
    assert copied["copies_of_training_images"] == 1500  # ... which is why they are counted
    assert copied["share_closer_than_99_percent_of_test_images"] == 1
    assert real["copies_of_training_images"] == real["copies_of_each_other"] == 0
    assert real["share_closer_than_99_percent_of_test_images"] == pytest.approx(0.01, abs=0.005)
    worse(moved, "fid_fashion")


# --- What was asked for -------------------------------------------------------------------------------------


def test_accuracy_counts_the_images_of_the_class_asked_for(judge):
    """Otherwise a model that draws bags for trousers passes, or the wrong class is called the worst."""
    extracted = judge.other_extracted
    taken_for = extracted.classes.copy()
    assert judge.classes(extracted, taken_for)["accuracy"] == 1
    asked_for = taken_for.copy()
    asked_for[taken_for == 1], asked_for[taken_for == 8] = 8, 1
    asked_for[np.flatnonzero(taken_for == 3)[:7]] = 4
    found = judge.classes(extracted, asked_for)
    counts = np.bincount(taken_for)
    assert found["accuracy"] == 1 - (counts[1] + counts[8] + 7) / len(extracted)
    expected = [1, 0, 1, 1, counts[4] / (counts[4] + 7), 1, 1, 1, 0, 1]
    assert [each["accuracy"] for each in found["per_class"]] == expected
    assert found["worst"] == "Trouser"
    assert [each["label"] for each in found["per_class"]] == list(range(10))
    assert tuple(each["name"] for each in found["per_class"]) == SPLITS["test"].class_names
    trousers = found["per_class"][1]
    assert trousers["fid_fashion"] > 50 * trousers["floor"]["fid_fashion"]
    assert trousers["precision"] < 0.1


def test_a_class_is_judged_as_if_there_were_no_other(judge):
    """Otherwise the FID of trousers depends on how good the bags are."""
    label, extracted = 6, judge.other_extracted
    asked_for = np.where(np.arange(len(extracted)) % 10 < 9, label, 2)
    (_, found) = judge.classes(extracted, asked_for)["per_class"]
    alone = copy.copy(judge)
    for name, split in (("reference_extracted", SPLITS["train"]), ("other_extracted", SPLITS["test"])):
        setattr(alone, name, getattr(judge, name).take(np.flatnonzero(split.labels == label)))
    alone.moments = metrics.moments(alone.reference_extracted.features)
    keys = ("num_images", "fid_fashion", "precision", "recall")
    of_class = alone.scores(extracted.take(np.flatnonzero(asked_for == label)))
    assert {key: found[key] for key in keys} == {key: of_class[key] for key in keys}
    floor = alone.floor(1800)
    assert {key: found["floor"][key] for key in keys} == {key: floor[key] for key in keys}
    assert found["floor"]["num_images"] == 200  # all there are
    assert found["floor"]["accuracy"] == np.mean(alone.other_extracted.classes == label)


def test_numbers_that_a_few_images_cannot_give_are_left_out(judge):
    """Otherwise a singular covariance is taken for a distance, or ten images end an evaluation by an exception."""
    asked_for = np.repeat([0, 4, 7, 9], [129, 128, 5, 250])
    found = judge.classes(judge.other_extracted.take(slice(len(asked_for))), asked_for)
    absent = [[key for key, value in each.items() if value is None] for each in found["per_class"]]
    fids = ["fid", "fid_fashion"]
    assert [sorted(each) for each in absent] == [[], fids, [*fids, "precision", "recall"], []]
    assert [each["floor"]["num_images"] for each in found["per_class"]] == [129, 128, 5, 200]
    assert class_notes(found) == [
        "No Fréchet distance of Coat, Sneaker: the covariance of 128 features needs 129 images of a class.",
        "The floor of Ankle boot is that of fewer real images, all there are.",
    ]
    assert class_notes(judge.classes(judge.other_extracted, SPLITS["test"].labels)) == []
    (none,) = class_notes(judge.classes(judge.other_extracted.take(slice(20)), np.arange(20) % 2))
    assert none.startswith("No Fréchet distance of any class: ")


def test_the_command_judges_the_classes_asked_for(tmp_path, capsys, judge):
    """Otherwise the labels in samples.npz are lost, or move the numbers of all images."""
    pixels, labels = SPLITS["test"].images[:400], np.arange(400) % 2 + 5
    file, out = npz(tmp_path, pixels, labels=labels.astype(np.uint8)), tmp_path / "out"
    assert command.main([str(file), "--out", str(out), *DATA]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    validation.checked(found, "evaluation", "what is written", "what is read")
    extracted = judge.extractor(pixels)
    assert found["classes"] == judge.classes(extracted, labels)
    assert found.items() >= judge.scores(extracted).items()
    assert found["floor"].items() == (judge.floor(400) | {"split": "test"}).items()
    assert (out / "classes.png").read_bytes()[:4] == b"\x89PNG"
    told = capsys.readouterr().out
    sandal, shirt = found["classes"]["per_class"]
    assert f"Worst: {found['classes']['worst']}, " in told
    rows = [line.split() for line in told.splitlines()]
    for each in (sandal, shirt):
        assert [each["name"], "200", f"{each['accuracy']:.3g}"] in [row[:3] for row in rows]


def test_the_table_of_corruptions_can_be_made_by_anybody(tmp_path, capsys):
    """Otherwise the table of docs/evaluation.md has to be believed."""
    assert corruptions.main(["--num-images", "128", "--out", str(tmp_path), *DATA]) == 0
    rows = json.loads((tmp_path / "corruptions.json").read_text())["rows"]
    assert len(rows) == 8
    assert all(row["num_images"] == 128 for row in rows.values())
    assert (tmp_path / "corruptions.png").read_bytes()[:4] == b"\x89PNG"
    told = capsys.readouterr().out
    assert all(f"| {name} | {row['fid_fashion']:.3g} |" in told for name, row in rows.items())
    with pytest.raises(UserError, match="--num-images 1801: there are 1800 without the class left out"):
        corruptions.main(["--num-images", "1801", "--out", str(tmp_path), *DATA])


# --- The command line ---------------------------------------------------------------------------------------

CONTRACT = {
    *("fid", "kid", "kid_std", "inception_score", "features", "feature_space"),
    *("fid_fashion", "fid_floor", "kid_fashion", "kid_fashion_std", "inception_score_fashion", "precision", "recall"),
    *("density", "coverage", "class_histogram", "num_images", "extractor_sha256", "reference"),
}


@pytest.mark.parametrize("reference", ["train", "test"])
def test_the_command_writes_what_is_promised(tmp_path, capsys, reference):
    """Otherwise what reads evaluation.json breaks, or nobody can see the summary."""
    file = npz(tmp_path, SPLITS["test"].images[:400], origin=np.array('{"seed": 3}'))
    out = tmp_path / "out"
    out.mkdir()
    (out / "classes.png").touch()  # of other images, with labels
    assert command.main([str(file), "--reference", reference, "--out", str(out), *DATA]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert set(found) >= CONTRACT
    validation.checked(found, "evaluation", "what is written", "what is read")
    split = SPLITS[reference]
    assert found["reference"] == {
        "name": datasets.EMBEDDED,
        "split": reference,
        "num_images": len(split.images),
        "sha256": split.sha256,
    }
    assert found["num_images"] == sum(found["class_histogram"]) == 400
    assert found["fid_floor"] == found["floor"]["fid_fashion"] > 0
    assert found["floor"]["split"] != reference
    assert found["samples"]["origin"] == {"seed": 3}
    assert "not those of Inception" in found["feature_space"]
    assert found["classes"] is None
    assert not (out / "classes.png").exists()
    assert (out / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    told = capsys.readouterr().out
    assert "Fréchet distance" in told
    assert "All images are test images" in told  # a set compared with real images is noticed


def test_the_same_images_get_the_same_numbers(tmp_path):
    """Otherwise the two frameworks' samples cannot be compared to the last digit."""
    file = npz(tmp_path, SPLITS["train"].images[:300])
    told = []
    for name in ("a", "b"):
        command.main([str(file), "--out", str(tmp_path / name), *DATA])
        told.append(json.loads((tmp_path / name / "evaluation.json").read_text()))
        for key in ("created_utc", "seconds"):
            told[-1].pop(key)
    assert told[0] == told[1]


def test_a_run_folder_stands_for_its_samples(tmp_path):
    """Otherwise `make evaluate RUN=...` needs the path of a file that the user did not name."""
    (tmp_path / "samples").mkdir()
    file = npz(tmp_path / "samples", SPLITS["train"].images[:200])
    assert samples.find(tmp_path) == samples.find(tmp_path / "samples") == samples.find(file) == file
    command.main([str(tmp_path), *DATA])
    assert (tmp_path / "evaluation" / "evaluation.json").is_file()


def test_floats_are_taken_as_the_samplers_write_pixels(tmp_path):
    """Otherwise a tensor saved by hand gets other numbers than its pixels."""
    pixels = SPLITS["test"].images[:5]
    images, _, _ = samples.read(npz(tmp_path, pixels.astype(np.float32) / 127.5 - 1))
    np.testing.assert_array_equal(images, pixels)


def test_fid_by_inception_goes_on_where_it_was_interrupted(monkeypatch, tmp_path):
    """Otherwise hours of work on the real images are lost. The network is stubbed, all else is real."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path))
    small = [dataclasses.replace(SPLITS[name], images=SPLITS[name].images[:600]) for name in ("train", "test")]
    judge = Judge(*small)
    asked = []

    def features(network, pixels, on_batch):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(len(pixels))
        on_batch(len(pixels))
        return pixels.reshape(len(pixels), -1)[:, 300:309].astype(np.float64)

    monkeypatch.setattr(inception, "AT_LEAST", 300)
    monkeypatch.setattr(inception, "PART", 200)
    monkeypatch.setattr(inception, "FEATURES", 9)
    monkeypatch.setattr(inception, "features", features)
    with pytest.raises(KeyboardInterrupt):
        inception.fid(judge, SPLITS["test"].images[600:1000], None)
    assert asked == [400, 200, 200, 200, 200]  # the images, the reference, the first part of the floor
    asked.clear()
    found = inception.fid(judge, SPLITS["test"].images[600:1000], None)
    assert asked == [400, 200]
    seen, real, floor = (
        metrics.moments(pixels.reshape(len(pixels), -1)[:, 300:309])
        for pixels in (SPLITS["test"].images[600:1000], small[0].images, small[1].images[:400])
    )
    assert found["fid"] == metrics.frechet_distance(seen, real)
    assert found["fid_floor"] == metrics.frechet_distance(floor, real)
    assert found["weights_sha256"] == inception.SHA256
    assert "299" in found["rule"]


def test_the_weights_of_inception_are_asked_for_before_the_work(tmp_path):
    """Otherwise a mistyped path is told of after minutes."""
    file = npz(tmp_path, SPLITS["train"].images[:2048])
    with pytest.raises(UserError, match=r"there is no .*none\.pth: give the Inception weights"):
        command.main([str(file), "--inception-weights", str(tmp_path / "none.pth"), *DATA])
    file = npz(tmp_path, SPLITS["train"].images[:2047])
    with pytest.raises(UserError, match="FID by Inception needs 2048 images or more, got 2047"):
        command.main([str(file), "--inception-weights", str(tmp_path / "none.pth"), *DATA])


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_the_labels_of_a_file_are_read(tmp_path, kind):
    """Otherwise the labels that one framework or a user wrote cannot be judged."""
    labels = np.array([9, 0, 3])
    found = samples.read(npz(tmp_path, SPLITS["test"].images[:3], labels=labels.astype(kind))).labels
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, labels)
    assert samples.read(npz(tmp_path, SPLITS["test"].images[:3])).labels is None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 1], r"int64 of the shape \[2\], but must be integers \[3\]"),
        ([[0], [1], [2]], r"int64 of the shape \[3, 1\]"),
        ([0.0, 1.0, 2.0], r"float64 of the shape \[3\]"),
        ([True, False, True], "bool of the shape"),
        (["bag", "coat", "shirt"], "<U5 of the shape"),
        ([0, 1, 10], "labels go from 0 to 10"),
        ([0, -1, 2], "labels go from -1 to 2"),
        (np.array([0, 2**64 - 1, 1], np.uint64), "labels go from 0 to 18446744073709551615"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, reason):
    """Otherwise images are judged by a class that nobody asked for."""
    file = npz(tmp_path, SPLITS["test"].images[:3], labels=labels)
    with pytest.raises(UserError, match=f"samples.npz: .*{reason}.*: give a class of 0 .*for each image, or leave"):
        samples.require_like(samples.read(file), file, SPLITS["test"])


REFUSED = {
    "shape": (np.zeros((200, 32, 32, 1), np.uint8), r"shape \[200, 32, 32, 1\], but must have \[N, 28, 28, 1\]"),
    "channels first": (np.zeros((200, 1, 28, 28), np.uint8), r"channels last"),
    "flat": (np.zeros((200, 784), np.uint8), r"must have \[N, height, width, 1 or 3\]"),
    "no height": (np.zeros((200, 0, 28, 1), np.uint8), r"must have \[N, height, width, 1 or 3\]"),
    "floats to 255": (np.full((200, 28, 28, 1), 255.0), r"from 0 to 255, but floats must be in \[-1, 1\]"),
    "floats from 0": (np.eye(28)[None, :, :, None].repeat(200, 0), r"from 0 to 1, but -1 is black here"),
    "NaN": (np.full((200, 28, 28, 1), np.nan), r"floats must be in \[-1, 1\]"),
    "integers": (np.zeros((200, 28, 28, 1), np.int64), "images is int64, but must be uint8"),
    "too few": (np.zeros((DIMENSIONS - 1, 28, 28, 1), np.uint8), "127 images are too few"),
    "none": (np.zeros((0, 28, 28, 1), np.uint8), "0 images are too few"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_cannot_be_judged_are_refused(tmp_path, case):
    """Otherwise a wrong number is written, which is worse than none."""
    images, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        command.main([str(npz(tmp_path, images)), "--out", str(tmp_path / "out"), *DATA])
    assert not (tmp_path / "out").exists()


def test_what_is_no_file_of_images_is_refused(tmp_path):
    """Otherwise a mistyped path ends in a traceback."""
    with pytest.raises(UserError, match=r"there is no .*nowhere: give a samples.npz"):
        samples.find(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no samples.npz: draw images first, by make sample-torch"):
        samples.find(tmp_path)
    np.savez(tmp_path / "other.npz", pixels=np.zeros(3))
    with pytest.raises(UserError, match="holds no array `images`"):
        samples.read(tmp_path / "other.npz")
    for content in (b"", b"PK\x03\x04 cut off", b"\x93NUMPY"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"is not a whole .npz file"):
            samples.read(tmp_path / "bad.npz")
    np.save(tmp_path / "bare.npy", np.zeros((200, 28, 28, 1), np.uint8))
    with pytest.raises(UserError, match=r"is not a whole .npz file"):
        samples.read(tmp_path / "bare.npy")


def test_bad_input_is_one_sentence_without_a_traceback(tmp_path):
    """Otherwise a user sees our code, not the mistake."""
    line = [sys.executable, "-m", "ddpm_shared.evaluation", str(tmp_path)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
