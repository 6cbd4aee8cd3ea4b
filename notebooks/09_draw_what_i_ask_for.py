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
# # 09 · Draw what I ask for: labels and guidance
#
# **Afterwards you can** give a network the class of what it is to draw, train one network to predict with a label and
# without, guide it, convert between the two conventions of the guidance scale, and recognise too much of it.
#
# **Time:** 60 minutes. **You need:** [05, sampling](05_sampling.ipynb), and from [07](07_evaluating.ipynb) that there
# is a classifier which judges; Bayes' rule. The network is a trained one of the package, so nothing is trained here.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None


import numpy as np
from matplotlib import pyplot as plt

from ddpm_course.exercises import conditioning as check
from ddpm_course.figures import show_images
from ddpm_course.mirror import side_by_side
from ddpm_shared import datasets, parameters, streams
from ddpm_shared.config.sampling import Draw, Sampling
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.records import checkpoint

duet = begin(FRAMEWORK)

# %%
MODEL = checkpoint.BOXED_CONDITIONAL  # trained with labels; the other notebooks' was not
network, config = duet.trained(MODEL)
train, test = datasets.load("fashion-mnist-10k")
K = config.model.num_classes
NULL = K  # the null label: no class is given
names = [*train.class_names, "no label"]
short = [name.split("/")[0] for name in names]
print(f"{K} classes: {', '.join(train.class_names)}")

# %% [markdown]
# ## Ask
#
# The networks of the notebooks before draw what they like. This one takes a third input beside $x_t$ and $t$: the class
# $y$, its **label**, a whole number. It was trained with the label of each image, and nothing else was changed: the
# loss, the process and the samplers are those that you know. It has learnt $p(x \mid y)$ in the place of $p(x)$.
#
# > **Predict before you run.** Each row below begins with one noise, and draws the same noise on the way; only the label
# > differs from column to column. What will the images of a row have in common?


# %%
def draw(labels, sampling, same_noise=1, first=0):
    """An image of seed 0 for each of `labels`, [N] classes or [N, K + 1] weights: [N, 28, 28, 1] uint8."""
    sampler = duet.sampling.Sampler(network, config, sampling)
    return sampler.draw(Draw(0, first, len(labels), labels=np.asarray(labels), same_noise=same_noise))


STEPS = 15
conditional = Sampling("dpmpp_2m_sde", steps=STEPS)
every = np.arange(K)
asked = draw(np.tile(every, 3), conditional, same_noise=K)
show_images(
    asked,
    columns=K,
    titles=short,
    rows=[f"noise {i}" for i in range(3)],
    title=f"{duet.name}: one noise a row, ten labels",
)

# %% [markdown]
# *What to see:* nearly every image is what its column says. What a row has in common is what the label leaves open: how
# bright, how plain, even a band across the shoulders that shirts, coats and dresses share. And somewhere a label has
# lost: among the bags there is one that looks like a dress.
#
# ## A row for every class
#
# How does a number get into a network? As the time does: as a vector. The network has a **label table** $E$ of learned
# numbers, with a row for each class and one more, the **null label**, for "no label". The row of the label is added to
# the vector of the time, and the sum reaches every residual block ([02](02_network.ipynb)):
#
# $$\text{emb} = \mathrm{silu}\big(\mathrm{MLP}(\gamma(t)) + E_y\big)$$
#
# A row is taken by a matrix product with a **one-hot** vector, which is 1 at $y$ and 0 elsewhere:

# %%
side_by_side("networks/layers", "one_hot")

# %%
table = checkpoint.load(MODEL, ("ema",)).tensors["ema/label.weight"].astype(np.float64)  # [K + 1, D]
labels = np.array([9, 1, NULL])
one_hot = np.eye(K + 1)[labels]
print(
    f"the table: {table.shape}; one_hot @ table and table[labels] are equal: {np.array_equal(one_hot @ table, table[labels])}"
)
print(f"parameters for the labels: {table.size:,}")

