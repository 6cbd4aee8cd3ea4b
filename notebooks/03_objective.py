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
# # 03 · The objective: from a bound to a mean square
#
# **Afterwards you can** derive the loss of a diffusion model from the likelihood of an image, step by step; say what
# was dropped on the way; explain why the loss is small at large $t$ and large at small $t$; and say why it hardly tells
# how good the samples are.
#
# **Time:** 75 minutes. **You need:** [01, the forward process](01_forward_process.ipynb), and from
# [02](02_network.ipynb) no more than that there is a network; Bayes' rule, the density of a normal distribution, and
# what a Kullback-Leibler divergence is.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None


import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import objective as check
from ddpm_course.figures import show_images
from ddpm_shared import datasets
from ddpm_shared.commands import bits_estimate
from ddpm_shared.config import DiffusionConfig
from ddpm_shared.config.sampling import Sampling

duet = begin(FRAMEWORK)

# %% [markdown]
# Formulas below count time as the paper does (Ho et al. 2020, arXiv:2006.11239, whose equations are meant by "eq."),
# from 1 to $T$, with $\bar\alpha_0 = 1$; the code counts from 0. So `betas[t]` is the paper's $\beta_{t+1}$, and
# `x_prev` is $x_{t-1}$: one step less noisy than $x_t$.

# %%
train, test = datasets.load("fashion-mnist-10k")
x_0 = duet.data.to_array(duet.data.to_images(test.images, duet.utils.dtype("fp64")))  # [2000, 28, 28, 1] in [-1, 1]

schedule = duet.engine.make_schedule(DiffusionConfig(), duet.utils.dtype("fp64"))
betas, alphas_cumprod = schedule.betas.numpy(), schedule.alphas_cumprod.numpy()
alphas = 1 - betas
alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
snr = alphas_cumprod / (1 - alphas_cumprod)
rng = np.random.default_rng(0)
print(f"{len(x_0)} test images, {len(betas)} steps")

# %% [markdown]
# ## What we want, and why we take a bound
#
# A good model gives real images a high probability. So we want to make $\log p(x_0)$ large, on average over the
# training images. Our model begins with noise, $p(x_T) = \mathcal N(0, 1)$, and takes $T$ learnt steps
# $p(x_{t-1} \mid x_t)$ back to an image. The probability of an image is then a sum over every way of getting there,
#
# $$p(x_0) = \int p(x_T)\, p(x_{T-1} \mid x_T) \cdots p(x_0 \mid x_1)\;\; dx_1 \cdots dx_T ,$$
#
# an integral over a thousand noisy images. Nobody can compute it. But we know a good place to look for the ways that
# matter: the forward process $q(x_1, \ldots, x_T \mid x_0)$. Multiply and divide by it, and the integral becomes a mean
# over $q$. The logarithm is concave, so the logarithm of a mean is at least the mean of the logarithm (Jensen's
# inequality):
#
# $$\log p(x_0) = \log \mathbb E_q\!\left[\frac{p(x_0, \ldots, x_T)}{q(x_1, \ldots, x_T \mid x_0)}\right]
# \;\ge\; \mathbb E_q\!\left[\log \frac{p(x_0, \ldots, x_T)}{q(x_1, \ldots, x_T \mid x_0)}\right]$$
#
# The right side is the **evidence lower bound**, ELBO. It is a mean of something we can compute, over something we can
# draw. What we lose is exactly the divergence of $q$ from the true posterior $p(x_1, \ldots, x_T \mid x_0)$ of the
# model.
#
# See it where $\log p$ is known (in nats, the unit of natural logarithms): one hidden number $z \sim \mathcal N(0, 1)$
# and one observed, $x \sim \mathcal N(z, 0.5^2)$. Then $x \sim \mathcal N(0, 1.25)$, and the posterior of $z$ is
# $\mathcal N(x / 1.25,\; 0.2)$.


