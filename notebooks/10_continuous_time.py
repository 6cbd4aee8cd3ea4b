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
# # 10 · Continuous time: one spine for DDPM, scores, EDM and flow matching
#
# **Afterwards you can** write the diffusion of 01 as a stochastic differential equation and turn it round, with noise
# or without; say what a score is and where it points; derive EDM's preconditioning; say what flow matching learns; and
# draw with one trained network in four processes, the same images.
#
# **Time:** 90 minutes, a few of them waiting. **You need:** [03, the objective](03_objective.ipynb) and
# [05, sampling](05_sampling.ipynb); what a derivative is.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import dataclasses

import numpy as np
from matplotlib import pyplot as plt
from scipy.special import logit, ndtr

from ddpm_course.exercises import continuous as check
from ddpm_course.figures import show_images
from ddpm_course.live import LiveCurve
from ddpm_course.mirror import side_by_side
from ddpm_shared import batches, datasets, streams
from ddpm_shared.config import Config, DiffusionConfig, TrainingConfig, fitted, with_preset, with_process
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.oracle import gaussian

duet = begin(FRAMEWORK)
train, test = datasets.load("fashion-mnist-10k")

# %% [markdown]
# ## From a chain to an equation
#
# One step of the chain of [01](01_forward_process.ipynb) is
# $x_{t} = \sqrt{1 - \beta_t}\; x_{t-1} + \sqrt{\beta_t}\; z$. Now let there be $N$ steps in a time that goes from 0 to
# 1, so that a step takes $dt = 1/N$, and let its variance be $\beta(t)\, dt$. With more steps each one is smaller. The
# root is then $\sqrt{1 - \beta\, dt} \approx 1 - \beta\, dt / 2$, and the step becomes
#
# $$x(t + dt) \approx x(t) - \tfrac12 \beta(t)\, x(t)\, dt + \sqrt{\beta(t)\, dt}\; z .$$
#
# That is **Euler and Maruyama's** step of a stochastic differential equation (SDE),
#
# $$dx = f(t)\, x\, dt + g(t)\, dw, \qquad f = -\tfrac12 \beta, \quad g = \sqrt\beta :$$
#
# a **drift** $f x$, which is multiplied by $dt$, and a **diffusion** $g$, which is multiplied by $\sqrt{dt}$, because
# variances add up and deviations do not. Song et al. (2021) call this one **VP**, variance preserving. As before, one
# can jump to any time, $x(t) = \alpha(t)\, x_0 + \sigma(t)\, \epsilon$.
#
# Pixels hide what happens. So here is a world of **one number**: data that are near $-0.8$ in 30 % of all cases and
# near $0.6$ in the others. Of this world everything is known, at every time.

# %%
MEANS, SHARES, DEVIATION = np.array([-0.8, 0.6]), np.array([0.3, 0.7]), 0.12
diffusion = with_process(DiffusionConfig(), "vp")


def levels_of(times, process="vp"):
    """Alpha and sigma at some times, with their derivatives."""
    return duet.processes.make_levels(diffusion, times, process)


def parts(x, alpha, sigma):
    """The two humps of the density of x_t at x: each is a normal distribution. Their heights, centres and variance."""
    variance = (alpha * DEVIATION) ** 2 + sigma**2
    away = x[..., None] - alpha * MEANS
    return SHARES * np.exp(-(away**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance), away, variance


def density(x, alpha, sigma):
    """p_t(x)."""
    return parts(x, alpha, sigma)[0].sum(-1)


def drift_and_diffusion(levels):
    """The drift f and g^2 of a process, from alpha, sigma and their derivatives by t."""
    f = levels.alpha_rate / levels.alpha
    return f, 2 * levels.sigma * (levels.sigma_rate - f * levels.sigma)


N, PATHS = 1000, 4000
times = np.arange(1, N + 1) / N
levels = levels_of(times)
f, g2 = drift_and_diffusion(levels)
print(f"beta(t) = g^2 goes from {g2[0]:.2f} to {g2[-1]:.2f}; f / g^2 = {f[0] / g2[0]:.2f} everywhere")
print(f"at t = 1 alpha = {levels.alpha[-1]:.4f} and sigma = {levels.sigma[-1]:.5f}: pure noise, nearly")

# %% [markdown]
# > **Predict before you run.** The next cell simulates 4000 paths, step by step, and draws twelve of them. Will a path
# > be smooth? Where will they all end? And will the histogram of the paths, half-way, fit the jump, which knows of no
# > step?

# %%
rng = np.random.default_rng(0)
x = np.where(rng.random(PATHS) < SHARES[0], *MEANS) + DEVIATION * rng.standard_normal(PATHS)
forward = [x]
for i in range(N):
    x = x + f[i] * x / N + np.sqrt(g2[i] / N) * rng.standard_normal(PATHS)
    forward.append(x)
forward = np.array(forward)  # [N + 1, PATHS]

PLACES = np.linspace(-2.6, 2.6, 261)
CLOUD = np.array([density(PLACES, levels.alpha[i], levels.sigma[i]) for i in range(N)])  # p_t(x)


def show_cloud(axes, title):
    """The density of x_t as a picture, time to the right."""
    axes.imshow(
        np.sqrt(CLOUD).T, cmap="Greys", origin="lower", aspect="auto", extent=(0, 1, PLACES[0], PLACES[-1]), vmax=1.8
    )
    axes.set(title=title, xlabel="t", ylabel="x", ylim=(PLACES[0], PLACES[-1]))
    axes.grid(False)


figure, (axes, histogram) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2))
show_cloud(axes, "Twelve paths forward; grey: where x is likely")
axes.plot(np.append(0, times), forward[:, :12], linewidth=0.8)
for moment, dashes in ((0.05, "-"), (0.25, "--"), (1.0, ":")):
    i = round(moment * N) - 1
    histogram.hist(forward[i + 1], 60, range=(-2.6, 2.6), density=True, alpha=0.35)
    histogram.plot(PLACES, CLOUD[i], dashes, color="black", label=f"t = {moment}, by the jump")
