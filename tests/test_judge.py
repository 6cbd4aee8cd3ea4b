"""The judge for any data set: what it sees with, in grey and colour, of any size, with and without classes."""

import dataclasses
import json

import numpy as np
import pytest
import train_classifier
from conftest import require

from ddpm_shared import datasets, validation
from ddpm_shared.commands import epoch_end
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import command, corruptions, inception, picture, samples, spaces
from ddpm_shared.evaluation.extractor import RANDOM, SHIPPED, Extractor
from ddpm_shared.evaluation.judge import Judge
from ddpm_shared.records.history import best_evaluation

pytestmark = pytest.mark.usefixtures("cache_of_file")

SIZE, NAMES = 12, ("top", "left", "corner")


def split(name, count, channels=3, classes=NAMES, of="blocks"):
    """Images [count, 12, 12, channels] of a bright block in a place that its class decides, in a reddish colour."""
    random = np.random.default_rng([count, channels])
    labels = np.arange(count) % 3
    images = random.integers(0, 60, (count, SIZE, SIZE, channels), np.uint8)
    places = [np.s_[1:4, 2:10], np.s_[2:10, 1:4], np.s_[7:11, 7:11]]
    for image, label in zip(images, labels, strict=True):
        image[places[label]] += random.integers([120, 60, 10], [190, 120, 60], dtype=np.uint8)[:channels]
    kept = labels % max(1, len(classes))
    return Split(of, name, images, kept, f"{count:064x}", classes)


@pytest.fixture(scope="module")
def blocks():
    """(training, test): 300 and 260 colour images in three classes."""
    return split("train", 300), split("test", 260)


@pytest.fixture(scope="module")
def plain():
    """The same in grey, without classes."""
    return split("train", 300, 1, ()), split("test", 260, 1, ())


@pytest.fixture
def loaded(monkeypatch):
    """A function: from here on, these are the data, whatever their name; returns the names that were asked for."""

    def load(splits):
        asked = []
        monkeypatch.setattr(datasets, "load", lambda *args: asked.append(args) or splits)
        return asked

    return load


def drawn(folder, images, **more):
    file = folder / "samples.npz"
    np.savez(file, images=images, **more)
    return file