# %%
def log_normal(x, mean, variance):
    """The logarithm of the density of N(mean, variance) at x."""
    return -((x - mean) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2


x, centres, noise = 1.5, np.linspace(-0.3, 2.7, 25), rng.standard_normal(20_000)
figure, axes = plt.subplots()
axes.axhline(log_normal(x, 0, 1.25), color="0.3", label="log p(x)")
for deviation, dashes in ((np.sqrt(0.2), "-o"), (0.8, "--s")):
    bounds = []
    for centre in centres:
        z = centre + deviation * noise  # drawn from q
        bounds.append(np.mean(log_normal(z, 0, 1) + log_normal(x, z, 0.25) - log_normal(z, centre, deviation**2)))
    axes.plot(centres, bounds, dashes, markersize=4, label=f"ELBO, q of standard deviation {deviation:.2f}")
axes.set(title="The bound for x = 1.5", xlabel="mean of q(z)", ylabel="nats", ylim=(-9, 0))
axes.legend()
plt.show()
print(f"log p(x) = {log_normal(x, 0, 1.25):.4f}; the posterior's mean is {x / 1.25}")

# %% [markdown]
# *What to see:* no point lies above the line. The solid curve touches it at the posterior's mean, 1.2, where $q$ *is*
# the posterior; the dashed one has the wrong width and stays below everywhere. Here we moved $q$. In diffusion $q$ is
# fixed, and training moves $p$.
#
# ## Three kinds of terms
#
# Both fractions are products over the steps. To compare them step by step, turn the forward steps round. Because $q$ is
# a Markov chain, $q(x_t \mid x_{t-1}) = q(x_t \mid x_{t-1}, x_0)$, and Bayes' rule gives, for $t > 1$,
#
# $$q(x_t \mid x_{t-1}) = q(x_{t-1} \mid x_t, x_0)\;\frac{q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} .$$
#
# Multiply these from $t = 2$ to $T$: in the fractions everything cancels but the last numerator and the first
# denominator, and that one cancels against $q(x_1 \mid x_0)$, the first step. What remains is
#
# $$q(x_1, \ldots, x_T \mid x_0) = q(x_T \mid x_0)\,\prod_{t=2}^{T} q(x_{t-1} \mid x_t, x_0) .$$
#
# The same image, walked *backwards*, by somebody who knows where it began. Now each learnt step has a partner, and the
# bound, its sign turned, falls apart:
#
# $$-\log p(x_0) \;\le\; \mathbb E_q\Big[\underbrace{\mathrm{KL}\big(q(x_T \mid x_0)\,\|\,p(x_T)\big)}_{L_T}
# + \sum_{t=2}^{T} \underbrace{\mathrm{KL}\big(q(x_{t-1} \mid x_t, x_0)\,\|\,p(x_{t-1} \mid x_t)\big)}_{L_{t-1}}
# \underbrace{-\log p(x_0 \mid x_1)}_{L_0}\Big] \qquad \text{(eq. 5)}$$
#
# | term | asks | learns |
# |---|---|---|
# | $L_T$, the prior | does the forward process end in pure noise? | nothing: no network in it |
# | $L_{t-1}$, a step | is the network's step like that of one who knows $x_0$? | nearly all |
# | $L_0$, the decoder | does the last step hit the right grey level? | the same, once |
#
# ## The step of one who knows
#
# $q(x_{t-1} \mid x_t, x_0)$, for one pixel. Two things are known of $x_{t-1}$: where it came from,
# $x_{t-1} \sim \mathcal N(\sqrt{\bar\alpha_{t-1}}\,x_0,\; 1 - \bar\alpha_{t-1})$, and what became of it,
# $x_t \sim \mathcal N(\sqrt{\alpha_t}\,x_{t-1},\; \beta_t)$. The density is the product of both. As its logarithm,
# without what does not contain $x_{t-1}$:
#
# $$-\frac{(x_t - \sqrt{\alpha_t}\,x_{t-1})^2}{2\beta_t} - \frac{(x_{t-1} - \sqrt{\bar\alpha_{t-1}}\,x_0)^2}{2(1 - \bar\alpha_{t-1})}
# \;=\; -\frac12\underbrace{\left(\frac{\alpha_t}{\beta_t} + \frac{1}{1 - \bar\alpha_{t-1}}\right)}_{A}\,x_{t-1}^2
# + \underbrace{\left(\frac{\sqrt{\alpha_t}\,x_t}{\beta_t} + \frac{\sqrt{\bar\alpha_{t-1}}\,x_0}{1 - \bar\alpha_{t-1}}\right)}_{B}\,x_{t-1} + \ldots$$
#
# Complete the square: $-\frac12 A x^2 + B x = -\frac12 A\,(x - B/A)^2 + \ldots$ So it is normal with mean $B/A$ and
# variance $1/A$. With $\alpha_t (1 - \bar\alpha_{t-1}) + \beta_t = 1 - \bar\alpha_t$ this is
#
# $$\boxed{\;\tilde\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1 - \bar\alpha_t}\,x_0 + \frac{\sqrt{\alpha_t}\,(1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}\,\beta_t\;} \qquad \text{(eq. 6 and 7)}$$
#
# **Is it true?** Walk a pixel of 0.8 to $t - 1$ and on to $t$, two million times, and keep only the walks that arrive
# near 1.2.
#
# > **Predict before you run.** 0.8 becomes 1.2 at $t = 100$. Where was it one step before: nearer to 0.8, or nearer to
# > 1.2? And is that known more precisely than from $x_0$ alone?

# %%
t, known_x_0, known_x_t = 100, 0.8, 1.2
x_prev = np.sqrt(alphas_cumprod_prev[t]) * known_x_0 + np.sqrt(1 - alphas_cumprod_prev[t]) * rng.standard_normal(
    2_000_000
)
x_t = np.sqrt(alphas[t]) * x_prev + np.sqrt(betas[t]) * rng.standard_normal(x_prev.shape)
kept = x_prev[np.abs(x_t - known_x_t) < 0.01]

A = alphas[t] / betas[t] + 1 / (1 - alphas_cumprod_prev[t])
B = np.sqrt(alphas[t]) * known_x_t / betas[t] + np.sqrt(alphas_cumprod_prev[t]) * known_x_0 / (
    1 - alphas_cumprod_prev[t]
)


def pixel(value):
    """An image of one pixel, as the package's tensor."""
    return duet.data.to_tensor(np.full((1, 1, 1, 1), value))


mean, variance, _ = duet.engine.q_posterior(schedule, pixel(known_x_0), pixel(known_x_t), duet.times([t]))

value = np.linspace(0, 1.6, 400)
figure, axes = plt.subplots()
axes.hist(kept, bins=60, density=True, color="0.75", label=f"{len(kept):,} walks that arrive near {known_x_t}")
axes.plot(value, np.exp(log_normal(value, B / A, 1 / A)), label="q(x_prev | x_t, x_0), the formula")
prior = log_normal(value, np.sqrt(alphas_cumprod_prev[t]) * known_x_0, 1 - alphas_cumprod_prev[t])
axes.plot(value, np.exp(prior), "--", label="q(x_prev | x_0), where x_t is not known")
axes.set(title="One pixel of 0.8, one step before t = 100", xlabel="value of x_prev", ylabel="probability density")
axes.legend(loc="upper left")
plt.show()
print(
    f"mean:               walks {kept.mean():.4f}, completed square {B / A:.4f}, q_posterior {mean.numpy().item():.4f}"
)
package = variance.numpy().item() ** 0.5
print(f"standard deviation: walks {kept.std():.4f}, completed square {A**-0.5:.4f}, q_posterior {package:.4f}")

# %% [markdown]
# *What to see:* the solid curve is the outline of the bars, and the three ways agree to about a thousandth. One step
# before, the pixel was near 1.2, where it arrived, and a little closer to where it came from. Knowing $x_t$ makes it
# far more certain than $x_0$ alone does.
#
# ## A divergence is a squared distance
#
# We let the network's step be normal as well, with the *same* variance as its partner:
# $p(x_{t-1} \mid x_t) = \mathcal N(\mu, \tilde\beta_t)$. It need only tell the mean $\mu$. The divergence of two normal
# distributions, with $r = \sigma_1^2 / \sigma_2^2$, is
#
# $$\mathrm{KL} = \frac12\left(r - 1 - \log r + \frac{(\mu_1 - \mu_2)^2}{\sigma_2^2}\right),$$
#
# and where the variances are equal, $r = 1$ and nothing is left but the **squared distance of the means** by twice the
# variance. Once by numerical integration:

# %%
line, dx = np.linspace(-12, 12, 100_001, retstep=True)
for distance in (0.0, 0.5, 1.0, 2.0):
    one, two = log_normal(line, 0, 0.7), log_normal(line, distance, 0.7)
    integral = np.sum(np.exp(one) * (one - two)) * dx
    print(f"means {distance} apart, variance 0.7: KL {integral:.6f} nats, by the formula {distance**2 / (2 * 0.7):.6f}")

# %% [markdown]
# The logarithm in the likelihood and the exponential in the normal density have cancelled. That is where the mean
# square comes from.
#
# ## From the mean to the noise
#
# The network could tell $\mu$ itself. But it is given $x_t$, and of $\tilde\mu$ only $x_0$ is unknown; and as
# $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon$, to know $\epsilon$ is to know $x_0$. Put
# $x_0 = (x_t - \sqrt{1 - \bar\alpha_t}\,\epsilon) / \sqrt{\bar\alpha_t}$ into the box:
#
# $$\tilde\mu = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\,\epsilon\right)$$
#
# Let the network's mean be the same formula with $\epsilon_\text{pred}$ in it. Then $x_t$ drops out of the difference,
# and
#
# $$\boxed{\;L_{t-1} = \frac{\beta_t^2}{2\,\tilde\beta_t\,\alpha_t\,(1 - \bar\alpha_t)}\;\big\|\epsilon - \epsilon_\text{pred}(x_t, t)\big\|^2\;} \qquad \text{(eq. 12, with } \sigma_t^2 = \tilde\beta_t)$$
#
# Check both with the package: the mean against `q_posterior`, and the weighted error against `variational_bound_term`,
# which computes the divergence itself. Our "network" for this is one that knows the noise and is off by a tenth of
# another noise.

# %%
times = np.array([1, 10, 100, 500, 999])
images, eps = x_0[: len(times)], rng.standard_normal((len(times), 28, 28, 1))
off = 0.1 * rng.standard_normal(eps.shape)
tensors = duet.data.to_tensor(images), duet.times(times), duet.data.to_tensor(eps)
x_t = duet.engine.q_sample(schedule, *tensors)


def per_image(values):
    """[T] at the times of the images, to be multiplied with them: [B, 1, 1, 1]."""
    return values[times][:, None, None, None]


mean, _, _ = duet.engine.q_posterior(schedule, tensors[0], x_t, tensors[1])
by_eps = (duet.data.to_array(x_t) - per_image(betas / np.sqrt(1 - alphas_cumprod)) * eps) / per_image(np.sqrt(alphas))
print(f"the mean by eps and q_posterior differ by {np.abs(by_eps - duet.data.to_array(mean)).max():.1e} at most")

bits = duet.bound.variational_bound_term(
    schedule, lambda x_t, t: duet.data.to_tensor(eps + off), *tensors, clip_x_0=False
)
posterior_variance = betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod)
weight = betas[1:] ** 2 / (2 * posterior_variance[1:] * alphas[1:] * (1 - alphas_cumprod[1:]))  # from t = 1 on
weight = np.append(np.nan, weight)
for place, t in enumerate(times):
    nats, squares = float(bits[place]) * np.log(2), np.mean(off[place] ** 2)
    print(f"t = {t:3}: divergence {nats:.4e} nats a pixel, weighted squared error {weight[t] * squares:.4e}")

