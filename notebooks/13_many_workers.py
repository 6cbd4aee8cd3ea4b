# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 13 · Many workers, one result
#
# **Afterwards you can** say what several processes do in one step of training, why they usually compute something else
# than one process does, and how to add so that they do not: 1, 2 or 4 workers, and every bit the same. You can also
# say what is sent between them, and from where on it pays.
#
# **Time:** 60 minutes, a few of them waiting. **You need:** [04, training](04_training.ipynb);
# [06, two frameworks](06_two_frameworks.ipynb) helps. One machine with two cores is enough.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses
import functools
import hashlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import workers as check
from ddpm_course.parts import gradients
from ddpm_shared import batches, datasets, files
from ddpm_shared.config import Config, TrainingConfig, size, with_preset
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.records import checkpoint
from ddpm_shared.records.folder import latest_checkpoint
from ddpm_shared.records.history import read_history

duet = begin(FRAMEWORK)

# %% [markdown]
# ## Three numbers
#
# A **worker** is a process that trains together with others. It may have a core of this machine, a GPU, or a machine of
# its own. Each takes a part of the batch and computes the gradient of its part. The gradient of the batch is the mean
# of all, so somebody has to add them. Adding is easy. Or is it?
#
# > **Predict before you run.** In float32, $a = 100{,}000{,}000$, $b = -100{,}000{,}000$ and $c = 1$. What are
# > $(a + b) + c$ and $a + (b + c)$? And is $a + b$ always $b + a$?

# %%
for a, b, c in ((1e8, -1e8, 1.0), (0.3, 0.6, 0.7)):
    a, b, c = (np.float32(x) for x in (a, b, c))
    print(f"({a:g} + {b:g}) + {c:g} = {(a + b) + c:.8g},  {a:g} + ({b:g} + {c:g}) = {a + (b + c):.8g}")

# %% [markdown]
# *What to see:* float32 has 24 binary digits. Near $10^8$ its neighbours are 8 apart, so $b + c$ is rounded to $b$, and
# the 1 is lost. The second line is an everyday case: the two results are neighbours in float32.
#
# So the **order** of a sum decides how it is rounded. Exchanging two numbers does not: $a + b$ and $b + a$ are the same
# numbers, rounded once. In the words of algebra: the addition of a computer is commutative, and not associative.
#
# ## Eight gradients
#
# Now real ones. The learner below trains `tiny` for 20 steps of 48 images. Then we take the next 96 images, cut them
# into eight **shards** of 12, and compute the gradient of each. (Its batches are cut into four shards, for reasons that
# come soon. `threads=1`: how many threads share a sum is a part of its order, too.)

# %%
STEPS, BATCH, SHARDS = 20, 48, 4
settings = TrainingConfig(batch_size=BATCH, max_steps=STEPS, warmup_steps=5, shards=SHARDS)
config = dataclasses.replace(with_preset(Config(device="cpu", threads=1), "tiny"), training=settings)
train, _ = datasets.load("fashion-mnist-10k")

single = duet.learner.Learner(config, STEPS)
for step in range(STEPS):
    single.train_step(batches.training_batch(train, config, step), step)

larger = dataclasses.replace(config, training=dataclasses.replace(settings, batch_size=96))
of_shard = gradients(duet, single)
eight = [of_shard(shard)[1:] for shard in batches.training_batch(train, larger, STEPS).shards(8)]
vectors = np.stack([np.concatenate([g.numpy().ravel() for g in shard]) for shard in eight])  # [8, P]
print(f"{single.num_parameters:,} weights, and as many numbers in a gradient")

# %% [markdown]
# Three orders: one after the other, the same from the end, and in pairs of neighbours.
#
# > **Predict before you run.** In how many of the numbers will two orders differ: in hardly any, in a tenth, in most?
# > And by how much?

# %%
exact = vectors.astype(np.float64).sum(0)
in_pairs = vectors
while len(in_pairs) > 1:
    in_pairs = in_pairs[0::2] + in_pairs[1::2]
orders = {
    "forwards": functools.reduce(np.add, vectors),
    "backwards": functools.reduce(np.add, vectors[::-1]),
    "in pairs": in_pairs[0],
}
for name, total in orders.items():
    others = np.mean(total != orders["in pairs"])
    off = np.sqrt(np.mean((total - exact) ** 2)) / np.sqrt(np.mean(exact**2))
    print(
        f"{name:>9}: {others:4.0%} of the numbers are others than in pairs; off by {off:.1e} of their size; "
        f"SHA-256 {hashlib.sha256(total.tobytes()).hexdigest()[:12]}"
    )