histogram.set(title="4000 paths, and the jump", xlabel="x", ylabel="density")
histogram.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* a path is jagged at any magnification: that is what $\sqrt{dt}$ does. All of them end in the same cloud
# around 0, wherever they began. And at each time the paths lie as the jump says, though no path jumps.
#
# Are the chain and the equation the same? With the same $z$ they can be compared number by number. The fewer the steps,
# the cruder both are:

# %%
for n in (50, 200, 1000):
    moments = np.arange(1, n + 1) / n
    drift, squared = drift_and_diffusion(levels_of(moments))
    z = np.random.default_rng(1).standard_normal((n, PATHS))
    chain = sde = forward[0]
    for i in range(n):
        chain = np.sqrt(1 - squared[i] / n) * chain + np.sqrt(squared[i] / n) * z[i]
        sde = sde + drift[i] * sde / n + np.sqrt(squared[i] / n) * z[i]
    apart = np.sqrt(np.mean((chain - sde) ** 2))
    print(
        f"{n:4} steps: {apart:.4f} apart at t = 1; deviation of the chain {chain.std():.3f}, of the SDE {sde.std():.3f}"
    )

# %% [markdown]
# *What to see:* the distance is about in proportion to the size of a step. So the DDPM of 01, with its 1000 steps, is
# already close to the SDE. And an image is only a thousand numbers, each on a path of its own:

# %%
sneaker = test.images[np.argmax(test.labels == 7)] / 127.5 - 1
x, frames = sneaker, {0.0: sneaker}
for i in range(N):
    x = x + f[i] * x / N + np.sqrt(g2[i] / N) * streams.normal(0, "train/eps", i, (1, 28, 28, 1))[0]
    if (i + 1) / N in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0):
        frames[(i + 1) / N] = x
show_images(
    np.stack(list(frames.values())),
    titles=[f"t={moment:g}" for moment in frames],
    title="A sneaker on its way, 1000 steps of the SDE",
    limits=(-2, 2),
)

# %% [markdown]
# ## The score, and where it points
#
# The **score** of a density is the gradient of its logarithm, $s(x) = \nabla_x \log p_t(x)$. It points to where the
# density grows, and it does not care by what the density is divided.
#
# > **Predict before you run.** Where is the score 0? In the valley between the humps, at little noise: is it small
# > there or large? And at $t = 1$?


# %%
def score(x, alpha, sigma):
    """The derivative of log p_t at x."""
    heights, away, variance = parts(x, alpha, sigma)
    return (heights * -away / variance).sum(-1) / heights.sum(-1)


figure, places = plt.subplots(1, 3, figsize=(9, 3.2))
for axes, moment, scale in zip(places, (0.02, 0.15, 1.0), (20, 3, 2), strict=True):
    i = round(moment * N) - 1
    axes.fill_between(PLACES, CLOUD[i], color="0.85", label="density")
    axes.plot(PLACES, score(PLACES, levels.alpha[i], levels.sigma[i]) / scale, label=f"score / {scale}")
    for at in np.linspace(-1.6, 1.6, 9):
        way = np.clip(score(np.array(at), levels.alpha[i], levels.sigma[i]) / scale, -0.3, 0.3)
        axes.annotate("", (at + way, -0.35), (at, -0.35), arrowprops={"arrowstyle": "->", "color": "C1"})
    axes.set(title=f"t = {moment}", xlabel="x", ylim=(-1, 2.6), xlim=(-2, 2))
    axes.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* at little noise the score is steep, and it leads from everywhere to the nearest hump: it is 0 on each
# of them, and once in the valley, where it changes its mind. At $t = 1$ it is the line $-x$ of pure noise.
#
# **You have a score already.** Given $x_t$, the best prediction of the noise is its mean, and
#
# $$\nabla_x \log p_t(x) = -\,\mathbb E[\epsilon \mid x_t = x] \,/\, \sigma(t)$$
#
# (Tweedie's formula, 1956; Vincent 2011). So a network that was trained to predict $\epsilon$, as all of ours, has
# learned a score, and nobody had to know $p_t$. Try it on the paths' jump: make many pairs $(x_t, \epsilon)$, and take
# the mean of $\epsilon$ where $x_t$ is near some $x$.

# %%
i = round(0.15 * N) - 1
alpha, sigma = levels.alpha[i], levels.sigma[i]
many = 400_000
x_0 = np.where(rng.random(many) < SHARES[0], *MEANS) + DEVIATION * rng.standard_normal(many)
eps = rng.standard_normal(many)
x_t = alpha * x_0 + sigma * eps
for at in (-1.0, -0.2, 0.5):
    near = np.abs(x_t - at) < 0.02
    known = score(np.array(at), alpha, sigma)
    print(f"x = {at:4}: score {known:6.3f}; -mean(eps) / sigma of {near.sum()} pairs {-eps[near].mean() / sigma:6.3f}")