# %% [markdown]
# ## The weight is dropped
#
# Ho et al. then simply leave the weight out:
#
# $$L_\text{simple} = \mathbb E_{t,\, x_0,\, \epsilon}\,\big\|\epsilon - \epsilon_\text{pred}\big(\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon,\; t\big)\big\|^2 \qquad \text{(eq. 14)}$$
#
# with $t$ drawn uniformly. It is no longer a bound on the likelihood, but the same terms weighed otherwise; and every
# term still is smallest where the network tells the best guess of the noise.
#
# > **Predict before you run.** Which times does dropping the weight favour: the nearly clean images, or the noisier
# > ones?

# %%
figure, axes = plt.subplots()
axes.plot(np.arange(1, 1000), weight[1:] / weight[1:].mean(), label="in the bound")
axes.axhline(1, color="C1", linestyle="--", label="in the simple loss")
axes.set(title="How much an error of eps counts", xlabel="t", ylabel="weight (mean 1)", xscale="log", yscale="log")
axes.legend()
plt.show()
least = np.nanargmin(weight)
print(f"in the bound, t = 1 counts {weight[1] / weight[least]:.0f} times what the least counts, t = {least}")
print(f"the first 50 of 999 weights are {weight[1:51].sum() / weight[1:].sum():.0%} of all")

