"""The command line: every piece made, laid beside each other, and written to a folder."""

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ddpm_shared import command_line, files, machine, memory, reading, stopping, validation
from ddpm_shared.config import (
    PRESET_OF,
    Config,
    NetworkName,
    Preset,
    fitted,
    to_dict,
    with_network,
    with_preset,
)
from ddpm_shared.config.checks import MOST_THREADS, positive, whole
from ddpm_shared.config.help import default_is
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import FRAMEWORKS, installed
from ddpm_shared.passport import layout, page, picture, pieces, svg
from ddpm_shared.passport.trace import ROOT, total
from ddpm_shared.records import folder as folders

FORMAT = "ddpm-duet-passport/1"
FID = Path("runs/zoo/fid.json")  # left by whoever trained the presets: {preset: FID}
FIDS = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}


@dataclass(frozen=True)
class Command:
    """Make the passport of a network.

    It has a drawing, the size and the arithmetic of the network, how far it sees, its speed and memory in both
    frameworks, and how far these are apart in each of its layers.
    """

    network: Annotated[NetworkName | None, default_is("that of the preset")] = None
    """Kind of network, in the sizes of the preset that shows it."""
    preset: Annotated[Preset | None, default_is("small")] = None
    """Network by its preset, with the process that the preset brings."""
    every: bool = False
    """Make the passports of all kinds of networks."""
    drawing_only: bool = False
    """Make the drawing, and nothing else."""
    speed: bool = True
    """Measure speed and memory."""
    image_size: int = 28
    """Height and width of the images."""
    image_channels: int = 1
    """Channels of the images."""
    num_classes: int = 0
    """Classes that the network is given; 0 for none."""
    batch_size: int = 64
    """Images in a batch, for speed and memory."""
    seconds: float = 5.0
    """Seconds that each speed is measured."""
    threads: Annotated[int | None, default_is("one for each core")] = None
    """CPU threads that one operation may use."""
    fid: Annotated[str | None, default_is(f"{FID}, if there is one")] = None
    """JSON file of FIDs by preset, measured elsewhere, e.g. {"small": 12.3}."""
    page: Annotated[str | None, default_is("none")] = None
    """Markdown page to put the table into, and the drawings beside it, or these alone. With --every."""
    out: Annotated[str | None, default_is("runs/passport/<utc>-<preset>")] = None
    """Folder to write to."""
    overwrite: bool = False
    """Replace the passport in --out."""

    def __post_init__(self) -> None:
        whole(self, "image_size", "image_channels", "batch_size")
        whole(self, "num_classes", least=0)
        whole(self, "threads", most=MOST_THREADS)
        positive(self, "seconds")
        if (self.network is not None) + (self.preset is not None) + self.every > 1:
            raise UserError("--network, --preset and --every each say which network: give one of them")
        if self.page is not None and not self.every:
            raise UserError("--page takes the table of all networks: give --every with it")

    @property
    def presets(self) -> list[str]:
        """Those to make passports of."""
        if self.every:
            return list(PRESET_OF.values())
        return [PRESET_OF[self.network] if self.network is not None else self.preset or "small"]

    def config(self, preset: str) -> Config:
        """The settings of a preset for these images."""
        given = Config(device="cpu", threads=self.threads, class_conditional=self.num_classes > 0)
        config = with_network(given, self.network) if self.network is not None else with_preset(given, preset)
        config = dataclasses.replace(
            config,
            class_conditional=self.num_classes > 0,
            training=dataclasses.replace(config.training, batch_size=self.batch_size),
        )
        shape = (self.image_size, self.image_size, self.image_channels)
        return fitted(config, shape, self.num_classes, sigma_data=0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the flags say. Returns 0; raises UserError on bad input, OSError on a full disk."""
    command = command_line.parse_flags(Command, argv, "ddpm_shared.passport")
    frameworks = [name for name in FRAMEWORKS if installed(name)]
    if not frameworks:
        raise UserError("neither PyTorch nor TensorFlow is installed: run `make setup`")
    for name in FRAMEWORKS.keys() - frameworks:
        print(f"{FRAMEWORKS[name].title} is not installed: this is the other framework's half", file=sys.stderr)
    configs = {preset: command.config(preset) for preset in command.presets}
    if command.speed and not command.drawing_only:
        for config in configs.values():
            memory.require_room_to_train(config)
    fids = _fids(command)
    if command.page is not None:
        page.files_text(Path(command.page))
    out = folders.claim_output(command.out, "passport", "all" if command.every else command.presets[0])
    places = {preset: out / preset if command.every else out for preset in configs}
    for place in places.values():
        if (place / "drawing.svg").exists() and not command.overwrite:
            raise UserError(f"{place} already holds a passport: choose another --out, or replace it with --overwrite")
    rows = []
    for preset, config in configs.items():
        with _folder() as parts:
            files.write_json(parts / "config.json", to_dict(config))
            rows.append(_one(command, preset, config, frameworks, parts, places[preset], fids.get(preset)))
        print(places[preset])
    if command.page is not None and not command.drawing_only:
        page.write_table(Path(command.page), rows)
        print(command.page)
    return 0


def _one(
    command: Command,
    preset: str,
    config: Config,
    frameworks: Sequence[str],
    parts: Path,
    place: Path,
    fid: float | None,
) -> list[str]:
    """Make the passport of one network. Returns its row in the table."""

    def make(framework: str, piece: pieces.Piece, what: str) -> dict[str, Any]:
        print(f"{preset}: {what}, {FRAMEWORKS[framework].title}", file=sys.stderr)
        return pieces.make(parts, framework, piece, command.seconds)

    # 1. What happens in it, alike in both frameworks; and the drawing.
    piece: pieces.Piece = "trace" if command.drawing_only else "layers"
    traced = {framework: make(framework, piece, "its layers") for framework in frameworks}
    traces = {framework: pieces.steps_of(trace) for framework, trace in traced.items()}
    steps = _alike(traces, "layers")
    sources = {framework: pieces.sources_of(trace) for framework, trace in traced.items()}
    drawing = layout.draw(config.model.network, f"preset {preset}", steps, sources)
    beside = [(place, "drawing")]
    if command.page is not None:
        beside.append((Path(command.page).parent, f"network-{preset}"))
    for folder, name in beside:
        files.write_atomically(folder / f"{name}.svg", svg.svg(drawing, _root(folder)).encode())
        picture.write(folder / f"{name}.png", drawing)
    if command.drawing_only:
        return []

    # 2. What it sees, and how far the frameworks are apart.
    field = _alike({framework: result["receptive_field"] for framework, result in traced.items()}, "receptive fields")
    gaps: dict[str, Any] = {}
    if len(frameworks) == 2:
        for precision in ("fp64", "fp32"):
            each = pieces.gaps(parts, precision)
            worst = max(each, key=lambda name: each[name])
            gaps[precision] = {"largest": each[worst], "layer": worst, "layers": each}

    # 3. Speed and memory, one process at a time.
    measured: dict[str, Any] = {framework: {} for framework in frameworks}
    if command.speed:
        for framework in frameworks:
            measured[framework]["training"] = make(framework, "training", "speed and memory of training")
            measured[framework]["drawing"] = make(framework, "drawing", "speed and memory of drawing")

    model = config.model
    passport = {
        "format": FORMAT,
        "network": model.network,
        "preset": preset,
        "image": [model.image_channels, model.image_size, model.image_size],
        "num_classes": model.num_classes,
        "batch_size": command.batch_size,
        "parameters": total(steps, "parameters"),
        "multiply_adds": total(steps, "multiply_adds"),
        "receptive_field": field,
        "frameworks": measured,
        "gaps": gaps,
        "fid": fid,
        "environment": machine.environment("cpu", command.threads or os.cpu_count() or 1),
        "steps": [dataclasses.asdict(step) for step in steps],
    }
    files.write_atomically(place / "passport.md", page.markdown(passport, steps, sources, _root(place)).encode())
    files.write_json(place / "passport.json", passport)
    return page.row(passport, steps)


def _alike(results: dict[str, Any], what: str) -> Any:
    """What both frameworks found. That they agree is what the parity suite holds them to."""
    first, *others = results.values()
    if any(other != first for other in others):
        raise RuntimeError(f"the frameworks have different {what}: {_difference(first, others[0])}")
    return first


def _difference(a: Sequence[Any], b: Sequence[Any]) -> str:
    return next((f"{x} and {y}" for x, y in zip(a, b, strict=False) if x != y), f"{len(a)} and {len(b)} of them")


def _fids(command: Command) -> dict[str, float]:
    """The FIDs by preset. Raises UserError where the file is not there or not such a file."""
    if command.fid is None and not FID.exists():
        return {}
    path = Path(command.fid or FID)
    way_out = 'give a JSON file of FIDs by preset, e.g. {"small": 12.3}'
    return validation.checked(reading.read_json(path, way_out), FIDS, str(path), "a file of FIDs", way_out)


def _root(folder: Path) -> str:
    """The way from a folder to the repository's root, as a link has it."""
    return Path(os.path.relpath(ROOT, folder.resolve())).as_posix()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the pieces, gone afterwards, and on a signal."""
    with tempfile.TemporaryDirectory() as name:
        stopping.on_the_way_out(lambda: shutil.rmtree(name, ignore_errors=True))
        yield Path(name)