# %% [markdown]
# Why a product, if an index does the same? Its gradient is an ordinary matrix. TensorFlow's gradient of an index is a
# list of rows, which clipping and Adam would treat in another way than PyTorch's. And a product takes more than ones and
# zeros, which we shall use at the end.
#
# The rows began as random numbers, which here are a function of the seed and of the parameter's name
# ([00](00_orientation.ipynb)). So they can be taken away again, and what is left is what training changed.
#
# > **Predict before you run.** Which classes will have been moved in similar directions? Which in opposite ones? And "no
# > label"?


# %%
def cosines(rows):
    """The cosine of every two of the rows, once their mean, which says nothing about a class, is removed."""
    rows = rows - rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


changes = table - parameters.initial_value(config.seed, "label.weight", table.shape)
figure, places = plt.subplots(1, 2, figsize=(10, 5), sharey=True)
for axes, rows, title in zip(places, (table, changes), ("The rows", "What training changed"), strict=True):
    shown = axes.imshow(cosines(rows), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(K + 1), short, rotation=45, ha="right")
    axes.set_yticks(range(K + 1), short)
    axes.grid(visible=False)
    axes.set_title(title)
figure.colorbar(shown, ax=places, label="cosine")
plt.show()
pairs = sorted(((cosines(changes)[a, b], a, b) for a in range(K + 1) for b in range(a)), reverse=True)
for cosine, a, b in [*pairs[:5], *pairs[-3:]]:
    print(f"{names[b]} and {names[a]}: {cosine:+.2f}")

# %% [markdown]
# *What to see:* on the left nothing: in 128 dimensions any two random directions are nearly at right angles, and training
# moved the rows by a third of their length. On the right is the wardrobe. The three kinds of shoes went one way, the tops,
# less plainly, another, away from the shoes. Nobody told the network that a sneaker is like a boot: it found it useful. The
# null label is near to nothing in particular.
#
# ## One network, two predictions
#
# For what follows we need two predictions: one that knows the label, and one that does not. Two networks would do. One
# is enough if it learns both: in training, the label of each image is replaced by the null label with a probability of
# 0.1 (Ho and Salimans 2022). `--label-drop` changes that.
#
# **Each image** has a random number of its own. One public training program draws one number for the whole batch. On
# average that is the same. Is it the same for training?
#
# > **Predict before you run.** In how many of 1000 training steps does the row of the null label get a gradient: if
# > each image is dropped by itself, and if the whole batch is?

# %%
BATCH, DROP = config.training.batch_size, config.training.label_drop
per_image = np.array([streams.drops(0, step, BATCH, DROP).sum() for step in range(1000)])
whole = np.array([BATCH * streams.drops(0, step, 1, DROP)[0] for step in range(1000)])
figure, places = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axes, dropped, name in zip(places, (per_image, whole), ("each image by itself", "the whole batch"), strict=True):
    axes.plot(dropped[:200], ".", markersize=4)
    axes.set(title=f"Dropped: {name}", xlabel="training step")
    print(
        f"{name:>20}: {dropped.mean():.1f} of {BATCH} labels a step, standard deviation {dropped.std():.1f}; "
        f"the null label has a gradient in {np.mean(dropped > 0):.1%} of the steps"
    )
places[0].set_ylabel(f"labels of {BATCH}")
plt.show()

# %% [markdown]
# *What to see:* the same mean, and another training. On the left every step teaches both: the ten classes, and what an
# image is without a class. On the right nine steps in ten have nothing for the null label, and the tenth has nothing for
# the classes. So the row of the null label learns in jumps, and between them Adam moves it on by what it remembers. No
# test of shapes sees that, and a loss curve hardly does.
#
# ## Where the label matters
#
# Call the prediction with the label $c$ (conditional) and the one without $u$ (unconditional). Both look at the same
# $x_t$. Here it is a sneaker, and the network is also given labels that are wrong.
#
# > **Predict before you run.** At which $t$ does the network believe the label, and at which its eyes?


# %%
def predict(x_t, t, labels=None):
    """eps_pred of x_t [B, 28, 28, 1] at one t, with labels [B] or without, as an array."""
    given = None if labels is None else duet.data.to_labels(np.asarray(labels))
    return duet.data.to_array(network(duet.data.to_tensor(x_t.astype(np.float32)), duet.times([t] * len(x_t)), given))


