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
# # 05 · Sampling: from noise to an image
#
# **Afterwards you can** take one step of the reverse process by hand, say what clipping does and why the last step adds
# no noise, tell the samplers that draw noise on the way from those that do not, draw in 20 steps instead of 1000, and
# go from one image to another through their noise.
#
# **Time:** 60 minutes. **You need:** [01, the forward process](01_forward_process.ipynb), and from
# [03](03_objective.ipynb) the section "The step of one who knows". The network is the trained one of the package, so
# nothing is trained here.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None


import numpy as np
from matplotlib import pyplot as plt

from ddpm_course import inside
from ddpm_course.exercises import sampling as check
from ddpm_course.explore import explore
from ddpm_course.figures import show_images
from ddpm_shared import datasets, streams
from ddpm_shared.config.sampling import Draw, Sampling, times

duet = begin(FRAMEWORK)

# %%
network, config = duet.trained()
train, test = datasets.load("fashion-mnist-10k")
schedule = duet.engine.make_schedule(config.diffusion)  # float32, as the network
alphas_cumprod = schedule.alphas_cumprod.numpy().astype(np.float64)
T = len(alphas_cumprod)
print(f"a network of {sum(map(np.prod, inside.shapes(duet, network).values())):,} weights, a process of {T} steps")

# %% [markdown]
# ## One step back
#
# Who knows the image $x_0$ behind $x_t$ can go one step back: [03](03_objective.ipynb) derived
# $q(x_{t-1} \mid x_t, x_0)$, a normal distribution whose mean is a sum of a part of $x_0$ and a part of $x_t$. The
# network does not know $x_0$, but it says what the noise is, and from that an $x_0$ follows. So a step of the
# **ancestral sampler** (Ho et al. 2020, algorithm 2) has four lines:
#
# 1. ask the network: $\epsilon_\text{pred} = \epsilon_\theta(x_t, t)$
# 2. solve for the image,
#    $x_{0,\text{pred}} = (x_t - \sqrt{1 - \bar\alpha_t}\;\epsilon_\text{pred}) / \sqrt{\bar\alpha_t}$, and clip it to
#    $[-1, 1]$, where pixels are
# 3. take the step of one who knows, as if that were the image:
#    $\mu = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1 - \bar\alpha_t}\, x_{0,\text{pred}} + \frac{\sqrt{\alpha_t}\,(1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\, x_t$
# 4. draw $x_{t-1} = \mu + \sqrt{\tilde\beta_t}\; z$, with new noise $z \sim \mathcal N(0, 1)$ and the variance
#    $\tilde\beta_t = \beta_t\, (1 - \bar\alpha_{t-1}) / (1 - \bar\alpha_t)$; no $z$ in the last step
#
# The formulas count time as the paper does, from 1, with $\bar\alpha_0 = 1$; the code counts from 0, so its last step
# is `t = 0`. Here are the four lines for a sneaker of the test set that was made noisy up to `t = 300`.


# %%
def noise(stream, step, count=1, seed=0, first=0):
    """Standard normal noise for `count` images of `seed`, as a tensor: a function of its arguments, see notebook 00."""
    return duet.data.to_tensor(streams.normal(seed, stream, step, (count, 28, 28, 1), first).astype(np.float32))


sneaker = test.images[np.argmax(test.labels == 7)][None]
x_0 = duet.data.to_images(sneaker, duet.utils.dtype("fp32"))
t, z = duet.times([300]), noise(streams.SAMPLE_Z, 300)
x_t = duet.engine.q_sample(schedule, x_0, t, noise(streams.SAMPLE_X_T, 0))

eps_pred = network(x_t, t)  # 1
x_0_pred = duet.engine.predict_x_0(schedule, x_t, t, eps_pred)  # 2
x_0_clipped = duet.prediction.clip(x_0_pred)
mean, variance, _ = duet.engine.q_posterior(schedule, x_0_clipped, x_t, t)  # 3
x_prev = mean + variance**0.5 * z  # 4