# %% [markdown]
# *What to see:* both axes are logarithmic. The bound counts errors at the smallest $t$ far above the average, and those
# from $t = 100$ on at or below it. The simple loss takes from the first and gives to the rest. Where $t$ is small the
# noise is hardly visible, and to tell it precisely is worth many bits and little to the eye.
#
# ## The loss of three networks
#
# `engine.diffusion_loss` is eq. 14 for a batch. It is given the network as an argument, so that anything may stand in
# for one.
#
# > **Predict before you run.** What is the loss of a network that always says 0? And of one that knows the noise?

# %%
network, config = duet.trained()
schedule_32 = duet.engine.make_schedule(config.diffusion)  # float32, as the network
count = 50
eps_32 = duet.data.to_tensor(rng.standard_normal((count, 28, 28, 1)).astype(np.float32))
batch = duet.data.to_tensor(x_0[:count].astype(np.float32)), duet.times(rng.integers(0, 1000, count)), eps_32

for name, asked in (
    ("says 0", lambda x_t, t: 0 * x_t),
    ("says x_t", lambda x_t, t: x_t),
    ("the trained one", network),
    ("knows the noise", lambda x_t, t: eps_32),
):
    print(f"{name:>15}: loss {float(duet.engine.diffusion_loss(schedule_32, asked, *batch)):.4f}")

# %% [markdown]
# Who says 0 has the noise's variance as loss, 1. Who knows the noise has 0, but no network can: it sees $x_t$ only, and
# different images with different noises make the same $x_t$. The best possible network says the mean of all noises that
# are compatible with $x_t$, and its loss is the variance around that mean, more than 0.
#
# ## Where the loss comes from
#
# Now time by time: test image $i$ is taken to $t = i$, so that a thousand images ask every $t$ once.
#
# > **Predict before you run.** At which end is the trained network's loss larger, at $t = 0$ or at $t = 999$? In which
# > of the two would *you* find it easier to point at the noise?