schedule = duet.engine.make_schedule(config.diffusion, duet.utils.dtype("fp64"))
alpha, sigma = np.sqrt(schedule.alphas_cumprod.numpy()), np.sqrt(1 - schedule.alphas_cumprod.numpy())
real = duet.data.to_array(duet.data.to_images(test.images, duet.utils.dtype("fp64")))


def noisy(x_0, t):
    """x_t of images [B, 28, 28, 1], each with the noise of its number."""
    return alpha[t] * x_0 + sigma[t] * streams.normal(0, streams.BOUND_EPS, t, x_0.shape)


def image_of(x_t, t, eps_pred):
    """The x_0 that follows, clipped."""
    return np.clip((x_t - sigma[t] * eps_pred) / alpha[t], -1, 1)


LOOKED = (999, 800, 650, 500, 350, 100)
GIVEN = [NULL, 7, 8, 3]
sneaker = real[np.argmax(test.labels == 7)][None]
frames = []
for t in LOOKED:
    x_t = noisy(sneaker, t)
    copies = np.repeat(x_t, len(GIVEN), axis=0)
    frames += [sneaker, x_t, image_of(copies, t, predict(copies, t, GIVEN))]
show_images(
    np.concatenate(frames),
    columns=2 + len(GIVEN),
    titles=["x_0", "x_t", *(short[label] for label in GIVEN)],
    rows=[f"t={t}" for t in LOOKED],
    title="x_0_pred of one x_t, with the label above",
)
gap = np.abs(predict(x_t, t) - predict(x_t, t, [NULL])).max()
print(f"no label at all, and the null label: predictions {gap:.0e} apart")

# %% [markdown]
# *What to see:* at `t = 999` nothing can be seen, and an error is enlarged a hundred times. At 800 each column is a cloud
# in the shape of its label, and without a label it is a cloud of everything. At 650, without a label, it is a shoe
# already, but who is told "dress" sees a dress. At 500 the wrong labels make the network doubt: a fog between what it
# sees and what it is told. From 350 on it draws the sneaker, whatever it is told.
#
# How far apart are $c$ and $u$? Here for forty test images with their true labels, and with wrong ones.

