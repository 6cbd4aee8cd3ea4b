"""The command line of an evaluation: read the images, judge them, write the files, print the table."""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from ddpm_shared import claims, command_line, datasets, files, images
from ddpm_shared.config import RealImages, require
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import choice
from ddpm_shared.evaluation import inception, picture, samples, spaces
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.evaluation.judge import Judge, SplitName, require_enough, require_real
from ddpm_shared.evaluation.records import SCHEMA_VERSION, Classes, Evaluation
from ddpm_shared.tables import aligned

ClassScore = Literal["accuracy", "fid", "precision", "recall"]
MODULE = "ddpm_shared.evaluation"
CLASSES_SHOWN = 20  # in the table


@dataclass(frozen=True)
class Command:
    """Compare images with real ones: print a table, write evaluation.json and evaluation.png.

    Where the file of images has the array `labels`, the classes asked for, these are judged too: classes.png.
    """

    samples: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLES")]
    """A samples.npz, the folder of one, or a run folder with samples/samples.npz in it."""
    reference: SplitName = "train"
    """Split of the real images to compare with; the other one makes the floor."""
    out: Annotated[str | None, default_is("evaluation/ beside the samples or in the run folder")] = None
    """Folder to write to."""
    data: RealImages = field(default_factory=RealImages)
    features: spaces.Kind = "auto"
    """Features to judge by. classifier: those of a classifier of the data set, which make judge trains; Fashion-MNIST
    has its own in the package. random: those of a fixed untrained network. auto: classifier where the data set has
    classes, else random."""
    extractor: Annotated[str | None, default_is("that of the features")] = None
    """ONNX file of another feature extractor."""
    inception_weights: Annotated[str | None, default_is("none")] = None
    """torch-fidelity's file of weights; FID is then computed with Inception's features as well."""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the flags say. Returns 0; raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, MODULE)
    choice("reference", command.reference, get_args(SplitName))
    choice("features", command.features, get_args(spaces.Kind))
    require(
        command.extractor is None or command.features == "auto",
        "--features",
        command.features,
        "--extractor makes other features: give one of the two",
    )
    file = samples.find(command.samples)
    found = samples.read(file)
    pixels, origin, labels = found
    require_enough(len(pixels))
    weights = command.inception_weights
    network = inception.load(Path(weights), len(pixels)) if weights else None
    given = Extractor(Path(command.extractor)) if command.extractor else None
    data = _data(command, argv, found, file)
    train, test = datasets.load(data.dataset, data.data_dir, data.folder)
    samples.require_like(found, file, train)
    require_real(train if command.reference == "train" else test)
    extractor = given or spaces.of(train, test, command.features)
    out = Path(command.out) if command.out else _beside(Path(command.samples))
    with claims.writing(out):  # a folder that cannot be written to is reported before the work
        judge = Judge(train, test, command.reference, extractor)
        began = time.perf_counter()
        index, distances = judge.nearest(pixels)
        extracted = judge.extractor(pixels)
        evaluation: Evaluation = {
            "schema_version": SCHEMA_VERSION,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "samples": {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "origin": origin},
            **judge.evaluate(pixels, extracted, distances, labels),
            "inception": inception.fid(judge, pixels, network) if network else None,
            "seconds": time.perf_counter() - began,
        }
        files.write_json(out / "evaluation.json", evaluation)
        of_both = distances, judge.honest_distances()
        drawn = picture.draw(evaluation, pixels, judge.reference, of_both, train.images[index])
        images.write_figure(out / "evaluation.png", drawn, dpi=100)
        written = [out / "evaluation.json", out / "evaluation.png"]
        (out / "classes.png").unlink(missing_ok=True)  # of other images
        if labels is not None and (classes := evaluation.get("classes")):
            seen = extracted.classes if extracted.knows_classes else labels
            drawn = picture.draw_classes(classes, pixels, labels, seen, train.class_names)
            images.write_figure(out / "classes.png", drawn, dpi=100)
            written.append(out / "classes.png")
        print(f"{text(evaluation)}\n\n{', '.join(map(str, written))}")
    return 0


def _data(command: Command, argv: Sequence[str] | None, found: samples.Samples, file: Path) -> RealImages:
    """The data set to compare with: that of the flags or, as far as these do not say, of the samples' origin."""
    of_samples = samples.data_of(found, file)
    if of_samples is None:
        return command.data
    told = dataclasses.replace(command, data=of_samples)
    data = command_line.parse_flags(Command, argv, MODULE, default=told).data
    return data if data.dataset == of_samples.dataset else command.data


def _beside(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / "evaluation"


def text(evaluation: Evaluation) -> str:
    """The numbers as a table, what they refer to, and the notes."""
    floor, reference, memorised = evaluation["floor"], evaluation["reference"], evaluation["memorised"]
    number = floor and floor["num_images"]
    rows: list[Sequence[object]] = [
        ("", "images", "floor", "better"),
        ("number of images", evaluation["num_images"], number, ""),
    ]
    rows += picture.rows(evaluation)
    lines = aligned(rows, digits=4)
    against = f"; floor: real images of the {floor['split']} split" if floor else ""
    close = memorised["share_closer_than_99_percent_of_test_images"]
    lines += [
        "",
        f"In the space of {evaluation['feature_space']};",
        f"extractor {evaluation['extractor_sha256'][:12]}; against {reference['num_images']:,} images, the "
        f"{reference['split']} split of {reference['name']}{against}.",
        f"Nearest training image: {memorised['median_distance']:.1f} grey levels away (median), that of test images "
        f"{memorised['median_distance_of_test_images']:.1f}; {close:.1%} are nearer than 99 % of those are.",
    ]
    if by_inception := evaluation["inception"]:
        inception_floor = (
            f"{by_inception['fid_floor']:.4g}" if by_inception["fid_floor"] else "unknown, of too few real images"
        )
        lines.append(f"FID by Inception: {by_inception['fid']:.4g}, floor {inception_floor}.")
    classes = evaluation.get("classes")
    return "\n".join([*lines, *evaluation["notes"], *(class_lines(classes) if classes else [])])


def class_lines(classes: Classes) -> list[str]:
    """The numbers of each class as a table, and the worst class in a sentence."""
    keys: tuple[ClassScore, ...] = ("accuracy", "fid", "precision", "recall")
    heads = ("accuracy", "FID", "precision", "recall")
    rows: list[list[object]] = [["class asked for", "images", *(name for head in heads for name in (head, "floor"))]]
    shown = picture.worst(classes["per_class"], CLASSES_SHOWN)
    for each in shown:
        scores = [number for key in keys for number in (each[key], each["floor"][key])]
        rows.append([each["name"], each["num_images"], *scores])
    lines = ["", *aligned(rows, digits=3), ""]
    if left_out := len(classes["per_class"]) - len(shown):
        lines.append(f"These are the {len(shown)} worst classes; evaluation.json has the other {left_out} as well.")
    if classes["accuracy"] is not None:
        worst = next(each for each in classes["per_class"] if each["name"] == classes["worst"])
        lines.append(
            f"{classes['accuracy']:.1%} of the images are taken for the class asked for. Worst: {worst['name']}, "
            f"{picture.percent(worst['accuracy'])}; of real ones {picture.percent(worst['floor']['accuracy'])}."
        )
    return [
        *lines,
        "A class has few images, and so a large FID: compare it only with one of as many images of that class.",
    ]
