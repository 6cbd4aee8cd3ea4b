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
# # 08 · Your own experiment
#
# **Afterwards you can** turn a question into an experiment that may prove you wrong, tell a difference from luck, and
# write down on one page what you found, so that somebody else can do it again.
#
# **Time:** 45 minutes, a few of them waiting. **You need:** [04](04_training.ipynb) and [07](07_evaluating.ipynb); what
# a standard deviation is.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses

import numpy as np
from IPython.display import Markdown
from matplotlib import pyplot as plt

from ddpm_course.exercises import experiment as check
from ddpm_course.figures import show_images
from ddpm_shared import batches, datasets
from ddpm_shared.config import Config, DiffusionConfig, TrainingConfig, with_preset
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.evaluation import metrics
from ddpm_shared.evaluation.judge import Judge

duet = begin(FRAMEWORK)

# %% [markdown]
# ## A question, before anything runs
#
# "Is the cosine schedule better?" is no question yet. Better at what, than what, for whom? This is one:
#
# > Nichol and Dhariwal 2021 found that cosine betas help small images. **Does a small network that has been trained for
# > 150 steps draw better with cosine betas than with linear ones?**
#
# Write down *before* the first run, so that no result can talk you into another question:
#
# | | here |
# |---|---|
# | hypothesis | cosine betas give a smaller distance |
# | what changes | `schedule`, and nothing else |
# | what stays | network, data, 150 steps of 64, rate, sampler in 20 steps, and the seeds |
# | the measure | the Fréchet distance of 256 drawn images from the training images ([07](07_evaluating.ipynb)) |
# | how often | seeds 0, 1 and 2, each with both schedules |
# | what would settle it | a mean difference of two standard errors or more: below 0 for it, above 0 against it |
#
# Why not simply the loss? Because the change changes what it means: another schedule asks other questions. We shall
# see.

# %%
STEPS, COUNT = 150, 256
train, test = datasets.load("fashion-mnist-10k")
judge = Judge(train, test)  # looks at all real images, once


def distance(images, real=judge.moments):
    """The Fréchet distance of images [N, 28, 28, 1] uint8 from the real ones of these moments: all, or of one class."""
    return metrics.frechet_distance(metrics.moments(judge.extractor(images).features), real)


def run(seed, data=train, training=None, **diffusion):
    """Train `tiny` on the images of `data`, and draw. Returns the drawn images, and the mean loss of the last 50 steps."""
    config = dataclasses.replace(
        with_preset(Config(device="cpu"), "tiny"),
        seed=seed,
        training=TrainingConfig(batch_size=64, max_steps=STEPS, warmup_steps=20, **(training or {})),
        diffusion=DiffusionConfig(**diffusion),
    )
    learner = duet.learner.Learner(config, STEPS)
    losses = [learner.train_step(batches.training_batch(data, config, step), step)[0] for step in range(STEPS)]
    return learner.sample(COUNT, lambda t: None), np.mean(losses[-50:])


floor = distance(test.images[:COUNT])
print(f"{COUNT} real images that the network has not seen are at a distance of {floor:.2f}")

# %% [markdown]
# One function that takes a seed and what is to change, and everything else fixed inside: that is the whole laboratory.
# The last line is the **floor**: no network can be expected below it, for 256 is a small number.
#
# ## The first result
#
# > **Predict before you run.** One seed, both schedules. Which has the smaller loss? Which has the smaller distance?
# > What will you conclude?
#
# This takes about half a minute.

# %%
SCHEDULES = ("linear", "cosine")
found = {(name, 0): run(0, schedule=name) for name in SCHEDULES}
distances = {key: distance(drawn) for key, (drawn, _) in found.items()}
for name in SCHEDULES:
    print(f"{name}: loss {found[name, 0][1]:.4f}, distance {distances[name, 0]:.2f}")
show_images(
    np.concatenate([found[name, 0][0][:10] for name in SCHEDULES]),
    columns=10,
    rows=list(SCHEDULES),
    title=f"{duet.name}, seed 0: the same noise, two schedules, 150 steps of training",
)

