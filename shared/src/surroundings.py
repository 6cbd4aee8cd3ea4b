"""Settings of other programs, which neither change a number of ours nor end a command in a traceback.

Variables of the environment and files in the home folder steer the libraries that we stand on. They are meant for other
programs of the same user, or were copied from somewhere, or are broken. A command of ours takes out what FOREIGN lists
before it imports any library. What KEPT lists steers the machine and not the work, and stays.
"""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator

from ddpm_shared import importing

# How the names of the variables begin -> what they would do here.
FOREIGN = {
    # Numbers: other kernels, other roundings, other number formats.
    "ATEN_": "PyTorch: other kernels",
    "TORCH": "PyTorch, its compiler and its logs; a value that it does not know is an error",
    "PYTORCH_": "PyTorch: its just-in-time compiler, memory, logs",
    "AOT": "PyTorch's compiler",
    "INDUCTOR_": "PyTorch's compiler",
    "TRITON_": "PyTorch's compiler for GPUs",
    "KINETO_": "PyTorch's profiler",
    "LRU_CACHE_CAPACITY": "PyTorch with oneDNN: memory",
    "TF_": "TensorFlow: other kernels, XLA, the old Keras",
    "TF2_": "TensorFlow: the behaviour of version 1",
    "TENSORFLOW_": "TensorFlow: other kernels",
    "XLA_": "XLA: other roundings; a flag that it does not know ends the process",
    "MLIR_": "TensorFlow's compiler",
    "AUTOGRAPH_": "TensorFlow: how Python becomes a graph",
    "KERAS_": "Keras: another framework below it, other defaults (ddpm_tf holds its keras.json off)",
    "PROTOCOL_BUFFERS_": "TensorFlow's messages; a value that is not known is an error",
    "DNNL_": "oneDNN: other kernels, lower precision, logs among the output",
    "ONEDNN_": "the same, under its new name",
    "MKL_": "MKL: other kernels, logs among the output",
    "KMP_": "Intel's OpenMP",
    "GOMP_": "GNU OpenMP: placement of threads; with a value that it does not know, nothing ends",
    "OMP_": "OpenMP: how many threads share a sum, and in which order",
    "OPENBLAS_": "NumPy's linear algebra: kernels of another processor",
    "NVIDIA_TF32_OVERRIDE": "cuBLAS: other roundings",
    "NPY_": "NumPy: kernels of another processor; a value that is not known is an error",
    "NUMPY_": "NumPy: memory",
    "SCIPY_": "SciPy: other arrays",
    "ORT_": "onnxruntime: other kernels",
    "PILLOW_": "Pillow: memory; a value that is no number is an error",
    # Words and pictures.
    "TQDM_": "tqdm: other bars; a value of the wrong type is an error",
    "PYTHON_TYRO_": "tyro: other help; a value that is not known is an error",
    "MATPLOTLIBRC": "matplotlib: other fonts, sizes and colours",
    "PYTHONWARNINGS": "Python: a library's warning as an error",
    "MPLBACKEND": "matplotlib: windows instead of files; a value that is not known is an error",
    "PYTHONSTARTUP": "Python: lines of somebody's own before those of a notebook",
    "IPYTHON": "IPython: the same, and settings",
    "JUPYTER": "Jupyter: other kernels, other settings",
    "NBFORMAT_": "Jupyter; a value that is not known is an error",
    "PYZMQ_": "Jupyter; a value that is not known is an error",
    "TRAITLETS_": "Jupyter: errors in the user's settings",
    "QT_API": "matplotlib: windows",
}
KEPT = frozenset(
    {
        *("OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", "OMP_STACKSIZE", "OMP_WAIT_POLICY"),
        *("KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK"),
        *("MKL_NUM_THREADS", "MKL_INTERFACE_LAYER", "MKL_SERVICE_FORCE_INTEL", "MKL_THREADING_LAYER"),
        *("OPENBLAS_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"),
        *("TF_CPP_MAX_VLOG_LEVEL", "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_VMODULE"),
        *("TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR", "TF_GPU_HOST_MEM_LIMIT_IN_MB"),
        *("TF_GPU_THREAD_COUNT", "TF_GPU_THREAD_MODE", "TF_PER_DEVICE_MEMORY_LIMIT_MB"),
        *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"),
        *("PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_NVML_BASED_CUDA_CHECK"),
        *("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS", "TORCH_CPP_LOG_LEVEL", "TORCH_CUDA_ARCH_LIST"),
        *("TORCH_EXTENSIONS_DIR", "TORCH_HOME", "TORCH_SHOW_CPP_STACKTRACES"),
        *("TRITON_CACHE_DIR", "TRITON_HOME", "TRITON_LIBCUDA_PATH", "TRITON_LIBDEVICE_PATH", "TRITON_PTXAS_PATH"),
        "TQDM_DISABLE",
        *("TF_CONFIG", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RUN_ID"),  # the place of a worker
    }
)
COUNT = re.compile(r"[1-9]\d{0,2}(,[1-9]\d{0,2})*")  # of threads; OpenMP takes one for each level
XLA_KEPT = "--xla_gpu_cuda_data_dir="  # where CUDA is


def shut_out() -> None:
    """Take the settings of other programs out of this process, and say which number of threads is none."""
    for name, value in list(os.environ.items()):
        if name in KEPT and name.endswith("_THREADS") and not COUNT.fullmatch(value):
            print(f"note: {name}={value} is not used: it is no number of threads from 1 to 999", file=sys.stderr)
            del os.environ[name]
        elif name == "XLA_FLAGS":
            os.environ[name] = " ".join(flag for flag in value.split() if flag.startswith(XLA_KEPT))
        elif name not in KEPT and name.startswith(tuple(FOREIGN)):
            del os.environ[name]
            if name == "PYTHONWARNINGS":
                warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]
    importing.within("matplotlib", _plain_matplotlib)


@contextlib.contextmanager
def _plain_matplotlib() -> Iterator[None]:
    """Import matplotlib as it comes: it reads the matplotlibrc of the current folder, else of its settings' folder."""
    import logging

    from ddpm_shared import files

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of folders that it cannot write to
    os.environ["MPLCONFIGDIR"] = str(files.cache_dir("matplotlib"))
    os.environ["MPLBACKEND"] = "agg"
    here = os.getcwd()
    os.chdir(os.path.dirname(__file__))
    try:
        yield
    finally:
        os.chdir(here)


def without(*beginnings: str) -> dict[str, str]:
    """The environment without the variables whose names begin so, for another program that is started."""
    return {name: value for name, value in os.environ.items() if not name.startswith(beginnings)}