# %%
losses, eps = np.empty(1000), rng.standard_normal((1000, 28, 28, 1))
for first in range(0, 1000, count):
    part = slice(first, first + count)
    t, noise = duet.times(range(first, first + count)), duet.data.to_tensor(eps[part].astype(np.float32))
    x_t = duet.engine.q_sample(schedule_32, duet.data.to_tensor(x_0[part].astype(np.float32)), t, noise)
    losses[part] = np.mean((duet.data.to_array(network(x_t, t)) - eps[part]) ** 2, axis=(1, 2, 3))

bins = losses.reshape(20, 50)  # fifty neighbouring times in each
middles = np.arange(25, 1000, 50)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
left.plot(losses, ".", color="0.7", markersize=3, label="one image")
left.plot(middles, np.median(bins, 1), "-o", markersize=4, label="median of 50 times")
left.fill_between(middles, *np.percentile(bins, (10, 90), axis=1), alpha=0.25, label="10 to 90 % of them")
left.set(title="The loss over t", xlabel="t", ylabel="squared error of eps", yscale="log")
left.legend()
right.plot(np.cumsum(losses) / losses.sum())
right.set(title="Where the mean comes from", xlabel="t", ylabel="share of the loss up to t", ylim=(0, 1.03))
plt.show()
print(f"mean {losses.mean():.4f}; t < 10: {losses[:10].mean():.3f}; t >= 900: {losses[900:].mean():.5f}")
print(
    f"share of t < 100: {losses[:100].sum() / losses.sum():.0%}, of t >= 500: {losses[500:].sum() / losses.sum():.0%}"
)

# %% [markdown]
# *What to see:* left, the loss falls by more than three orders of magnitude, from the clean end to the noisy one, and
# images at neighbouring times differ by a factor of a few. Right, the first tenth of the times makes about half of the
# mean, and the second half of the times a few hundredths.
#
# Is the network so much better at large $t$? No: the *question* is easier. At large $t$ nearly all of $x_t$ is noise,
# and who simply repeats $x_t$ is nearly right. At small $t$ the noise is a faint grain on the image, and what is grain
# and what is cloth can hardly be told. From $x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$, an
# error of $\epsilon_\text{pred}$ and the error of the $x_0$ it implies belong together:
#
# $$(\epsilon - \epsilon_\text{pred})^2 = \frac{\bar\alpha_t}{1 - \bar\alpha_t}\,(x_0 - x_{0,\text{pred}})^2 = \text{SNR}(t)\,(x_0 - x_{0,\text{pred}})^2$$
#
# So the same thousand answers, as errors of the image:

# %%
grey_levels = 127.5 * np.sqrt(losses / snr)  # root mean square, of a range of 255
always_mean = 127.5 * np.sqrt(np.mean((x_0 - x_0.mean(0)) ** 2))
figure, axes = plt.subplots()
axes.plot(grey_levels, ".", color="0.7", markersize=3, label="one image")
axes.plot(middles, np.median(grey_levels.reshape(20, 50), 1), "-o", markersize=4, label="median of 50 times")
axes.axhline(always_mean, color="0.3", linestyle="--", linewidth=1, label="of one who always says the mean image")
axes.set(title="The same answers as errors of x_0", xlabel="t", ylabel="root mean square, grey levels")
axes.legend()
plt.show()
print(f"t < 10: {grey_levels[:10].mean():.1f} grey levels; t >= 900: {grey_levels[900:].mean():.0f}")

# %% [markdown]
# *What to see:* the picture is turned round. At small $t$, where the loss is largest, the image is known to a few grey
# levels. At the last times, where the loss is next to nothing, the guess is further off than the mean of all images
# would be. (Samplers clip it to the range of pixels, which limits the harm.) A small loss of $\epsilon$ is not a good
# guess of the image: the factor between the two is the SNR.
#
# ## Why the loss looks flat while the samples improve
#
# Compare the network with something far simpler. If the images were *normally distributed*, with the mean $m$ and the
# covariance $\Sigma$ of the training images, then the best answer would be a formula, linear in $x_t$:
#
# $$\epsilon_\text{pred} = \sqrt{1 - \bar\alpha_t}\;\big(\bar\alpha_t \Sigma + (1 - \bar\alpha_t)\,I\big)^{-1} (x_t - \sqrt{\bar\alpha_t}\,m)$$
#
# > **Predict before you run.** Says 0: loss 1. The trained network: a few hundredths. The linear formula, which knows
# > no shoe and no shirt?

# %%
flat = train.images.reshape(len(train.images), -1) / 127.5 - 1
mean_image = flat.mean(0)
variances, components = np.linalg.eigh(np.cov(flat.T))  # [784]; [784, 784], a component a column


def linear(x_t, t):
    """The formula above, along the principal components: images [B, 28, 28, 1] and times [B] in NumPy."""
    a = alphas_cumprod[t][:, None]
    along = (x_t.reshape(len(x_t), -1) - np.sqrt(a) * mean_image) @ components  # [B, 784]
    return (np.sqrt(1 - a) * along / (a * variances + 1 - a) @ components.T).reshape(x_t.shape)