# %% [markdown]
# *What to see:* neither row is clothes; the network is small and had some seconds. The cosine row has the smaller
# distance, by about 6, and the larger loss, by two thirds. Cosine betas are better, then, and the loss is a poor judge?
# Many a report ends here.
#
# ## Is it luck?
#
# A seed decides the initial weights, the batches, their times and their noise, and the noise that the drawings begin
# with. None of it is what we asked about. So we ask again, with other seeds. It takes about a minute.

# %%
SEEDS = (0, 1, 2)
for seed in SEEDS[1:]:
    for name in SCHEDULES:
        found[name, seed] = run(seed, schedule=name)
        distances[name, seed] = distance(found[name, seed][0])
table = np.array([[distances[name, seed] for name in SCHEDULES] for seed in SEEDS])  # [seed, schedule]
difference = table[:, 1] - table[:, 0]
error = difference.std(ddof=1) / np.sqrt(len(SEEDS))
for seed, (linear, cosine) in zip(SEEDS, table, strict=True):
    print(f"seed {seed}: linear {linear:.2f}, cosine {cosine:.2f}, difference {cosine - linear:+.2f}")
print(f"mean difference {difference.mean():+.2f}, its standard error {error:.2f}")
deviations = [values.std(ddof=1) for values in (*table.T, difference)]
print("standard deviations: linear {:.2f}, cosine {:.2f}, of the differences {:.2f}".format(*deviations))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), width_ratios=(3, 2))
for seed, values, marker in zip(SEEDS, table, "os^", strict=True):
    left.plot(SCHEDULES, values, marker + "--", label=f"seed {seed}")
left.set(title="Both schedules, seed by seed", ylabel="Fréchet distance", xlim=(-0.4, 1.4))
left.legend()
right.axhline(0, color="grey", linewidth=1)
right.plot(np.zeros(len(SEEDS)), difference, "o", fillstyle="none")
right.errorbar([1], [difference.mean()], [2 * error], fmt="D", capsize=6)
right.set(title="The difference", ylabel="cosine - linear", xlim=(-0.6, 1.6))
right.set_xticks([0, 1], ["each seed", "mean, ± 2\nstandard errors"])
plt.show()

# %% [markdown]
# *What to see:* two lines fall and one rises. Seed 0, where we looked first, has the largest difference of all; had we
# begun with seed 1, we would have said the opposite. The mean difference is below 0, but the bar around it reaches far
# across: **three seeds cannot tell**. The hypothesis is neither supported nor refuted. That is an answer, if an
# unwelcome one, and exercise 2 says how many seeds a better one would take.
#
# Two things made this cheaper than it might have been. The schedules were compared **in pairs**: with one seed, both
# got the same weights to start from, the same images, times and noise, so what a seed does to both cancels in the
# difference. (Here that is little, as the differences scatter no less than the distances. It costs nothing.) And the
# other framework need not be asked: it computes the same ([06](06_two_frameworks.ipynb)). Two frameworks are no two
# experiments.
#
# ## What the loss would have said

# %%
losses = np.array([[found[name, seed][1] for name in SCHEDULES] for seed in SEEDS])
for seed, (linear, cosine) in zip(SEEDS, losses, strict=True):
    print(f"seed {seed}: loss with linear betas {linear:.4f}, with cosine betas {cosine:.4f}")
steps = np.arange(1000)
figure, axes = plt.subplots(figsize=(7.5, 2.8))
for name, dash in zip(SCHEDULES, ("-", "--"), strict=True):
    schedule = duet.engine.make_schedule(DiffusionConfig(schedule=name), duet.utils.dtype("fp64"))
    axes.plot(steps, schedule.alphas_cumprod.numpy(), dash, label=name)
axes.set(title="How much of the image is left at time t", xlabel="t", ylabel="alphas_cumprod")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the loss is larger by two thirds with cosine betas, for every seed. This difference is beyond doubt,
# and says nothing of the drawings. Cosine betas leave more of the image at nearly every $t$, so they ask more of the
# questions that are hard: what is grain and what is cloth ([03](03_objective.ipynb))? **A measure that the change
# itself redefines compares nothing.**
#
# ## The report
#
# One page, in this order: question, answer, what was done, numbers, picture, what could be wrong, how to do it again.
# The answer comes second because most readers stop there. An empty one to fill in is [report.md](report.md). Here is
# that of this notebook; its numbers come from the variables, so that they cannot be mistyped.

