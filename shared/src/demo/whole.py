"""All of `make demo`: the ordinary commands on a small scale, in a new folder each time, so nothing is overwritten."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ddpm_shared.demo import command
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS, installed
from ddpm_shared.verbs import SAMPLER

FOLDER = Path("runs", "demo")
DATA = ("--dataset", "fashion-mnist-10k")
DRAW = (*SAMPLER, "--num-images", "256", "--batch-size", "64", "--gif")
TRAIN = (
    *("--preset", "tiny", *DATA, "--max-steps", "156", "--warmup-steps", "50"),
    *("--validation-images", "500", "--sample-every", "0"),
)


def run(flags: Sequence[str]) -> int:
    """Draw, judge, train and compare in every framework that is installed, and make the page if both are.

    Args:
        flags: of the trainings, beside the demo's own.

    Returns:
        0, or the exit code of the first command that failed.

    Raises:
        UserError: no framework is installed.
    """
    names = [name for name in FRAMEWORKS if installed(name)]
    if not names:
        raise UserError("neither PyTorch nor TensorFlow is installed: see Without make in the README")
    out = FOLDER / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    both, parts = len(names) == len(FRAMEWORKS), steps(names, out, flags)
    for number, (title, commands) in enumerate(parts, 1):
        print(f"{'' if number == 1 else chr(10)}{number} of {len(parts) + both}: {title}", flush=True)
        for each in commands:
            print(shlex.join(["python", "-m", *each]), flush=True)
            code = subprocess.run([sys.executable, "-m", *each], check=False).returncode
            if code:
                return code
    if both:
        print(f"\n{len(parts) + 1} of {len(parts) + 1}: the page to look at", flush=True)
        return command.main([str(out)])
    (missing,) = (FRAMEWORKS[name].title for name in FRAMEWORKS if name not in names)
    print(f"\n{out}")
    print(f"{missing} is not installed, so there is nothing to compare, and no page. Look at grid.png in the folders.")
    return 0


def steps(names: Sequence[str], out: Path, flags: Sequence[str]) -> list[tuple[str, list[list[str]]]]:
    """Of each part of the demo, its title and its commands, `python -m` what stands here."""
    titles = " and in ".join(FRAMEWORKS[name].title for name in names)
    drawn, trained, samples = ({name: out / f"{kind}{name}" for name in names} for kind in ("boxed-", "", "samples-"))
    tree = {name: FRAMEWORKS[name].tree for name in names}
    same, each = ("the same images ", "both frameworks train") if len(names) > 1 else ("images ", f"{titles} trains")
    parts = [
        (
            f"one trained model draws {same}in {titles}",
            [[f"{tree[name]}.inference", *DRAW, "--out", str(drawn[name])] for name in names],
        ),
        ("how good are they?", [["ddpm_shared.evaluation", str(drawn[names[0]]), *DATA]]),
        (
            f"{each} a tiny model on the data in the package",
            [[f"{tree[name]}.train", *TRAIN, *flags, "--run-dir", str(trained[name])] for name in names]
            + [
                [
                    *(f"{tree[name]}.inference", *SAMPLER, "--checkpoint", str(trained[name])),
                    *("--num-images", "16", "--out", str(samples[name])),
                ]
                for name in names
            ],
        ),
    ]
    if len(names) > 1:
        runs = [str(trained[name]) for name in names]
        parts.append(
            ("the two trainings, step by step", [["ddpm_shared.compare", *runs, "--out", str(out / "compare")]])
        )
    return parts
