"""The faults of several workers: in the mean over their shards, in the steps, and in the parts of a batch."""

from ddpm_parity.mutation import fault

_TORCH, _TF = "torch.workers", "tf.workers"
_TORCH_STEP, _TF_STEP = "torch.learner", "tf.learner"
# What both trees write alike.
_COUNT = "count = len(parts) * workers.place.count"
_OWN_FIRST = 'while len(parts) % 2 == 0 or (len(parts) > 1 and reduce == "fast"):'
_PAIRS = "zip(parts[0::2], parts[1::2], strict=False)"
_FAR_APART = "zip(parts[: len(parts) // 2], parts[len(parts) // 2 :], strict=False)"
_MEAN = "self.workers, settings.reduce)\n"
_CLIPPED = (
    "Workers(), settings.reduce)\n"
    "        own, _ = clip_by_global_norm(means[:number], settings.max_grad_norm)\n"
    "        loss, *means = mean([[loss, *own, *means[number:]]], self.workers, settings.reduce)\n"
)
_PARTS = "            parts = [self.gradients(*shard) for shard in shards]\n"
_CHANGE = "            loss, norm = self.change(mean(parts, self.workers, settings.reduce), *numbers)\n"
_CLIPPED_IN_TF = (
    "            loss, *own = mean(parts, Workers(), settings.reduce)\n"
    "            clipped, _ = clip_by_global_norm(own[: len(self.parameters)], settings.max_grad_norm)\n"
    "            parts = [[loss, *clipped, *own[len(self.parameters) :]]]\n"
)