# %%
some, truth = real[:40], test.labels[:40].astype(np.int64)
over_t = (10, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
gaps = {"the true label": [], "a wrong label": []}
for t in over_t:
    x_t = noisy(some, t)
    u = predict(x_t, t)
    for found, labels in zip(gaps.values(), (truth, (truth + 3) % K), strict=True):
        c = predict(x_t, t, labels)
        moved = 127.5 * (image_of(x_t, t, c) - image_of(x_t, t, u))
        found.append((np.sqrt(np.mean((c - u) ** 2)), np.sqrt(np.mean(moved**2))))
figure, places = plt.subplots(1, 2, figsize=(9, 3.4))
for (name, found), dashes in zip(gaps.items(), ("-o", "--s"), strict=True):
    for axes, values in zip(places, np.array(found).T, strict=True):
        axes.plot(over_t, values, dashes, markersize=4, label=name)
places[0].set(title="c - u, as noise", xlabel="t", ylabel="root mean square")
places[1].set(title="c - u, as images", xlabel="t", ylabel="root mean square, grey levels")
places[0].legend()
for axes in places:
    axes.set_ylim(0, None)
    axes.invert_xaxis()  # the sampler goes to the right
plt.show()
for t, (_, right), (_, wrong) in zip(over_t, *gaps.values(), strict=True):
    print(f"t = {t:3}: c and u are {right:5.1f} grey levels apart with the true label, {wrong:5.1f} with a wrong one")

# %% [markdown]
# *What to see:* right, in grey levels: at large $t$ a label is worth about forty of them, and a wrong one as much as the
# true one, since nothing in $x_t$ contradicts it. (At 999 it is mostly error.) From about 700 on the eyes see what the
# true label says, and it adds less and less; a wrong one is a contradiction, most of all about 600. Below 300 no label
# matters. Left, the same as noise, which is what the loss sees: most at 500 to 600, and again at the end, where much in
# the noise is little in the image.
#
# So when is the class decided? Change the label on the way: $y$ down to some $t$, another one from there on.
#
# > **Predict before you run.** The first row is given the second label from the start, the last row never. Where between
# > them does the garment change?

# %%
second = (every + 5) % K
CHANGES = (1000, 800, 700, 600, 500, 400, 300, 0)


def changed(at, before, after):
    """The network with labels `before` at t >= at, and `after` at all smaller t. A sampler gives all images one t."""

    def labelled(x_t, t):
        return network(x_t, t, duet.data.to_labels(before if t.numpy()[0] >= at else after))

    return labelled


switched = [duet.sampling.sample(changed(at, every, second), config, conditional, 0, K) for at in CHANGES]
show_images(
    np.concatenate(switched),
    columns=K,
    titles=[f"{a}\n-> {b}" for a, b in zip(short, [short[label] for label in second], strict=False)],
    rows=["second only", *(f"changed at {at}" for at in CHANGES[1:-1]), "first only"],
    title="The label is changed on the way",
)
extractor = Extractor()
for at, images in zip(CHANGES, switched, strict=True):
    seen = extractor(images).probabilities.argmax(axis=1)
    print(
        f"changed at t = {at:4}: {np.sum(seen == every)} of {K} seen as the first class, {np.sum(seen == second)} as the second"
    )

# %% [markdown]
# *What to see:* what the first label did before 700 leaves hardly a trace: it is a cloud, and the second label makes of it
# what it likes. Between 600 and 400 both are in the picture: trousers with the sleeves of a shirt, a boot with a collar.
# The later the change, the more the network believes its eyes, for with each step there is more to be seen. So the class
# is decided between about 700 and 300, in each image at a time of its own. That is where $c$ and $u$ differed most, as
# noise, with a wrong label.
#
# ## Guidance
#
# The label need not win. By Bayes' rule $p(x \mid y) \propto p(x)\, p(y \mid x)$: images as they are, weighted by how
# plainly they show the class. If that is not plain enough, weigh it more, with an exponent $s$:
#
# $$p_s(x \mid y) \;\propto\; p(x)\, p(y \mid x)^s \;\propto\; p(x)\left(\frac{p(x \mid y)}{p(x)}\right)^{\!s} = p(x \mid y)^s\, p(x)^{1-s}$$
#
# The last form needs no classifier, so the method is called **classifier-free guidance** (Ho and Salimans 2022). Take
# the logarithm and the gradient with respect to $x$; products become sums:
#
# $$\nabla \log p_s(x \mid y) = \nabla \log p(x) + s\,\big(\nabla \log p(x \mid y) - \nabla \log p(x)\big)$$
#
# And the gradient of the log-density of noisy images, the **score**, is what the network predicts, but for a factor:
# $\nabla \log p(x_t) = -\epsilon_\text{pred} / \sqrt{1 - \bar\alpha_t}$. The factor is the same for both, so
#
# $$\boxed{\;\text{out} = u + s\,(c - u)\;}$$
#
# A straight line through both predictions: $s = 0$ is the one end, $s = 1$ the other, and $s > 1$ goes on beyond $c$, away
# from what an image without a label looks like.
#
# **Two conventions.** Ho and Salimans write $(1 + w)\,c - w\,u$, which is the same with $w = s - 1$. Libraries and papers
# use both, often under one name, so ask of every number what "off" is:
#
# | | unconditional | conditional, guidance off | | |
# |---|---|---|---|---|
# | $s$, here (and in diffusers, DiT) | 0 | **1** | 2 | 5 |
# | $w = s - 1$, in Ho and Salimans | -1 | **0** | 1 | 4 |
#
# See $p_s$ where everything is known: three classes on a line, each a bell curve; we ask for the one in the middle, then
# for the one on the right.
#
# > **Predict before you run.** Where does $p_s$ of the right class go, as $s$ grows? What becomes of its width?

# %%
x = np.linspace(-6, 9, 3001)
densities = np.exp(-((x - np.array([[-2.0], [0.0], [2.0]])) ** 2) / 2) / np.sqrt(2 * np.pi)
anything = densities.mean(axis=0)
figure, places = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True)
for axes, label, name in zip(places, (1, 2), ("the middle class", "the right class"), strict=True):
    axes.fill_between(x, anything, color="0.85", label="p(x), all classes")
    for s, dashes in zip((1, 2, 5), ("-", "--", ":"), strict=True):
        p_s = densities[label] ** s * anything ** (1.0 - s)
        p_s /= p_s.sum() * (x[1] - x[0])
        mean = np.sum(x * p_s) * (x[1] - x[0])
        deviation = np.sqrt(np.sum((x - mean) ** 2 * p_s) * (x[1] - x[0]))
        axes.plot(x, p_s, dashes, label=f"s = {s} (w = {s - 1})")
        print(f"{name:>16}, s = {s} (w = {s - 1}): mean {mean:.2f}, standard deviation {deviation:.2f}")
    axes.set(title=f"Asked for: {name}", xlabel="x")