packages = duet.engine.p_sample(schedule, network, x_t, t, z)
gap = np.abs(duet.data.to_array(packages) - duet.data.to_array(x_prev)).max()
print(f"engine.p_sample and the lines above differ by {gap:.0e} at most")
of_x_0, of_x_t = schedule.posterior_mean_coef_x_0.numpy()[300], schedule.posterior_mean_coef_x_t.numpy()[300]
print(f"mean = {of_x_0:.4f} x_0_pred + {of_x_t:.4f} x_t, and z is multiplied by {variance.numpy().item() ** 0.5:.4f}")
show_images(
    np.concatenate([duet.data.to_array(x) for x in (x_0, x_t, eps_pred, x_0_clipped, mean, x_prev)]),
    titles=["x_0", "x_t", "eps_pred", "x_0_pred", "mean", "x_prev"],
    title="One step back from t = 300",
    limits=(-2, 2),
)

# %% [markdown]
# *What to see:* from an `x_t` in which you hardly see anything, the network tells the outline of the shoe, though few
# of its details. And yet `x_prev` looks like `x_t`: of the guess, the step takes less than a hundredth. The next step
# will see a little more clearly, and guess again.
#
# The paper writes lines 2 and 3 as one,
# $\mu = \big(x_t - \beta_t / \sqrt{1 - \bar\alpha_t}\; \epsilon_\text{pred}\big) / \sqrt{\alpha_t}$ (eq. 11). That is
# the same as long as nothing is clipped:

# %%
beta = float(schedule.betas.numpy()[300])
in_one = (x_t - beta / float(np.sqrt(1 - alphas_cumprod[300])) * eps_pred) / float(np.sqrt(1 - beta))
unclipped, _, _ = duet.engine.q_posterior(schedule, x_0_pred, x_t, t)
for name, ours in (("not clipped", unclipped), ("clipped", mean)):
    gap = np.abs(duet.data.to_array(ours) - duet.data.to_array(in_one)).max()
    print(f"x_0_pred {name:>11}: our mean and the paper's differ by {gap:.0e} at most")

# %% [markdown]
# ## All steps
#
# Begin with pure noise, take every step, done. Ho et al. take all **1000** steps of the process; to keep you from
# waiting we visit **100** of these times, `t = 999, 989, ..., 9`. They are a process of their own: its $\bar\alpha$ are
# those of the visited times, and a step from $t$ to the visited time $s$ before it has
# $\beta = 1 - \bar\alpha_t / \bar\alpha_s$ (Nichol and Dhariwal 2021). `make_schedule(..., steps=...)` makes that
# schedule, in which `i = 0 .. 99` counts the visited times, and `p_sample` runs on it as on any other. Only the network
# has to be told the `t` that it was trained with.

# %%
STEPS = 100
visited = times(T, STEPS, "trailing")
shorter = duet.engine.make_schedule(config.diffusion, steps=visited)
print(f"visited: {visited[:3]} ... {visited[-3:]}")
print(f"beta from t = {visited[1]} to t = {visited[0]}: {shorter.betas.numpy()[1]:.4f}")
print(f"beta from t = {visited[1]} to t = {visited[1] - 1}: {schedule.betas.numpy()[visited[1]]:.4f}")


def chain(x, z_at, start=STEPS - 1, clip_x_0=True):
    """Ho et al.'s algorithm 2 on the visited times, from step `start` down to 0: yields (i, x_prev, x_0_pred)."""
    for i in range(start, -1, -1):
        eps_pred = network(x, duet.times([visited[i]] * len(x)))
        index = duet.times([i] * len(x))
        x_0_pred = duet.engine.predict_x_0(shorter, x, index, eps_pred)  # for us to look at
        x = duet.engine.p_sample(shorter, lambda x_t, t, told=eps_pred: told, x, index, z_at(i), clip_x_0)
        yield i, x, x_0_pred


def z_of_seed_0(i):
    """The noise of step i for the images 0 to 3 of seed 0, as the package draws it."""
    return noise(streams.SAMPLE_Z, visited[i], 4)