every = np.arange(1000)
x_t = np.sqrt(alphas_cumprod)[:, None, None, None] * x_0[:1000] + np.sqrt(1 - alphas_cumprod)[:, None, None, None] * eps
rivals = {
    "says 0": (np.mean(eps**2, axis=(1, 2, 3)), ":", "0.5"),
    "says x_t": (np.mean((x_t - eps) ** 2, axis=(1, 2, 3)), "-.", "C2"),
    "the linear formula": (np.mean((linear(x_t, every) - eps) ** 2, axis=(1, 2, 3)), "--", "C1"),
    "the trained network": (losses, "-o", "C0"),
}
figure, axes = plt.subplots()
for name, (values, dashes, colour) in rivals.items():
    axes.plot(middles, values.reshape(20, 50).mean(1), dashes, color=colour, markersize=4, label=name)
    print(
        f"{name:>19}: mean {values.mean():.4f}; t < 100: {values[:100].mean():.3f}, t >= 900: {values[900:].mean():.5f}"
    )
axes.set(title="Who tells the noise how well?", xlabel="t", ylabel="squared error of eps", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the linear formula is already most of the way from 1 to the trained network. The network is ahead at
# small and middle times. At the last times even "says $x_t$" has a tiny loss, and the network's, as tiny, is behind
# the formula's: an error there costs so little that training hardly removes it.
#
# Now mix the two, and draw: one answers at $t < 100$, the other at all larger $t$. The sampler is the package's, the
# noise it begins with is the same in every row.
#
# > **Predict before you run.** Which mixture has the better loss: the network at small $t$ and the formula elsewhere,
# > or the other way round? And which has the better samples?


# %%
def mixture(small, large):
    """A network that asks `small` at t < 100 and `large` at all other times. A sampler gives all images one t."""

    def asked(x_t, t):
        return (small if t.numpy()[0] < 100 else large)(x_t, t)

    return asked


def formula(x_t, t):
    """The linear formula as a network of the package."""
    return duet.data.to_tensor(linear(duet.data.to_array(x_t), t.numpy()).astype(np.float32))


by_formula = rivals["the linear formula"][0]
mixtures = {
    "formula at all t": (formula, by_formula),
    "network at t < 100": (mixture(network, formula), np.where(every < 100, losses, by_formula)),
    "network at t >= 100": (mixture(formula, network), np.where(every < 100, by_formula, losses)),
    "network at all t": (network, losses),
}
rows = []
for asked, _ in mixtures.values():
    drawn = duet.sampling.sample(asked, config, Sampling("dpmpp_2m_sde", steps=20), seed=0, num_images=8)
    rows.append(drawn)
names = [f"{name}\nloss {values.mean():.3f}" for name, (_, values) in mixtures.items()]
show_images(np.concatenate(rows), 8, rows=names, title="The network at some times, the formula at all others")
batches = rng.permutation(losses)[:960].reshape(-1, 120).mean(1)
print("losses of the network alone, eight batches of 120 images:", " ".join(f"{loss:.3f}" for loss in batches))

# %% [markdown]
# *What to see:* the second row has the better loss of the two mixtures, and the worse clothes: clean edges, around
# shapes that are none. The third, with more loss, has the shapes of the last row, trousers, shoes, dresses, under a
# grain that the formula leaves. What an image shows was decided at the larger times, and they move the loss less.
#
# So the number hides progress for three reasons, and you have now seen each:
#
# - **A floor.** A linear formula comes from 1 to below a tenth; all that makes clothes of stains has to happen in what
#   is left, and the best possible network is not at 0.
# - **The weights.** The mean is made at small $t$, where grain is told from cloth. What the image will show is decided
#   at larger $t$, and counts little.
# - **The dice.** The loss of *one* network moves from batch to batch, here by about a fifth of its mean up and down,
#   depending on the times and images that happen to be drawn.
#
# In [the run of 470 steps](../docs/divergence.md) of this repository you can see such a curve: it falls steeply for
# some 180 steps, and from then on it is mostly up and down. Judge a model by its samples, by its loss at *fixed* times,
# images and noise, or by the bound, below.
#
# ## Other questions to the same network
#
# Given $x_t$, to know one of $x_0$, $\epsilon$ and $v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1 - \bar\alpha_t}\,x_0$
# is to know all: each is a direction, $a\,x_0 + b\,\epsilon$, and so is $x_t$ itself. Two directions are two equations
# for $x_0$ and $\epsilon$ (`prediction.direction`). With $\sqrt{\bar\alpha_t} = \cos\varphi$ and
# $\sqrt{1 - \bar\alpha_t} = \sin\varphi$, the pair $(x_t, v)$ is the pair $(x_0, \epsilon)$, turned by $\varphi$. The
# package: `prediction.target`, `to_x_0`, `to_eps`.

# %%
times = np.array([0, 100, 200, 300, 500, 999])
sneaker = np.repeat(x_0[np.argmax(test.labels == 7)][None], len(times), 0)
noise = np.repeat(rng.standard_normal((1, 28, 28, 1)), len(times), 0)
tensors = duet.data.to_tensor(sneaker), duet.times(times), duet.data.to_tensor(noise)
x_t = duet.engine.q_sample(schedule, *tensors)
level = duet.prediction.level_of(schedule, tensors[1])
targets = {name: duet.prediction.target(level, name, tensors[0], tensors[2]) for name in ("eps", "x_0", "v")}
show_images(
    np.concatenate([duet.data.to_array(rows) for rows in (x_t, *targets.values())]),
    len(times),
    titles=[f"t={t}" for t in times],
    rows=["x_t", *targets],
    title="What a network is given, and what it may be asked for",
    limits=(-2, 2),
)
for name, target in targets.items():
    image = duet.prediction.to_x_0(level, name, x_t, target)
    noise_found = duet.prediction.to_eps(level, name, x_t, target)
    gaps = np.abs(duet.data.to_array(image) - sneaker).max(), np.abs(duet.data.to_array(noise_found) - noise).max()
    print(f"{name:>3} and back: x_0 to {gaps[0]:.0e}, eps to {gaps[1]:.0e}")

# %% [markdown]
# *What to see:* `v` looks like the noise at small $t$ and like the negative of the image at large $t$: always what
# $x_t$ does not show.
#
# The answers are interchangeable, but the losses are not. An error of $x_0$ counts $\text{SNR}(t)$ times in the loss of
# $\epsilon$, once in that of $x_0$, and $\text{SNR}(t) + 1$ times in that of $v$. So a choice of target is a choice of
# weight. **Min-SNR** (Hang et al. 2023) chooses the weight openly: $\min(\text{SNR}(t), \gamma)$ times the error of
# $x_0$, whatever the network predicts. `objective.loss_weight` is what that takes.

# %%
implied = {"eps": snr, "x_0": np.ones(1000), "v": snr + 1}  # how the plain loss of each counts an error of x_0
min_snr = {
    name: duet.objective.loss_weight(duet.prediction.level_of(schedule, duet.times(every)), name, 5.0).numpy().ravel()
    * implied[name]
    for name in implied
}
figure, axes = plt.subplots()
axes.plot(snr, label="eps: SNR")
axes.plot(snr + 1, "--", label="v: SNR + 1")
axes.plot(implied["x_0"], "-.", label="x_0: 1")
axes.plot(min_snr["eps"], ":", linewidth=3, label="min-SNR, gamma = 5: any of them")
axes.plot(np.arange(1, 1000), (snr[:-1] - snr[1:]) / 2, color="0.4", linewidth=1, label="the bound")
axes.set(title="How much an error of x_0 counts", xlabel="t", ylabel="weight", yscale="log")
axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
plt.show()
worst = max(np.abs(found / np.minimum(snr, 5) - 1).max() for found in min_snr.values())
print(f"min-SNR by eps, x_0 and v: equal to min(SNR, 5) to {worst:.0e} of it")

# %% [markdown]
# *What to see:* `eps` falls by eight orders of magnitude, the bound even faster at first and then beside it; `v`
# follows `eps` at small $t$ and `x_0` at large $t$, where it does not fall below 1. Min-SNR is flat at 5 as long as SNR
# is above it, and is the loss of `eps` from there on.
#
# ## The bound, measured
#
# Nothing keeps us from computing the bound itself, for the trained network, with its weights and all. `bound.Bound`
# gives $L_T$ as `prior`, and for each image the term of one $t$, in **bits per dimension**: nats divided by $\log 2$
# and by the number of pixels. An uncompressed pixel has 8. To be quick, image $i$ is asked at every 20th $t$ from $i$
# on, so that 20 images together ask every $t$ once; `make bits-torch` and `make bits-tf` do the same with more.

# %%
stride, pixels = 20, test.images[:40]
bound = duet.bound.Bound(network, config)
terms = bits_estimate.terms_of(bound, pixels, first=0, seed=0, stride=stride, timesteps=1000)  # [40, 50]
found = bits_estimate.estimate(bound.prior(pixels), terms, stride, 1000)
over_t = np.array(found["terms"])  # [T]: the decoder at t = 0, then the divergences

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
left.plot(np.arange(1, 1000), over_t[1:], ".", markersize=4, label="divergence at t")
left.plot(0, over_t[0], "D", color="C1", label="decoder, t = 0")
left.axhline(found["prior"], color="0.3", linestyle="--", linewidth=1, label="prior")
left.set(title="The terms", xlabel="t", ylabel="bits per dimension", yscale="log")
left.legend()
right.plot(np.arange(1, 1001), np.cumsum(over_t) / over_t.sum())
right.set(title="Where the bits are", xlabel="t + 1", ylabel="share of the bits up to t", xscale="log", ylim=(0, 1.03))
plt.show()
print(f"at most {found['bits_per_dim']:.2f} ± {found['standard_error']:.2f} bits per dimension")
print(
    f"prior {found['prior']:.1e}, decoder {found['decoder']:.2f}, divergences of t = 1 .. 9 {over_t[1:10].sum():.2f}, "
    f"of all others {over_t[10:].sum():.2f}"
)

# %% [markdown]
# *What to see:* left, the prior is next to nothing: the forward process does end in noise. The terms fall from the
# decoder on over several orders of magnitude. Right, the axis is logarithmic: most of the bits are in the first few of
# a thousand steps, that is, in differences of a few grey levels, which an eye hardly sees. The simple loss gives these
# steps little weight and the others more; and so bits per dimension and the look of the samples need not go together,
# and Ho et al. report just that: the simple loss gives better samples and worse bits.
#
# Forty images tell the size of the number and no more: the ± is one standard error, from two groups of twenty.
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · The divergence of two normal distributions.** (easy) `KL(N_1 || N_2)` in nats, for arrays [N] of means and
# variances.


# %%
def my_kl(mean_1, variance_1, mean_2, variance_2):
    """Your answer."""
    ...


check.kl(my_kl)

# %% [markdown]
# **2 · The step of one who knows.** (medium) The mean of $q(x_{t-1} \mid x_t, x_0)$ in NumPy, for a batch: `t` is an
# array [B] of 0-based times, and 0 may be among them.


# %%
def my_posterior_mean(betas, alphas_cumprod, x_0, x_t, t):
    """Your answer."""
    ...


check.posterior_mean(my_posterior_mean)

# %% [markdown]
# **3 · The weight that was dropped.** (harder) What multiplies $(\epsilon - \epsilon_\text{pred})^2$ in the bound, in
# nats, at 0-based times `t` [B], all above 0. The variance of the reverse step is the posterior's. Simplify on paper:
# one fraction without a square is left.


# %%
def my_eps_weight(betas, alphas_cumprod, t):
    """Your answer."""
    ...


check.eps_weight(my_eps_weight)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>Why is q(x_prev | x_t, x_0) a formula, when q(x_prev | x_t) is what the network has to
# learn?</summary>
# Given x_0, everything is one normal distribution for each pixel. Without x_0, x_prev depends on which of all images it
# may have been: q(x_prev | x_t) is the mixture of the formula over all of them, and what images there are is exactly
# what has to be learnt.</details>
#
# <details><summary>The bound's L_{t-1} compares with a step that knows x_0. The network cannot know it. What does it
# learn to say?</summary>
# The mean. The squared distance to a random target is smallest at the target's mean given what is known, here x_t. So
# eps_pred becomes the mean of all noises that are compatible with x_t, and the x_0 that it implies is the mean of all
# images: a blur at large t.</details>
#
# <details><summary>At t = 0 of the code (the paper's t = 1) the weight beta^2 / (2 posterior variance ...) would be
# infinite. Why is that no problem?</summary>
# There is no divergence there: who knows x_0 knows x_prev, which is x_0 itself, and the posterior's variance is 0. That
# term of the bound is the decoder, the probability of the right grey level; and the simple loss has weight 1 there, as
# everywhere.</details>
#
# <details><summary>Two runs, one with eps and one with v, report losses of 0.04 and 0.09. Which is better?</summary>
# You cannot tell: they are errors of different things, and an error of x_0 counts SNR + 1 times in the one and SNR
# times in the other. Compare samples, or the error of x_0 at fixed times, or bits per dimension.</details>
#
# ## What you have now
#
# | here | in the code | in Ho et al. 2020 |
# |---|---|---|
# | $q(x_{t-1} \mid x_t, x_0)$ | `engine.q_posterior(schedule, x_0, x_t, t)` | eq. 6 and 7 |
# | $\tilde\beta_t$ | `schedule.posterior_variance[t - 1]` | eq. 7 |
# | $L_T$; $L_{t-1}$ and $L_0$ | `bound.prior_bits_per_dim`; `bound.variational_bound_term` | eq. 5 |
# | $L_\text{simple}$ | `engine.diffusion_loss(schedule, eps_model, x_0, t, eps)` | eq. 14 |
# | $x_0$, $v$ for $\epsilon$ | `prediction.direction`, `target`, `to_x_0`, `to_eps` | section 3.2; Salimans and Ho 2022 |
# | $\min(\text{SNR}, \gamma)$ | `objective.loss_weight(level, prediction, gamma)` | Hang et al. 2023 |
#
# Next: [04, training](04_training.ipynb): how a network gets there.