# %%
rows = "\n".join(
    f"| {seed} | {linear:.2f} | {cosine:.2f} | {cosine - linear:+.2f} |"
    for seed, (linear, cosine) in zip(SEEDS, table, strict=True)
)
report = f"""
### Does a small network draw better with cosine betas after 150 steps?

**Answer.** {len(SEEDS)} seeds cannot tell: the mean difference is {difference.mean():+.2f}, with a standard error of {error:.2f}.

**Done.** `tiny` trained in {duet.name} on {len(train.images):,} images of Fashion-MNIST, {STEPS} steps of 64, then {COUNT} images drawn in
20 steps with the averaged weights. Only `schedule` differed. Distance: Fréchet, of 128 features, from the training images.

| seed | linear | cosine | difference |
|---|---|---|---|
{rows}

Mean difference {difference.mean():+.2f}, standard error {error:.2f} ({len(SEEDS)} pairs). Real images: {floor:.2f}.

**What could be wrong.** Three seeds; {COUNT} images; one length of training, far from its end; one learning rate for both; a sampler that was
chosen with linear betas.

**Again.** This notebook, or `make train-torch ARGS="--preset tiny --dataset fashion-mnist-10k --batch-size 64 --max-steps {STEPS}
--warmup-steps 20 --schedule cosine --seed 0"` and the same with `--schedule linear`.
"""
Markdown(report)

# %% [markdown]
# ## Three to begin with
#
# **A · Another process.** All that `DiffusionConfig` takes can be changed by name, and `help(DiffusionConfig)` tells
# what that is: `run(0, schedule="sigmoid")`, `run(0, prediction="v")`, `run(0, loss_weighting="min_snr")`. What belongs
# to training goes into `training`: `run(0, training={"ema_decay": 0.99})`.
#
# **B · Other data.** The images of `data` may be any `[N, 28, 28, 1]` array of `uint8`: digits, letters, drawings of
# your own. Compare with the images that were learned from, not with others. Here are the ankle boots alone:
#
# > **Predict before you run.** The same network, the same 150 steps, a tenth of the images. Better or worse pictures?

# %%
BOOT = train.class_names.index("Ankle boot")
is_boot = train.labels == BOOT
boots = dataclasses.replace(train, images=train.images[is_boot], labels=train.labels[is_boot])
of_boots = metrics.moments(judge.reference_extracted.features[is_boot])
drawn, loss = run(0, boots)
print(
    f"{len(boots.images)} boots: loss {loss:.4f}, distance from the boots {distance(drawn, of_boots):.2f} "
    f"(test images: {distance(test.images[test.labels == BOOT], of_boots):.2f})"
)
show_images(drawn[:10], title=f"{duet.name}: trained on nothing but ankle boots, for 150 steps")

# %% [markdown]
# *What to see:* a toe on the left, a heel on the right, in most; all clouds still. There is less to learn, and what is
# learnt is more to the point. And yet the distance is larger than that of the experiment above. It is from other
# images, and the judge's eye for boots is a sharp one: the distances from two sets of images do not compare, no more
# than the losses of two schedules.
#
# **C · On demand.** The networks of this notebook draw what they like. A network that can be asked for a class is given
# the class of each image in training: [09](09_draw_what_i_ask_for.ipynb) does that. Training on one class alone is a way
# around it. Another needs no training: draw from all, and keep what a classifier takes for the class. The images that
# are left are distributed as $p(x \mid y) \propto p(x)\, p(y \mid x)$, if each is kept with the probability
# $p(y \mid x)$ that the classifier gives it. Here is the network in the package, and the judge's classifier:

# %%
network, config = duet.trained()
drawn = duet.sampling.sample(network, config, Sampling("dpmpp_2m_sde", steps=20), seed=0, num_images=96)
likely = judge.extractor(drawn).probabilities[:, train.class_names.index("Bag")]
kept = drawn[np.random.default_rng(0).random(len(drawn)) < likely]
print(f"{len(kept)} of {len(drawn)} images are kept as bags")
show_images(kept, columns=10, title=f"{duet.name}: bags on demand, by drawing too much")

