"""What the command lines share: flags from dataclasses, and one clear sentence for every bad input."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from ddpm_shared import checkpoint, datasets, machine, runs
from ddpm_shared import config as configs
from ddpm_shared.config import Config
from ddpm_shared.errors import UserError
from ddpm_shared.samplers import Sampling, Spacing, quiet

T = TypeVar("T")

TREES = {"torch": "ddpm_torch", "tensorflow": "ddpm_tf"}  # only named in messages: nothing here imports them

# What a resumed run may change: how far and where it runs, never what it computes.
CHANGEABLE = {
    "device",
    "threads",
    "compile",
    "data.dataset",  # its hash is compared instead
    "data.data_dir",
    "training.epochs",
    "training.max_steps",
    "training.sample_every",
    "training.sample_images",
    "training.evaluate_every",
    "training.evaluate_images",
    "training.checkpoint_every",
    "training.keep_checkpoints",
}


def guard(main: Callable[[], int]) -> NoReturn:
    """Run a command line: bad input becomes one sentence on stderr and exit code 2, without a traceback."""
    machine.keep_freed_memory()
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(_say(f"error: {error}", 2))
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(f"error: {error.strerror or error}{place}: free the space or mend the path and run again", 1))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def parse(kind: type[T], argv: Sequence[str] | None, module: str, default: T | None = None) -> T:
    """Read the flags of the dataclass `kind`; `--help` lists them with the field docstrings.

    Args:
        kind: the dataclass; nested ones give flags without a prefix.
        argv: the arguments (default: the process's).
        module: what stands behind `python -m`.
        default: where the values come from that no flag sets.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=argv, prog=f"python -m {module}", config=(tyro.conf.OmitArgPrefixes,), **options)


@dataclass(frozen=True)
class TrainCommand:
    """Train a DDPM. Flags win over --config, which wins over --preset's and the built-in values."""

    config: str | None = None
    """A JSON file of settings, laid out as a run's config.json."""
    run_dir: str | None = None
    """Where to write the run (default: runs/<framework>/<utc>-<preset>)."""
    resume: str | None = None
    """Go on with a run: its folder, a checkpoint file (in a new folder), or nothing for the newest run."""
    minutes: float | None = None
    """Train for about so long: sets --max-steps, and --epochs to as many as that takes, by the speed of some steps."""
    stop_after: float | None = None
    """Stop after so many minutes, to go on with --resume; what is computed stays that of the whole run."""
    settings: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        for name in ("minutes", "stop_after"):
            value = getattr(self, name)
            configs.require(value is None or 0 < value < float("inf"), configs.flag(name), value, "must be positive")


@dataclass(frozen=True)
class TrainPlan:
    """A checked TrainCommand: what to run, where, and from which checkpoint."""

    framework: str
    config: Config
    folder: Path
    resumed: checkpoint.Checkpoint | None
    minutes: float | None = None
    stop_after: float | None = None


