"""What the commands share: the flags of a trained network and of its data, and how both are loaded."""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ddpm_shared import claims, datasets, memory
from ddpm_shared.config import Config, Dataset, Device, Precision, require
from ddpm_shared.config.checks import LARGEST_SEED, MOST_THREADS, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint, folder
from ddpm_shared.records.checkpoint import Checkpoint
from ddpm_shared.workers import ALONE, Place, threads_of

BOXED, BOXED_CONDITIONAL = "boxed", "boxed-conditional"
IN_THE_PACKAGE = {BOXED: checkpoint.BOXED, BOXED_CONDITIONAL: checkpoint.BOXED_CONDITIONAL}


@dataclass(frozen=True)
class NetworkCommand:
    """The flags of every command that evaluates a trained network."""

    checkpoint: str = BOXED
    """Weights: a .safetensors file, a run folder, latest (this framework's newest run), or, in the package, boxed and
    the class-conditional boxed-conditional."""
    num_images: int = 64
    """Number of images."""
    seed: int = 0
    """Seed of the noise. Image i of a seed gets the same noise in any batch and in both frameworks."""
    batch_size: int = 64
    """Images in a batch."""
    out: Annotated[str | None, default_is("runs/<kind>/<utc>-<framework>")] = None
    """Folder to write to."""
    overwrite: bool = False
    """Replace the results in --out."""
    raw: bool = False
    """Use the weights of the last step instead of their moving average."""
    precision: Precision = "fp32"
    """Number format of the network's arithmetic."""
    device: Device = "auto"
    """Device to compute on. auto takes the GPU if there is one."""
    threads: Annotated[int | None, default_is("one for each core")] = None
    """CPU threads that one operation may use."""
    compile: bool = False
    """Compile the network with torch.compile or XLA. It pays off only for many images, if at all."""
    tf32: bool = False
    """Round the factors of products to 10 bits (TensorFloat-32): faster on an NVIDIA GPU, and other numbers."""

    def __post_init__(self) -> None:
        whole(self, "num_images", "batch_size")
        whole(self, "seed", least=0, most=LARGEST_SEED)
        whole(self, "threads", most=MOST_THREADS)

    @property
    def file(self) -> str:
        """The checkpoint to use."""
        return self.checkpoint


@dataclass(frozen=True)
class DataCommand(NetworkCommand):
    """The flags of every command that evaluates a trained network on test images."""

    dataset: Annotated[Dataset | None, default_is("that of the run")] = None
    """Data set of the test images."""
    data_dir: Annotated[str | None, default_is("that of the run")] = None
    """Folder of the data set's files."""


@dataclass(frozen=True)
class NetworkPlan:
    """A checked NetworkCommand. The chief has claimed the folder."""

    framework: str
    command: NetworkCommand
    checkpoint: Checkpoint
    config: Config  # the checkpoint's, with the precision, device and threads of the command
    prefix: str  # of the weights to use: "model", or "ema" for their moving average
    out: Path  # where the chief writes
    place: Place  # of this process among its workers

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """A context in which this process, if it is the chief, alone writes to the folder."""
        return claims.writing(self.out) if self.place.chief else contextlib.nullcontext()

    def say(self, line: str) -> None:
        """Print a line, if this is the chief."""
        if self.place.chief:
            print(line)

    def origin(self, **more: Any) -> str:
        """Everything that the network's outputs depend on, as JSON. They do not depend on the batch size.

        Where it was not Fashion-MNIST that the network was trained on, `data` says where to find it.
        """
        data = dataclasses.asdict(self.config.data)
        where = {name: data[name] for name in ("dataset", "data_dir", "folder")}
        own = {} if self.config.data.dataset in datasets.FASHION else {"data": where}
        return json.dumps(
            {
                "checkpoint": self.checkpoint.sha256,
                "weights": self.prefix,
                "seed": self.command.seed,
                "precision": self.command.precision,
                "compile": self.command.compile,
                "framework": self.framework,
            }
            | own
            | ({"tf32": True} if self.command.tf32 else {})
            | more
        )


def load_network(framework: str, command: NetworkCommand, place: Place = ALONE) -> tuple[Checkpoint, Config, str]:
    """The checkpoint that a command names, the settings to use it with, and the prefix of the weights to use.

    Raises:
        UserError: no such checkpoint, or a damaged one; a network or images that cannot fit into the memory.
    """
    prefix = "model" if command.raw else "ema"
    file = IN_THE_PACKAGE.get(command.file) or folder.checkpoint_file(command.file, framework)
    loaded = checkpoint.load(file, (prefix,))
    arithmetic = {name: getattr(command, name) for name in ("precision", "device", "compile", "tf32")}
    config = dataclasses.replace(loaded.config, threads=threads_of(place, command.threads), **arithmetic)
    memory.require_room_to_draw(config, command.batch_size, command.num_images)
    return loaded, config, prefix


def load_data(command: DataCommand, config: Config) -> tuple[Split, Split]:
    """The training and the test images of a command, by default those of the run.

    Raises:
        UserError: no such data, or fewer test images than --num-images.
    """
    number = command.num_images
    data = config.data
    train, test = datasets.load(command.dataset or data.dataset, command.data_dir or data.data_dir, data.folder)
    size, channels = config.model.image_size, config.model.image_channels
    require(
        test.images.shape[1:] == (size, size, channels),
        "--dataset",
        test.name,
        f"has images of the shape {list(test.images.shape[1:])}, and the network draws {[size, size, channels]}: take "
        "the data set that it was trained on",
    )
    require(number <= len(test.images), "--num-images", number, f"{test.name} has {len(test.images)} test images")
    return train, test


def results_folder(framework: str, command: NetworkCommand, kind: str, last: str, place: Place = ALONE) -> Path:
    """Claim the folder to write to, new or given by --out, if this process is the chief.

    Args:
        framework: "torch" or "tensorflow".
        command: the flags.
        kind: the folder under runs/, which says what is written.
        last: the file that is written last.
        place: of this process among its workers.

    Raises:
        UserError: another process writes there, or it has the file `last` already.
    """
    if not place.chief:
        return Path()
    out = folder.claim_output(command.out, kind, framework)
    if (out / last).exists() and not command.overwrite:
        what = kind.replace("-", " ")
        raise UserError(f"{out} already holds {what}: choose another --out, or replace them with --overwrite")
    return out
