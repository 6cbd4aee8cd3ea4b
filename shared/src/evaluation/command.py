"""The command line of an evaluation: read the images, judge them, write the files, print the table."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from ddpm_shared import claims, command_line, datasets, files, images
from ddpm_shared.config import RealImages
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import choice
from ddpm_shared.evaluation import inception, picture, samples
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.evaluation.judge import Judge, SplitName, require_enough
from ddpm_shared.evaluation.records import SCHEMA_VERSION, Classes, Evaluation
from ddpm_shared.tables import aligned

ClassScore = Literal["accuracy", "fid_fashion", "precision", "recall"]


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
    extractor: Annotated[str | None, default_is("the classifier in the package")] = None
    """ONNX file of another feature extractor."""
    inception_weights: Annotated[str | None, default_is("none")] = None
    """torch-fidelity's file of weights; FID is then computed with Inception's features as well."""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the flags say. Returns 0; raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.evaluation")
    choice("reference", command.reference, get_args(SplitName))
    file = samples.find(command.samples)
    pixels, origin, labels = samples.read(file)
    require_enough(len(pixels))
    weights = command.inception_weights
    network = inception.load(Path(weights), len(pixels)) if weights else None
    extractor = Extractor(Path(command.extractor) if command.extractor else None)
    train, test = datasets.load(command.data.dataset, command.data.data_dir, command.data.folder)
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
            drawn = picture.draw_classes(classes, pixels, labels, extracted.classes, train.class_names)
            images.write_figure(out / "classes.png", drawn, dpi=100)
            written.append(out / "classes.png")
        print(f"{text(evaluation)}\n\n{', '.join(map(str, written))}")
    return 0


def _beside(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / "evaluation"


def text(evaluation: Evaluation) -> str:
    """The numbers as a table, what they refer to, and the notes."""
    floor, reference, memorised = evaluation["floor"], evaluation["reference"], evaluation["memorised"]
    rows = [("", "images", "floor", "better"), ("number of images", evaluation["num_images"], floor["num_images"], "")]
    rows += [(name, evaluation[key], floor[key], better) for key, name, better in picture.ROWS]
    lines = aligned(rows, digits=4)
    close = memorised["share_closer_than_99_percent_of_test_images"]
    lines += [
        "",
        f"In the space of {evaluation['feature_space']};",
        f"extractor {evaluation['extractor_sha256'][:12]}; against {reference['num_images']:,} images, the "
        f"{reference['split']} split of {reference['name']}; floor: real images of the {floor['split']} split.",
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
    keys: tuple[ClassScore, ...] = ("accuracy", "fid_fashion", "precision", "recall")
    heads = ("accuracy", "FID", "precision", "recall")
    rows: list[list[object]] = [["class asked for", "images", *(name for head in heads for name in (head, "floor"))]]
    for each in classes["per_class"]:
        scores = [number for key in keys for number in (each[key], each["floor"][key])]
        rows.append([each["name"], each["num_images"], *scores])
    worst = next(each for each in classes["per_class"] if each["name"] == classes["worst"])
    return [
        "",
        *aligned(rows, digits=3),
        "",
        f"{classes['accuracy']:.1%} of the images are taken for the class asked for. Worst: {worst['name']}, "
        f"{worst['accuracy']:.1%}; of real ones {worst['floor']['accuracy']:.1%}.",
        "A class has few images, and so a large FID: compare it only with one of as many images of that class.",
    ]
