"""Device and number format. Mirror: ddpm_torch.utils."""

import os

import tensorflow as tf

from ddpm_shared.errors import UserError
from ddpm_tf.config import Device, Precision


def select_device(name: Device) -> tf.config.PhysicalDevice:
    """The device to compute on; "auto" is the GPU if there is one.

    Raises:
        UserError: "gpu" where there is none.

    Mirror: ddpm_torch.utils.select_device.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if name == "gpu" and not gpus:
        raise UserError("--device gpu: TensorFlow sees no GPU here; use --device cpu, or install tensorflow[and-cuda]")
    if gpus and name != "cpu":
        tf.config.experimental.set_memory_growth(gpus[0], True)
        return gpus[0]
    # TensorFlow places everything on a GPU that it sees, so the GPUs are hidden from it.
    tf.config.set_visible_devices([], "GPU")
    return tf.config.list_physical_devices("CPU")[0]


def device_name(device: tf.config.PhysicalDevice) -> str:
    """The name to show a user: "cpu", or the GPU's. Mirror: ddpm_torch.utils.device_name."""
    if device.device_type == "CPU":
        return "cpu"
    return str(tf.config.experimental.get_device_details(device).get("device_name", device.name))


def set_threads(threads: int | None) -> None:
    """Limit the CPU threads of one operation; None leaves it at one for each core.

    Raises:
        UserError: TensorFlow only: it has computed already, with another number.

    Mirror: ddpm_torch.utils.set_threads.
    """
    if threads not in (None, tf.config.threading.get_intra_op_parallelism_threads()):
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise UserError(f"--threads {threads}: TensorFlow can change it before its first operation only") from None


def set_tf32(on: bool) -> None:
    """Let products of float32 on an NVIDIA GPU take TensorFloat-32, with 10 bits for 23; a CPU has none of it.

    PyTorch's own default is off for matrices and on for convolutions, TensorFlow's is on.

    Mirror: ddpm_torch.utils.set_tf32.
    """
    tf.config.experimental.enable_tensor_float_32_execution(on)


def threads() -> int:
    """How many threads one operation may use. Mirror: ddpm_torch.utils.threads."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1


def dtype(precision: Precision) -> tf.DType:
    """The number format of weights, schedule, images and noise; in "bf16" only the network's inside differs.

    Mirror: ddpm_torch.utils.dtype.
    """
    return tf.float64 if precision == "fp64" else tf.float32
