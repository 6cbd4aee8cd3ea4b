"""Write the network of random features, shared/src/evaluation/random_features.onnx. Its weights are drawn, not learned.

    python shared/tools/make_random_features.py [--out FILE]

Six 3x3 convolutions, each but the first of stride 2, with a ReLU after each; features are the means over all pixels of
the square root of what each layer makes, 128 numbers in all: fine texture in the first, the whole of a small image in
the last. The root makes faint noise in flat areas count beside strong edges. A filter has mean 0 and the variance of He
et al. 2015 (arXiv:1502.01852), so that it sees edges, not brightness, and the layers neither fade nor explode. There is
no training, hence nothing that suits one data set more than another. The SHA-256 it prints stands in
ddpm_shared.evaluation.extractor. The same version of onnx writes the same bytes every time.

That a network of random weights sees enough to compare sets of images by: Naeem et al. 2020 (arXiv:2002.09797).
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import tyro
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ddpm_shared import command_line, files, streams
from ddpm_shared.evaluation.extractor import DIMENSIONS, RANDOM

SEED, STREAM = 0, "evaluation/random features"  # step = layer
CHANNELS = 32  # of every layer
TAKEN = (16, 16, 24, 24, 24, 24)  # channels of each layer whose means are features


def filters(layer: int) -> NDArray[np.float32]:
    """The weights of a layer, [32, C, 3, 3], C being 3 in the first and 32 in the others."""
    inputs = 3 if layer == 0 else CHANNELS
    drawn = streams.generator(SEED, STREAM, layer).standard_normal((CHANNELS, inputs, 3, 3))
    drawn -= drawn.mean(axis=(1, 2, 3), keepdims=True)
    return (drawn * np.sqrt(2 / (9 * inputs))).astype(np.float32)


def network() -> onnx.ModelProto:
    """Images [N, H, W, 3] uint8 -> features [N, 128], of any H and W."""
    assert sum(TAKEN) == DIMENSIONS
    made = helper.make_node
    nodes = [
        made("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        made("Div", ["floats", "half"], ["positive"]),
        made("Sub", ["positive", "one"], ["scaled"]),  # [-1, 1]
        made("Transpose", ["scaled"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    constants = {
        "half": np.float32(127.5),
        "one": np.float32(1),
        "zero": np.array([0], np.int64),
        "channels": np.array([1], np.int64),
    }
    for layer, taken in enumerate(TAKEN):
        stride, out = 1 if layer == 0 else 2, f"x{layer + 1}"
        constants |= {f"filters{layer}": filters(layer), f"taken{layer}": np.array([taken], np.int64)}
        nodes += [
            made(
                "Conv",
                [f"x{layer}", f"filters{layer}"],
                [f"y{layer}"],
                kernel_shape=[3, 3],
                pads=[1] * 4,
                strides=[stride] * 2,
            ),
            made("Relu", [f"y{layer}"], [out]),
            made("Slice", [out, "zero", f"taken{layer}", "channels"], [f"some{layer}"]),
            made("Sqrt", [f"some{layer}"], [f"root{layer}"]),
            made("ReduceMean", [f"root{layer}"], [f"mean{layer}"], axes=[2, 3], keepdims=0),
        ]
    nodes.append(made("Concat", [f"mean{layer}" for layer in range(len(TAKEN))], ["features"], axis=1))
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    result = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIMENSIONS])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "random features", [given], [result], weights)
    # Versions that any onnxruntime of the last years runs.
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="")


def main(out: Path = RANDOM) -> int:
    """Write the file, and print its size and its hash.

    Args:
        out: the file to write.
    """
    data = network().SerializeToString(deterministic=True)
    files.write_atomically(out, data)
    print(f"{out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: tyro.cli(main))
