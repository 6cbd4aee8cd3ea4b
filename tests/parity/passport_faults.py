"""The faults of the passport: a trace that looks like one, and is wrong."""

from ddpm_parity.mutation import fault

# fmt: off
MUTATIONS = [
    fault("the trace lacks the layers beside a residual block", "torch.trace", "passport",
          "if name and not isinstance(layer, nn.ModuleList)",
          'if name and not isinstance(layer, nn.ModuleList) and not name.endswith("skip")'),
    fault("the trace has the padding as a layer's size", "tf.trace", "passport", "side - kernel + 1 for", "side for"),
    fault("the trace takes height for width", "tf.trace", "passport",
          "(shape[2], shape[0], shape[1])", "(shape[2], shape[1], shape[0])"),
    fault("the trace takes height for width", "torch.trace", "passport",
          "return tuple(x.shape[1:])", "return tuple(x.shape[1:2]) + tuple(x.shape[2:])[::-1]"),
    fault("multiply-adds without the kernel", "tf.trace", "passport",
          "return math.prod(layer.kernel.shape) * math.prod(output.shape[1:3])",
          "return math.prod(layer.kernel.shape[2:]) * math.prod(output.shape[1:3])"),
    fault("multiply-adds of a transposed convolution at its output", "torch.trace", "passport",
          "return layer.weight.numel() * inputs[0].shape[2:].numel()",
          "return layer.weight.numel() * output.shape[2:].numel()"),
    fault("multiply-adds of a linear map for one token", "torch.trace", "passport",
          " * output.shape[1:-1].numel()", ""),
    fault("attention has one product", "tf.trace", "passport", "return 2 * queries * keys", "return queries * keys"),
    fault("attention looks at its own tokens, not at the context", "torch.trace", "passport",
          "(inputs[0], inputs[-1])", "(inputs[0], inputs[0])"),
    fault("parameters are counted at every call", "torch.trace", "passport",
          "_parameters(call.layer) if call is first[call.name] else 0", "_parameters(call.layer)"),
    fault("parameters are counted in each layer around them", "torch.trace", "passport",
          "layer.parameters(recurse=False)", "layer.parameters()"),
    fault("running averages are counted as parameters", "tf.trace", "passport",
          "for variable in layer.trainable_variables", "for variable in layer.variables"),
    fault("a transposed convolution's output is not cut", "tf.trace", "passport",
          "return call.around.output if type(call.layer) is layers.Conv2DTranspose and call.around else call.output",
          "return call.output"),
    fault("layers are listed as they end", "tf.trace", "passport",
          "            running.pop().output = output\n",
          "            ended = running.pop()\n"
          "            ended.output = output\n"
          "            calls.remove(ended)\n"
          "            calls.append(ended)\n"),
    fault("the receptive field's rows are its columns", "tf.trace", "passport",
          "tf.where(tf.reduce_any(seen, axis=axis))[:, 0] for axis in (1, 0)",
          "tf.where(tf.reduce_any(seen, axis=axis))[:, 0] for axis in (0, 1)"),
    fault("the receptive field leaves out what counts little", "torch.trace", "passport",
          "gradient.abs().amax(dim=(0, 1)) > 0", "gradient.abs().amax(dim=(0, 1)) > 0.2 * gradient.abs().max()"),
]
# fmt: on