# %% [markdown]
# ## Back, with noise and without
#
# Does the score lead back? Write down how the density changes (Fokker and Planck):
#
# $$\partial_t p = -\nabla \cdot (f x\, p) + \tfrac12 g^2\, \nabla \cdot \nabla p, \qquad \nabla p = p\, s .$$
#
# The noise, seen from outside, is a flow along $-\frac12 g^2 s$: from where much is to where little is. So an ordinary
# differential equation (ODE) without any noise has **the same** density at each time. It is the **probability-flow
# ODE**,
#
# $$\frac{dx}{dt} = f x - \tfrac12 g^2 s ,$$
#
# and an ODE can be followed in both directions. If we add noise on the way back after all, with the diffusion
# $\eta\, g$, we have to pull against it with as much score again:
#
# $$dx = \big(f x - \tfrac{1 + \eta^2}{2}\, g^2 s\big)\, dt + \eta\, g\, d\bar w .$$
#
# $\eta = 1$ is the **reverse SDE** of Anderson (1982), whose noise is that of the way there. ($\eta$ plays the part of
# DDIM's `eta` in 05.)
#
# > **Predict before you run.** Both begin with the same pure noise. Will a path of the SDE end where that of the ODE
# > does? Can two paths of the ODE cross? Which of them end on the left?


# %%
def back(x, noise):
    """The paths from t = 1 to 0, by Euler-Maruyama's steps, with `noise` times g on the way: [N + 1, PATHS]."""
    rng = np.random.default_rng(2)
    way = [x]
    for i in reversed(range(N)):
        pull = (1 + noise**2) / 2 * g2[i] * score(x, levels.alpha[i], levels.sigma[i])
        x = x - (f[i] * x - pull) / N
        if i > 0:
            x = x + noise * np.sqrt(g2[i] / N) * rng.standard_normal(len(x))
        way.append(x)
    return np.array(way[::-1])


x_T = rng.standard_normal(PATHS)  # noqa: N816 (the paper's capital T)
ways = {"ODE": back(x_T, 0.0), "SDE": back(x_T, 1.0)}
figure, places = plt.subplots(1, 3, figsize=(9, 3.4), width_ratios=(3, 3, 2))
for axes, (name, way) in zip(places, ways.items(), strict=False):
    show_cloud(axes, f"{name}, from right to left")
    axes.plot(np.append(0, times), way[:, np.argsort(x_T)[150::330]], linewidth=0.9)
bins = np.linspace(-1.4, 1.2, 53)
for (name, way), dashes in zip(ways.items(), ("-", "--"), strict=True):
    places[2].hist(way[0], bins, density=True, histtype="step", linestyle=dashes, label=name)
places[2].plot(PLACES, density(PLACES, 1.0, 0.0), color="0.6", label="data")
places[2].set(title="Where they end", xlabel="x", xlim=(-1.4, 1.2))
places[2].legend(fontsize=9)
plt.show()
for name, way in ways.items():
    left = way[0] < 0
    print(
        f"{name}: {left.mean():.1%} end on the left (of the data {SHARES[0]:.0%}); their mean {way[0][left].mean():.3f},",
        end=" ",
    )
    print(f"their deviation {way[0][left].std():.3f}; the largest x_T among them {x_T[left].max():.2f}")
middle = N // 4
print(
    f"at t = {times[middle - 1]}: deviation {ways['ODE'][middle].std():.3f} and {ways['SDE'][middle].std():.3f}",
    end=", ",
)
print(f"on the way there {forward[middle].std():.3f}")

# %% [markdown]
# *What to see:* the same histograms, at the end and on the way, by paths that have nothing in common. The ODE's are
# smooth and never cross: those with the smallest $x_T$ end on the left, up to a limit, and all others on the right. The
# SDE's cross as they like, and $x_T$ decides next to nothing. You know both: without noise it is DDIM, with noise it is
# the ancestral sampler of [05](05_sampling.ipynb).
#
# > **Predict before you run.** Now begin wrongly: let all paths start at $x_T = 0$. Where do they end?

# %%
nowhere = np.zeros(PATHS)
for name, noise in (("ODE", 0.0), ("SDE", 1.0)):
    end = back(nowhere, noise)[0]
    print(f"{name}: {np.mean(end < 0):.1%} end on the left, deviation of all {end.std():.3f}", end=" ")
    print(f"(data: {SHARES[0]:.0%}, {forward[0].std():.3f})")

# %% [markdown]
# *What to see:* the ODE carries the error to the end: one start, one image. The SDE forgets it, and draws from the data
# all the same. Noise on the way washes errors out, those of the network too; that is why samplers with noise drew the
# better images in 05, and why EDM's sampler can add some (`--churn`).
#
# ## Where all is known
#
# How good is a solver? With data of which the ODE's exact path is known, the error is a number. If they are **normal**,
# $x_0 \sim N(m, s^2)$, then $x_t$ is $N(\alpha m, \alpha^2 s^2 + \sigma^2)$, the best denoiser is a line, and along the
# ODE $(x - \alpha m) / \sqrt{\alpha^2 s^2 + \sigma^2}$ never changes: as many deviations from the mean at each time.
# `ddpm_shared.oracle.gaussian` writes that down, and both trees' solvers are held to it.
#
# > **Predict before you run.** Twice as many steps: how many times smaller is the error of Euler's method? Of Heun's,
# > of Runge and Kutta's?

# %%
bell = gaussian.make_gaussian(np.full((1, 1, 1), 0.3), np.full((1, 1, 1), 0.4**2))
starts = duet.data.to_tensor(np.linspace(-2, 2, 9).reshape(9, 1, 1, 1))


def knows(levels):
    """The best denoiser at each level: (x, i) -> x_0 and eps."""

    def denoise(x, i):
        x_0, eps, _ = bell.predict(duet.data.to_array(x), *levels.level(i))
        return duet.prediction.Predicted(*map(duet.data.to_tensor, (x_0, eps)), 0.0)

    return denoise


