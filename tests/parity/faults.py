"""The faults that the suite must catch: edits of one tree's source, each of which leaves a model that seems to work.

They are of the kinds that public projects have carried unseen, or that a framework's default invites.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A fault: what it is, where, and the edits (old text, new text) of that module that plant it."""

    name: str
    tree: str  # "torch" or "tf"
    module: str
    edits: tuple[tuple[str, str], ...]
    subject: str  # of the suite: asked first

    def __str__(self) -> str:
        return f"{self.tree}: {self.name}"


def _fault(name: str, place: str, subject: str, *edits: str) -> Mutation:
    tree, module = place.split(".")
    return Mutation(name, tree, module, tuple(zip(edits[::2], edits[1::2], strict=True)), subject)


# fmt: off
MUTATIONS = [
    # --- the schedule
    _fault("alphas_cumprod_prev begins with alphas_cumprod[0], not with 1", "torch.engine", "schedule",
           "torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])",
           "torch.cat([alphas_cumprod[:1], alphas_cumprod[:-1]])"),
    _fault("alphas_cumprod_prev is not shifted", "tf.engine", "schedule",
           "tf.concat([tf.ones(1, tf.float64), alphas_cumprod[:-1]], axis=0)", "alphas_cumprod * 1.0"),
    _fault("cosine betas for linear ones", "tf.engine", "schedule",
           "betas = tf.linspace(tf.constant(config.beta_start, tf.float64), config.beta_end, config.timesteps)",
           "f = tf.cos(tf.linspace(tf.constant(0.0125, tf.float64), 1.57, config.timesteps + 1)) ** 2\n"
           "    betas = tf.minimum(1.0 - f[1:] / f[:-1], 0.999)"),
    _fault("betas linear in their root, as in latent diffusion", "torch.engine", "schedule",
           "torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)",
           "torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.timesteps, dtype=torch.float64) ** 2"),
    _fault("the schedule is computed in float32", "torch.engine", "schedule",
           "config.timesteps, dtype=torch.float64)", "config.timesteps, dtype=torch.float32).double()"),
    _fault("the larger variance, beta itself, for the posterior's", "torch.engine", "schedule",
           "posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)",
           "posterior_variance = betas * 1.0"),
    _fault("the log-variance at t = 0 is that of t = 2", "tf.engine", "schedule",
           "posterior_variance[1:2], posterior_variance[1:]", "posterior_variance[2:3], posterior_variance[1:]"),
    # --- the equations
    _fault("t is one too small", "torch.engine", "engine", "return values[t][:", "return values[t - 1][:"),
    _fault("t is one too large", "tf.engine", "engine",
           "tf.gather(values, t)", "tf.gather(values, tf.minimum(t + 1, len(values) - 1))"),
    _fault("q_sample multiplies eps by its variance, not its deviation", "torch.engine", "engine",
           "* x_0 + at(schedule.sqrt_one_minus_alphas_cumprod, t) * eps\n",
           "* x_0 + at(schedule.sqrt_one_minus_alphas_cumprod, t) ** 2 * eps\n"),
    _fault("the posterior's mean takes x_0 for x_t", "tf.engine", "engine",
           "at(schedule.posterior_mean_coef_x_t, t) * x_t", "at(schedule.posterior_mean_coef_x_t, t) * x_0"),
    _fault("noise is added at t = 0", "torch.engine", "engine",
           "torch.where((t > 0)[:, None, None, None], mean + noise, mean)", "mean + noise"),
    _fault("noise is added at t = 0", "tf.engine", "engine", "tf.where((t > 0)", "tf.where((t >= 0)"),
    _fault("no noise at t = 1 either", "tf.engine", "engine", "tf.where((t > 0)", "tf.where((t > 1)"),
    _fault("the noise is scaled by the variance, not the deviation", "tf.engine", "engine",
           "tf.exp(0.5 * log_variance)", "tf.exp(log_variance)"),
    _fault("x_0 is not clipped", "torch.engine", "engine", "if clip_x_0:", "if clip_x_0 is None:"),
    _fault("x_0 is clipped to [0, 1]", "tf.engine", "engine", "x_0_pred, -1.0, 1.0", "x_0_pred, 0.0, 1.0"),
    _fault("the chain stops at t = 1", "torch.engine", "engine",
           "reversed(range(len(schedule.betas)))", "reversed(range(1, len(schedule.betas)))"),
    _fault("the loss is a mean over the last axis only", "tf.engine", "engine",
           "tf.reduce_mean((eps - eps_pred) ** 2)", "tf.reduce_mean((eps - eps_pred) ** 2, axis=-1)"),
    _fault("the loss is a sum over each image", "torch.engine", "engine",
           "torch.mean((eps - eps_pred) ** 2)", "torch.mean(((eps - eps_pred) ** 2).flatten(1).sum(1))"),
    _fault("the loss is the absolute error", "torch.engine", "engine",
           "torch.mean((eps - eps_pred) ** 2)", "torch.mean((eps - eps_pred).abs())"),
    # --- the network
    _fault("the embedding's cosines come before its sines", "torch.model", "embedding",
           "torch.cat([torch.sin(angles), torch.cos(angles)]", "torch.cat([torch.cos(angles), torch.sin(angles)]"),
    _fault("the embedding's exponents run to half, not to half - 1", "tf.model", "embedding",
           "tf.range(half, dtype=tf.float64) / (half - 1)", "tf.range(half, dtype=tf.float64) / half"),
    _fault("GroupNorm with Keras' epsilon", "tf.model", "layers", "GROUP_NORM_EPS = 1e-5", "GROUP_NORM_EPS = 1e-3"),
    _fault("GroupNorm with another epsilon", "torch.model", "layers", "GROUP_NORM_EPS = 1e-5", "GROUP_NORM_EPS = 1e-6"),
    _fault("GroupNorm with the moments of each channel alone", "tf.model", "layers",
           "variance = group_means(channel_means(tf.math.squared_difference(x, spread(mean))))",
           "variance = channel_means(tf.math.squared_difference(x, spread(mean)))"),
    _fault("GroupNorm's gradient forgets what x does to the mean", "tf.model", "layers",
           "offset = -rstd * group_means(gamma * d_beta) - mean * slope", "offset = -mean * slope"),
    _fault("SiLU's gradient is its logistic factor", "tf.model", "layers", "dz * s * (1.0 + z * (1.0 - s))", "dz * s"),
    _fault("GroupNorm with the unbiased variance", "torch.model", "layers",
           "        h = self.conv_1(F.silu(self.norm_1(x)))\n",
           "        g = x.reshape(len(x), self.norm_1.num_groups, -1)\n"
           "        g = (g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True) + GROUP_NORM_EPS).sqrt()\n"
           "        g = g.reshape(x.shape) * self.norm_1.weight[:, None, None] + self.norm_1.bias[:, None, None]\n"
           "        h = self.conv_1(F.silu(g))\n"),
    _fault("the strided convolution pads at the bottom and right only", "tf.model", "layers",
           "layers.ZeroPadding2D(1, dtype=dtype)", "layers.ZeroPadding2D(((0, 1), (0, 1)), dtype=dtype)"),
    _fault("kernels are transposed as a whole, height for width", "tf.model", "layers",
           "value.transpose(2, 3, 1, 0)", "value.transpose(3, 2, 1, 0)",
           "value.transpose(3, 2, 0, 1)", "value.transpose(3, 2, 1, 0)"),
    _fault("softmax over the queries, not the keys", "torch.model", "layers",
           "/ math.sqrt(channels), dim=-1)", "/ math.sqrt(channels), dim=-2)"),
    _fault("softmax over the queries, not the keys", "tf.model", "layers",
           "/ math.sqrt(channels), axis=-1)", "/ math.sqrt(channels), axis=-2)"),
    _fault("attention is not scaled by 1 / sqrt(C)", "torch.model", "layers", " / math.sqrt(channels), dim", ", dim"),
    _fault("attention has no residual connection", "tf.model", "layers",
           "return x + tf.reshape(tokens", "return tf.reshape(tokens"),
    _fault("GELU for SiLU", "torch.model", "layers", "F.silu(self.norm_1(x))", "F.gelu(self.norm_1(x))"),
    _fault("the time enters after the second norm", "tf.model", "layers",
           "        h = h + self.time(emb)[:, None, None, :]  # [B, C_out] over all pixels\n", "",
           "silu(self.norm_2(h))", "silu(self.norm_2(h) + self.time(emb)[:, None, None, :])"),
    _fault("upsampling interpolates", "torch.model", "layers", 'mode="nearest"', 'mode="bilinear"'),
    _fault("odd sizes are cut at the other edge, one pixel off", "torch.model", "layers",
           "x[:, :, : self.size, : self.size]", "x[:, :, -self.size :, -self.size :]"),
    _fault("input and skip connection change places", "torch.model", "network",
           "torch.cat([h, skips.pop()], dim=1)", "torch.cat([skips.pop(), h], dim=1)"),
    _fault("input and skip connection change places", "tf.model", "network",
           "tf.concat([h, skips.pop()], axis=-1)", "tf.concat([skips.pop(), h], axis=-1)"),
    _fault("no SiLU after the time's second layer", "torch.model", "network",
           "F.silu(self.time_2(F.silu(self.time_1(emb))))", "self.time_2(F.silu(self.time_1(emb)))"),
    # --- data and initial values
    _fault("pixels are scaled to [0, 1]", "torch.data", "data", "/ 127.5 - 1.0", "/ 255.0"),
    _fault("samples are truncated to pixels, not rounded", "tf.data", "data",
           "tf.round((x + 1.0) * 127.5)", "(x + 1.0) * 127.5"),
    _fault("images are reshaped to channels first, not transposed", "torch.data", "data",
           "array.transpose(0, 3, 1, 2)", "array.reshape(len(array), array.shape[3], *array.shape[1:3])"),
    _fault("initial weights of another seed", "tf.model", "parameters",
           "initial_value(seed, name", "initial_value(seed + 1, name"),
    # --- the optimizer
    _fault("Adam with Keras' epsilon", "tf.optimizer", "optimizer", "epsilon: float = 1e-8", "epsilon: float = 1e-7"),
    _fault("Adam's epsilon is added before the bias correction", "tf.optimizer", "optimizer",
           "(tf.sqrt(v / c_2) + self.epsilon)", "((tf.sqrt(v) + self.epsilon) / tf.sqrt(c_2))"),
    _fault("Adam counts from 2", "torch.optimizer", "optimizer", "self.beta_2**k", "self.beta_2 ** (k + 1)"),
    _fault("Adam without bias correction of the first moment", "tf.optimizer", "optimizer", "(m / c_1)", "m"),
    _fault("each tensor is clipped alone", "tf.optimizer", "optimizer",
           "return [g * scale for g in gradients], norm",
           "return [tf.clip_by_norm(g, max_norm) for g in gradients], norm"),
    _fault("clipping lengthens short gradients", "torch.optimizer", "optimizer",
           "torch.clamp(max_norm / (norm + 1e-6), max=1.0)", "max_norm / (norm + 1e-6)"),
    _fault("the warm-up begins at 0", "torch.optimizer", "optimizer",
           "min(1.0, (step + 1) / warmup_steps) if", "min(1.0, step / warmup_steps) if"),
    _fault("the average's two weights change places", "torch.optimizer", "optimizer",
           "list(parameters), 1.0 - decay)", "list(parameters), decay)"),
    _fault("the average has no warm-up", "tf.optimizer", "optimizer",
           "return min(decay, (1 + k) / (10 + k))", "return decay"),
    # --- training
    _fault("the average is taken before the step, one step late", "torch.learner", "training",
           "        self.adam.update(clipped, learning_rate, step + 1)\n", "",
           "warmup_ema_decay(step + 1, settings.ema_decay))\n",
           "warmup_ema_decay(step + 1, settings.ema_decay))\n"
           "        self.adam.update(clipped, learning_rate, step + 1)\n"),
    _fault("Adam is given the gradients before clipping", "torch.learner", "training",
           "self.adam.update(clipped,", "self.adam.update(gradients,"),
    _fault("the learning rate lags a step behind", "torch.learner", "training",
           "warmup_learning_rate(step, settings", "warmup_learning_rate(max(step - 1, 0), settings"),
    _fault("the validation loss is that of the weights, not their average", "torch.learner", "training",
           "self.ema_eps_model, x_0, t, eps).item()", "self.eps_model, x_0, t, eps).item()"),
    _fault("a resumed run forgets Adam's moments", "torch.learner", "exchange",
           "                value.copy_(", "                prefix.startswith('adam') or value.copy_("),
    # --- the variational bound
    _fault("the bound is in nats, not bits", "torch.bound", "bound", ".mean(1) / math.log(2.0)", ".mean(1)"),
    _fault("the bound is that of a whole image, not of a dimension", "tf.bound", "bound",
           "tf.reduce_mean(nats, axis=[1, 2, 3])", "tf.reduce_sum(nats, axis=[1, 2, 3])"),
    _fault("each image's bits are the mean of the batch", "torch.bound", "bound",
           "nats.flatten(1).mean(1)", "nats.mean().expand(len(nats))"),
    _fault("the prior is taken at t = 0", "tf.bound", "bound", "alphas_cumprod[-1]", "alphas_cumprod[0]"),
    _fault("the prior's variance counts as 1", "torch.bound", "bound",
           "x_0**2 - alphas_cumprod - torch.log1p(-alphas_cumprod)", "x_0**2"),
    _fault("a bin reaches half as far up as down", "tf.bound", "bound", "(off + HALF_BIN)", "(off + HALF_BIN / 2)"),
    _fault("the bins of black and white are not open", "torch.bound", "bound",
           "    beyond = torch.where(lowest | highest, torch.zeros_like(beyond), beyond)\n", ""),
    _fault("the bins of black and white are open to the inside", "tf.bound", "bound",
           "x_0 < -0.999, x_0 > 0.999", "x_0 > 0.999, x_0 < -0.999"),
    _fault("the normal distribution function is approximated by tanh", "torch.bound", "bound",
           "0.5 * torch.erfc(-math.sqrt(0.5) * z)",
           "0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))"),
    _fault("bins are taken in the upper tail, where 1 - p cancels", "tf.bound", "bound", "-tf.abs(off)", "tf.abs(off)"),
    _fault("probabilities have another floor", "torch.bound", "bound", "FLOOR = 1e-12", "FLOOR = 1e-10"),
    _fault("the decoder's variance is that of t = 0, zero", "tf.bound", "bound",
           "mean_pred, log_variance)", "mean_pred, tf.math.log(tf.gather(schedule.posterior_variance, t))"
           "[:, None, None, None])"),
    _fault("the decoder's variance is beta", "torch.bound", "bound",
           "mean_pred, log_variance)", "mean_pred, torch.log(schedule.betas[t])[:, None, None, None])"),
    _fault("the divergence is divided by beta, not by the posterior's variance", "tf.bound", "bound",
           "* tf.exp(-log_variance)", "/ tf.gather(schedule.betas, t)[:, None, None, None]"),
    _fault("the divergence lacks its factor 1/2", "torch.bound", "bound",
           "0.5 * (mean - mean_pred)", "(mean - mean_pred)"),
    _fault("the bound clips no x_0", "tf.bound", "bound", "if clip_x_0:", "if clip_x_0 is None:"),
    _fault("t = 0 has a divergence, not the decoder", "torch.bound", "bound", "(t > 0)", "(t >= 0)"),
    _fault("t = 1 has the decoder as well", "tf.bound", "bound", "(t > 0)", "(t > 1)"),
    _fault("the bound's schedule is float32", "torch.bound", "bound",
           "config.diffusion, torch.float64", "config.diffusion, torch.float32"),
]
# fmt: on
