"""The files that the commands of `make demo` left in a folder, read and checked to belong together."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm_shared import config as configs
from ddpm_shared import pictures, reading, validation
from ddpm_shared.compare.comparison import compare
from ddpm_shared.compare.records import Comparison
from ddpm_shared.compare.run_records import RunRecord, read_run
from ddpm_shared.compare.tables import describe_differences
from ddpm_shared.config.samplers import SAMPLER_FACTS
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import samples
from ddpm_shared.evaluation.records import Evaluation
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels
from ddpm_shared.records.scores import completed

REPORT = "compare/report.html"  # from the demo's folder


@dataclass(frozen=True)
class Drawings:
    """The same images, drawn by both frameworks."""

    torch: Pixels  # [N, H, W, C]
    tensorflow: Pixels
    origin: dict[str, Any]  # of PyTorch's, as ddpm_shared.commands.sample writes it


@dataclass(frozen=True)
class Demo:
    """All that the page shows."""

    boxed: Drawings  # by one trained model
    gif: bytes  # of PyTorch's
    evaluation: Evaluation  # of PyTorch's
    runs: tuple[RunRecord, RunRecord]  # PyTorch's and TensorFlow's
    comparison: Comparison  # of the runs, as in comparison.json
    trained: Drawings  # by the models of the two runs, each in its own framework


def read(folder: Path) -> Demo:
    """Read the folder of a demo.

    Raises:
        UserError: a piece is missing, broken or not of one kind with the others; the message names the command that
            makes it.
    """
    if not os.path.isdir(folder):
        raise UserError(
            f"there is no folder {reading.name_of(folder)}: make demo makes one and prints the path of its page"
        )
    boxed = _drawings(folder, "boxed")
    torch, tensorflow = (
        read_run(_piece(folder, f"{name}/metrics.json", f"{framework.tree}.train").parent)
        for name, framework in FRAMEWORKS.items()
    )
    _piece(folder, REPORT, "ddpm_shared.compare")
    return Demo(
        boxed=boxed,
        gif=_gif(folder),
        evaluation=evaluation(folder),
        runs=(torch, tensorflow),
        comparison=compare([torch, tensorflow]),
        trained=_drawings(folder, "samples"),
    )


def _piece(folder: Path, name: str, module: str) -> Path:
    """The file of that name, which `python -m module` writes; UserError where it is missing."""
    if not os.path.isfile(folder / name):
        raise UserError(f"there is no {folder / name}: {_remedy(module)}")
    return folder / name


def _remedy(module: str) -> str:
    return f"python -m {module} makes it, with the flags that `ddpm-duet demo` shows"


def _drawings(folder: Path, name: str) -> Drawings:
    """The images that both frameworks drew into the folders <name>-torch and <name>-tensorflow, with the same flags.

    The checkpoints may differ only where each framework draws from its own run.
    """
    drawn = {}
    for framework, (title, tree) in FRAMEWORKS.items():
        file = _piece(folder, f"{name}-{framework}/samples.npz", f"{tree}.inference")
        pixels, made, _ = samples.read(file)
        drawn[framework] = pixels, made
        if made.get("framework") != framework or made.get("sampler") not in SAMPLER_FACTS:
            raise UserError(f"{file} does not say how {title} drew it: {_remedy(f'{tree}.inference')}")
    (torch, origin), (tensorflow, other) = drawn["torch"], drawn["tensorflow"]
    differences = configs.differences(
        origin | {"framework": None, "num_images": len(torch)},
        other | {"framework": None, "num_images": len(tensorflow)},
    )
    if name == "samples":
        differences.pop("checkpoint", None)
    if differences:
        unlike = describe_differences(differences, (f"{name}-torch", f"{name}-tensorflow"))
        raise UserError(f"in {folder}, {unlike}: draw both with the flags that `ddpm-duet demo` shows")
    return Drawings(torch, tensorflow, origin)


def _gif(folder: Path) -> bytes:
    file = _piece(folder, "boxed-torch/denoising.gif", "ddpm_torch.inference")
    return pictures.read_gif(file, _remedy("ddpm_torch.inference"))


def evaluation(folder: Path) -> Evaluation:
    """The evaluation of PyTorch's images."""
    file = _piece(folder, "boxed-torch/evaluation/evaluation.json", "ddpm_shared.evaluation")
    remedy = _remedy("ddpm_shared.evaluation")
    judgement: Evaluation = reading.read_json(file, remedy, 64 * reading.MIB)
    judgement = completed(validation.checked(judgement, "evaluation", str(file), "an evaluation.json", remedy))
    if any(scores is None or scores["inception_score"] is None for scores in (judgement, judgement["floor"])):
        raise UserError(f"{file} lacks numbers that the page shows, a floor or those of a classifier: {remedy}")
    judged = judgement["samples"]["sha256"]
    if judged != hashlib.sha256((folder / "boxed-torch" / "samples.npz").read_bytes()).hexdigest():
        raise UserError(f"{file} judges other images than those of {folder / 'boxed-torch'}: {remedy}")
    return judgement