# %% [markdown]
# *What to see:* about four numbers in ten differ, in a last digit. All three sums are right to seven digits, and none
# is the true one. (In pairs the error is, as a rule, a little smaller: a number goes through three additions there, and
# through up to seven in the others.) Nobody would mind, if it ended here. But each step starts where the last one
# ended, and training carries the difference on ([06](06_two_frameworks.ipynb)). After a thousand steps two runs have
# other weights, and nobody can say any more whether that is rounding or a mistake.
#
# **This is what usually happens with several workers.** Each adds up the gradients of its own images, then a library
# adds the sums of the workers. So the order depends on the number of workers, and with three or more on the library's
# way of sending, too. A run on two GPUs cannot be compared with the same run on four.
#
# ## A tree that does not care who adds
#
# The way out has two parts.
#
# 1. **What is added is fixed.** The batch is cut into V shards, `--shards V`. V is a setting of the run, as the batch
#    size is. It is *not* the number of workers: a worker computes one shard or several.
# 2. **The order is fixed.** The V gradients are added in one binary tree: neighbours first, then the sums of
#    neighbours. An odd one at the end goes up as it is.
#
# A worker has neighbouring shards, so it adds the lower part of the tree alone. Then all workers send each other what
# they have (**all-gather**), and each adds the rest of the tree, for itself. The library carries bytes, and adds
# nothing.
#
# > **Predict before you run.** How many sums must each of 2 workers send with 8 shards? Each of 4 workers? And each of
# > 2 workers with 6 shards?


# %%
def sums_sent(shards, workers):
    """How many sums each worker has when it can add no more pairs of its own."""
    own = shards // workers
    while workers > 1 and own % 2 == 0:
        own //= 2
    return own if workers > 1 else 0


def draw_tree(axes, shards, workers):
    """The tree over the shards. A colour is a worker, a square is sent, grey is added by every worker for itself."""
    own = shards // workers
    row = [(float(shard), f"C{shard // own}") for shard in range(shards)]  # place and colour of each sum
    height, together = 0, False
    for shard, (x, color) in enumerate(row):
        axes.text(x, -0.45, f"$g_{{{shard}}}$", ha="center", color=color)
    while True:
        sent = workers > 1 and not together and own % 2 == 1
        for x, color in row:
            axes.plot(x, height, "s" if sent else "o", color=color, markersize=11 if sent else 6, zorder=3)
        if len(row) == 1:
            break
        together = together or sent
        above = []
        for pair in (row[i : i + 2] for i in range(0, len(row), 2)):
            x = sum(x for x, _ in pair) / len(pair)
            for x_below, color in pair:
                axes.plot([x_below, x], [height, height + 1], color="0.5" if together else color, zorder=2)
            above.append((x, "0.5" if together and len(pair) == 2 else pair[0][1]))
        row, own, height = above, own // 2, height + 1
    axes.set(xticks=[], yticks=[], ylim=(-0.8, height + 0.4), xlim=(-0.7, shards - 0.3))
    axes.set_title(f"{shards} shards, {workers} worker{'s' * (workers > 1)}", fontsize=11)
    axes.grid(False)


figure, places = plt.subplots(2, 2, figsize=(9, 5.2))
for axes, (shards, workers) in zip(places.flat, ((8, 1), (8, 2), (8, 4), (6, 2)), strict=True):
    draw_tree(axes, shards, workers)
    if workers > 1:
        print(f"{shards} shards, {workers} workers: each sends {sums_sent(shards, workers)} of its sums")
figure.suptitle("Circles are added at home, squares are sent, grey is added by every worker alike")
plt.show()

# %% [markdown]
# *What to see:* the three trees of eight shards are **one tree**. The same pairs of numbers are added, whoever adds
# them, so each sum is rounded in the same way. Six shards make another tree. With two workers, none can add its three
# shards to one sum: in the tree $g_2$ is added to $g_3$, which is elsewhere. So each sends three. It costs least if the
# shards of a worker are 1, 2, 4 or another power of two.
#
# ## What a worker does in a step
#
# | | what | needs the others? |
# |---|---|---|
# | 1 | takes its rows of the batch, with their times and noise | no: all follow from the seed, the step, and the place in the *whole* batch |
# | 2 | computes the gradient of each of its shards | no |
# | 3 | adds up its part of the tree | no |
# | 4 | sends its sums, and receives those of the others | **yes** |
# | 5 | adds the rest of the tree, and divides by V | no |
# | 6 | scales the gradient down if it is long; Adam; the average of the weights | no: every worker does the same with the same numbers |
#
# Nobody sends weights. All workers begin with the same, as these follow from the seed, and all make the same steps.
#
# The first line is easy to get wrong. If each worker had a generator of its own with the same seed, all would have the
# same noise. With another seed for each worker, another number of workers would be another experiment. Here noise
# belongs to an image's place in the batch:

# %%
whole = batches.training_batch(train, config, 7)
for count in (2, 4):
    parts = [batches.training_batch(train, config, 7, (rank, count)) for rank in range(count)]
    same = all(np.array_equal(np.concatenate(pieces), of_all) for *pieces, of_all in zip(*parts, whole, strict=True))
    print(f"{count} workers: {len(parts[0].pixels)} images each; together they are the batch of one worker: {same}")

# %% [markdown]
# ## Two workers in one process
#
# Before there are two processes, here are two workers in one: two learners, each with weights of its own. The network
# between them is a list. The numbers are those of the table. (Here the gradient of every shard is put into the list.
# Real workers send less: they add up their own part of the tree first.)
#
# > **Predict before you run.** Will the two learners have equal weights after 20 steps? Will they be those of `single`,
# > which made the same 20 steps alone?


# %%
NOBODY_ELSE = duet.workers.Workers()  # to send to: the list holds the sums of all


def train_together(count):
    """20 steps of so many workers. Returns their learners."""
    learners = [duet.learner.Learner(config, STEPS) for _ in range(count)]
    of_shard = [gradients(duet, learner) for learner in learners]
    for step in range(STEPS):
        sent = []
        for rank in range(count):
            share = batches.training_batch(train, config, step, (rank, count))  # 1.
            sent += [of_shard[rank](shard) for shard in share.shards(SHARDS // count)]  # 2. and 4.
        for learner in learners:
            _, *gradient = duet.workers.mean(sent, NOBODY_ELSE, "exact")  # 3. and 5.
            clipped, _ = duet.optimizer.clip_by_global_norm(gradient, settings.max_grad_norm)  # 6.
            learner.adam.update(clipped, duet.optimizer.scheduled_learning_rate(step, STEPS, settings), step + 1)
            decay = duet.optimizer.warmup_ema_decay(step + 1, settings.ema_decay)
            duet.optimizer.update_ema(learner.averages, learner.parameters, decay)
    return learners


def sha256(tensors):
    """One number for all tensors of a learner or of a checkpoint. Another bit anywhere makes another number of it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


def apart(one, other):
    """How many of the weights differ, and by how much."""
    names = [name for name in one if name.startswith("model/")]
    gap = np.concatenate([np.abs(one[name] - other[name]).ravel() for name in names])
    return f"{np.mean(gap > 0):.0%} of the weights differ, by up to {gap.max():.1e}"


first, second = train_together(2)
for name, learner in (("worker 0", first), ("worker 1", second), ("single", single)):
    print(f"{name:>8}: SHA-256 {sha256(learner.tensors())[:16]}...")
print("worker 0 and worker 1:", apart(first.tensors(), second.tensors()))
print("worker 0 and single:  ", apart(first.tensors(), single.tensors()))

# %% [markdown]
# *What to see:* the two workers are equal to the last bit, though neither has ever seen the weights of the other.
# (Weights, averages and both moments of Adam are in the hash.) They have added the same numbers in the same order. So has
# `single`, whose `train_step` has the same shards and the same tree: in PyTorch it is equal, too. In TensorFlow about half
# of its weights differ in the last digit, since `train_step` clips and makes Adam's step in a graph, and this cell does not.
#
# ## Two processes
#
# Now for real. The command line has a launcher: `python -m ddpm_shared.launch 2 ddpm_torch.train` starts two processes
# of the training command. By variables of the environment each is given its **rank**, 0 or 1, and where the other is.
# The rest is the framework's own: `torch.distributed` with gloo, or `MultiWorkerMirroredStrategy`. (`make train-torch
# WORKERS=2 ARGS="--shards 4"` does the same.) The worker of rank 0 is the **chief**: it writes the run folder.

# %%
WORKBENCH = files.cache_dir("course") / f"workers-{FRAMEWORK}"  # made anew whenever this cell runs
shutil.rmtree(WORKBENCH, ignore_errors=True)
WORKBENCH.mkdir(parents=True)
MODULE = f"{FRAMEWORKS[FRAMEWORK].tree}.train"
FLAGS = (
    f"--preset tiny --dataset fashion-mnist-10k --device cpu --threads 1 --batch-size {BATCH} --max-steps {STEPS} "
    f"--warmup-steps 5 --checkpoint-every {STEPS // 2} --validation-images {BATCH} --sample-every 0"
)
said = {}  # the first line of each run


def launch(name, workers, *flags):
    """Train with so many processes, and return the folder of the run."""
    folder = WORKBENCH / name
    command = [sys.executable, "-m", "ddpm_shared.launch", str(workers), MODULE, *FLAGS.split(), *flags]
    run = subprocess.run(
        [*command, "--run-dir", str(folder)], capture_output=True, text=True, cwd=WORKBENCH, check=False
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    said[name] = run.stdout.splitlines()[0].rpartition(" | ")[0]
    return folder


def tensors_of(folder):
    """All tensors of the last checkpoint of a run."""
    return checkpoint.load(latest_checkpoint(folder)).tensors


print(f"python -m ddpm_shared.launch 2 {MODULE} --shards {SHARDS} {FLAGS}")

# %% [markdown]
# > **Predict before you run.** One process with four shards; two processes with four shards; one process with *six*
# > shards. Which checkpoints are equal?
#
# The cell takes half a minute, or a whole one. (The two runs of one process have a core each.)

# %%
with ThreadPoolExecutor(2) as pool:
    jobs = [pool.submit(launch, name, 1, "--shards", str(shards)) for name, shards in (("one", SHARDS), ("six", 6))]
one, six = (job.result() for job in jobs)
two = launch("two", 2, "--shards", str(SHARDS))
print(said["two"])
for name, tensors in (
    ("this notebook", single.tensors()),
    ("one process", tensors_of(one)),
    ("two processes", tensors_of(two)),
    ("six shards", tensors_of(six)),
):
    print(f"{name:>13}: SHA-256 {sha256(tensors)}")

# %% [markdown]
# *What to see:* one process and two: the same hash. That is the whole claim of this notebook, and you have just checked
# it. No tolerance is needed, and a mistake can hide nowhere: a worker that draws other noise, a mean for a sum, a
# shard in another place would change the hash.
#
# Six shards have another one. They are another tree.
#
# ## Another sum
#
# `--reduce fast` lets the library add the sums of the workers, as it likes. (Each worker adds its own first.) With six
# shards and two workers, that is $((g_0 + g_1) + g_2) + ((g_3 + g_4) + g_5)$.
#
# > **Predict before you run.** How far is it from the run of six shards that was added exactly? And how far are six
# > shards from four?

# %%
fast = launch("fast", 2, "--shards", "6", "--reduce", "fast")
print("two processes and one, 4 shards:  ", apart(tensors_of(two), tensors_of(one)))
print("fast and exact, 6 shards:         ", apart(tensors_of(fast), tensors_of(six)))
print("6 shards and 4, both exact:       ", apart(tensors_of(six), tensors_of(one)))


def losses_of(folder):
    """The loss of every step of a run."""
    return np.array([record["loss"] for record in read_history(folder, STEPS)["steps"]])


figure, axes = plt.subplots(figsize=(7.5, 3.2))
for label, run, other, marker in (
    ("two processes and one, 4 shards", two, one, "s"),
    ("fast and exact, 6 shards", fast, six, "o"),
    ("6 shards and 4, both exact", six, one, "^"),
):
    gap = np.abs(losses_of(run) - losses_of(other)) / losses_of(other)
    axes.plot(np.arange(1, STEPS + 1), np.maximum(gap, 1e-9), marker, markersize=5, fillstyle="none", label=label)
axes.set(title=f"{duet.name}: the gap of two losses", xlabel="step", ylabel="gap / loss", yscale="log")
axes.set(ylim=(5e-10, None), xticks=range(0, STEPS + 1, 5))
axes.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* a mark at the lower edge means no gap at all. The squares are all there. The others begin with the last
# digits of float32 and drift. None of these runs is wrong. They are as far apart as rounding is, and only the first
# pair *proves* that the workers do what one does.
#
# ## A worker leaves
#
# Since the number of workers is no setting of the run, it may change. After step 10 the second machine is needed
# elsewhere. The run goes on from its checkpoint with one.
#
# > **Predict before you run.** Will the last checkpoint be that of a run which had two workers all the time?

# %%
(halfway,) = (two / "checkpoints").glob(f"step_*{STEPS // 2}.safetensors")
resumed = launch("resumed", 1, "--shards", str(SHARDS), "--resume", str(halfway))
print(f"two workers, then one: SHA-256 {sha256(tensors_of(resumed))}")
print(f"two workers:           SHA-256 {sha256(tensors_of(two))}")

# %% [markdown]
# *What to see:* it is. What must stay is `--shards`: a resumed run that changes it is refused.
#
# What if a worker does not leave politely, because its machine lost power? Then the others cannot go on, as a part of
# each gradient is missing. They end with a sentence, the last checkpoint is whole, and `--resume` goes on with as many
# workers as are left.
#
# ## When does it pay?
#
# Each worker receives the sums of all others: with one sum each, that is $(W - 1) \cdot 4P$ bytes a step, for $P$
# weights in float32 and $W$ workers. A library's own sum sends less. It passes partial sums around a ring, where each
# worker receives $2 \frac{W - 1}{W} \cdot 4P$ bytes, however many there are.
#
# Here is a model, and no measurement: the preset `large`, a step that takes one worker a second, work that is shared
# out without loss, a link of its own for each worker, 20 microseconds for each message, and nothing sent while the
# worker computes. Change the numbers to yours.
#
# > **Predict before you run.** A link of 10 Gbit/s, and one of 100. With how many workers is a step the fastest if all
# > sums are gathered? And from how many workers on does the ring send less?

# %%
ONE_STEP, MESSAGE = 1.0, 20e-6  # seconds: a step of one worker, and a message beside its bytes
LINKS = {"10 Gbit/s": 10e9 / 8, "100 Gbit/s": 100e9 / 8}  # bytes a second
P = size.num_parameters(with_preset(Config(), "large"))
W = 2 ** np.arange(8)
print(f"tiny: {4 * single.num_parameters / 1e6:.2f} MB a gradient; large: {4 * P / 1e6:.0f} MB a gradient")
figure, axes = plt.subplots(figsize=(7.5, 3.8))
axes.plot(W, ONE_STEP / W, ":", color="0.5", label="sending takes no time")
for color, (link, speed) in zip(("C0", "C1"), LINKS.items(), strict=True):
    exact_step = ONE_STEP / W + (W - 1) * (4 * P / speed + MESSAGE)
    fast_step = ONE_STEP / W + 2 * (W - 1) * (4 * P / W / speed + MESSAGE)
    axes.plot(W, exact_step, "o-", color=color, label=f"{link}, exact (gathered)")
    axes.plot(W, fast_step, "s--", color=color, fillstyle="none", label=f"{link}, fast (ring)")
    best = W[np.argmin(exact_step)]
    print(f"{link}: exact is the fastest with {best} workers, {exact_step.min():.2f} s a step", end="; ")
    print(f"with {W[-1]} workers {exact_step[-1]:.2f} s, fast {fast_step[-1]:.2f} s")
axes.set(title="A model: `large`, a second for one worker", xlabel="workers", ylabel="seconds a step")
axes.set(xscale="log", yscale="log", xticks=W, xticklabels=W)
axes.minorticks_off()
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *What to see:* with **two** workers the ring sends exactly as much as the gathering, one gradient. There is nothing to
# gain by `fast`. From three on it sends less, and with many workers far less: the gathered bytes grow with the workers,
# and the work of each shrinks. So with 10 Gbit/s `exact` pays for two workers, with 100 Gbit/s for eight. Beyond that
# one has to choose between the speed and the bits. For a whole fleet one trains `fast`, and *proves* the code with
# `exact` on a few.
#
# A larger batch moves all curves: it is more work for the same bytes. What was measured on real processes is in
# [docs/workers.md](../docs/workers.md).
#
# ## Traps
#
# Every line is a habit of a library, or a line that is easily written. All shapes are right, and the loss falls.
#
# | trap | what happens |
# |---|---|
# | PyTorch's `DistributedDataParallel` with `torch.autograd.grad` | it waits for `.grad`, which that function never sets: nothing is sent, and each worker trains alone |
# | `tf.distribute` adds up, `DistributedDataParallel` takes the mean | code that moves from one to the other has a gradient W times as long, or a W-th of it |
# | Keras' optimizers clip before the workers' gradients are added | each part is clipped, and the sum is longer than the limit (exercise 3) |
# | the same seed in every worker | all draw the same images and noise: W times the work for one |
# | the rank in the seed | another number of workers is another experiment |
# | the average of the weights in the chief alone | all is well until another worker is the chief |
# | `torchrun` sets one thread for each process | a sum that two threads share rounds otherwise: state the threads |
# | BatchNorm | its moments are those of a shard, not of the batch ([11](11_a_zoo_of_networks.ipynb)): here each shard has its own, and their mean is remembered |
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · Whose rows?** (easy) `batch` is [B, ...]. It is cut into `shards` equal parts of neighbouring rows, and `count`
# workers have equally many neighbouring shards each. Return the shards of the worker `rank` (0, 1, ...), a list of
# arrays, in their order.


# %%
def my_shards(batch, shards, rank, count):
    """Return a list of arrays [B / shards, ...]."""
    ...


check.own_shards(my_shards)

# %% [markdown]
# **2 · The tree.** (medium) `parts` is a list of arrays of one shape, float32, as many as there are shards: 1, 2, 3 or
# any other number. Return their sum, added as above: neighbours first, then the sums of neighbours; an odd one at the
# end goes up as it is. The check uses numbers that show every other order.


# %%
def my_tree_sum(parts):
    """Return one array."""
    ...


check.tree_sum(my_tree_sum)

# %% [markdown]
# **3 · Mean first, then clip.** (harder) `gradients` is [V, P], one row for each shard. Return the gradient of the
# batch, [P]: their mean, scaled down to the norm `max_norm` where it is longer than that.


# %%
def my_clipped_mean(gradients, max_norm):
    """Return [P]."""
    ...


check.clipped_mean(my_clipped_mean)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>Two workers, four shards, <code>--reduce fast</code>. Is the result that of <code>exact</code>?</summary>
# Yes, to the bit. Each worker adds its two shards as the tree does, and one sum is left to the library: a + b, or
# b + a, which is the same. With six shards a worker's three are added in another order, and with three or more workers
# the library chooses the order. Do not rely on it: the next machine may have four workers.</details>
#
# <details><summary>Why not simply add in float64, and round once at the end?</summary>
# It makes a difference rare, and not impossible: two sums that differ in the last digit of float64 may lie on two sides
# of a point where float32 rounds up. Then one day a hash is another one, and nobody finds out
# why. And where float64 is sent, it is twice as much. A fixed order costs no arithmetic, and needs no luck.</details>
#
# <details><summary>The gathering brings W - 1 sums to every worker. Can the same tree be added with less?</summary>
# Yes. In round k each worker exchanges its sum with the one that is 2^k away, and both add the two: a + b is b + a.
# After log2 W rounds all have the root, each having received log2 W gradients: 3 instead of 7 for eight workers. It is
# called recursive doubling. The libraries do not offer it with a fixed order, and it only fits powers of two.</details>
#
# <details><summary>A shard is smaller than the batch. Why is the mean of the shards' gradients the gradient of the
# batch?</summary>
# The loss is a mean over all images, and all shards have equally many. So it is the mean of the shards' losses, and a
# gradient is linear. With shards of unequal size each would need its weight. And with BatchNorm it is not true at all:
# an image's output depends on its shard.</details>
#
# <details><summary>Your result on two machines differs from that on one, in the last digits, although the shards are the
# same. Where do you look?</summary>
# The threads (--threads), the versions of the framework, and the processors: a convolution is a sum, too, and its order
# belongs to the library, which chooses it by the width of the processor's vectors. Equal bits need equal machines. What
# the tree removes is the number of workers.</details>
#
# ## What you have now
#
# | here | in the code | source |
# |---|---|---|
# | the rows of a worker | `batches.training_batch(..., share)`, `Batch.shards` | |
# | the tree | `workers.mean`, `workers.pairs_added` | |
# | gathering, and the library's sum | `workers.Workers.gather_rows`, `all_reduce` | `torch.distributed`, `tf.distribute` |
# | the same step in every worker | `learner.Learner.train_step` | Ho et al. 2020, algorithm 1 |
# | the launcher | `ddpm_shared.launch`, `make train-torch WORKERS=2` | [docs/workers.md](../docs/workers.md) |
#
# This is the end of the course. What comes next is yours: [CONTRIBUTING.md](../CONTRIBUTING.md) says how a new idea
# gets into both trees.
