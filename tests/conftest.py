"""What the tests share: the two trees, each skipped where its framework is not installed."""

import contextlib
import dataclasses
import importlib
import os
from dataclasses import dataclass
from types import ModuleType

import pytest

from ddpm_parity.suite import Suite
from ddpm_parity.tf_side import TensorFlow, as_traced
from ddpm_parity.torch_side import Torch
from ddpm_shared import command_line, datasets, frameworks
from ddpm_shared.verbs import ONE_THREAD


@dataclass(frozen=True)
class Tree:
    """One of the two trees; `tree.engine` is its module of that name, imported when it is first asked for."""

    name: str  # "torch" or "tf"
    framework: str  # "torch" or "tensorflow"

    def __getattr__(self, module: str) -> ModuleType:
        if module.startswith("_"):
            raise AttributeError(module)
        return importlib.import_module(f"ddpm_{self.name}.{module}")


# --- Two processes (`make test`): each takes whole files, the long ones first ---------------------------------

# Files whose tests share what one of them computed, and so run in one process.
TOGETHER = {name: "parity" for name in ("test_data", "test_model", "test_mutations", "test_parity")}
# What takes longest, most of it first: begun at the start, it is not left over for one process at the end.
LONG = (
    *("parity", "test_training", "test_networks", "test_sampling", "test_worker_processes", "test_workers_draw"),
    *("test_evaluation", "test_exchange", "test_memory_and_flags", "test_batch_norm", "test_model", "test_settings"),
    *("test_machine", "test_continuous", "test_course", "test_boxed", "test_diffusers", "test_objective"),
)


def pytest_collection_modifyitems(items):
    """The long files first, where several processes share the tests."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        units = [TOGETHER.get(item.path.stem, item.path.stem) for item in items]
        rank = {unit: LONG.index(unit) if unit in LONG else len(LONG) for unit in units}
        items[:] = [item for _, item in sorted(zip(units, items, strict=True), key=lambda pair: rank[pair[0]])]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What a process is given at a time: a file, or the files of TOGETHER.

    --dist loadgroup and its marks would do the same, but pytest-xdist 3.8 marks tests in vain under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            stem = nodeid.split("::")[0].rpartition("/")[2].removesuffix(".py")
            return TOGETHER.get(stem, stem)

    return Scheduling(config, log)


# --- The trees ----------------------------------------------------------------------------------------------

TREES = {"torch": Tree("torch", "torch"), "tf": Tree("tf", "tensorflow")}


def require(name: str) -> Tree:
    """The tree, or a skipped test where its framework is missing; in CI, where nothing may be missing, a failed one."""
    tree = TREES[name]
    if not frameworks.installed(tree.framework):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tree.framework} is not installed")
    return tree


def has_one_thread():
    """Whether an operation has one thread in this process, as in `make test`."""
    return {os.environ.get(name) for name in ONE_THREAD} == {"1"}


# Where TensorFlow's graphs run as they were traced, to start sooner. Elsewhere, as in the comparison of all numbers,
# they are rewritten first, as in a command.
AS_TRACED = {
    *("test_batch_norm", "test_bits", "test_continuous", "test_course", "test_examples", "test_exchange"),
    *("test_inversion", "test_labels", "test_likelihood", "test_networks", "test_objective", "test_training"),
    *("test_transformer_unet",),
}


@pytest.fixture(scope="module", autouse=True)
def _graphs(request):
    """Set how TensorFlow runs its graphs in the tests of a file."""
    quick = request.path.stem in AS_TRACED and frameworks.installed("tensorflow")
    with as_traced() if quick else contextlib.nullcontext():
        yield


@pytest.fixture(scope="module", params=sorted(TREES, reverse=True))
def tree(request):
    """Each tree in turn."""
    return require(request.param)


@pytest.fixture(scope="session")
def both():
    """(the PyTorch tree, the TensorFlow tree)."""
    return require("torch"), require("tf")


@pytest.fixture
def side_of(tree):
    """Precision -> the parity suite's side of each tree in turn."""
    return {"torch": Torch, "tf": TensorFlow}[tree.name]


@pytest.fixture(scope="session")
def suite(both):
    """The parity suite; what its sides have computed is kept for all tests."""
    return Suite()


@pytest.fixture(scope="module")
def cache_of_file(tmp_path_factory):
    """A cache folder that only the tests of one file share, so that they look at the real images once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DDPM_DUET_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """The only data there are, (training, test): 300 images each, and a cache of their own."""
    splits = [
        dataclasses.replace(split, images=split.images[:300], labels=split.labels[:300])
        for split in datasets.load(datasets.EMBEDDED)
    ]
    with pytest.MonkeyPatch.context() as patch:
        # Under the hash of all embedded images, the judge keeps what it saw in 300.
        patch.setenv("DDPM_DUET_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(datasets, "load", lambda name, data_dir=None, folder=None: splits)
        yield splits


NETWORKS = {}


@pytest.fixture
def keep_networks(monkeypatch):
    """A function: from here on, the commands of these trees load a network once for all tests; Keras takes seconds."""

    def keep(*trees):
        for tree in trees:

            def load(loaded, prefix, config, tree=tree, load=tree.model.load):
                key = (tree.name, loaded.sha256, prefix, config)
                if key not in NETWORKS:
                    NETWORKS[key] = load(loaded, prefix, config)
                return NETWORKS[key]

            monkeypatch.setattr(tree.model, "load", load)

    return keep


@pytest.fixture
def guarded(capfd):
    """A function: main -> (exit code, stderr) of a command line."""

    def run(main):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            command_line.guard(main)
        return stopped.value.code, capfd.readouterr().err

    return run


def pytest_terminal_summary(terminalreporter):
    """The list of planted faults and what caught each."""
    ended = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    planted = [report for report in ended if "test_a_planted_fault_is_caught" in report.nodeid]
    if planted:
        survived = [report for report in planted if report.failed]
        terminalreporter.write_sep("=", f"{len(planted)} faults planted, {len(survived)} survived")
        for report in planted:
            terminalreporter.write_line(dict(report.user_properties).get("caught", f"SURVIVED {report.nodeid}"))