xs, guesses = {STEPS: noise(streams.SAMPLE_X_T, 0, 4)}, {}  # xs[i] is what step i leaves behind, xs[100] is x_T
for i, x, x_0_pred in chain(xs[STEPS], z_of_seed_0):
    xs[i], guesses[i] = x, duet.data.to_array(x_0_pred)
ancestral = duet.data.to_pixels(xs[0])

by_package = duet.sampling.sample(network, config, Sampling("ancestral", steps=STEPS), seed=0, num_images=4)
print(f"our chain and duet.sampling.sample: {np.sum(ancestral != by_package)} of {ancestral.size} pixels differ")

# %% [markdown]
# > **Predict before you run.** The upper row shows `x_t` along the way, the lower one what the network believes $x_0$
# > to be. From which `t` on can you tell the garment, above and below? And what will the network see in the pure noise
# > of `t = 999`?


# %%
def frames(image):
    """Ten frames of the chain of one image: x_t above, the x_0 that the network sees in it below."""
    shown = [99, 88, 77, 66, 55, 44, 33, 22, 11, 0]
    above = [duet.data.to_array(xs[i + 1])[image] for i in shown]
    below = [guesses[i][image] for i in shown]
    show_images(
        np.stack(above + below),
        columns=len(shown),
        titles=[f"t={visited[i]}" for i in shown],
        rows=["x_t", "x_0_pred"],
        title=f"Image {image} of seed 0 on its way",
        limits=(-1.5, 1.5),
    )


explore("image", range(4), frames, shown=[0, 1])

# %% [markdown]
# *What to see:* below, a cloud becomes a blob, the blob a garment at about `t = 450`, and then come the details:
# sleeves, a hood, holes. Above, you see the garment only at about `t = 230`. At `t = 999` the guess is speckles:
# nothing is known there, and what the network says is mostly its own error, enlarged. (The best answer would be the
# mean of all images.)

# %%
way = np.array([np.clip(guesses[i], -1, 1) - duet.data.to_array(xs[0]) for i in range(STEPS)])  # [i, image, 28, 28, 1]
way = 127.5 * np.sqrt(np.mean(way**2, axis=(2, 3, 4)))
figure, axes = plt.subplots()
for image, dashes in enumerate(("-", "--", "-.", ":")):
    axes.plot(visited, way[:, image], dashes, label=f"image {image}")
axes.set(title="How far x_0_pred is from what it becomes", xlabel="t", ylabel="root mean square, grey levels")
axes.invert_xaxis()  # the sampler goes to the right
axes.legend()
plt.show()
for at in (999, 699, 499, 299, 99):
    print(f"t = {at:3}: {' '.join(f'{distance:5.0f}' for distance in way[visited.index(at)])} grey levels")

# %% [markdown]
# *What to see:* the guess comes nearer to the image all the way, and not smoothly: while it is a cloud, it still
# changes its mind. There is no `t` at which the image is decided; it is decided little by little.
#
# ## What clipping does
#
# Line 2 divides by $\sqrt{\bar\alpha_t}$, which is small at large $t$. So an error of the network in $\epsilon$ is
# enlarged by $\sqrt{1 - \bar\alpha_t} / \sqrt{\bar\alpha_t}$. Pixels are between -1 and 1, so a guess outside is wrong,
# and clipping can only bring it nearer to the truth. But how much of the guess does a step take?

# %%
for at in (999, 799, 499, 199, 9):
    a, of_x_0 = alphas_cumprod[at], shorter.posterior_mean_coef_x_0.numpy()[visited.index(at)]
    enlarged = np.sqrt((1 - a) / a)
    print(f"t = {at:3}: an error of eps is enlarged {enlarged:6.2f} times in x_0_pred; a step takes {of_x_0:.4f} of it")

# %% [markdown]
# > **Predict before you run.** The same four images without clipping: the same, too dark or too bright, or not
# > recognisable? And with ten times larger steps?