def parse_train(framework: str, argv: Sequence[str] | None) -> TrainPlan:
    """Read the training flags of the tree of `framework`, "torch" or "tensorflow".

    Raises:
        UserError: a value that is wrong or does not fit the others or the resumed run.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # The values that the flags override come from files that flags name, so these flags are read first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--config")
    first.add_argument("--run-dir", "--run_dir")  # tyro takes either spelling
    first.add_argument("--resume", nargs="?", const="latest")
    known, _ = first.parse_known_args(arguments)
    for index, argument in enumerate(arguments):
        if argument == "--resume" and (index + 1 == len(arguments) or arguments[index + 1].startswith("--")):
            arguments[index] = "--resume=latest"

    resumed = checkpoint.load(_resumed_file(known.resume, framework, known.run_dir)) if known.resume else None
    settings = resumed.config if resumed else configs.read(known.config) if known.config else Config()
    if resumed and known.config:
        raise UserError("--resume takes the settings of the run: leave out --config")
    if known.preset and not (resumed and known.preset == settings.preset):
        settings = configs.with_preset(settings, known.preset)
    command = parse(TrainCommand, arguments, f"{TREES[framework]}.train", default=TrainCommand(settings=settings))
    if resumed:
        _require_same(resumed, command.settings)
        configs.require(
            command.minutes is None,
            "--minutes",
            command.minutes,
            "a resumed run has its length; stop it earlier with --stop-after, or make it longer with --max-steps",
        )

    folder = _folder(command, framework, resumed)
    if resumed is None or folder != _home(resumed):
        runs.require_free(folder)
    return TrainPlan(framework, command.settings, folder, resumed, command.minutes, command.stop_after)


def _resumed_file(resume: str, framework: str, run_dir: str | None) -> Path:
    path = Path(resume)
    if resume == "latest":
        path = Path(run_dir) if run_dir else runs.latest_folder(framework)
    return runs.latest_checkpoint(path)


def _home(resumed: checkpoint.Checkpoint) -> Path:
    return resumed.path.parent.parent


def _folder(command: TrainCommand, framework: str, resumed: checkpoint.Checkpoint | None) -> Path:
    if command.run_dir:
        return Path(command.run_dir)
    # A run goes on in its own folder, unless another framework or an explicit file makes it a branch.
    if resumed and resumed.framework == framework and not Path(command.resume or "").is_file():
        return _home(resumed)
    return runs.new_folder(framework, command.settings.preset)


def _require_same(resumed: checkpoint.Checkpoint, settings: Config) -> None:
    differences = [
        f"{key} was {old!r}, now {new!r}"
        for key, (old, new) in config_differences(configs.to_dict(resumed.config), configs.to_dict(settings)).items()
        if key not in CHANGEABLE
    ]
    if differences:
        raise UserError(
            f"a resumed run computes what it began, but {'; '.join(differences)}. "
            "Leave these flags out, or start a new run without --resume"
        )


def config_differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The dotted keys at which two nested dicts differ, with both values (None where a key is missing)."""
    differences: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*a, *b]):
        old, new = a.get(key), b.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differences |= config_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            differences[prefix + key] = (old, new)
    return differences


@dataclass(frozen=True)
class NetworkCommand:
    """What the commands share that put questions to a trained network."""

    checkpoint: str = "boxed"
    """A .safetensors file, a run folder (its newest checkpoint), `latest` (the newest run of this framework), or
    `boxed` (the trained model in the package)."""
    num_images: int = 64
    """How many images."""
    seed: int = 0
    """Seed of the noise; image i of a seed gets the same in any batch and in both frameworks."""
    batch_size: int = 64
    """Images at once."""
    out: str | None = None
    """Where to write (default: runs/<kind>/<utc>-<framework>)."""
    overwrite: bool = False
    """Replace the results in --out."""
    raw: bool = False
    """Use the weights themselves, not their moving average."""
    prediction: configs.Prediction | None = None
    """What the network tells. The checkpoint knows, and anything else is refused."""
    precision: configs.Precision = "fp32"
    """Arithmetic of the network."""
    device: configs.Device = "auto"
    """auto takes the GPU if there is one."""
    threads: int | None = None
    """CPU threads that one operation may use (default: one for each core)."""
    compile: bool = False
    """Put the network through the framework's compiler, torch.compile or XLA: pays for many images, if at all."""

    def __post_init__(self) -> None:
        for name in ("num_images", "batch_size"):
            configs.require(getattr(self, name) >= 1, configs.flag(name), getattr(self, name), "must be 1 or more")
        configs.require(self.seed >= 0, "--seed", self.seed, "must be 0 or more")
        configs.require(self.threads is None or self.threads >= 1, "--threads", self.threads, "must be 1 or more")


