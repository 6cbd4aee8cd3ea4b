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
# # 07 · Evaluating samples: are they good, and are they new?
#
# **Afterwards you can** compute a Fréchet distance and say what it does not see, tell whether two such numbers may be
# compared, read precision and recall, and check whether a model has drawn its images or remembered them.
#
# **Time:** 60 minutes. **You need:** [05](05_sampling.ipynb); means, variances, covariance matrices.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None


import numpy as np
import scipy.linalg
from IPython.display import Markdown, display
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

from ddpm_course.exercises import evaluating as check
from ddpm_course.explore import explore
from ddpm_course.figures import show_images
from ddpm_shared import datasets
from ddpm_shared.config.sampling import Sampling
from ddpm_shared.evaluation import corruptions, metrics, neighbours
from ddpm_shared.evaluation.extractor import Extractor
from ddpm_shared.evaluation.judge import Judge

duet = begin(FRAMEWORK)

# %% [markdown]
# ## Something to judge
#
# A low loss does not promise good samples: it is a mean over all times of how well the noise is predicted
# ([03](03_objective.ipynb)), and says nothing of what many steps in a row end in. So the images themselves have to be
# judged. Here are 256, drawn by the network in the package in 20 steps. The cell takes about half a minute.

# %%
COUNT, BATCH = 256, 64
train, test = datasets.load("fashion-mnist-10k")
network, config = duet.trained()
sampling = Sampling("dpmpp_2m_sde", steps=20)
drawn = np.concatenate(
    [duet.sampling.sample(network, config, sampling, 0, BATCH, first) for first in range(0, COUNT, BATCH)]
)
print(
    f"{duet.name} drew {drawn.shape} {drawn.dtype}; "
    f"real images: {len(train.images):,} to train, {len(test.images):,} to test"
)

# %% [markdown]
# > **Predict before you run.** Half of the twenty images below are real test images, half are drawn. Which are which?
# > Write the numbers of the drawn ones down before you run the cell after the next.

# %%
rng = np.random.default_rng(0)
order = rng.permutation(20)
mixed = np.concatenate([test.images[:10], drawn[:10]])[order]
show_images(
    mixed, columns=10, title="No. 0 to 9 above, 10 to 19 below: which are drawn?", titles=[str(i) for i in range(10)]
)

# %%
print("drawn are no.", *np.flatnonzero(order >= 10))

# %% [markdown]
# *What to see:* hardly one of them gives itself away; 14, a skirt under half a top, perhaps.
#
# Eyes are good judges of single images, and poor ones of a set: you would not notice that a class is missing from ten
# thousand, or that each image comes twice. For that we need numbers.
#
# ## In whose eyes
#
# Pixels are a bad space for distances: a shirt one pixel further left is far from itself. The usual way is to show the
# images to a trained classifier and take what its last hidden layer makes of them, the **features**. The usual
# classifier is Inception, which knows a thousand classes of coloured photographs; here it is a small one that knows
# these ten classes, 128 features, each of mean 0 and variance 1 over the training images.

# %%
extractor = Extractor()
judge = Judge(train, test, extractor=extractor)  # looks at all real images, once
real = judge.other_extracted.features  # of the test images, [2000, 128]
seen = extractor(drawn)
right = np.mean(judge.other_extracted.probabilities.argmax(axis=1) == test.labels)
print(f"features of the drawn images: {seen.features.shape}; the classifier is right on {right:.1%} of the test images")

# %% [markdown]
# We cannot look at 128 dimensions. The two directions in which the training images vary most (principal components)
# make a map.

# %%
values, vectors = np.linalg.eigh(judge.moments.covariance)  # ascending
directions = vectors[:, [-1, -2]]


def on_map(features):
    """Features [N, 128] -> [N, 2]."""
    return (features - judge.moments.mean) @ directions