# %%
ends, ranges = {"clipped": ancestral}, {"clipped": [(guesses[i].min(), guesses[i].max()) for i in range(STEPS)]}
unlimited = list(chain(xs[STEPS], z_of_seed_0, clip_x_0=False))[::-1]
ends["not clipped"] = duet.data.to_pixels(unlimited[0][1])
ranges["not clipped"] = [(float(guess.numpy().min()), float(guess.numpy().max())) for _, _, guess in unlimited]
for name, clip_x_0 in (("clipped", True), ("not clipped", False)):
    ten = Sampling("ancestral", steps=10, clip_x_0=clip_x_0)
    ends[name] = np.concatenate([ends[name], duet.sampling.sample(network, config, ten, 0, num_images=4, first=4)])
show_images(
    np.concatenate(list(ends.values())),
    columns=8,
    titles=["100 steps"] * 4 + ["10 steps"] * 4,
    rows=list(ends),
    title="Images 0 to 7 of seed 0, with clipping and without",
)
figure, axes = plt.subplots()
axes.axhspan(-1, 1, color="0.88", label="where pixels are")
for (name, values), dashes, colour in zip(ranges.items(), ("-", "--"), ("C0", "C1"), strict=True):
    low, high = np.array(values).T
    axes.plot(visited, low, dashes, color=colour, label=f"smallest and largest, {name}")
    axes.plot(visited, high, dashes, color=colour)
    print(f"{name:>11}: x_0_pred from {low.min():.0f} to {high.max():.0f} in the 100 steps")
differences = np.abs(ends["clipped"].astype(float) - ends["not clipped"]).reshape(2, -1).mean(1)
print("images with and without differ by", end=" ")
print(f"{differences[0]:.1f} grey levels on average in 100 steps, by {differences[1]:.1f} in 10")
axes.set(title="The range of x_0_pred before clipping, 100 steps", xlabel="t", ylabel="value")
axes.set_yscale("symlog", linthresh=1)
axes.invert_xaxis()
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* from `t = 999` to about 800, `x_0_pred` is far outside of where pixels can be, and yet the images hardly
# differ, by half a grey level, in 100 steps and even in 10: where the guess is worst, a step takes next to nothing of
# it, and later steps correct that. So clipping is not what makes this sampler work. It is a safeguard for networks that
# err more, above all where no noise is drawn on the way: see [docs/samplers.md](../docs/samplers.md), "Which one, and
# how many steps?".
#
# ## The last step
#
# The last step leads to the finished image. Who knows $x_0$ knows that exactly, $\tilde\beta = 0$, so there is nothing
# to draw. Noise is easily added all the same: code that works with the *logarithm* of the variance cannot have
# $\log 0$, and takes that of `t = 1` in its place (`posterior_log_variance_clipped`). That is why `p_sample` leaves out
# $z$ at `t = 0` explicitly. If it did not, the image would come out with that much noise on top; so we can add it to
# our finished images, as much as there would be with 1000, 100 or 20 steps.
#
# > **Predict before you run.** About half of the pixels of a real image are background, of a grey level of 0. In which
# > of the three will you notice the noise?

# %%
last_z = duet.data.to_array(noise(streams.SAMPLE_Z, 0, 4))
versions = {"no z": ancestral}
for steps in (1000, 100, 20):
    some = duet.engine.make_schedule(config.diffusion, steps=times(T, steps, "trailing"))
    deviation = np.exp(0.5 * float(some.posterior_log_variance_clipped.numpy()[0]))
    wrong = duet.data.to_array(xs[0]) + deviation * last_z
    versions[f"z of {steps} steps"] = duet.data.to_pixels(duet.data.to_tensor(wrong))
    print(f"{steps:4} steps: z would be multiplied by {127.5 * deviation:.1f} grey levels in the last one")
for name, pixels in ({"real images": test.images} | versions).items():
    dark, stained = np.mean(pixels <= 2), np.mean((pixels > 2) & (pixels <= 20))
    print(f"{name:>15}: {dark:.0%} of the pixels have a grey level of at most 2, {stained:.0%} one of 3 to 20")
show_images(
    np.concatenate([pixels.astype(float) for pixels in versions.values()]),
    columns=4,
    rows=list(versions),
    title="The background: grey levels 0 to 10, shown from black to white",
    limits=(0, 10),
)