def error(solver, steps):
    """The largest error of the way from t = 1 to 0.1, in so many steps."""
    moments = np.linspace(0.1, 1.0, steps + 1)
    levels = levels_of(moments, "flow")
    options = {}
    if solver == "rk4":
        between = levels_of(np.append(0.05, (moments[1:] + moments[:-1]) / 2), "flow")
        options["middle"] = duet.solvers.Waypoints(between, knows(between))
    chain = getattr(duet.solvers, solver)(levels, knows(levels), starts, lambda i: None, **options)
    (x,) = (x for i, x in chain if i == 1)  # the step after is to the clean image
    exact = bell.travel(duet.data.to_array(starts), levels.level(steps), levels.level(0))
    return np.abs(duet.data.to_array(x) - exact).max()


COUNTS = np.array([5, 10, 20, 40, 80])
figure, axes = plt.subplots()
for solver, dashes in (("euler", "-o"), ("heun_t", "--s"), ("rk4", "-.^")):
    errors = np.array([error(solver, steps) for steps in COUNTS])
    order = -np.polyfit(np.log(COUNTS[1:]), np.log(errors[1:]), 1)[0]
    axes.loglog(COUNTS, errors, dashes, label=f"{solver}: order {order:.2f}")
    print(f"{solver:>6}: error {errors[0]:.1e} in 5 steps, {errors[-1]:.1e} in 80; falls as N^-{order:.2f}")
axes.set(
    title="The flow ODE of a normal distribution, against its exact path", xlabel="steps N", ylabel="largest error"
)
axes.set_xticks(COUNTS, labels=map(str, COUNTS))
axes.minorticks_off()
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* straight lines that fall with slope 1, 2 and 4 in a double-logarithmic picture: the **order** of a
# method. Heun's costs two evaluations of the network a step, Runge and Kutta's four, so count evaluations and not
# steps. That the orders come out is also a test, in both trees. A slope of Heun's that is taken at the wrong end draws
# pictures that look as good, and its order falls to 1.
#
# ## One spine
#
# VP is one of many. A process is two functions, $x_t = \alpha(t)\, x_0 + \sigma(t)\, \epsilon$, and the package has
# seven:
#
# | | $\alpha$ | $\sigma$ | from |
# |---|---|---|---|
# | `ddpm` | $\sqrt{\bar\alpha_t}$ | $\sqrt{1 - \bar\alpha_t}$ | Ho et al. 2020, $t$ a whole number |
# | `vp` | $e^{-B(t)/2}$, $B = \int \beta$ | $\sqrt{1 - \alpha^2}$ | Song et al. 2021 |
# | `sub_vp` | the same | $1 - \alpha^2$ | Song et al. 2021 |
# | `ve`, `ve_exponential` | 1 | grows exponentially | Song et al. 2021 |
# | `edm` | 1 | $t$ | Karras et al. 2022 |
# | `flow` | $1 - t$ | $t$ | Liu et al. 2023, Lipman et al. 2023 |
#
# Divide $x_t$ by $\alpha$: what is left is $x_0 + (\sigma / \alpha)\, \epsilon$. So **only $\sigma / \alpha$ matters**,
# and the rest is a change of units. The measure for it is the logarithm of the signal-to-noise ratio,
# $\lambda = \log(\alpha^2 / \sigma^2)$, the **log-SNR**: large at the image, small at the noise. It is the one time
# that all processes have in common.
#
# > **Predict before you run.** The left picture has five curves of $\sigma / \alpha$ over time. And if they are drawn
# > over the log-SNR, as on the right: how many curves are then left of $\sigma / \sqrt{\alpha^2 + \sigma^2}$?

# %%
SHOWN = {"vp": "-", "sub_vp": "--", "ve": "-.", "edm": ":", "flow": (0, (5, 1, 1, 1))}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
for process, dashes in SHOWN.items():
    last = 50.0 if process == "edm" else 0.9995
    moments = np.linspace(0.002 * last, last, 400)
    spine = levels_of(moments, process)
    log_snr = 2 * np.log(spine.alpha / spine.sigma)
    left.plot(moments / last, log_snr, linestyle=dashes, label=process)
    middle.plot(log_snr, spine.alpha, linestyle=dashes)
    middle.plot(log_snr, spine.sigma, linestyle=dashes, color=left.lines[-1].get_color())
    right.plot(log_snr, spine.sigma / np.hypot(spine.alpha, spine.sigma), linestyle=dashes)
left.set(title="log-SNR over time", xlabel="t (edm: t / 50)", ylabel="log-SNR")
middle.set(title="alpha falls, sigma grows", xlabel="log-SNR", yscale="log", ylim=(0.01, 100), xlim=(10, -10))
right.set(title=r"$\sigma / \sqrt{\alpha^2 + \sigma^2}$", xlabel="log-SNR", xlim=(10, -10))
left.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* one curve on the right. The processes differ in how fast they go along the spine (left), and in the
# units of $x_t$ (middle): `vp` keeps its size, `ve` and `edm` let the noise grow and leave the image as it is, `flow`
# lets the two sizes add up to 1. A process decides **which times are trained how often, what the network's input looks
# like, and where the steps of a sampler lie**; nothing else.
#
# Where does a process begin to draw? At its last time the image should be gone. How far the middle of $x_T$, which is
# $\alpha$ times the mean image, is then from the 0 at which the sampler begins, counted in deviations of the noise:

# %%
mean_image = np.linalg.norm(train.images.mean(0) / 127.5 - 1)
settings = {"vp": diffusion, "ve, sigma_max 50": with_process(DiffusionConfig(), "ve")}
settings |= {
    f"ve_exponential, s = {s}": dataclasses.replace(
        with_process(DiffusionConfig(), "ve_exponential"), sigma_max=float(s)
    )
    for s in (10, 25, 50)
}
for name, each in settings.items():
    last = duet.processes.make_levels(each, [1.0], each.process)
    gap = mean_image * last.alpha[0] / last.sigma[0]
    print(
        f"{name:>23}: alpha {last.alpha[0]:.4f}, sigma {last.sigma[0]:7.3f}; the mean image is {gap:.3f} deviations away"
    )