figure, axes = plt.subplots(figsize=(7.5, 5.4))
axes.plot(*on_map(real).T, ".", color="0.75", markersize=4, label="2,000 real test images")
axes.plot(*on_map(seen.features).T, "x", color="C1", markersize=5, label="256 drawn images")
for label, name in enumerate(train.class_names):
    side = {"Pullover": "right", "Shirt": "left"}.get(name, "center")  # where two lie on each other
    axes.text(*np.median(on_map(real[test.labels == label]), axis=0), name, ha=side, weight="bold")
axes.set(
    title="The two widest directions of 128", xlabel="first principal component", ylabel="second principal component"
)
axes.legend()
plt.show()
print(f"the two directions hold {values[-2:].sum() / values.sum():.0%} of the variance")

# %% [markdown]
# *What to see:* the classes are islands, clothes on the left, shoes on the right, bags below. Most crosses lie on an
# island. A few lie between two, where grey dots are rare: look for them between the clothes and the bags.
#
# ## The Fréchet distance
#
# How far is one cloud of points from another? Put a Gaussian in the place of each, and ask how far the one has to be
# moved to become the other. In one dimension: pair the points of both in their order, $a = \mu_a + \sigma_a z$ with
# $b = \mu_b + \sigma_b z$, and the mean square of the way is
#
# $$d^2 = \mathbb E\,(a - b)^2 = (\mu_a - \mu_b)^2 + (\sigma_a - \sigma_b)^2$$
#
# No other pairing makes it shorter. Take the first of the two directions:

# %%
a, b = on_map(seen.features)[:, 0], on_map(judge.reference_extracted.features)[:, 0]
by_hand = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
packaged = metrics.frechet_distance(metrics.moments(a[:, None]), metrics.moments(b[:, None]))