# %% [markdown]
# *What to see:* without `z` the background is almost black, though not as perfectly as in real images. With 1000 steps
# the fault is less than one grey level, which hardly shows even here: that is why it lives long in code. The fewer the
# steps, the more noise it leaves.
#
# ## The same noise, the same image
#
# A chain is a function of its noise: of `x_T`, and of the `z` of every step. All of it comes from
# `ddpm_shared.streams`, where a number depends on the seed, on what it is for, on the time, and on the *number of the
# image*. So image 2 of seed 0 is one picture, whoever draws it, and beside whichever others.

# %%
quick = Sampling("dpmpp_2m_sde", steps=10)
together = duet.sampling.sample(network, config, quick, seed=0, num_images=4)
alone = duet.sampling.sample(network, config, quick, seed=0, num_images=1, first=2)
other = duet.sampling.sample(network, config, quick, seed=1, num_images=1, first=2)
for name, drawn in (("alone", alone), ("of seed 1", other)):
    apart = np.abs(drawn[0].astype(int) - together[2])
    print(f"image 2 of four, and image 2 {name}: {np.mean(apart > 1):.0%} of the pixels differ by more than rounding")

# %% [markdown]
# And what does each part of the noise decide? **Fork a chain**: keep all of its noise down to some `t`, and draw other
# `z` from there on. In the figure every row forks the chain of image 0, and the images of one column share the `z`
# after the fork.
#
# > **Predict before you run.** Same `x_T`, other `z` from the first step on: will it be the same kind of garment?

# %%
FORKS = (99, 79, 59, 39, 19)
family = []
for start in FORKS:
    same = duet.data.to_tensor(np.repeat(duet.data.to_array(xs[start + 1])[:1], 5, 0).astype(np.float32))
    *_, (_, x, _) = chain(same, lambda i: noise(streams.SAMPLE_Z, visited[i], 5, seed=7), start)
    family.append(duet.data.to_pixels(x))
show_images(
    np.concatenate(family),
    columns=5,
    rows=[f"from t={visited[start]} on" for start in FORKS],
    title="Five ways on from the same x_t",
)

# %% [markdown]
# *What to see:* here `x_T` decides next to nothing: from the same, two shoes, a bag, a T-shirt, trousers. Even from
# `t = 599` on, trousers are possible. From `t = 399` on it has long sleeves, whatever is drawn, and from `t = 199` on
# only collar and print are open. Now look down the two columns on the right: three times nearly the same T-shirt and
# the same trousers, from three different starts. What decided there is `z`.
#
# ## Without noise on the way: DDIM
#
# The network was trained on pairs $(x_0, x_t)$, one $t$ at a time, and never on chains. So any chain will do whose
# $x_t$ look, at each $t$, like images with noise of that $t$. Song et al. (2021) go from $x_t$ to the guess
# $x_{0,\text{pred}}$, and from there, with *the same* noise, to any earlier time $s$:
#
# $$x_s = \sqrt{\bar\alpha_s}\; x_{0,\text{pred}} + \sqrt{1 - \bar\alpha_s}\; \epsilon_\text{pred} \qquad \text{(DDIM)}$$
#
# That is `q_sample` with a guess for both. (Where $x_{0,\text{pred}}$ is clipped, $\epsilon_\text{pred}$ becomes what
# then is left of $x_t$, $(x_t - \sqrt{\bar\alpha_t}\,x_{0,\text{pred}}) / \sqrt{1 - \bar\alpha_t}$, so that the two
# still make up $x_t$.) Nothing is drawn after `x_T`: the image is a function of it.
#
# > **Predict before you run.** Could one not simply leave out `z` in the ancestral sampler? The next cell does, beside
# > DDIM.

# %%
quiet = {i: x for i, x, _ in chain(xs[STEPS], lambda i: 0 * xs[STEPS])}
ddim_xs = {}
sampler = duet.sampling.Sampler(network, config, Sampling("ddim", steps=STEPS))
ddim = sampler.draw(Draw(seed=0, first=0, count=4), on_step=lambda i, x: ddim_xs.update({i: x}))
rows = {"ancestral": ancestral, "ancestral, z = 0": duet.data.to_pixels(quiet[0]), "ddim": ddim}
show_images(np.concatenate(list(rows.values())), columns=4, rows=list(rows), title="100 steps from the same x_T")

