"""The faults of the conditional score model's network."""

from ddpm_parity.mutation import fault

_TORCH, _TF = "torch.networks.transformer_unet", "tf.networks.transformer_unet"
_TORCH_LAYERS, _TF_LAYERS = "torch.networks.layers", "tf.networks.layers"

# fmt: off
MUTATIONS = [
    # --- the time
    fault("the Fourier features' angles lack 2 pi", _TORCH, "transformer",
          "2.0 * math.pi * t.double()", "t.double()"),
    fault("the Fourier features' angles are pi w t", _TF, "transformer", "2.0 * math.pi * tf", "math.pi * tf"),
    fault("the time is rounded to float32", _TORCH, "transformer",
          "t.double()[:, None]", "t.float().double()[:, None]"),
    fault("the angles are rounded to float32", _TF, "transformer",
          "[tf.sin(angles), tf.cos(angles)]",
          "[tf.sin(tf.cast(tf.cast(angles, tf.float32), tf.float64)), tf.cos(angles)]"),
    fault("the Fourier features' cosines come before their sines", _TF, "transformer",
          "[tf.sin(angles), tf.cos(angles)]", "[tf.cos(angles), tf.sin(angles)]"),
    fault("a graph takes the time for a whole number", "tf.model", "transformer",
          "t = tf.cast(t, tf.float64)", "t = tf.cast(tf.cast(t, tf.int32), tf.float64)"),
    fault("frequencies of another seed", "tf.model", "transformer",
          "fourier_frequencies(seed, name", "fourier_frequencies(seed + 1, name"),
    fault("the scale is taken for the frequencies' variance", "shared.parameters", "transformer",
          "scale * drawn", "math.sqrt(scale) * drawn"),
    fault("frequencies are uniform, not normal", "shared.parameters", "transformer",
          "name).standard_normal(count)", "name).uniform(-1.0, 1.0, count)"),
    fault("frequencies differ with the precision", "shared.parameters", "transformer",
          ".astype(np.float32).astype(np.float64)", ""),
    fault("the averaged network has frequencies of its own", "torch.learner", "transformer",
          "self.averaged_buffers[name].copy_(buffer)", "self.averaged_buffers[name].copy_(0.9 * buffer)"),
    fault("the averaged network has no frequencies", "tf.learner", "transformer",
          "self.averaged_buffers[name].assign(buffer)", "self.averaged_buffers[name].assign(0.0 * buffer)"),
    fault("the time enters after the normalisation", _TORCH, "transformer",
          "self.norm(x + self.time(emb)[:, :, None, None])", "self.norm(x) + self.time(emb)[:, :, None, None]"),
    fault("the embedding does not go through GELU", _TF, "transformer",
          "emb = gelu(self.time(tf.cast(self.fourier(t), x_t.dtype)))",
          "emb = self.time(tf.cast(self.fourier(t), x_t.dtype))"),
    # --- transposed convolutions
    fault("a transposed convolution is cut as by 'same', one pixel off where the size doubles", _TF_LAYERS, "transformer",
          "return self.conv(x)[:, 1 : 1 + rows, 1 : 1 + columns, :]",
          "first = 1 - self.output_padding\n"
          "        return self.conv(x)[:, first : first + rows, first : first + columns, :]"),
    fault("a transposed convolution is cut from its start", _TF_LAYERS, "transformer",
          "[:, 1 : 1 + rows, 1 : 1 + columns, :]", "[:, :rows, :columns, :]"),
    fault("a transposed convolution is cut at its end", _TF_LAYERS, "transformer",
          "[:, 1 : 1 + rows, 1 : 1 + columns, :]", "[:, -rows:, -columns:, :]"),
    fault("a transposed convolution's rows are one pixel off", _TORCH_LAYERS, "transformer",
          'output_padding]."""\n        return self.conv(x)\n',
          'output_padding]."""\n        return torch.roll(self.conv(x), 1, dims=2)\n'),
    fault("a transposed convolution's kernel is turned round", _TORCH_LAYERS, "transformer",
          'output_padding]."""\n        return self.conv(x)\n',
          'output_padding]."""\n'
          "        kernel = self.conv.weight.flip(2, 3)\n"
          "        more = self.conv.output_padding\n"
          "        return torch.conv_transpose2d(x, kernel, self.conv.bias, 2, 1, more)\n"),
    fault("a transposed convolution's height is its width", "tf.model", "transformer",
          'layers.Conv2DTranspose: {"kernel": ("weight", (3, 2, 0, 1))',
          'layers.Conv2DTranspose: {"kernel": ("weight", (3, 2, 1, 0))'),
    # --- transformers
    fault("LayerNorm with Keras' epsilon", _TF_LAYERS, "transformer", "LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-3"),
    fault("LayerNorm with DiT's epsilon", _TORCH_LAYERS, "transformer", "LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-6"),
    fault("GELU is approximated by tanh", _TORCH_LAYERS, "transformer",
          'approximate="none"', 'approximate="tanh"'),
    fault("GELU with the square root of two in float32", _TF_LAYERS, "transformer",
          "return x * _normal_cdf(x), lambda", "return tf.nn.gelu(x), lambda"),
    fault("GELU's gradient lacks the density", _TF_LAYERS, "transformer",
          "(_normal_cdf(z) + z * density)", "_normal_cdf(z)"),
    fault("softmax over the queries, not the context", _TORCH, "transformer", "dim=-1)  # [B, N, M]", "dim=-2)"),
    fault("softmax over the queries, not the context", _TF, "transformer", "axis=-1)  # [B, N, M]", "axis=-2)"),
    fault("attention is not scaled by 1 / sqrt(C)", _TF, "transformer", " / math.sqrt(q.shape[2])", ""),
    fault("attention is scaled by the tokens, not the channels", _TORCH, "transformer", "q.shape[2]", "q.shape[1]"),
    fault("cross-attention looks at the image itself", _TORCH, "transformer",
          "tokens = tokens + self.cross_attention(self.norm_2(tokens), context)",
          "unused = 0.0 * self.cross_attention(self.norm_2(tokens), context)\n"
          "        tokens = tokens + unused + self.self_attention(self.norm_2(tokens), self.norm_2(tokens))"),
    fault("self-attention looks at what is not normalised", _TF, "transformer",
          "self.self_attention(normal, normal)", "self.self_attention(normal, tokens)"),
    fault("feed-forward without its residual connection", _TF, "transformer",
          "tokens = tokens + self.feed_2(", "tokens = self.feed_2("),
    fault("cross-attention without its residual connection", _TORCH, "transformer",
          "tokens = tokens + self.cross_attention(", "tokens = self.cross_attention("),
    fault("no residual connection around the transformer", _TORCH, "transformer",
          "return x + tokens.transpose", "return tokens.transpose"),
    fault("feed-forward is not normalised", _TORCH, "transformer",
          "self.feed_1(self.norm_3(tokens))", "self.feed_1(tokens + 0.0 * self.norm_3(tokens))"),
    fault("tokens are read column by column", _TF, "transformer",
          "tokens = tf.reshape(x, [-1, height * width, channels])",
          "tokens = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, height * width, channels])"),
    # --- the whole
    fault("the second token is the class again", _TF, "transformer",
          "tokens.append(self.label(null))", "tokens.append(tokens[0])"),
    fault("one token for two", _TORCH, "transformer", "self.config.context_tokens == 2", "False"),
    fault("no label is class 0 in a transformer", _TORCH, "transformer",
          "torch.full(t.shape, self.config.num_classes,", "torch.full(t.shape, 0,"),
    fault("what comes up and what waits change places", _TORCH, "transformer",
          "[step(h, emb, context), skips.pop()]", "[skips.pop(), step(h, emb, context)]"),
    fault("what comes up and what waits change places", _TF, "transformer",
          "[step(h, emb, context), skips.pop()]", "[skips.pop(), step(h, emb, context)]"),
    fault("a transformer at the deepest level alone", _TF, "transformer",
          "level >= len(widths) - 2", "level >= len(widths) - 1"),
]
# fmt: on