figure, axes = plt.subplots()
place = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), 300)
for points, name, colour, dashes in ((b, "training images", "C0", "-"), (a, "drawn images", "C1", "--")):
    mean, deviation = points.mean(), points.std(ddof=1)
    axes.hist(
        points, np.linspace(place[0], place[-1], 41), density=True, histtype="stepfilled", color=colour, alpha=0.25
    )
    density = np.exp(-(((place - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
    axes.plot(place, density, dashes, color=colour, label=f"{name}: mean {mean:.2f}, deviation {deviation:.2f}")
axes.set(title="One direction, and the Gaussians in its place", xlabel="first principal component", ylabel="density")
axes.legend()
plt.show()
print(f"by hand {by_hand:.5f}, by the package {packaged:.5f}, gap {abs(by_hand - packaged):.0e}")

# %% [markdown]
# *What to see:* neither histogram is anything like its Gaussian. The classes make several hills, and both Gaussians
# have their top in a valley. The distance compares the two means and the two widths, and nothing else.
#
# In more dimensions the deviations become covariance matrices $S$, and
#
# $$d^2 = \lVert \mu_a - \mu_b \rVert^2 + \operatorname{tr}\!\left(S_a + S_b - 2\,(S_a S_b)^{1/2}\right)
# \qquad \text{(Heusel et al. 2017)}$$
#
# With one dimension it is the formula above, and with diagonal matrices its sum over the dimensions. Over Inception's
# features it is called **FID**; ours has the same formula and other features, so **no number here may be compared with
# an FID from a paper**. What is reported is $d^2$, without a root.

# %%
m, r = metrics.moments(seen.features), judge.moments
root = scipy.linalg.sqrtm(m.covariance @ r.covariance).real
by_scipy = np.sum((m.mean - r.mean) ** 2) + np.trace(m.covariance + r.covariance - 2 * root)
fid = metrics.frechet_distance(m, r)
print(
    f"the {COUNT} drawn images: {fid:.3f} by the package, {by_scipy:.3f} with SciPy's root, "
    f"gap {abs(fid - by_scipy):.0e}"
)

# %% [markdown]
# ## The floor
#
# Is that much? A number needs another beside it.
#
# > **Predict before you run.** Take as many *real* images, of the test set, and measure their distance from the
# > training images. What is it: 0, a hundredth of the number above, a good part of it?

# %%
SIZES = (128, 256, 512, 1000, 2000)
subsets = {n: [rng.permutation(len(real))[:n] for _ in range(10 if n < len(real) else 1)] for n in SIZES}


def distance_of(features):
    """The Fréchet distance of features [N, 128] from those of the training images."""
    return metrics.frechet_distance(metrics.moments(features), judge.moments)


floors = {n: [distance_of(real[chosen]) for chosen in subsets[n]] for n in SIZES}
figure, axes = plt.subplots(figsize=(7.5, 4))
for n, found in floors.items():
    label = "real test images, ten sets a size, one of 2,000" if n == SIZES[0] else None
    axes.plot([n] * len(found), found, "o", color="C0", alpha=0.5, label=label)
means = np.array([np.mean(found) for found in floors.values()])
axes.plot(SIZES, means, "-", color="C0", label="their mean")
axes.plot(SIZES, means[0] * SIZES[0] / np.array(SIZES), ":", color="0.4", label="proportional to 1 / n")
halves = [distance_of(seen.features[: COUNT // 2]), distance_of(seen.features[COUNT // 2 :])]
axes.plot(
    [COUNT // 2] * 2 + [COUNT], [*halves, fid], "X", color="C1", markersize=9, label="drawn images, halves and all"
)
axes.set(title="Real images are not at 0", xlabel="images in the set, n", ylabel="Fréchet distance")
axes.set(xscale="log", yscale="log")
axes.set_xticks(SIZES, [f"{n:,}" for n in SIZES])
axes.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
axes.minorticks_off()
axes.legend()
plt.show()
for n, found in floors.items():
    print(f"n = {n:5,}: real images from {min(found):.2f} to {max(found):.2f}, mean {np.mean(found):.2f}")
print(f"drawn images: {halves[0]:.2f} and {halves[1]:.2f} for n = 128, {fid:.2f} for n = 256")

# %% [markdown]
# *What to see:* the blue dots are real images throughout, and only their number differs: 128 of them are at 3.52 in the
# mean, the 2,000 at 0.11. Mean and covariance of few images are off by chance, and the distance counts that. It falls
# about as $1/n$, and from 512 on faster. The crosses fall as well: halves of the drawn images are further away than all
# of them, although the model is the same. So **distances of sets of different size do not compare**, and each needs its
# **floor** beside it: the distance of as many real images. That has a spread, too: ten sets of 256 reach from 1.22 to
# 2.64.
#
# ## What moves it
#
# A number is understood once one has seen it move. So we spoil real test images on purpose.

# %%
made = corruptions.corrupted(train, test, COUNT)
NAMES = {
    "test images": "as they are",
    "blurred by 1 pixel": "blurred",
    "noise of 20 grey levels": "noisy",
    "no trousers": "no trousers",
    "each image 10 times": "each 10 times",
    "copied training images": "training images",
}
sets = {name: made[key] for key, name in NAMES.items()} | {"drawn": drawn}
show_images(
    np.concatenate([pixels[5:250:25] for pixels in sets.values()]), columns=10, rows=list(sets), title="Ten of each set"
)

# %% [markdown]
# *What to see:* blurred and noisy images look spoilt one by one. In the next two rows every image is good, and what is
# wrong is the set.
#
# > **Predict before you run.** Which of the four, blurred, noisy, no trousers, each ten times, is furthest from the
# > training images? Which is nearest? And where among them are the drawn images?

# %%
scores = {name: judge.scores(extractor(pixels)) for name, pixels in sets.items()}
figure, axes = plt.subplots(figsize=(7.5, 3.4))
heights = [score["fid_fashion"] for score in scores.values()]
different = len({image.tobytes() for image in sets["each 10 times"]})
bars = axes.barh(list(sets), heights, color=["C1" if name == "drawn" else "C0" for name in sets])
axes.bar_label(bars, fmt="%.2f", padding=3)
axes.axvspan(min(floors[COUNT]), max(floors[COUNT]), color="0.5", alpha=0.4, label="ten sets of real test images")
axes.set_axisbelow(True)
axes.set(title=f"Fréchet distance, {COUNT} images each", xlabel="distance from the training images")
axes.margins(x=0.12)
axes.invert_yaxis()
axes.legend()
plt.show()
print(f'different images in "each 10 times": {different}; mean of the ten real sets {np.mean(floors[COUNT]):.2f}')

# %% [markdown]
# *What to see:* the blur, which the eye forgives, costs as much as the noise, which it does not: the distance is one of
# a network's features. No image of "no trousers" is at fault, and the set is still far outside the grey band. And "each
# 10 times" is furthest of all: it has 26 different images, and you saw what few images do. The copied training images
# are inside the band. The distance does not know that they were stolen. And so are the drawn ones.
#
# ## Good, or varied?
#
# One number cannot say what is wrong. Two can: **precision**, the share of the drawn images that lie where real ones
# do, and **recall**, the share of the real images that lie where drawn ones do. "Where real ones do" is a union of
# balls: each real image has one that reaches to its $k$-th nearest neighbour among the real ones (Kynkäänniemi et al.
# 2019). For recall the two sets change their roles.
#
# In two dimensions one can see it. Circles are real, crosses are drawn; the model knows one of two clusters, and puts
# some points where nothing is.

# %%
toy_rng = np.random.default_rng(4)
toy_real = np.concatenate([toy_rng.normal((0, 0), 0.6, (12, 2)), toy_rng.normal((4, 0.5), 0.6, (8, 2))])
toy_drawn = np.concatenate([toy_rng.normal((0.1, 0), 0.5, (10, 2)), toy_rng.normal((1.9, 1.8), 0.2, (4, 2))])


def balls(k):
    """Precision and recall for balls that reach to the k-th neighbour."""
    figure, places = plt.subplots(1, 2, figsize=(9, 3.9), sharex=True, sharey=True)
    counted = []
    for axes, name, centres, asked, colour, whose in (
        (places[0], "Precision: drawn points in real balls", toy_real, toy_drawn, "C0", "drawn"),
        (places[1], "Recall: real points in drawn balls", toy_drawn, toy_real, "C1", "real"),
    ):
        apart = np.linalg.norm(centres[:, None] - centres, axis=2)
        radii = np.sort(apart, axis=1)[:, k]  # place 0 is the point itself
        for centre, radius in zip(centres, radii, strict=True):
            axes.add_patch(Circle(centre, radius, color=colour, alpha=0.13, linewidth=0))
        axes.plot(*toy_real.T, "o", color="C0", markersize=6)
        axes.plot(*toy_drawn.T, "x", color="C1", markersize=7, markeredgewidth=2)
        inside = (np.linalg.norm(asked[:, None] - centres, axis=2) <= radii).any(axis=1)
        axes.plot(*asked[~inside].T, "s", color="0.2", markersize=13, fillstyle="none", label=f"{whose}, in no ball")
        axes.set_title(name, fontsize=11)
        axes.set(xlabel="feature 1", ylabel="feature 2", aspect="equal", xlim=(-2.2, 6), ylim=(-1.8, 4))
        axes.legend(loc="upper right")
        counted.append(inside)
    figure.suptitle(f"k = {k}")
    plt.show()
    told = metrics.neighbour_metrics(toy_real, toy_drawn, k_precision_recall=k)
    for name, inside, packaged in zip(("precision", "recall"), counted, (told.precision, told.recall), strict=True):
        print(f"k = {k}, {name}: {inside.sum()} of {len(inside)} = {inside.mean():.3f}, by the package {packaged:.3f}")


explore("k", range(1, 8), balls, shown=[3, 4])

# %% [markdown]
# *What to see:* with $k = 3$, the four stray crosses in the middle are in no real ball, and lower precision; the right
# cluster, which is never drawn, is in no drawn ball, and lowers recall. With $k = 4$ each stray cross lacks a fourth
# neighbour nearby, its ball reaches over to the left cluster, and half of the right one falls into it: recall rises
# from 0.55 to 0.8, and not a point was moved. A few far-off images can reach around many real ones. That is why there
# is also **coverage**: the share of the real images with a drawn one in *their own* ball (here with $k = 5$; Naeem et
# al. 2020).
#
# Now the sets of images, in 128 dimensions, with $k = 3$, each against 256 training images (the Fréchet distance
# against all 10,000, as before).

# %%
COLUMNS = ("fid_fashion", "precision", "recall", "coverage")
lines = ["| | Fréchet distance | precision | recall | coverage |", "|---|---|---|---|---|"]
others = [judge.scores(judge.other_extracted.take(chosen)) for chosen in subsets[COUNT]]
spans = [(min(o[key] for o in others), max(o[key] for o in others)) for key in COLUMNS]
lines.append(
    "| " + " | ".join(["ten sets of test images", *(f"{low:.2f} to {high:.2f}" for low, high in spans)]) + " |"
)
for name, score in scores.items():
    lines.append("| " + " | ".join([name, *(f"{score[key]:.2f}" for key in COLUMNS)]) + " |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# Read each row against the first, which is what chance does to real images.
#
# * **blurred, noisy**: both precision and recall fall. Bad images are neither where real ones are nor around them.
# * **no trousers**: precision stays within the first row's range, as it should, since every image is good. Recall and
#   coverage leave it.
# * **each 10 times**: recall is 0, and coverage is 0.37. Precision falls far less.
# * **training images**: nothing in this row gives them away.
#
# ## Drawn, or remembered?
#
# No number so far minds copies. So we look for the training image that is nearest to each drawn one, by the
# root-mean-square difference of the pixels.
#
# > **Predict before you run.** Some pair will be the most alike. Will it be a copy? How would you know?

# %%
index, distance = neighbours.nearest(drawn, train.images)
_, of_test = neighbours.nearest(test.images, train.images)
closest = np.argsort(distance)[:10]
show_images(
    np.concatenate([drawn[closest], train.images[index[closest]]]),
    columns=10,
    titles=[f"{value:.0f}" for value in distance[closest]],
    rows=["drawn", "nearest"],
    title="The ten most alike, and how many grey levels they are apart",
)

# %% [markdown]
# *What to see:* the most alike are the simplest shapes, most of them trousers: the same outline, other details. The
# first pair differs by 15 of 255 grey levels, so it is no copy. But is that close? The test images, which nobody can
# have copied, are the measure again; and copies made on purpose show what the check would say of them.

# %%
copied = sets["training images"]
figure, axes = plt.subplots(figsize=(7.5, 4))
for name, pixels, colour, dashes in (
    ("test images", test.images, "C0", "-"),
    ("drawn images", drawn, "C1", "--"),
    ("copied training images", copied, "C2", ":"),
    ("copies, moved by 2 pixels", corruptions.moved(copied), "C3", "-."),
):
    _, found = neighbours.nearest(pixels, train.images)
    close, exact = np.mean(found < np.quantile(of_test, 0.01)), neighbours.copies(pixels, train.images).sum()
    share = np.full(len(found), 100 / len(found))
    axes.hist(found, np.arange(0, 101, 4), weights=share, histtype="step", color=colour, ls=dashes, lw=2, label=name)
    print(
        f"{name:>25}: median {np.median(found):5.1f} grey levels, "
        f"{close:6.1%} closer than 99 % of the test images, {exact} copies"
    )
axes.annotate("100 %: all copies\nare at 0", (4, 19), (10, 19), va="center", arrowprops={"arrowstyle": "->"})
axes.set(title="How far is the nearest training image?", ylim=(0, 22))
axes.set(xlabel="root-mean-square difference, grey levels", ylabel="% of the images")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the drawn images are about as far from the training images as the test images are, which nobody copied.
# Plain copies are at 0. But the same copies, moved by two pixels, are *further* away than honest images: **this check
# finds copies of pixels, and no others**. And it looked at 10,000 training images, while the network learned from
# 60,000, of which these are a sixth; `make evaluate` takes the full set where it can be had.
#
# ## The verdict
#
# What does the judge say of the network in the package?
#
# * **As a set of 256, these images cannot be told from real ones.** Their Fréchet distance, 1.98, is within the range of
#   ten real sets, 1.22 to 2.64.
# * **One by one, most of them pass.** Precision, 0.95, is within the range of real sets as well. Recall, 0.87, and
#   coverage, 0.95, are at the lower ends of theirs: some of what is real is seldom drawn.
# * **Nothing speaks for copies.** The nearest training image is 34.6 grey levels away in the median, that of a test
#   image 35.7. But this was a sixth of what the network has seen.
#
# And what it does not say. With 256 images the floor is 1.67, and hides every fault that is smaller. With 10,000 it is
# low enough to tell these images from real ones, as the [model's card](../shared/src/boxed/MODEL_CARD.md) shows. The
# numbers judge the network *and* the 20 steps of the sampler. They see with the eyes of one classifier, which is wrong
# on some of the real images, too. And no number replaces looking.
#
# ## Exercises
#
# **1 · One dimension.** (easy) The squared Fréchet distance of two Gaussians, given their means and standard
# deviations.


# %%
def my_frechet_of_one(mean_a, std_a, mean_b, std_b):
    """Your answer."""
    ...


check.frechet_of_one(my_frechet_of_one)

# %% [markdown]
# **2 · Precision.** (medium) `real` is [N, D], `generated` [M, D]. The share of the generated points that lie in the
# ball of some real point, which reaches to its `k`-th nearest neighbour among the real points. Its surface belongs to
# the ball.


# %%
def my_precision(real, generated, k):
    """Your answer."""
    ...


check.precision(my_precision)

# %% [markdown]
# **3 · Many dimensions.** (harder) The squared Fréchet distance of two sets of features, `a` [N, D] and `b` [M, D].
# Covariances are unbiased: divided by N - 1. For the root of a matrix there is `scipy.linalg.sqrtm`; or think of what
# the eigenvalues of $S_a S_b$ have to do with the trace.


# %%
def my_frechet(a, b):
    """Your answer."""
    ...


check.frechet(my_frechet)

# %% [markdown]
# ## Questions
#
# <details><summary>A paper reports an FID of 4 with 50,000 images, you measure 6 with 5,000 of yours. Whose model is
# better?</summary>
# Nobody can tell. The distance of a smaller set is larger for the same model, and the classifier, how the images were
# enlarged for it, and the reference set must be the same, too. Draw as many, and measure both by one program.</details>
#
# <details><summary>Your model reaches a Fréchet distance below the floor. What do you look at first?</summary>
# The nearest training images: a copier gets below. Then how the floor was made: of as many images, with the same
# reference? Then its spread: sets of real images lie on both sides of its mean.</details>
#
# <details><summary>A model draws the same ten perfect images again and again. What do precision, recall and coverage
# say?</summary>
# Precision is high, as each image lies where real ones do. Recall is 0: the k-th neighbour of a repeated image is a
# copy of it, so its ball has no size. Coverage is small, since most real images have no drawn one close by.</details>
#
# <details><summary>Why is a sampler's setting, the number of steps, say, not to be tuned on the test images?</summary>
# The best of many settings is the best for these very images, by chance in part. The number measured on them is then
# too good, as an exam is whose questions were known.</details>
#
# ## What you have now
#
# | here | in the code | source |
# |---|---|---|
# | features | `extractor.Extractor`, `Extracted.features` | [docs/evaluation.md](../docs/evaluation.md) |
# | $\mu$, $S$ | `metrics.moments` | Heusel et al. 2017, section 2 |
# | $d^2$, Fréchet distance | `metrics.frechet_distance`, `fid_fashion` | Heusel et al. 2017, eq. 6 |
# | the floor | `judge.Judge.floor`, `fid_floor` | |
# | precision, recall | `metrics.neighbour_metrics` | Kynkäänniemi et al. 2019, eq. 1 and 2 |
# | coverage | `metrics.neighbour_metrics` | Naeem et al. 2020, eq. 4 |
# | nearest training image | `neighbours.nearest`, `neighbours.copies` | |
#
# For images of your own, all of this and more is `make evaluate RUN=...`.
#
# Next: [08, your own experiment](08_your_own_experiment.ipynb).