real = duet.data.to_images(test.images[:200], duet.utils.dtype("fp32"))
at_499 = duet.engine.q_sample(schedule, real, duet.times([499] * 200), noise(streams.BOUND_EPS, 499, 200))
kinds = {"real images with noise": at_499, "ancestral": xs[50], "ancestral, z = 0": quiet[50], "ddim": ddim_xs[50]}
for name, x in kinds.items():
    print(f"{name:>22}: standard deviation of x_t at t = {visited[49]} is {duet.data.to_array(x).std():.2f}")

# %% [markdown]
# *What to see:* without `z`, four times nearly the same dark shape, less than the mean of many garments. The step of
# line 3 counts on new noise: it keeps only a part of the old. Without the new, `x_t` has far too little noise for its
# `t`, next to none half-way; the network finds it smooth, and the guesses stay so. DDIM keeps as much noise as belongs
# to $s$, and draws garments, from the same `x_T` quite different ones than the ancestral sampler. Of these four, though,
# one is overexposed, and one is nothing that you could wear. Where no new noise washes it out, an error of the network
# is carried to the end ([docs/samplers.md](../docs/samplers.md) has numbers).
#
# Between the two lies a family. With `eta` between 0 and 1, DDIM takes a part of its noise new, and with `eta = 1` it
# is the ancestral sampler:

# %%
eta_1 = duet.sampling.sample(network, config, Sampling("ddim", steps=20, eta=1.0), seed=0, num_images=3)
twenty = duet.sampling.sample(network, config, Sampling("ancestral", steps=20), seed=0, num_images=3)
apart = np.sum(np.abs(eta_1.astype(int) - twenty) > 1)
print(f"ddim with eta = 1, and ancestral: {apart} of {twenty.size} pixels differ by more than rounding")

# %% [markdown]
# ## Few steps
#
# Between two visited times a sampler has to suppose something. DDIM supposes that $\epsilon$ stays what it is at $t$,
# the ancestral sampler that $x_0$ does. **DPM-Solver++(2M)** (`dpmpp_2m`, Lu et al. 2022) looks at the last *two*
# guesses of $x_0$ and supposes that the change goes on; so its error falls with the square of the size of a step.
# **SDE-DPM-Solver++(2M)** (`dpmpp_2m_sde`) does the same and adds new noise. Each asks the network once a step, so
# steps are what you pay.
#
# Which times are visited? The last of each of $N$ equal parts of $0 .. T - 1$ (`trailing`), so that the first step is
# at pure noise, where the chain begins:

# %%
for steps in (5, 10):
    print(f"{steps:2} steps: {times(T, steps, 'trailing')}")

# %% [markdown]
# > **Predict before you run.** Five steps instead of a thousand: do you expect anything at all? And which of the four
# > will draw the same image whether it takes 5 steps or 20?

# %%
NAMES = ("ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde")
found = {("ancestral", 100): by_package[:3], ("ddim", 100): ddim[:3]}  # drawn above
for name in NAMES:
    for steps in (5, 10, 20, 50, 100):
        if (name, steps) not in found:
            found[name, steps] = duet.sampling.sample(network, config, Sampling(name, steps=steps), 0, num_images=3)
show_images(
    np.concatenate([found[name, steps] for name in NAMES for steps in (5, 10, 20)]),
    columns=9,
    titles=["", "5 steps", "", "", "10 steps", "", "", "20 steps", ""],
    rows=NAMES,
    title="Images 0, 1, 2 of seed 0 by four samplers",
)

# %% [markdown]
# *What to see:* five steps do draw garments, smeared ones. And there are two kinds of samplers. The rows in the middle
# draw nearly the *same* images in any number of steps, for `x_T` decides them. The first and the last row draw other
# images with every number of steps: at other times they are given other `z`. (In equally many they resemble each other,
# because the package gives both the same `z`.)
#
# Do the two in the middle solve the same problem, and who is faster? Measure how far each is from what it draws in 100
# steps:

# %%
figure, axes = plt.subplots()
for name, dashes in zip(NAMES, ("-o", "--s", "-.^", ":D"), strict=True):
    distances = [
        np.sqrt(np.mean((found[name, steps].astype(float) - found[name, 100]) ** 2)) for steps in (5, 10, 20, 50)
    ]
    axes.plot((5, 10, 20, 50), distances, dashes, label=name)
    print(f"{name:>12}: {' '.join(f'{distance:3.0f}' for distance in distances)} grey levels at 5, 10, 20, 50 steps")
apart = np.sqrt(np.mean((found["ddim", 100].astype(float) - found["dpmpp_2m", 100]) ** 2))
print(f"ddim and dpmpp_2m, 100 steps each: {apart:.0f} grey levels apart")
axes.set(
    title="How far from the same sampler's 100 steps",
    xlabel="steps",
    ylabel="root mean square, grey levels",
    xscale="log",
    ylim=(0, None),
)
axes.set_xticks((5, 10, 20, 50), labels=("5", "10", "20", "50"))
axes.minorticks_off()
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the two without noise come to rest, at nearly the same images, and `dpmpp_2m` sooner: it is as near in
# 10 steps as `ddim` is in 20. For the two with noise there is nothing to come to, since other `z` are another image.
# (At 50 steps they are closer only because half of the hundred times, and so of the `z`, are the same.)
#
# ## Between two images
#
# Where `x_T` decides the image, one can walk from image to image by walking from noise to noise. Along a straight line?
# Half-way between two independent noises the variance is $\frac14 + \frac14 = \frac12$, and the network has never seen
# noise that weak at `t = 999`. So one walks along the great circle through both, which keeps the size
# (`samplers.slerp`). `Draw(..., columns=8)` asks for rows of eight images, each row from one noise to another.
#
# > **Predict before you run.** You have seen above what becomes of an `x_t` with too little noise. What will the middle
# > of a straight line look like?

# %%
COLUMNS, walk = 8, Sampling("ddim", steps=20)
walker = duet.sampling.Sampler(network, config, walk)
circle = walker.draw(Draw(seed=6, first=0, count=2 * COLUMNS, columns=COLUMNS))

four = duet.data.to_array(noise(streams.SAMPLE_X_T, 0, 4, seed=6))  # a row is from noise 0 to 1, the other from 2 to 3
weights = np.linspace(0, 1, COLUMNS)[:, None, None, None]
straight = np.concatenate([(1 - weights) * four[k] + weights * four[k + 1] for k in (0, 2)])
print(f"standard deviation of x_T along the line: {' '.join(f'{x.std():.2f}' for x in straight[:COLUMNS])}")
starts = duet.data.to_tensor(straight.astype(np.float32))
line = duet.data.to_pixels(
    duet.samplers.last(duet.samplers.ddim(walker.levels, walker.denoise, starts, lambda i: None))
)
show_images(
    np.concatenate([circle[:COLUMNS], line[:COLUMNS], circle[COLUMNS:], line[COLUMNS:]]),
    columns=COLUMNS,
    rows=["circle", "straight", "circle", "straight"],
    title="From one noise to another, by ddim in 20 steps",
)

# %% [markdown]
# *What to see:* along the circle every image keeps its details: a print on the chest, the straps of the sandal, the
# letters on the bag. On the straight line they are soon gone, and what is left on the way are plain shapes. And neither
# way is a fade from one picture into the other: between two neighbours, the shoe has become a bag.
#
# ## What to take when
#
# | you want | take | because |
# |---|---|---|
# | good images, soon | `dpmpp_2m_sde`, 20 steps | new noise washes errors out, the second order allows large steps; `make sample-*` does this |
# | what the paper did | `ancestral`, all 1000 steps | nothing is left out |
# | an image that `x_T` alone decides: interpolation, inversion, comparison | `dpmpp_2m`, 20 steps, or `ddim`, 50 | nothing is drawn on the way |
#
# Two more samplers (`plms`, `heun`), other spacings, and how good the images of each sampler are in how many steps:
# [docs/samplers.md](../docs/samplers.md). By the command line:
#
#     make sample-torch ARGS="--sampler ddim --steps 50 --num-images 64 --seed 0"      # or sample-tf
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · Which times?** (easy) The times that `steps` steps visit of `0 .. timesteps - 1`, ascending, with `trailing`
# spacing: the last of each of `steps` equal parts. `steps` divides `timesteps`.