places[0].set_ylabel("density")
places[0].legend(fontsize=9)
plt.show()

# %% [markdown]
# *What to see:* guidance moves away from the neighbours. In the middle there are neighbours on both sides: the class
# becomes narrow. On the right it goes where its own density is already small, because there the label is beyond doubt.
# Typical becomes **exaggerated**, and varied becomes **alike**. (With a curve $p(x)$ of finite data, and a network that
# guesses it. And the sampler guides at every $t$, where $p_s$ of the noisy images is not what noise makes of $p_s$, so
# what comes out is near this picture, and not exactly it.)
#
# In code, in both trees, labels are bound to the network where the batch is known, and nothing below knows of them:

# %%
side_by_side("guidance", "condition")

# %% [markdown]
# Mind the two short cuts: $s = 0$ and $s = 1$ need one evaluation of the network, every other scale two. And a network
# that predicts its variance too (02) has twice the channels: only the prediction is guided.
#
# ## The sheet
#
# A hundred images for each scale, ten of every class, and the same noise for each row. The cell takes the longest of
# this notebook, a minute at most.
#
# > **Predict before you run.** Which row, $s = 1$, 2 or 5, would you show as the model's best? In which will two sneakers
# > differ most?

# %%
SCALES = (0, 1, 2, 5)
labels = np.tile(every, 10)
sheets = {s: draw(labels, Sampling("dpmpp_2m_sde", steps=STEPS, guidance=s)) for s in SCALES}
show_images(
    np.concatenate([sheets[s][:K] for s in SCALES]),
    columns=K,
    titles=short,
    rows=[f"s={s} (w={s - 1})" for s in SCALES],
    title=f"{duet.name}: a row a scale, a column a noise and a label",
)
columns = np.concatenate([sheets[s][7::K] for s in SCALES])
show_images(columns, columns=10, rows=[f"s={s} (w={s - 1})" for s in SCALES], title="Ten noises, and the label sneaker")

# %% [markdown]
# *What to see:* $s = 0$ draws what it likes. With $s = 1$ most images are what was asked for, and some are two things at
# once: a dress that is half a bag, a shirt without arms. $s = 2$ has settled these. With $s = 5$ all doubt is gone, and
# much else with it: the tops are white and plain, and the sneakers are one sneaker, again and again.
#
# ## The judge's view
#
# Does it draw what was asked for? The classifier of [07](07_evaluating.ipynb) looks at the images: the share that it
# sees as the class asked for is the **accuracy**. And are they varied? Take the mean distance, in its features, of two
# images of one class. Both have a floor, which here is a mark to reach: what a hundred real images have.
#
# > **Predict before you run.** Which of the two grows with $s$, which falls? Can accuracy be *above* that of real images?


# %%
def judged(images):
    """Accuracy, and the mean feature distance of two images of one class, for images with the labels above."""
    seen = extractor(images)
    apart = []
    for label in every:
        features = seen.features[labels == label].astype(np.float64)
        distances = np.linalg.norm(features[:, None] - features, axis=2)
        apart.append(distances.sum() / (len(features) * (len(features) - 1)))
    right = (seen.probabilities.argmax(axis=1) == labels).reshape(-1, K)  # [image of the class, class]
    return right.mean(), np.mean(apart), right.mean(axis=0)