# %% [markdown]
# *What to see:* about one image in six is kept, and nearly all of these are bags. The others were drawn in vain. A
# network that is given the label draws few in vain, and the same formula, with an exponent, is what guides it.
#
# Questions for a longer evening, each a line of `make train-torch ARGS="..."` and of `make evaluate RUN=...`:
#
# - Does the average of the weights still help when the rate falls to 2 %? (`--final-learning-rate 1`,
#   `--ema-decay 0.995`)
# - How do 20 minutes compare with 40, and with 80? Where does it stop paying? (`--minutes`)
# - Are mirrored images more data, or wrong data? (`--horizontal-flip`)
# - Which sampler needs the fewest steps for *your* model?
#   (`make sample-torch ARGS="--sampler ddim --steps 10 --checkpoint latest"`)
#
# How this project answered such questions for its own defaults: [docs/recipe.md](../docs/recipe.md).
#
# ## Exercises
#
# **1 · How sure is a mean?** (easy) The standard error of the mean of `values`, `[N]`, from the values themselves.


# %%
def my_standard_error(values):
    """Your answer."""
    ...


check.standard_error(my_standard_error)

# %% [markdown]
# **2 · How many seeds?** (medium) A pilot told you how much the paired differences scatter from seed to seed, their
# standard `deviation`. What is the least number of seeds for which the standard error of the mean is at most half of
# the `difference` that you want to see?


# %%
def my_seeds_needed(difference, deviation):
    """Return a whole number."""
    ...


check.seeds_needed(my_seeds_needed)

# %% [markdown]
# **3 · Without a bell curve.** (harder) If a change made no difference, the difference `a[i] - b[i]` of a seed could as
# well have come out with the other sign. So take all $2^N$ patterns of signs, flip the differences by each, and take
# the means: what share of them is at least as far from 0 as the mean that was found? (Allow for rounding: the pattern
# that was found has to count.)


# %%
def my_sign_flip(a, b):
    """`a` and `b`: [N] distances, seed by seed. Return a share, 0 .. 1."""
    ...


check.sign_flip(my_sign_flip)

# %% [markdown]
# ## Questions
#
# <details><summary>With three seeds, what is the smallest share that the test of exercise 3 can find?</summary>
# A quarter. There are eight patterns; the one that was found and its mirror image are always as far from 0. Three seeds
# can make you doubt a claim; to support one by this test, take six or more: 2 / 64 is 3 %.</details>
#
# <details><summary>You try twenty changes, with one test each at 5 %, and one of them "works". What now?</summary>
# One in twenty is what you expect if none of them works. Run that one again, with new seeds, and report all
# twenty.</details>
#
# <details><summary>Your change makes a step a third slower. What should stay the same: the steps, or the
# time?</summary>
# That depends on whose question it is. For somebody with a laptop and an evening, the time: <code>docs/recipe.md</code>
# compares so. For somebody who asks how much there is to learn from an image, the images. Say which.</details>
#
# <details><summary>Why is "no difference was found" not the same as "there is no difference"?</summary>
# Because the error bar says what you could have seen. An experiment with a standard error of 2 cannot tell a difference
# of 1 from none.</details>
#
# ## What you have now
#
# | here | in the code | source |
# |---|---|---|
# | a run | `learner.Learner`, `config.Config` | [docs/recipe.md](../docs/recipe.md) |
# | pairs with common random numbers | `streams`: noise is a function of seed and step | [00](00_orientation.ipynb) |
# | the measure | `metrics.frechet_distance` | Heusel et al. 2017, eq. 6 |
# | cosine betas | `schedules.py`, `schedule="cosine"` | Nichol and Dhariwal 2021, eq. 17 |
# | the sign-flip test | exercise 3 | Fisher 1935, chapter 3 |
#
# Next: [09, draw what I ask for](09_draw_what_i_ask_for.ipynb): a network that is given the class.