# %%
def my_visited(timesteps, steps):
    """Your answer."""
    ...


check.visited(my_visited)

# %% [markdown]
# **2 · One ancestral step.** (medium) Lines 2 to 4, with clipping, in NumPy and for a batch: `t` is an array [B] of
# 0-based times, and 0 may be among them. `schedule` is a dictionary of the arrays [T] that you know, such as
# `schedule["alphas_cumprod"]`, under the names of `engine.Schedule`.


# %%
def my_p_sample(schedule, x_t, t, z, eps_pred):
    """Return x_prev."""
    ...


check.p_sample(my_p_sample)

# %% [markdown]
# **3 · One step of DDIM.** (harder) From `t` to any earlier time `s`, two integers, or to the clean image, which is
# `s = -1`. With $x_0$ clipped to $[-1, 1]$; mind what that does to `eps`.


# %%
def my_ddim_step(alphas_cumprod, x_t, t, s, eps_pred):
    """Return x_s."""
    ...


check.ddim_step(my_ddim_step)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>The network tells an x_0 in every step. Why not take the one of t = 999 and be done, in one
# step?</summary>
# Because it is the mean of all images that are compatible with x_t, and at t = 999 these are all images. A mean of
# garments is no garment. Each step makes a small decision, after which fewer images are compatible, and the mean
# becomes sharper.</details>
#
# <details><summary>Somebody calls p_sample with the schedule of 1000 steps, but at every tenth t only. What goes
# wrong?</summary>
# Each call takes away the noise of one step of the thousand, and then the network is told that ten have been made. x_t
# has more and more noise for its t, and the end is reached with most of it left. The betas have to be those of the
# visited times.</details>
#
# <details><summary>z says nothing about any image. How can a sampler that adds it draw better ones?</summary>
# The errors of the network make x_t an image that the forward process would not have made. A step with new noise
# forgets a part of the old x_t, and its error with it, and what it adds has exactly the distribution that it should
# have. Without new noise the error stays to the end.</details>
#
# <details><summary>Could you walk between two images with the ancestral sampler?</summary>
# One can try: give both ends the same z and walk between two x_T. But the fork showed that x_T decides next to nothing
# there; most of what is seen is in z. One would have to walk between all the noises at once.</details>
#
# ## What you have now
#
# | here | in the code | in the paper |
# |---|---|---|
# | one step of the reverse process | `engine.p_sample(schedule, eps_model, x_t, t, z, clip_x_0)` | Ho et al. 2020, algorithm 2 |
# | $x_{0,\text{pred}}$ | `engine.predict_x_0`, clipped by `prediction.clip` | Ho et al. 2020, eq. 15 |
# | $\mu$, $\tilde\beta_t$ | `engine.q_posterior`, `schedule.posterior_variance[t - 1]` | Ho et al. 2020, eq. 6 and 7 |
# | the shorter process | `engine.make_schedule(config, steps=...)` | Nichol and Dhariwal 2021, eq. 19 |
# | DDIM, $\eta$ | `samplers.ddim(..., eta=...)` | Song et al. 2021, eq. 12 and 16 |
# | DPM-Solver++(2M), its SDE form | `samplers.dpmpp_2m`, `samplers.dpmpp_2m_sde` | Lu et al. 2022, algorithm 2, section 5 |
# | the great circle | `samplers.slerp` | Song et al. 2021, appendix D.5 |
#
# Next: [06, two frameworks](06_two_frameworks.ipynb): where they part, and why.