def evaluated(file, *flags):
    out = file.parent / "out"
    assert command.main([str(file), "--out", str(out), *flags]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    validation.checked(found, "evaluation", "what is written", "what is read")
    return found


# --- Random features ----------------------------------------------------------------------------------------


def test_the_untrained_network_is_what_its_tool_draws():
    """Otherwise its weights come from nowhere, and nobody can check that nothing was learned."""
    pytest.importorskip("onnx")
    import make_random_features

    assert make_random_features.network().SerializeToString(deterministic=True) == RANDOM.read_bytes()
    assert RANDOM.stat().st_size < 200_000


@pytest.mark.parametrize("size", [4, 8, 28, 65, 256])
def test_random_features_are_of_images_of_any_size(size):
    """Otherwise a folder of 8 x 8 or 256 x 256 cannot be judged; a grey image is a colour image of equal channels."""
    pixels = np.random.default_rng(size).integers(0, 256, (3, size, size, 1), np.uint8)
    extractor = Extractor(RANDOM)
    grey, colour = extractor(pixels), extractor(pixels.repeat(3, axis=-1))
    assert grey.features.shape == (3, 128)
    assert grey.probabilities.shape == (3, 0)
    np.testing.assert_array_equal(grey.features, colour.features)
    np.testing.assert_allclose(extractor(pixels[:1]).features[0], grey.features[0], rtol=1e-6, atol=1e-6)


def test_random_features_have_mean_0_and_variance_1_on_the_training_images(blocks):
    """Otherwise distances have no unit; and features scaled by other data are other features, by another hash."""
    judge = Judge(*blocks, extractor=spaces.of(*blocks, "random"))
    features = judge.reference_extracted.features
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
    seen = features.std(0) > 0  # of small images, the last layers see little
    assert seen.sum() > 120
    np.testing.assert_allclose(features.std(0)[seen], 1, atol=1e-4)
    np.testing.assert_array_equal(judge.extractor(blocks[0].images[:7]).features, features[:7])
    other = dataclasses.replace(blocks[0], sha256="f" * 64)
    assert spaces.of(other, blocks[1], "random").sha256 != judge.extractor.sha256


def test_random_features_move_the_right_way_on_colour_pictures(tmp_path, capsys):
    """Otherwise docs/evaluation.md tells what is not so: a worse set of pictures may get a better number."""
    flags = ["--dataset", "emoji", "--features", "random", "--num-images", "300", "--out", str(tmp_path)]
    assert corruptions.main(flags) == 0
    found = json.loads((tmp_path / "corruptions.json").read_text())
    assert found["features"] == spaces.RANDOM_FEATURES
    rows = list(found["rows"].values())
    real, blurred, noisy, without, repeated, copied, mirrored, moved, swapped = rows
    for row in (blurred, noisy, without, repeated, mirrored, moved, swapped):
        assert row["fid"] > real["fid"] + 0.5, row
    for row in (blurred, repeated, moved, swapped):
        assert row["fid"] > 2 * real["fid"]
    for row in (blurred, noisy, without, moved, swapped):
        assert row["kid"] > real["kid"] + 0.03
    assert repeated["coverage"] < 0.6 * real["coverage"]
    assert copied["fid"] < real["fid"]
    assert copied["copies_of_training_images"] == 300
    assert {(row["inception_score"], row["class_histogram"]) for row in rows} == {(None, None)}
    assert "red for blue" in capsys.readouterr().out


# --- Without classes ----------------------------------------------------------------------------------------


def test_a_data_set_without_classes_is_judged_by_random_features(tmp_path, capsys, loaded, plain):
    """Otherwise a folder of pictures cannot be judged, or is judged by a classifier of clothes."""
    loaded(plain)
    found = evaluated(drawn(tmp_path, plain[1].images[::-1][:150]))
    assert found["features"] == spaces.RANDOM_FEATURES
    assert (found["inception_score"], found["class_histogram"], found["classes"]) == (None, None, None)
    assert found["fid_floor"] == found["floor"]["fid"] > 0
    assert not [key for key in found if key.endswith("_fashion")]
    assert (tmp_path / "out" / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    told = capsys.readouterr().out
    assert spaces.RANDOM_FEATURES in told
    assert "ashion" not in told


def test_a_few_test_images_give_no_floor(tmp_path, capsys, loaded, plain):
    """Otherwise 500 pictures, a tenth of them for tests, cannot be judged at all."""
    few = dataclasses.replace(plain[1], images=plain[1].images[:50], labels=plain[1].labels[:50])
    loaded((plain[0], few))
    found = evaluated(drawn(tmp_path, plain[1].images[:150]))
    assert (found["floor"], found["fid_floor"]) == (None, None)
    assert found["fid"] > 0
    assert "There is no floor: the test split has 50 images, and 128 are needed." in capsys.readouterr().out
    judged = epoch_end.make_judge(plain[0], few, 150)(plain[1].images[:150], None)
    assert (judged["floor"], judged["fid"]) == (None, found["fid"])
    scarce = dataclasses.replace(plain[0], images=few.images, labels=few.labels)
    with pytest.raises(UserError, match="the train split of blocks has 50 images, too few to judge others by"):
        epoch_end.make_judge(scarce, few, 150)


# --- A classifier of its own --------------------------------------------------------------------------------


def test_a_missing_classifier_is_one_sentence_with_two_ways_out(blocks, monkeypatch, capsys, tmp_path):
    """Otherwise the user is stuck, or a run dies at its first epoch."""
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r'by make judge ARGS="--dataset blocks", or judge by --features random$'):
        spaces.of(*blocks)
    judged = epoch_end.make_judge(*blocks, 150)(blocks[1].images[:150], np.zeros(150, np.int64))
    assert judged["features"] == spaces.RANDOM_FEATURES
    assert "class_accuracy" not in judged
    assert 'make judge ARGS="--dataset blocks"' in capsys.readouterr().err
    one_class = dataclasses.replace(blocks[0], class_names=("all",))
    assert spaces.of(one_class, blocks[1]).name == spaces.RANDOM_FEATURES
    with pytest.raises(UserError, match="300 training images in 1 classes, and a classifier needs 256"):
        spaces.of(one_class, blocks[1], "classifier")


def test_a_data_set_is_judged_by_the_classifier_that_was_trained_on_it(tmp_path, capsys, loaded, blocks):
    """Otherwise `make judge` trains for nothing, or other data are judged by it."""
    require("torch")
    loaded(blocks)
    assert train_classifier.main(["--dataset", "emoji", "--epochs", "10", "--seed", "1"]) == 0
    told = capsys.readouterr().out
    assert "% of the 260 test images of blocks" in told
    file = spaces.classifier_file(*blocks)
    assert str(file) in told
    changed = dataclasses.replace(blocks[0], sha256="e" * 64), blocks[1]
    assert spaces.classifier_file(*changed) != file
    with pytest.raises(UserError, match="there is no classifier of blocks yet"):
        spaces.of(*changed)

    shown = blocks[1]
    found = evaluated(drawn(tmp_path, shown.images[:150], labels=shown.labels[:150]))
    assert found["features"] == "the classifier of blocks"
    assert len(found["class_histogram"]) == 3
    assert 1 <= found["inception_score"] <= 3
    assert found["classes"]["worst"] in NAMES
    assert found["classes"]["accuracy"] > 0.5  # of real images; chance is 1/3
    assert not [key for key in found if key.endswith("_fashion")]
    assert (tmp_path / "out" / "classes.png").is_file()
    judge = Judge(*blocks)
    assert found["extractor_sha256"] == judge.extractor.sha256 == judge.extractor.file_sha256
    np.testing.assert_allclose(judge.reference_extracted.features.std(0, ddof=1), 1, atol=0.02)

    def fid(pixels):
        return judge.scores(judge.extractor(pixels))["fid"]

    assert fid(corruptions.swapped(shown.images)) > fid(shown.images) + 0.1  # RGB is not BGR
    judged = epoch_end.make_judge(*blocks, 150)(shown.images[:150], shown.labels[:150])
    assert judged["class_accuracy"] == found["classes"]["accuracy"]

    # By random features, what needs a classifier is left out; the classes' own distances are not.
    blind = evaluated(drawn(tmp_path, shown.images[:150], labels=shown.labels[:150]), "--features", "random")
    assert (blind["classes"]["accuracy"], blind["classes"]["worst"]) == (None, None)
    assert [each["num_images"] for each in blind["classes"]["per_class"]] == [50, 50, 50]
    assert all(0 <= each["precision"] <= 1 for each in blind["classes"]["per_class"])


def test_what_cannot_be_trained_is_refused_in_one_sentence(monkeypatch, loaded, plain, blocks, tmp_path):
    """Otherwise `make judge` ends in a traceback, or replaces the classifier in the package."""
    loaded(plain)
    with pytest.raises(UserError, match=r"blocks has 300 training images in 0 classes, .*: judge by --features random"):
        train_classifier.main(["--dataset", "emoji"])
    loaded(datasets.DATASETS[datasets.EMBEDDED].splits(datasets.DATASETS[datasets.EMBEDDED].fetch(None)))
    with pytest.raises(UserError, match="classifier of Fashion-MNIST is in the package"):
        train_classifier.main([])
    monkeypatch.setattr(train_classifier.frameworks, "installed", lambda name: name != "torch")
    with pytest.raises(UserError, match="make judge trains in PyTorch and needs torch, not installed here: pip inst"):
        train_classifier.main(["--dataset", "emoji"])
    assert not list(tmp_path.iterdir())


def test_an_extractor_of_other_images_is_refused(tmp_path, loaded, blocks):
    """Otherwise onnxruntime speaks of ranks and dimensions, or classes of clothes are counted for emoji."""
    loaded(blocks)
    file = drawn(tmp_path, blocks[1].images[:150])
    with pytest.raises(UserError, match=r"classifier.onnx knows images of the shape \[28, 28, 1\], and blocks has"):
        command.main([str(file), "--extractor", str(SHIPPED)])
    with pytest.raises(UserError, match="--extractor makes other features: give one of the two"):
        command.main([str(file), "--extractor", str(SHIPPED), "--features", "random"])
    few = dataclasses.replace(split("train", 300, 1), images=np.zeros((300, 28, 28, 1), np.uint8))
    with pytest.raises(UserError, match=r"classifier.onnx knows 10 classes, and blocks has 3"):
        Judge(few, few, extractor=Extractor())


# --- Whose data ---------------------------------------------------------------------------------------------


def test_samples_are_compared_with_the_data_that_their_network_learned(tmp_path, loaded, plain):
    """Otherwise the user has to repeat at every evaluation what the run has on record."""
    asked = loaded(plain)
    told = {"dataset": "folder", "data_dir": "mine", "folder": {"image_size": 12, "channels": "grey"}}
    file = drawn(tmp_path, plain[1].images[:150], origin=np.array(json.dumps({"data": told})))
    evaluated(file)
    evaluated(file, "--data-dir", "elsewhere")
    evaluated(file, "--dataset", "emoji")
    (name, where, how), moved, other = asked
    assert (name, where, how.image_size, how.channels) == ("folder", "mine", 12, "grey")
    assert moved == (name, "elsewhere", how)
    assert other[:2] == ("emoji", None)
    file = drawn(tmp_path, plain[1].images[:150], origin=np.array('{"data": {"dataset": "clothes"}}'))
    with pytest.raises(UserError, match=r"the origin of .*samples.npz: unknown dataset 'clothes'"):
        command.main([str(file)])


def test_images_and_labels_of_another_data_set_are_refused(tmp_path, plain, blocks):
    """Otherwise a wrong number is written, which is worse than none."""
    file = drawn(tmp_path, np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"has shape \[5, 32, 32, 3\], but must have \[N, 12, 12, 3\], as blocks"):
        samples.require_like(samples.read(file), file, blocks[0])
    file = drawn(tmp_path, blocks[0].images[:2], labels=np.array([0, 3]))
    with pytest.raises(UserError, match=r"labels go from 0 to 3: give a class of 0 \.\. 2, those of blocks"):
        samples.require_like(samples.read(file), file, blocks[0])
    file = drawn(tmp_path, plain[0].images[:2], labels=np.array([0, 0]))
    with pytest.raises(UserError, match="has labels, but blocks has no classes"):
        samples.require_like(samples.read(file), file, plain[0])


# --- What is shown and compared -----------------------------------------------------------------------------


def test_a_hundred_classes_stay_readable():
    """Otherwise the table runs out of the terminal and classes.png out of the memory."""
    scores = {"num_images": 2, "fid": None, "precision": None, "recall": None}
    per_class = [
        {"label": k, "name": f"class {k}", **scores, "accuracy": k / 100, "floor": scores | {"accuracy": 0.5}}
        for k in range(100)
    ]
    classes = {"accuracy": 0.495, "worst": "class 0", "per_class": per_class}
    told = "\n".join(command.class_lines(classes))
    assert "class 19 " in told
    assert "class 20 " not in told
    assert "the 20 worst classes; evaluation.json has the other 80" in told
    labels = np.arange(200) % 100
    names = [f"class {k}" for k in range(100)]
    figure = picture.draw_classes(classes, np.zeros((200, 12, 12, 3), np.uint8), labels, labels, names)
    assert figure.get_size_inches()[1] < 16


def test_evaluations_in_other_features_are_no_rivals_of_the_best():
    """Otherwise a classifier trained between two halves of a run decides which checkpoint is the best."""
    made = [
        {"num_images": 150, "fid": fid, "extractor_sha256": sha * 64}
        for fid, sha in ((1.0, "a"), (9.0, "b"), (8.0, "b"))
    ]
    assert best_evaluation(made)["fid"] == 8.0
    assert best_evaluation(made[:1])["fid"] == 1.0


def test_inception_is_shown_colour_as_it_is_and_grey_thrice():
    """Otherwise FIDs of colour pictures are of something else; the rule says what was done."""
    torch = pytest.importorskip("torch")
    shown = []

    def network(batch):
        shown.append(batch.numpy())
        return (torch.zeros(len(batch), inception.FEATURES),)

    colour = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
    inception.features(network, colour)
    inception.features(network, colour[..., :1])
    np.testing.assert_array_equal(shown[0], colour.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(shown[1], colour[..., :1].transpose(0, 3, 1, 2).repeat(3, axis=1))
    assert inception.rule((5, 6, 3)).startswith("resized from 5 x 6 to 299 x 299 by the bilinear")
    assert inception.rule((28, 28, 1)).startswith("grey repeated into three channels, resized from 28 x 28 to 299 x 2")
