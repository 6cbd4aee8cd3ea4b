"""Every command under one short name, as the Makefile has them: what `ddpm-duet VERB` and `make VERB` run."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository, where it is not installed as a package alone
START = "--LabApp.default_url=/lab/tree/notebooks/00_orientation.ipynb"
# Few steps by the sampler that was measured to be best with them; a --sampler among the flags wins.
SAMPLER = ("--sampler", "dpmpp_2m_sde")
PYTEST = ("-n", "2", "--no-loadscope-reorder")  # two processes, which take whole files (tests/conftest.py)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}


@dataclass(frozen=True)
class Verb:
    """What one name runs: `python -m` a module, or a file of the repository, with these flags before the user's."""

    about: str
    target: str
    flags: tuple[str, ...] = ()
    workers: bool = False  # whether several processes can do it together
    at_root: bool = False  # runs in the folder of the repository
    one_thread: bool = False  # of one operation: of several processes, each has a core

    @property
    def file(self) -> Path | None:
        """The file, where the target is one."""
        return ROOT / self.target if self.target.endswith(".py") else None


def _of_both(name: str, about: str, module: str, flags: tuple[str, ...] = (), workers: bool = True) -> dict[str, Verb]:
    return {
        f"{name}-{short}": Verb(f"{about}, in {title}", f"ddpm_{short}.{module}", flags, workers)
        for short, title in (("torch", "PyTorch"), ("tf", "TensorFlow"))
    }


VERBS: dict[str, Verb] = {
    "data": Verb("find, download and verify data, and what they are like: --dataset mnist", "ddpm_shared.datasets"),
    "demo": Verb("all of it in three minutes, and one page to look at", "ddpm_shared.demo"),
    **_of_both("train", "train: --preset tiny --epochs 2", "train"),
    **_of_both("sample", "draw images: --checkpoint FILE --num-images 64", "inference", SAMPLER),
    **_of_both("invert", "images to noise and back: --steps 100", "inversion", workers=False),
    **_of_both("bits", "bits per dimension: --num-images 500", "bits"),
    **_of_both("likelihood", "likelihood by the ODE: --steps 50", "likelihood"),
    **_of_both("import", "go on from weights of another program: --weights FILE", "exchange", workers=False),
    "evaluate": Verb("judge samples against real images: FOLDER, or samples.npz", "ddpm_shared.evaluation"),
    "judge": Verb("train the classifier that judges other data: --dataset X", "pytorch/tools/train_classifier.py"),
    "compare": Verb("lay runs over each other in report.html: A B C", "ddpm_shared.compare"),
    "passport": Verb("size, sight, speed, memory and parity of a network: --network dit", "ddpm_shared.passport"),
    "passports": Verb(
        "those of all networks, and their table", "ddpm_shared.passport", ("--every", "--page", "docs/networks.md")
    ),
    "graph": Verb("a drawing of a network: --preset small", "ddpm_shared.passport", ("--drawing-only",)),
    "lab": Verb("open the first notebook in JupyterLab", "jupyterlab", (START,), at_root=True),
    "notebooks": Verb("execute the notebooks and save what they show: 01", "ddpm_course.build", at_root=True),
    "parity": Verb("compare every number of both frameworks and the oracle here: --mutations", "ddpm_parity"),
    "test": Verb("the tests", "pytest", (*PYTEST, "-m", "not slow"), at_root=True, one_thread=True),
    "test-slow": Verb("the slow tests as well", "pytest", PYTEST, at_root=True, one_thread=True),
    "faults": Verb(
        "damage files and kill trainings: --kills 200", "tests/faults/campaign.py", at_root=True, one_thread=True
    ),
    "bench": Verb("speed and memory of both trees: --quick", "tests/benchmarks/bench.py", at_root=True),
}