# %% [markdown]
# *What to see:* the noise has to be **much larger than an image**, whose length is counted over all 784 pixels. A
# popular choice, $g = s^t$ with $s = 10$ or 25, ends at a noise of 4.6 or 9.8 only. The sampler then begins at a place
# where the network has seldom been.
#
# ## One network, four processes
#
# If only the log-SNR counts, then the network in the package, which was trained as a DDPM, can draw in any process: at
# a level of EDM, look for the `t` of the DDPM with the same log-SNR, and change the units of $x$. `--process` of the
# sampling commands does that.
#
# > **Predict before you run.** The same images, similar ones, or others?

# %%
network, boxed = duet.trained()
PROCESSES = ("ddpm", "ve", "edm", "flow")


def draw(sampler, process, count=8):
    """The first images of seed 0, in 20 steps."""
    sampling = Sampling(sampler, steps=20, process=process)
    return duet.sampling.sample(network, boxed, sampling, seed=0, num_images=count)


drawn = {process: draw("dpmpp_2m", process) for process in PROCESSES}
in_t = {process: draw("euler", process) for process in ("edm", "flow", "vp", "ve")}
ddim = draw("ddim", "ddpm")
show_images(
    np.concatenate(list(drawn.values())),
    columns=8,
    rows=list(drawn),
    title="dpmpp_2m in 20 steps, by one network, which was trained as a DDPM",
)
for process in PROCESSES[1:]:
    apart = np.abs(drawn[process].astype(int) - drawn["ddpm"])
    print(
        f"dpmpp_2m in {process:>4} and in ddpm: {np.mean(apart > 0):.2%} of the pixels differ, by at most {apart.max()}"
    )
for process, images in in_t.items():
    apart = np.abs(images.astype(int) - ddim)
    print(
        f"euler in t of {process:>4} and ddim: {np.mean(apart > 0):7.2%} of the pixels differ, by at most {apart.max()}"
    )

# %% [markdown]
# *What to see:* the same images, but for rounding, if any, although in the one $x_T$ has a deviation of 1 and in the
# other one of about 157. So "EDM draws better than DDPM" cannot be about $\alpha$ and $\sigma$ alone; it is about where
# the steps lie, the solver, and the network.
#
# And DDIM **is** Euler's method for `edm` and `flow`, where $\alpha$ and $\sigma$ are straight lines in $t$: a step
# keeps $x_0$ and $\epsilon$, and so does a straight line. In `vp` and `ve` the paths are curved in $t$, and Euler's
# step, which is straight, ends elsewhere:

# %%
show_images(
    np.concatenate([ddim, *in_t.values()]),
    columns=8,
    rows=["ddim", *(f"euler, {process}" for process in in_t)],
    title="20 steps at the same levels",
)

# %% [markdown]
# *What to see:* the same levels, the same network, the same order of convergence, and yet other images: at large $t$
# the solution of `vp` and `ve` bends most, and a step along the tangent leaves it. The choice of the variable in which
# a path is straight is worth more than many steps.
#
# ## EDM: what to ask of a network
#
# In `ve` and `edm` the input goes from the size of an image to 80. No network likes that. And what should it predict?
# At little noise $x_0$ is in plain view, and asking for it is asking for a copy; at much noise $\epsilon$ is in plain
# view. Karras et al. (2022) put factors around the network $F$ and **derive** them:
#
# $$x_{0,\text{pred}} = c_\text{skip}\, x_t + c_\text{out}\, F(c_\text{in}\, x_t,\; c_\text{noise})$$
#
# 1. **The input has variance 1.** A pixel of $x_t$ varies with image and noise, $\sigma^2 + \alpha^2 s^2$, where $s$,
#    `sigma_data`, is the deviation of the data. So $c_\text{in} = 1 / \sqrt{\sigma^2 + \alpha^2 s^2}$.
# 2. **The target has variance 1.** A perfect $F$ is $(x_0 - c_\text{skip}\, x_t) / c_\text{out}$; in the numerator
#    stands $(1 - c_\text{skip}\, \alpha)\, x_0 - c_\text{skip}\, \sigma\, \epsilon$. So
#    $c_\text{out}^2 = (1 - c_\text{skip}\, \alpha)^2 s^2 + c_\text{skip}^2 \sigma^2$.
# 3. **An error of $F$ counts as little as possible.** It is $c_\text{out}$ times as large in $x_0$. The smallest
#    $c_\text{out}$, where the derivative of 2 by $c_\text{skip}$ is 0, is at
#    $c_\text{skip} = \alpha s^2 / (\sigma^2 + \alpha^2 s^2)$, and there
#    $c_\text{out} = \sigma s / \sqrt{\sigma^2 + \alpha^2 s^2}$.
#
# What the network is told of the noise is $c_\text{noise} = \frac14 \log(\sigma / \alpha)$, a number of moderate size.
# (The 1/4 is the one thing that is not derived.)
#
# > **Predict before you run.** The next cell measures the deviation of the target of $F$ over our images, at each
# > level, with the $s$ of our data, and with EDM's own, 0.5, which is right for theirs. Which will be off, where, and
# > in which direction?

# %%
pixels = train.images[:500] / 127.5 - 1
SIGMA_DATA = float((train.images / 127.5 - 1).std())
print(f"sigma_data of these images: {SIGMA_DATA:.4f}, their mean {(train.images / 127.5 - 1).mean():.3f}")


def edm_factors(sigma, s):
    """The factors c_skip, c_out and c_in of edm, where alpha is 1."""
    variance = sigma**2 + s**2
    return s**2 / variance, sigma * s / np.sqrt(variance), 1 / np.sqrt(variance)