of_class = [np.flatnonzero(test.labels == label) for label in every]
reals = test.images[[of_class[label][i] for i in range(10) for label in every]]
floor = judged(reals)
scores = {s: judged(sheets[s]) for s in SCALES}
figure, places = plt.subplots(1, 2, figsize=(9, 3.3))
for axes, k, title, name in (
    (places[0], 0, "Is it what was asked for?", "accuracy"),
    (places[1], 1, "Do two of one class differ?", "distance in features"),
):
    axes.plot(SCALES, [scores[s][k] for s in SCALES], "-o", label="drawn")
    axes.axhline(floor[k], color="0.4", linestyle="--", label="real test images")
    axes.set(title=title, xlabel="s (Ho and Salimans' w is s - 1)", ylabel=name, ylim=(0, None))
    axes.set_xticks(SCALES)
    axes.legend(loc="lower right")
plt.show()
lines = {f"s = {s} (w = {s - 1})": scores[s] for s in SCALES} | {"real images": floor}
for name, (accuracy, apart, by_class) in lines.items():
    worst = by_class.argmin()
    print(
        f"{name:>14}: accuracy {accuracy:.0%}, two images of one class {apart:.1f} apart; "
        f"worst: {names[worst]}, {by_class[worst]:.0%}"
    )

# %% [markdown]
# *What to see:* the accuracy rises all the way: with $s = 2$ it is about that of real images, and with $s = 5$ above it.
# The distance falls all the way: at $s = 1$ two images of one class differ as much as real ones do, at $s = 5$ a good
# third less. (At $s = 0$ there are no classes; two images of one column are any two.) **One is bought with the other**, so
# a report of the accuracy alone, or of a picture with the best scale, says half of it.
#
# ## Too much
#
# > **Predict before you run.** $s = 15$: what will it look like? And if $x_0$ is not clipped?

# %%
seven = every[[0, 1, 3, 5, 7, 8, 9]]
extremes = {
    "s=1 (w=0)": conditional,
    "s=5 (w=4)": Sampling("dpmpp_2m_sde", steps=STEPS, guidance=5),
    "s=15 (w=14)": Sampling("dpmpp_2m_sde", steps=STEPS, guidance=15),
    "s=15 (w=14), not clipped": Sampling("dpmpp_2m_sde", steps=STEPS, guidance=15, clip_x_0=False),
}
extreme = {name: draw(seven, sampling) for name, sampling in extremes.items()}
show_images(
    np.concatenate(list(extreme.values())),
    columns=len(seven),
    titles=[short[label] for label in seven],
    rows=[name.replace(", ", "\n") for name in extreme],
    title="Too much",
)
for name, images in ({"real images": reals[np.isin(labels, seven)]} | extreme).items():
    print(f"{name:>24}: {np.mean(images >= 250):5.1%} of the pixels are white, {np.mean(images <= 5):5.1%} black")

# %% [markdown]
# *What to see:* with $s = 15$ the cloth is gone. White areas run into each other, with hard, dark lines where an edge may
# be, and the black around them is speckled: the line through $u$ and $c$ has left the place where images are. Clipping
# holds back what it can. Without it the bag is a white square. So too much guidance is known by its **contrast**, more
# white pixels than real images have, and by its **sameness**, which one image alone does not show.
#
# ## One thing, whatever is predicted
#
# Our network predicts the noise. Another predicts $x_0$, or $v$ ([03](03_objective.ipynb)). Would guidance be another?
# At one $x_t$, each follows from each other by a multiplication and an addition, and $u + s\,(c - u)$ is a weighted mean
# with weights that sum to 1, $(1 - s)\,u + s\,c$; so what is added comes through unchanged. In float64:

# %%
t = 500
x_t = noisy(some[:10], t)
c, u = predict(x_t, t, truth[:10]), predict(x_t, t)
level = duet.prediction.level_of(schedule, duet.times([t] * 10))
noisy_images, s = duet.data.to_tensor(x_t), 3.0


