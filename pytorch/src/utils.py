"""Device and number format. Mirror: ddpm_tf.utils."""

import torch

from ddpm_shared.errors import UserError
from ddpm_torch.config import Device, Precision


def select_device(name: Device) -> torch.device:
    """The device to compute on; "auto" is the GPU if there is one.

    Raises:
        UserError: "gpu" where there is none.

    Mirror: ddpm_tf.utils.select_device.
    """
    available = torch.cuda.is_available()
    if name == "gpu" and not available:
        raise UserError("--device gpu: PyTorch sees no GPU here; use --device cpu, or a build of PyTorch with CUDA")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def device_name(device: torch.device) -> str:
    """The name to show a user: "cpu", or the GPU's. Mirror: ddpm_tf.utils.device_name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def set_threads(threads: int | None) -> None:
    """Limit the CPU threads of one operation; None leaves it at one for each core.

    Raises:
        UserError: TensorFlow only: it has computed already, with another number.

    Mirror: ddpm_tf.utils.set_threads.
    """
    if threads is not None:
        torch.set_num_threads(threads)


def set_tf32(on: bool) -> None:
    """Let products of float32 on an NVIDIA GPU take TensorFloat-32, with 10 bits for 23; a CPU has none of it.

    PyTorch's own default is off for matrices and on for convolutions, TensorFlow's is on.

    Mirror: ddpm_tf.utils.set_tf32.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def threads() -> int:
    """How many threads one operation may use. Mirror: ddpm_tf.utils.threads."""
    return torch.get_num_threads()


def dtype(precision: Precision) -> torch.dtype:
    """The number format of weights, schedule, images and noise; in "bf16" only the network's inside differs.

    Mirror: ddpm_tf.utils.dtype.
    """
    return torch.float64 if precision == "fp64" else torch.float32
