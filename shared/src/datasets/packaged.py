"""Data sets whose files are in this package: shared/src/embedded."""

from collections.abc import Sequence
from importlib import resources

from ddpm_shared.datasets import download
from ddpm_shared.datasets.verified import DataFile, Verified
from ddpm_shared.errors import UserError

WAY_OUT = "the installed package is damaged, install ddpm-duet again"


def fetch(name: str, wanted: Sequence[DataFile], *folders: str) -> list[Verified]:
    """The verified files of a data set in the package.

    Args:
        name: of the data set, in messages.
        wanted: its files.
        folders: of the package, one inside the other, where they lie.

    Raises:
        UserError: a missing or damaged file.
    """
    with resources.as_file(resources.files("ddpm_shared").joinpath(*folders)) as folder:
        verified = download.from_folder(wanted, folder, WAY_OUT)
    if verified is None:
        raise UserError(f"{folder} does not hold the {len(wanted)} files of {name}: {WAY_OUT}")
    return verified
