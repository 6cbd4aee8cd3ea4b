"""The TensorFlow tree: NHWC tensors. Mirror: ddpm_torch."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings yes, news about the CPU no

# TensorFlow 2.21 writes a dozen lines about CPU and CUDA to file descriptor 2 before it reads that variable, some
# of which look like errors. They are kept back, and shown if the import fails.
with tempfile.TemporaryFile() as _news:
    _stderr = os.dup(2)
    os.dup2(_news.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    except BaseException:
        _news.seek(0)
        os.write(_stderr, _news.read())
        raise
    finally:
        os.dup2(_stderr, 2)
        os.close(_stderr)