# fmt: off
MUTATIONS = [
    # --- the mean
    fault("the sum over the shards, not their mean", _TORCH, "workers", "float(count)", "1.0"),
    fault("the sum over the shards, not their mean", _TF, "workers", "tensor / count", "tensor"),
    fault("the mean over the shards is divided twice", _TORCH, "workers", "float(count)", "float(count) ** 2"),
    fault("the mean over the shards is divided twice", _TF, "workers", "tensor / count", "tensor / count**2"),
    fault("each worker has a mean of its own, and these are summed, as by tf.distribute", _TORCH, "workers",
          _COUNT, "count = len(parts)"),
    fault("each worker has a mean of its own, and these are summed, as by tf.distribute", _TF, "workers",
          _COUNT, "count = len(parts)"),
    fault("workers give each other nothing, as by DDP without .grad", _TORCH, "workers",
          _COUNT, "count = len(parts)", "if workers.place.count > 1:", "if False:"),
    fault("workers give each other nothing, as by DDP without .grad", _TF, "workers",
          _COUNT, "count = len(parts)", "if workers.place.count > 1:", "if False:"),
    fault("the fast mean is divided by the workers, not by the shards", _TORCH, "workers",
          "float(count)", 'float(workers.place.count if reduce == "fast" else count)'),
    fault("the fast mean is divided by the workers, not by the shards", _TF, "workers",
          "tensor / count", 'tensor / (workers.place.count if reduce == "fast" else count)'),
    # --- the order of its sums, which only the last digits show
    fault("shards are added that are far apart", _TORCH, "workers", _PAIRS, _FAR_APART),
    fault("shards are added that are far apart", _TF, "workers", _PAIRS, _FAR_APART),
    fault("a worker adds all its own shards first", _TORCH, "workers", _OWN_FIRST, "while len(parts) > 1:"),
    fault("a worker adds all its own shards first", _TF, "workers", _OWN_FIRST, "while len(parts) > 1:"),
    fault("what the workers give is added one after the other", _TF, "workers",
          "while len(parts) > 1:\n        parts = pairs_added(parts)\n",
          "while len(parts) > 1:\n        parts = [*pairs_added(parts[:2]), *parts[2:]]\n"),
    fault("what the workers give is in the reverse order of their ranks", _TORCH, "workers",
          "workers.gather_rows(flat)", "workers.gather_rows(flat).flip(0)"),
    fault("what the workers give is in the reverse order of their ranks", _TF, "workers",
          "workers.gather_rows(flat)", "workers.gather_rows(flat)[::-1]"),
    fault("an odd shard at the end is lost", _TORCH, "workers",
          "return [*added, *parts[2 * len(added) :]]", "return added"),
    # --- a step
    fault("each shard's gradient is clipped", _TORCH_STEP, "workers",
          "gradients = torch.autograd.grad(loss, self.parameters)",
          "gradients = torch.autograd.grad(loss, self.parameters)\n"
          "        gradients, _ = clip_by_global_norm(gradients, self.config.training.max_grad_norm)"),
    fault("each shard's gradient is clipped", _TF_STEP, "workers",
          "*tape.gradient(loss, self.parameters),",
          "*clip_by_global_norm(tape.gradient(loss, self.parameters), self.config.training.max_grad_norm)[0],"),
    fault("each worker clips its gradient before the mean, as Keras' optimizers do", _TORCH_STEP, "workers",
          _MEAN, _CLIPPED),
    fault("each worker clips its gradient before the mean, as Keras' optimizers do", _TF_STEP, "workers",
          _PARTS, _PARTS + _CLIPPED_IN_TF),
    fault("only worker 0 averages its weights", _TORCH_STEP, "workers",
          "update_ema(self.averages,", "self.workers.place.chief and update_ema(self.averages,"),
    fault("only worker 0 averages its weights", _TF_STEP, "workers",
          "update_ema(self.averages,", "self.workers.place.chief and update_ema(self.averages,"),
    fault("only worker 0 makes Adam's step", _TORCH_STEP, "workers",
          "self.adam.update(", "self.workers.place.chief and self.adam.update("),
    fault("only worker 0 makes Adam's step", _TF_STEP, "workers",
          "self.adam.update(", "self.workers.place.chief and self.adam.update("),
    fault("the loss that is reported is the first shard's", _TORCH_STEP, "workers",
          "loss, *means = mean([self._gradients(shard) for shard in shards], self.workers, settings.reduce)",
          "parts = [self._gradients(shard) for shard in shards]\n"
          "        _, *means = mean(parts, self.workers, settings.reduce)\n"
          "        loss = parts[0][0]"),
    fault("the loss that is reported is the first shard's", _TF_STEP, "workers",
          _CHANGE, _CHANGE + "            loss = parts[0][0]\n"),
    fault("BatchNorm remembers the moments of the last shard", _TORCH_STEP, "workers",
          "remember_moments(self.model, moments)", "remember_moments(self.model)"),
    fault("BatchNorm remembers the moments of the last shard", _TF_STEP, "workers",
          "mean(parts, self.workers, settings.reduce), *numbers)",
          "[*mean(parts, self.workers, settings.reduce)[: 1 + len(self.parameters)],"
          " *parts[-1][1 + len(self.parameters) :]], *numbers)"),
    fault("BatchNorm remembers moments once a shard, not once a step", _TORCH_STEP, "workers",
          "        remember_moments(self.model, moments)\n", "",
          "        return [loss.detach(), *gradients,",
          "        remember_moments(self.model)\n        return [loss.detach(), *gradients,"),
    fault("BatchNorm remembers moments once a shard, not once a step", _TF_STEP, "workers",
          "            remember_moments(self.model, moments)\n", "",
          "        return [loss, *tape",
          "        remember_moments(self.model)\n        return [loss, *tape"),
    # --- the parts of a batch, in what both trees share
    fault("all workers draw the same images", "shared.batches", "workers",
          "slice(rank * size // count, (rank + 1) * size // count)", "slice(0, size // count)"),
    fault("each worker has a seed of its own for its images", "shared.batches", "workers",
          "streams.batch_indices(config.seed,", "streams.batch_indices(config.seed + rank,"),
    fault("each worker has a seed of its own for its noise", "shared.batches", "workers",
          "streams.normal(config.seed, streams.TRAIN_EPS,", "streams.normal(config.seed + rank, streams.TRAIN_EPS,"),
    fault("noise goes by the place in a worker's part, not in the batch", "shared.batches", "workers",
          "pixels.shape, rows.start)", "pixels.shape, 0)"),
    fault("flips go by the place in a worker's part", "shared.batches", "workers",
          "streams.flips(config.seed, step, size)[rows]", "streams.flips(config.seed, step, size)[: len(pixels)]"),
    fault("labels are dropped by the place in a worker's part", "shared.batches", "workers",
          "config.training.label_drop)[rows]", "config.training.label_drop)[: len(pixels)]"),
    fault("each worker's part is stratified alone", "shared.batches", "workers",
          "t = streams.stratified(t.astype(np.float64))", "t[rows] = streams.stratified(t[rows].astype(np.float64))"),
    fault("a shard is every so many-th image, not a block of them", "shared.batches", "workers",
          "slice(i * size, (i + 1) * size)", "slice(i, None, count)"),
    fault("workers take their parts by their place on their machine", "shared.workers", "workers",
          "return self.rank, self.count", "return self.local_rank, self.local_count"),
    fault("workers take their parts from the end", "shared.workers", "workers",
          "return self.rank, self.count", "return self.count - 1 - self.rank, self.count"),
]
# fmt: on
