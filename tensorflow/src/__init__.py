"""The TensorFlow tree: NHWC tensors. Mirror: ddpm_torch."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from ddpm_shared import importing  # ddpm_shared comes first: it sets up the process of a command
from ddpm_shared.errors import UserError


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Import TensorFlow without its startup messages.

    TensorFlow 2.21 writes a dozen lines about CPU and CUDA to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL,
    some of which look like errors. They are shown only if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # from here on, warnings but no messages about the CPU
    with tempfile.TemporaryFile() as messages:
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            yield
            sys.modules["tensorflow"].config.list_physical_devices()  # which has messages of its own
        except BaseException:
            messages.seek(0)
            with contextlib.suppress(OSError):
                os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _with_our_settings() -> Iterator[None]:
    """Import Keras with TensorFlow below it, whatever the user's variables and ~/.keras/keras.json say."""
    theirs = {name: value for name, value in os.environ.items() if name.startswith("KERAS_")}
    for name in theirs:
        del os.environ[name]
    ours = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.path.join(os.devnull, "keras")}  # where no file can be
    os.environ |= ours
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ |= theirs


if "keras" in sys.modules and (_backend := sys.modules["keras"].config.backend()) != "tensorflow":
    raise UserError(
        f"Keras is here already, with {_backend} below it: import ddpm_tf before it, or set KERAS_BACKEND=tensorflow"
    )
importing.within("tensorflow", _quietly)
importing.within("keras", _with_our_settings)
