"""Execute the notebooks: `python -m ddpm_course.build` (make notebooks).

The sources are notebooks/*.py, in jupytext's percent format. Each is run from its first cell in a kernel of its own,
for each framework, and saved with its pictures: notebooks/*.ipynb for PyTorch, notebooks/tensorflow/*.ipynb.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jupytext
import nbformat
import tyro
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from tqdm import tqdm

from ddpm_course.explore import BUILDING
from ddpm_shared import command_line, files, stopping, surroundings
from ddpm_shared.errors import UserError, choice
from ddpm_shared.frameworks import FRAMEWORKS

FOLDER = Path(__file__).parents[1]
PARAMETER = re.compile(r'^FRAMEWORK = "\w+"', re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#|\d\d_\w+\.ipynb)")  # to anything but a notebook or another site
SAVED_AS = "ddpm_duet_fingerprint"  # in the metadata of what is saved
SECONDS_A_CELL = 1800  # of a slow and busy machine; then it hangs


@dataclass(frozen=True)
class Options:
    """Execute the notebooks for both frameworks, and save them with what they show."""

    notebooks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Notebooks, by the beginnings of their names, e.g. 01. Without any, all."""
    frameworks: tuple[Literal["torch", "tensorflow"], ...] = ("torch", "tensorflow")
    """Frameworks to execute them for."""
    out: str = str(FOLDER)
    """Folder to write to; TensorFlow's go to the folder tensorflow in it."""


def sources() -> list[Path]:
    """The notebooks' sources, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def chosen(options: Options) -> list[Path]:
    """The sources that are asked for. Raises UserError for a name that none begins with."""
    found = sources()
    for name in options.notebooks:
        if not any(path.name.startswith(name) for path in found):
            choice("notebook", name, tuple(path.stem for path in found))
    return [path for path in found if not options.notebooks or path.name.startswith(tuple(options.notebooks))]


def target(source: Path, framework: str, out: Path = FOLDER) -> Path:
    """Where the executed notebook of a source is saved."""
    return out / ("" if framework == "torch" else framework) / f"{source.stem}.ipynb"


def fingerprint(notebook: Any) -> str:
    """What tells whether somebody has written in a notebook; the empty cell that running the last one adds does not."""
    written = [cell.source for cell in notebook.cells if cell.source]
    return hashlib.sha256("\0".join(written).encode()).hexdigest()


def edited(file: Path) -> bool:
    """Whether `file` is there and not as it was saved here."""
    if not file.exists():
        return False
    try:
        notebook = nbformat.read(file, as_version=4)
    except ValueError:  # not JSON
        return True
    return bool(notebook.metadata.get(SAVED_AS) != fingerprint(notebook))


def read(source: Path, framework: str) -> Any:
    """The notebook of a source, for `framework`, with links that lead on from where it will be saved.

    Its cells are numbered, so that the same source gives the same file.
    """
    notebook = jupytext.read(source)
    cells = [cell for cell in notebook.cells if PARAMETER.search(cell.source)]
    if len(cells) != 1:
        raise UserError(f'{source}: {len(cells)} cells hold FRAMEWORK = "...", expected one')
    cells[0].source = PARAMETER.sub(f'FRAMEWORK = "{framework}"', cells[0].source)
    deeper = target(source, framework, source.parent).parent != source.parent
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if deeper and cell.cell_type == "markdown":
            cell.source = LINK.sub("](../", cell.source)
    notebook.metadata[SAVED_AS] = fingerprint(notebook)
    return notebook


def execute(notebook: Any, name: str, folder: Path) -> None:
    """Run all cells in a new kernel that stands in `folder`, one after the other, and keep what they show.

    Raises:
        UserError: a cell stops with an error, or takes too long.
    """
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        record_timing=False,  # which no reader sees, and git would
        coalesce_streams=True,  # what a cell prints is one text, however it came
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # or it warns that the cells' code could be overheard
        resources={"metadata": {"path": str(folder)}},
    )
    client.km = _kernel()
    with _own_folders() as own, tqdm(total=len(notebook.cells), desc=name, unit="cell", leave=False) as bar:
        client.on_cell_complete = lambda cell, cell_index: bar.update(1)
        try:
            client.execute(env=own | {BUILDING: "1", "TQDM_DISABLE": "1"})  # a bar would be saved as an error
        except CellExecutionError as error:
            raise UserError(f"{name}: a cell stops with {error.ename}: {error.evalue}\n{error.traceback}") from None
        except CellTimeoutError:
            raise UserError(
                f"{name}: a cell is not done after {SECONDS_A_CELL} s; let nothing else compute, and run it again"
            ) from None


def _kernel() -> AsyncKernelManager:
    """A kernel of this Python, and not of what the user may have installed under the name of python3."""
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    handlers = {number: signal.getsignal(number) for number in stopping.signals()}
    start = kernel.start_kernel

    async def start_kernel(**options: Any) -> None:
        for number, handler in handlers.items():  # nbclient's, set just before, end in an error of its own
            signal.signal(number, handler)
        await start(**options)

    kernel.start_kernel = start_kernel
    return kernel


@contextlib.contextmanager
def _own_folders() -> Iterator[dict[str, str]]:
    """An environment in which Jupyter, IPython and matplotlib find none of the user's files, while it lasts."""
    with tempfile.TemporaryDirectory(prefix="ddpm-duet-") as folder:
        stopping.on_the_way_out(lambda: shutil.rmtree(folder, ignore_errors=True))
        own = {name: os.path.join(folder, name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
        own |= {"JUPYTER_DATA_DIR": folder, "MPLCONFIGDIR": str(files.cache_dir("matplotlib"))}
        before = dict(os.environ)
        os.environ |= own  # for this process too, which makes files of its own there
        try:
            yield surroundings.without("MPLBACKEND", "PYTHONSTARTUP")
        finally:
            for name in own:
                del os.environ[name]
            os.environ |= before


def build(options: Options) -> int:
    """Execute and save; what is finished stays when the rest is interrupted. Returns the exit code.

    Raises:
        UserError: no such notebook, one that stops with an error or takes too long, or somebody's own work is in its
            place.
    """
    asked = [(source, framework) for source in chosen(options) for framework in options.frameworks]
    targets = [target(source, framework, Path(options.out)) for source, framework in asked]
    for file in filter(edited, targets):
        raise UserError(f"{file}: somebody has written in it; rename it, e.g. to my_{file.name}, and run this again")
    took = {}
    for (source, framework), file in zip(asked, targets, strict=True):
        name = f"{source.stem}, {FRAMEWORKS[framework].title}"
        began = time.perf_counter()
        notebook = read(source, framework)
        execute(notebook, name, source.parent)
        files.write_atomically(file, nbformat.writes(notebook).encode())
        took[name] = time.perf_counter() - began
        print(f"{file}: {took[name]:.0f} s, {file.stat().st_size / 1e6:.2f} MB", flush=True)
    print(f"{len(took)} notebooks in {sum(took.values()) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: build(command_line.parse_flags(Options, sys.argv[1:], "ddpm_course.build")))