sigmas = np.geomspace(0.002, 80, 25)
noise = np.random.default_rng(3).standard_normal(pixels.shape)
sizes = {"input": [], "F, s of our data": [], "F, s = 0.5": []}
for sigma in sigmas:
    x_t = pixels + sigma * noise
    sizes["input"].append((edm_factors(sigma, SIGMA_DATA)[2] * x_t).std())
    for name, s in (("F, s of our data", SIGMA_DATA), ("F, s = 0.5", 0.5)):
        skip, out, _ = edm_factors(sigma, s)
        sizes[name].append(((pixels - skip * x_t) / out).std())
figure, (axes, factors) = plt.subplots(1, 2, figsize=(9, 3.5))
for (name, values), dashes in zip(sizes.items(), ("-", "--", "-."), strict=True):
    axes.semilogx(sigmas, values, dashes, label=name)
    print(f"deviation of {name:>17}: {min(values):.3f} to {max(values):.3f}")
axes.set(title="Deviation, measured on 500 images", xlabel="sigma", ylim=(0, 1.6))
axes.legend(fontsize=9)
for name, values, dashes in zip(
    ("c_skip", "c_out", "c_in"), edm_factors(sigmas, SIGMA_DATA), ("-", "--", "-."), strict=True
):
    factors.semilogx(sigmas, values, dashes, label=name)
factors.set(title="The factors", xlabel="sigma")
factors.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* with the right $s$ the target has about the same size everywhere. With 0.5 it is right at little noise,
# where $F$ is $-\epsilon$, nearly, and up to 1.4 times too large at much noise, where it is $x_0 / s$: the deviation of
# *your* data belongs there. On the right, $c_\text{skip}$ says what happens: at little noise the input is kept, and $F$
# has to find the noise in it; at much noise the input is thrown away, and $F$ draws the image. Between the two, at
# $\sigma = s$, is half of each.
#
# The loss is then weighted with $1 / c_\text{out}^2$, so that $F$'s error counts equally at each level, and the times
# are drawn where something is to be learned, log-normally. In code, in both trees:

# %%
side_by_side("preconditioning", "preconditioning")

# %% [markdown]
# ## Flow matching: straight lines
#
# `flow` goes from the image to the noise at constant speed, $x_t = (1 - t)\, x_0 + t\, \epsilon$. **Mind the
# direction:** here, as in Stable Diffusion 3 and diffusers, $t = 1$ is the noise; in Lipman et al. (2023) it is the
# data. The network predicts the **velocity**
#
# $$\frac{dx_t}{dt} = \epsilon - x_0 ,$$
#
# and to draw is to walk against it, $x \leftarrow x - v\, dt$: Euler's method, and nothing else to know. No $\beta$, no
# $\bar\alpha$, no score. And yet it is the same ODE: with $f = -1 / (1 - t)$ and $g^2 = 2 t / (1 - t)$ the slope
# $f x - \frac12 g^2 s$ is the mean of $\epsilon - x_0$, given $x_t$.
#
# > **Predict before you run.** Each pair $(x_0, \epsilon)$ is joined by a straight line. Are the paths of the ODE,
# > which follow the *mean* velocity, straight too?

# %%
flow_times = np.arange(1, N + 1) / N
pairs = np.where(rng.random(14) < SHARES[0], *MEANS) + DEVIATION * rng.standard_normal(14), rng.standard_normal(14)


def mean_velocity(x, t):
    """The mean of eps - x_0, given x_t = x: alpha' x_0 + sigma' eps with the best x_0 and eps."""
    eps = -t * score(x, 1 - t, t)
    x_0 = (x - t * eps) / (1 - t) if t < 1 else np.full_like(x, SHARES @ MEANS)
    return eps - x_0


def walk(x, steps):
    """Euler's method from t = 1 to 0: all points on the way."""
    way = [x]
    for i in range(steps, 0, -1):
        x = x - mean_velocity(x, i / steps) / steps
        way.append(x)
    return np.array(way[::-1])


figure, (axes, curves) = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
axes.plot([0, 1], np.array(pairs), linewidth=0.9)
axes.set(title="Pairs, as in training: they cross", xlabel="t", ylabel="x")
curves.plot(np.append(0, flow_times), walk(np.sort(x_T)[100::300], N), linewidth=0.9)
curves.set(title="Paths of the ODE: they may not cross", xlabel="t")
plt.show()
exact = walk(x_T, N)[0]
for steps in (1, 2, 4, 8, 32):
    end = walk(x_T, steps)[0]
    apart = np.sqrt(np.mean((end - exact) ** 2))
    print(
        f"{steps:2} steps: {np.mean(end < 0):5.1%} on the left, deviation of all {end.std():.3f}, {apart:.3f} from the path's end"
    )

# %% [markdown]
# *What to see:* lines cross, paths may not: where a line from the left and one from the right meet, the network can
# only predict the mean of their velocities. So the paths bend, and one step of Euler's method ends at the mean of all
# data, in the valley where nothing is. Flow matching is straight where it is trained, and only nearly straight where it
# is used. (To straighten the paths is another training, "reflow", Liu et al. 2023.)
#
# **Which times?** At small $t$ the part of the velocity that is not in plain view is noise in an almost clean image, at
# large $t$ an image in almost pure noise. Both are hard to see. It is in the middle that a network learns most, so the
# times of training are drawn more often there: **logit-normal**, $t = 1 / (1 + e^{-z})$ with $z \sim N(0, 1)$ (Esser et
# al. 2024).