@dataclass(frozen=True)
class SampleCommand(NetworkCommand):
    """Draw images from a checkpoint of either framework: samples.npz (`images`, uint8 [N, 28, 28, 1]) and grid.png."""

    out: str | None = None
    """Where to write (default: runs/samples/<utc>-<framework>)."""
    sampling: Sampling = field(default_factory=Sampling)
    interpolate: int | None = None
    """Draw rows of so many images, each row from one noise to another along the great circle between the two."""
    gif: bool = False
    """Write denoising.gif, the first images on their way from noise, as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        columns, sampler = self.interpolate, self.sampling.sampler
        configs.require(columns is None or columns >= 2, "--interpolate", columns, "must be 2 or more")
        configs.require(
            columns is None or not self.sampling.noisy,
            "--interpolate with --sampler",
            sampler if self.sampling.eta == 0 else f"{sampler} --eta {self.sampling.eta}",
            f"it draws noise on the way, which hides the noise it starts from; take one of {', '.join(quiet())}",
        )


@dataclass(frozen=True)
class InversionCommand(NetworkCommand):
    """From test images to the noise that DDIM would draw them from, and back: inversion.png, inversion.json.

    DDIM's step is undone by asking the network at the image before it, which is not quite the image after it; so what
    comes back is not quite what went in, less so with more steps.
    """

    num_images: int = 8
    """How many images: the first of the test set."""
    steps: int = 50
    """Steps there, and as many back."""
    iterations: int = 1
    """How often each step there is put right; one is the common inversion, five leave a twentieth of its error."""
    spacing: Spacing = "trailing"
    """Which of the T times fewer steps visit: both ends, the first of each interval, or the last of each."""
    out: str | None = None
    """Where to write (default: runs/inversion/<utc>-<framework>)."""
    dataset: configs.Dataset | None = None
    """Whose test images (default: the one that the run was trained on)."""
    data_dir: str | None = None
    """A folder with the four IDX files of the full set (default: the run's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        configs.require(self.iterations >= 1, "--iterations", self.iterations, "must be 1 or more")

    @property
    def sampling(self) -> Sampling:
        """DDIM without a limit of x_0, which could not be undone."""
        return Sampling("ddim", self.steps, spacing=self.spacing, clip_x_0=False)


@dataclass(frozen=True)
class BoundCommand(NetworkCommand):
    """Bits per dimension: an upper bound on the mean -log2 p(x_0) of test images, by a checkpoint of either framework.

    The network was trained on the simplified loss, which weighs the terms of the bound otherwise and buys pictures
    with bits. Writes bits_per_dim.json and bits_per_dim.png, the terms over t.
    """

    num_images: int = 500
    """How many images: the first of the test set. A multiple of --stride."""
    clip_x_0: bool = True
    """Clip the predicted x_0 to [-1, 1] at every step."""
    stride: int = 10
    """Image i is asked at the times i mod stride + 0, stride, 2 stride ... only; 1 asks every image at every time."""
    out: str | None = None
    """Where to write (default: runs/bits-per-dim/<utc>-<framework>)."""
    dataset: configs.Dataset | None = None
    """Whose test images (default: the one that the run was trained on)."""
    data_dir: str | None = None
    """A folder with the four IDX files of the full set (default: the run's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        configs.require(self.stride >= 1, "--stride", self.stride, "must be 1 or more")


@dataclass(frozen=True)
class NetworkPlan:
    """A checked NetworkCommand."""

    framework: str
    command: NetworkCommand
    checkpoint: checkpoint.Checkpoint
    config: Config  # the checkpoint's, with the precision and device of the command
    prefix: str  # which of the checkpoint's weights to use
    out: Path

    def origin(self, **more: Any) -> str:
        """What the network's answers depend on, to the last digit but the batch's, as JSON."""
        return json.dumps(
            {
                "checkpoint": self.checkpoint.sha256,
                "weights": self.prefix,
                "seed": self.command.seed,
                "precision": self.command.precision,
                "compile": self.command.compile,
                "framework": self.framework,
            }
            | more
        )


@dataclass(frozen=True)
class SamplePlan(NetworkPlan):
    """A checked SampleCommand."""

    command: SampleCommand


@dataclass(frozen=True)
class InversionPlan(NetworkPlan):
    """A checked InversionCommand."""

    command: InversionCommand
    test: datasets.Split


@dataclass(frozen=True)
class BoundPlan(NetworkPlan):
    """A checked BoundCommand."""

    command: BoundCommand
    test: datasets.Split
    other_data: bool  # the run was trained on another training set than that beside `test`


def parse_sample(framework: str, argv: Sequence[str] | None) -> SamplePlan:
    """Read the sampling flags of the tree of `framework` and load the weights that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint.
    """
    command = parse(SampleCommand, argv, f"{TREES[framework]}.inference")
    loaded, config, prefix = _network(framework, command)
    command = dataclasses.replace(command, sampling=command.sampling.over(config.diffusion.timesteps))
    out = _results_folder(framework, command, "samples", "samples.npz")
    return SamplePlan(framework, command, loaded, config, prefix, out)


def parse_inversion(framework: str, argv: Sequence[str] | None) -> InversionPlan:
    """Read the flags of the inversion of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse(InversionCommand, argv, f"{TREES[framework]}.inversion")
    loaded, config, prefix = _network(framework, command)
    command.sampling.over(config.diffusion.timesteps)
    configs.require(
        not config.diffusion.zero_terminal_snr,
        "--checkpoint",
        loaded.path,
        "its process ends in pure noise, and that step cannot be undone; take one trained without --zero-terminal-snr",
    )
    out = _results_folder(framework, command, "inversion", "inversion.json")
    _, test = _data(command, config)
    return InversionPlan(framework, command, loaded, config, prefix, out, test)


def parse_bound(framework: str, argv: Sequence[str] | None) -> BoundPlan:
    """Read the flags of the evaluation of the tree of `framework`, and load the weights and images that they name.

    Raises:
        UserError: a value that is wrong or does not fit the checkpoint or the data.
    """
    command = parse(BoundCommand, argv, f"{TREES[framework]}.evaluate")
    number, stride = command.num_images, command.stride
    configs.require(number % stride == 0, "--num-images", number, f"must be a multiple of --stride {stride}")
    loaded, config, prefix = _network(framework, command)
    timesteps = config.diffusion.timesteps
    configs.require(stride <= timesteps, "--stride", stride, f"{loaded.path} was trained with {timesteps} steps only")
    out = _results_folder(framework, command, "bits-per-dim", "bits_per_dim.json")
    train, test = _data(command, config)
    other_data = train.sha256 != loaded.dataset_sha256
    return BoundPlan(framework, command, loaded, config, prefix, out, test, other_data)


def _network(framework: str, command: NetworkCommand) -> tuple[checkpoint.Checkpoint, Config, str]:
    prefix = "model" if command.raw else "ema"
    boxed = command.checkpoint == "boxed"
    file = checkpoint.BOXED if boxed else _resumed_file(command.checkpoint, framework, None)
    loaded = checkpoint.load(file, (prefix,))
    known = loaded.config.diffusion.prediction
    configs.require(
        command.prediction in (None, known),
        "--prediction",
        command.prediction,
        f"{loaded.path} was trained to predict {known}; leave the flag out",
    )
    where = {name: getattr(command, name) for name in ("precision", "device", "threads", "compile")}
    config = dataclasses.replace(loaded.config, **where)
    return loaded, config, prefix


def _data(command: BoundCommand | InversionCommand, config: Config) -> tuple[datasets.Split, datasets.Split]:
    number = command.num_images
    train, test = datasets.load(command.dataset or config.data.dataset, command.data_dir or config.data.data_dir)
    configs.require(number <= len(test.images), "--num-images", number, f"{test.name} has {len(test.images)} to test")
    return train, test


def _results_folder(framework: str, command: NetworkCommand, kind: str, result: str) -> Path:
    out = Path(command.out) if command.out else runs.new_folder(kind, framework)
    if (out / result).exists() and not command.overwrite:
        what = kind.replace("-", " ")
        raise UserError(f"{out} already holds {what}: choose another --out, or replace them with --overwrite")
    return out