def guided_as(kind):
    """x_0_pred of the guided prediction, where c and u are first turned into predictions of `kind`."""

    def output(eps_pred):
        eps_pred = duet.data.to_tensor(eps_pred)
        x_0_pred = duet.prediction.to_x_0(level, "eps", noisy_images, eps_pred)
        return duet.prediction.target(level, kind, x_0_pred, eps_pred)

    guided = output(u) + s * (output(c) - output(u))
    return duet.data.to_array(duet.prediction.to_x_0(level, kind, noisy_images, guided))


by_eps = guided_as("eps")
for kind in ("x_0", "v", "mean"):
    print(f"guided as eps, and as {kind:>4}: x_0_pred at most {np.abs(guided_as(kind) - by_eps).max():.0e} apart")
early = image_of(x_t, t, u) + s * (image_of(x_t, t, c) - image_of(x_t, t, u))
print(
    f"clipped before it is guided:  x_0_pred up to {np.abs(np.clip(early, -1, 1) - np.clip(by_eps, -1, 1)).max():.2f} apart"
)

# %% [markdown]
# *What to see:* rounding. (More of it for the posterior's mean, in which the image has a small share, so that the way
# back divides by a small number.) So guidance stands in one place of the code, for every prediction. But clipping bends
# the line: it has to come after.
#
# ## Only where it helps
#
# Guidance at large $t$ decides for all images of a class alike, before anything else is seen; at small $t$ $c$ and $u$
# are nearly the same, and it costs a second evaluation for nothing. Kynkäänniemi et al. (2024) guide in an interval in
# the middle only, and take $c$ outside. `--guidance-from` and `--guidance-to` are its ends, in $t$.
#
# > **Predict before you run.** $s = 5$ from $t = 100$ to 600 only: nearer to the row of $s = 1$, or to that of $s = 5$?

# %%
FROM, TO = 100, 600
limited = Sampling("dpmpp_2m_sde", steps=STEPS, guidance=5, guidance_from=FROM, guidance_to=TO)
sheets["limited"] = draw(labels, limited)
rows = {"s=1 (w=0)": sheets[1], f"s=5 (w=4), t={FROM}..{TO}": sheets["limited"], "s=5 (w=4)": sheets[5]}
show_images(
    np.concatenate([images[:K] for images in rows.values()]),
    columns=K,
    titles=short,
    rows=[name.replace(", ", "\n") for name in rows],
    title="Guided everywhere, or in the middle",
)
visited = limited.times(config.diffusion.timesteps)
twice = sum(limited.guidance_at(t) != 1 for t in visited)
for name, images in rows.items():
    accuracy, apart, _ = judged(images)
    print(f"{name:>20}: accuracy {accuracy:.0%}, two images of one class {apart:.1f} apart")
print(f"evaluations of the network: {STEPS} with s = 1, {STEPS + twice} in the interval, {2 * STEPS} everywhere")

# %% [markdown]
# *What to see:* the shapes are those of $s = 5$ everywhere, so the interval is where they are decided. What comes back is
# the cloth: greys, and a print on the T-shirt, for half of the extra evaluations and nearly the same accuracy. The
# distance in features hardly tells the two apart: the judge was trained to tell classes, not prints.
#
# ## Between two classes
#
# Back to the product with a one-hot vector: nothing says that it has to be one-hot. `Draw(labels=...)` takes weights
# $[N, K + 1]$ too. So one can walk from one class to another *at one noise*.
#
# > **Predict before you run.** Half sneaker, half ankle boot: a thing between the two, one of the two, or neither? And
# > half trouser, half bag?

# %%
WALKS, COLUMNS = [(7, 9), (0, 3), (1, 8)], 8
ends = np.eye(K + 1)
way = np.linspace(0, 1, COLUMNS)[:, None]
weights = np.concatenate([(1 - way) * ends[a] + way * ends[b] for a, b in WALKS])
walked = draw(weights, Sampling("dpmpp_2m_sde", steps=STEPS, guidance=2), same_noise=COLUMNS)
show_images(
    walked,
    columns=COLUMNS,
    titles=[f"{share:.0%}" for share in way[:, 0]],
    rows=[f"{short[a]} -> {short[b]}" for a, b in WALKS],
    title="Weights of the second class; s = 2 (w = 1), one noise a row",
)