# %%
uniform = streams.uniform(0, streams.TRAIN_U, 0, 20_000)
flow = with_process(DiffusionConfig(), "flow")
drawn_times = {
    name: duet.data.to_array(duet.objective.times_of(each, duet.data.to_tensor(uniform.reshape(-1, 1, 1, 1)))).ravel()
    for name, each in (
        ("logit-normal", flow),
        ("uniform", dataclasses.replace(flow, time_density="uniform")),
        ("shifted, s = 3", dataclasses.replace(flow, time_density="shifted")),
    )
}
figure, axes = plt.subplots(figsize=(7.5, 2.8))
for (name, values), dashes in zip(drawn_times.items(), ("-", "--", "-."), strict=True):
    axes.hist(values, 40, range=(0, 1), density=True, histtype="step", linestyle=dashes, linewidth=1.5, label=name)
    print(f"{name:>14}: {np.mean((values > 0.25) & (values < 0.75)):.0%} of the times are between 0.25 and 0.75")
axes.set(title="20,000 times of training, from the same uniform numbers", xlabel="t", ylabel="density")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* each density is made from the same uniform numbers by its inverse distribution function
# (`objective.times_of`), so both frameworks draw the same times. `shifted` moves them to the noise, for large images,
# in which more noise is needed to hide the same thing.
#
# ## A training
#
# The smallest network of the package, 400 steps of 64 images, as in [04](04_training.ipynb), but in another process.
# With the process come prediction, weighting, density of t, grid and sampler. **Change `PROCESS`** afterwards, and run
# the next cells again.
#
# > **Predict before you run.** The target is $\epsilon - x_0$. What is the loss of a network that predicts 0? (Two
# > numbers of this notebook are enough.) And the losses of `flow` and `vp`: may you compare them?

# %%
PROCESS, STEPS = "flow", 400  # or vp, sub_vp, ve, ve_exponential, edm
config = dataclasses.replace(
    with_preset(Config(device="cpu"), "tiny"),
    diffusion=with_process(DiffusionConfig(), PROCESS),
    training=TrainingConfig(batch_size=64, max_steps=STEPS, warmup_steps=50, learning_rate=2e-3),
)
config = fitted(config, train.images.shape[1:], sigma_data=SIGMA_DATA)
learner = duet.learner.Learner(config, STEPS)
curve = LiveCurve(f"{duet.name}: the loss of 400 steps of `tiny` in {PROCESS}", STEPS)
grids = {}
for step in range(STEPS):
    curve.add(learner.train_step(batches.training_batch(train, config, step), step)[0])
    if step + 1 in (100, 200, STEPS):
        grids[step + 1] = learner.sample(8, lambda i: None)
print(f"loss of the first step {curve.values[0]:.3f}, mean of the last 20 {np.mean(curve.values[-20:]):.3f}")
print(f"1 + mean square of the images: {1 + np.mean((train.images / 127.5 - 1) ** 2):.3f}")

# %%
show_images(
    np.concatenate(list(grids.values())),
    columns=8,
    rows=[f"{step} steps" for step in grids],
    title=f"{duet.name}: the same noise, drawn by {learner.sampler.sampling.sampler} as the network learns",
)

# %% [markdown]
# *What to see:* no more is needed than in 04, and no less: blobs after a hundred steps, outlines of garments after four
# hundred. Losses of different predictions are errors of different things and do not compare; images do. And where is
# the loss? Give the network the test images at one $t$ after the other:

# %%
if PROCESS == "flow":
    moments = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
    shown = test.images[:128]
    eps = streams.normal(0, streams.VALIDATION_EPS, 0, shown.shape)
    labels = np.zeros(len(shown), np.int64)
    at_each = [batches.Batch(shown, labels, np.full(len(shown), ndtr(logit(t))), eps) for t in moments]
    losses = [loss for _, loss in learner.validation_losses(at_each)]
    figure, axes = plt.subplots(figsize=(7.5, 2.8))
    axes.plot(moments, losses, "-o", label="our network")
    axes.set(title="The error of the velocity at each t", xlabel="t", ylabel="mean square", ylim=(0, None))
    axes.legend()
    plt.show()
    print({float(t): round(loss, 3) for t, loss in zip(moments, losses, strict=True)})

# %% [markdown]
# *What to see:* a valley. At $t = 0.02$ our network has found nothing of the noise, whose mean square is 1: it is far
# smaller than the image in which it has to be seen. At large $t$ the image can hardly be seen in the noise. The low
# middle is where 400 steps have made the difference.
#
# ## Attention to one token
#
# The conditional score model of the tutorials (`--preset score-transformer`) puts the class into a U-Net by
# **cross-attention**: queries from the pixels, keys and values from the tokens of a context,
# $\mathrm{softmax}(q k^\top / \sqrt C)\, v$. There the context is one token, the class. `networks/transformer_unet.py`
# has it, and here is a small one, trained for five steps. A weight that has not moved by a bit has had a gradient of
# exactly zero.
#
# > **Predict before you run.** A softmax over *one* key: what is it? Which weights will not learn?


# %%
def unmoved(tokens, steps=5):
    """The weights of a small score transformer that five steps of training leave as they were."""
    config = with_preset(Config(device="cpu"), "score-transformer")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, base_channels=8, context_tokens=tokens),
        training=TrainingConfig(batch_size=16, max_steps=steps, warmup_steps=0),
    )
    config = fitted(config, train.images.shape[1:], num_classes=10)
    learner = duet.learner.Learner(config, steps)
    before = {name: value.copy() for name, value in learner.tensors().items() if name.startswith("model/")}
    for step in range(steps):
        learner.train_step(batches.training_batch(train, config, step), step)
    after = learner.tensors()
    still = [name for name in before if np.array_equal(before[name], after[name])]
    return {name.removeprefix("model/"): before[name].size for name in still}, learner.num_parameters


