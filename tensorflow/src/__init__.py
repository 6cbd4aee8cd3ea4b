"""The TensorFlow tree: NHWC tensors. Mirror: ddpm_torch."""

import os
import sys
import tempfile


def import_quietly() -> None:
    """Import TensorFlow without its news.

    TensorFlow 2.21 writes a dozen lines about CPU and CUDA to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL,
    some of which look like errors. They are kept back, and shown if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings yes, news about the CPU no
    with tempfile.TemporaryFile() as news:
        stderr = os.dup(2)
        os.dup2(news.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            news.seek(0)
            os.write(stderr, news.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


# While Python looks for the module of `python -m ddpm_tf.train`, sys.argv begins with "-m". A command line reads its
# flags before it imports the framework, which takes four seconds, and then does so itself.
if sys.argv[:1] != ["-m"]:
    import_quietly()