# %% [markdown]
# *What to see:* among relatives the label turns by degrees: a T-shirt grows narrower into a dress, and the shaft of a boot
# rises. (Not evenly: for the first half the sneaker hardly moves.) Between trousers and a bag there is nothing to wear,
# and the network does not invent it: it flips. And what the label leaves open stays, such as how bright a thing is.
#
# By the command line, in both frameworks, with names or numbers:
#
#     make sample-torch ARGS="--labels trouser,bag --guidance 2"      # or sample-tf
#     make sample-torch ARGS="--labels sneaker,boot --interpolate-labels 8"
#     make train-torch ARGS="--preset tiny --class-conditional --minutes 3"
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · Drop labels.** (easy) `labels` [B], and for each image a number of `uniform` [B], drawn evenly from $[0, 1)$.
# Return the labels that the network is given: the null label with the given probability, image by image.


# %%
def my_drop(labels, uniform, probability, num_classes):
    """Your answer."""
    ...


check.drop(my_drop)

# %% [markdown]
# **2 · Guide.** (medium) In this book's convention of the scale. `c` and `u` are the outputs of a network that predicts
# its variance too, [B, H, W, 2C]: the prediction in the first half of the channels, the variance in the second. Return
# an output of the same shape.


# %%
def my_guide(c, u, scale):
    """Your answer."""
    ...


check.guide(my_guide)

# %% [markdown]
# **3 · In an interval.** (harder) `c` and `u` predict the noise in `x_t`, all [B, H, W, C], and `t` [B] differs from
# image to image. Guide by `scale` where `first <= t <= last`, take the conditional prediction elsewhere, and return the
# $x_0$ that follows, clipped to $[-1, 1]$.


# %%
def my_guided_x_0(alphas_cumprod, x_t, t, c, u, scale, first, last):
    """Return x_0_pred."""
    ...


check.guided_x_0(my_guided_x_0)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>A library's documentation recommends a guidance scale of 7.5. What is it here?</summary>
# You cannot tell from the number. If 1 switches guidance off there (as in diffusers), it is s = 7.5; if 0 does (as in
# the paper), it is w = 7.5, which is s = 8.5. Look for what "off" is, or for the line of code.</details>
#
# <details><summary>Why not a network for p(x) and another for p(x | y)?</summary>
# It works, and costs twice the training and the memory. It also has two errors that have nothing to do with each other,
# and s (c - u) enlarges their difference. The two predictions of one network share most of their error, which cancels
# in c - u.</details>
#
# <details><summary>Somebody forgets to drop labels in training. What does guidance do with that network?</summary>
# The row of the null label is still what it was initialised with, since no image ever had it. u is the prediction for a
# class that does not exist, and guidance leads away from it: in a direction that means nothing.</details>
#
# <details><summary>The accuracy rises with s to that of real images, and above. Is the model then better than real
# images?</summary>
# No. The classifier is wrong on real images that are hard to tell, such as shirts like coats. A guided model draws fewer
# of those. It leaves out a part of the class, and accuracy rewards that; recall does not.</details>
#
# <details><summary>Validation drops no label. Why?</summary>
# It asks how well the network predicts what it will be used for. With dropped labels the loss would be a mixture of two
# tasks, and could not be compared between runs of different drop probability.</details>
#
# ## What you have now
#
# | here | in the code | in the paper |
# |---|---|---|
# | the label table, the null label | `networks.layers.LabelEmbedding`, parameter `label.weight` | Ho and Salimans 2022, section 3.2 |
# | dropping | `streams.drops`, `batches.training_batch`, `--label-drop` | Ho and Salimans 2022, algorithm 1 |
# | $u + s\,(c - u)$ | `guidance.condition(network, labels, scale)` | Ho and Salimans 2022, eq. 6, with $w = s - 1$ |
# | the interval | `Sampling.guidance_at(t)`, `--guidance-from`, `--guidance-to` | Kynkäänniemi et al. 2024 |
# | one image for each label | `Draw(seed, first, count, labels=..., same_noise=...)` | |
#
# Next: [10, continuous time](10_continuous_time.ipynb): one spine for DDPM, scores, EDM and flow matching.