for tokens in (1, 2):
    still, total = unmoved(tokens)
    print(
        f"--context-tokens {tokens}: {sum(still.values()):,} of {total:,} weights have not moved: {len(still)} tensors"
    )
    for name in still:
        print(f"    {name}")

# %% [markdown]
# *What to see:* the queries and keys of each cross-attention, and the normalisation before it, which serves the queries
# alone. The softmax over one key is 1, whatever $q$ and $k$ are, so their gradient is exactly zero: the "attention" is
# a linear map of the class that is added to every pixel, and the weights for looking are never used. No loss curve
# shows it, and the pictures are not bad. With two tokens, the class and the null label, each pixel can choose how much
# of the class it takes, and everything learns.
#
# ## How likely is an image?
#
# The ODE has one more gift. It is a change of variables, so $\log p$ of an image can be followed along its path,
# without a bound: that is the **likelihood** by the probability-flow ODE, to be compared with the bound of
# [03](03_objective.ipynb) for the same network:
#
#     make likelihood-torch      # or likelihood-tf
#     make bits-torch            # the bound
#
# And all of this notebook by the command line, in both frameworks:
#
#     make train-torch ARGS="--process flow --preset tiny --minutes 3"         # vp, sub_vp, ve, ve_exponential, edm
#     make sample-torch ARGS="--checkpoint latest --sampler heun --steps 20"
#     make sample-torch ARGS="--process edm --sampler dpmpp_2m"                # the network in the package, drawn in edm
#
# What each process brings, and what does not go together: [docs/processes.md](../docs/processes.md).
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · One step back.** (easy) Euler-Maruyama's step of the reverse SDE, from $t$ to $t - dt$. `eps_pred` is the
# predicted noise of `x`, both [B, H, W, C]; `f`, `squared_g` and `sigma` are numbers, of time $t$; `z` is new noise. If
# `last` is true, the step leads to the image.


# %%
def my_reverse_step(x, eps_pred, f, squared_g, sigma, dt, z, last):
    """Return x at t - dt."""
    ...


check.reverse_step(my_reverse_step)

# %% [markdown]
# **2 · Along the spine.** (medium) `x` [B, H, W, C] is at a level with `alpha` [B] and `sigma` [B] of *some* process.
# Return the time $t$ of `flow` with the same log-SNR, [B], and `x` in the units of flow.


# %%
def my_flow(x, alpha, sigma):
    """Return t and x."""
    ...


check.to_flow(my_flow)

# %% [markdown]
# **3 · Unit variance.** (harder) The four factors of EDM for any `alpha` [N] and `sigma` [N], from the three demands
# above.


# %%
def my_preconditioning(alpha, sigma, sigma_data):
    """Return c_skip, c_out, c_in and c_noise, [N] each."""
    ...


check.preconditioning(my_preconditioning)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>In which process can the network not predict the noise?</summary>
# In flow: at t = 1 x_t is the noise itself, alpha is 0, and from the noise alone no image follows; x_0 = (x_t - sigma
# eps) / alpha divides by zero. The velocity holds both, eps and x_0, so it has an answer there. The command line
# refuses eps and score for flow.</details>
#
# <details><summary>Why can Euler-Maruyama not be used with flow?</summary>
# f = -1 / (1 - t) and g^2 = 2 t / (1 - t) are infinite at t = 1. The ODE's slope is not: the two infinities cancel, and
# what is left is the velocity. A sampler with noise for flow works on levels: ancestral, dpmpp_2m_sde, ddim with
# eta.</details>
#
# <details><summary>ve's alpha is 1. Does it destroy the image at all?</summary>
# Nothing is taken away, but it drowns: at sigma = 50 a difference of one grey level is a six-thousandth of a deviation
# of the noise. What counts is sigma / alpha: 50 here, and 152 in vp at t = 1.</details>
#
# <details><summary>A paper reports that flow matching needs fewer steps than DDPM. Which three things may it be?</summary>
# The grid of times, the solver, and the network, which was trained with another weighting and density of t. Not the
# process: at the same levels, with the same network, the images are the same. Ask for an experiment that changes one of
# them at a time.</details>
#
# <details><summary>Why do the same uniform numbers, through an inverse distribution function, make it easier to compare two densities?</summary>
# Image 17 of a batch has the same noise in both runs, and the t that stands at the same place of its density. So the
# runs differ in the density, and not in their luck.</details>
#
# ## What you have now
#
# | here | in the code | in the papers |
# |---|---|---|
# | $\alpha$, $\sigma$ and their derivatives | `paths.PROCESSES`, `paths.RATES` | Song et al. 2021, eq. 29 to 33; Karras et al. 2022, table 1 |
# | $f$, $g^2$, the log-SNR | `processes.drift`, `squared_diffusion`, `log_snr`, `matched` | Kingma et al. 2021, appendix B |
# | the score | `prediction.DIRECTIONS["score"]`: $-\epsilon / \sigma$ | Song et al. 2021, section 3.3 |
# | the probability-flow ODE | `solvers.euler`, `heun_t`, `rk4` | Song et al. 2021, eq. 13 |
# | the reverse SDE | `solvers.euler_maruyama`, `pc` | Anderson 1982; Song et al. 2021, eq. 6 |
# | EDM's factors | `preconditioning.preconditioning` | Karras et al. 2022, table 1 and appendix B.6 |
# | the velocity | `prediction.DIRECTIONS["velocity"]` | Liu et al. 2023, eq. 1 |
# | times of training | `objective.times_of` | Esser et al. 2024, section 3.1 |
# | cross-attention | `networks.transformer_unet.Attention` | Vaswani et al. 2017, eq. 1 |
#
# Next: [11, a zoo of networks](11_a_zoo_of_networks.ipynb): what stands in the middle, and what its habits cost.
