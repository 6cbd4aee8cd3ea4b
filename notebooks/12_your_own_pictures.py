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
# # 12 · Your own pictures: from a folder to samples
#
# **Afterwards you can** turn a folder of pictures into a data set, say what happens to each picture on the way, check
# the set before you train on it, and tell a model that draws from one that remembers.
#
# **Time:** 60 minutes, two of them waiting. **You need:** [04](04_training.ipynb), and from [07](07_evaluating.ipynb)
# the nearest training image. Pictures of your own are welcome, and not needed: the first cells draw some.

# %%
FRAMEWORK = "torch"  # or "tensorflow": everything below works in both

# %%
try:
    from ddpm_course import begin
except ModuleNotFoundError:
    raise SystemExit("ddpm-duet is not installed here: run `make setup`, then `make lab`, in its folder.") from None

import colorsys
import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

from ddpm_course.exercises import pictures as check
from ddpm_course.figures import show_images
from ddpm_course.live import LiveCurve
from ddpm_shared import batches, datasets, files
from ddpm_shared.config import Config, FolderConfig, TrainingConfig, fitted, with_preset
from ddpm_shared.datasets.passport import passport, text
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import neighbours, spaces
from ddpm_shared.evaluation.judge import Judge

duet = begin(FRAMEWORK)

# %% [markdown]
# ## A folder
#
# Here is a folder of 500 pictures: circles, squares and triangles in six colours, on paper of many sizes. They are
# drawn by the next cell. Each subfolder is a **class**; without subfolders there are no classes. And as folders go,
# something has happened to this one over the years: somebody copied thirty files under other names, and somebody
# saved thirty others again, smaller and as JPEG.
#
# **For pictures of your own**, set `MY_PICTURES` to their folder: PNG, JPEG, WebP, BMP or GIF, some hundreds of them at
# least. Nothing in it is changed. All that follows is then about them, except for the next section, which has its own.

# %%
MY_PICTURES = None  # or, e.g., "~/Pictures/mushrooms"

WORKBENCH = files.cache_dir("course") / f"pictures-{FRAMEWORK}"  # made anew whenever this cell runs
shutil.rmtree(WORKBENCH, ignore_errors=True)
KINDS = {"circle": 0, "square": 4, "triangle": 3}  # with so many corners


def shape(kind, rng):
    """A picture of some size: a shape of one of six colours on light paper, drawn at twice its size."""
    width, height = (int(side) for side in rng.integers(96, 193, 2))
    paper = int(rng.integers(225, 256))
    ink = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(rng.integers(6) / 6, 0.85, 0.8))
    picture = Image.new("RGB", (2 * width, 2 * height), (paper, paper, paper))
    short = 2 * min(width, height)
    x, y = np.array([width, height]) + short * rng.uniform(-0.08, 0.08, 2)
    radius = short * rng.uniform(0.25, 0.42)
    pen = ImageDraw.Draw(picture)
    if kind == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), ink)
    else:
        pen.regular_polygon((x, y, 1.15 * radius), KINDS[kind], rng.uniform(-15, 15), ink)
    return picture.reduce(2)


def draw_folder(folder, rng, count=500, twice=30):
    """`count` pictures in three classes; of the first ones, `twice` as a copy, and `twice` more saved again."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        picture, file = shape(kind, rng), folder / kind / f"{number:03d}.png"
        picture.save(file)
        if number < twice:
            shutil.copy(file, file.with_name(f"{number:03d} (copy).png"))
        elif number < 2 * twice:
            small = picture.resize([int(0.7 * side) for side in picture.size])
            small.save(file.with_name(f"{number:03d} small.jpg"), quality=85)


if MY_PICTURES is None:
    draw_folder(WORKBENCH / "shapes", np.random.default_rng(0))
PICTURES = MY_PICTURES or str(WORKBENCH / "shapes")

# %% [markdown]
# `datasets.load` reads a folder as it reads Fashion-MNIST. The images are small squares: `image_size` is their side. We
# take 16, because a minute of training is short; 32 is the default. `test_share` is the share of the pictures that are
# not trained on but kept for tests: more than the usual tenth, since our folder is small.

# %%
SIZE = 16
settings = FolderConfig(image_size=SIZE, test_share=0.3)  # for files that cannot be read, see the next section
train, test = datasets.load("folder", PICTURES, settings)
print(f"{len(train.images)} images to train and {len(test.images)} to test, {train.images.shape[1:]}")
print(f"classes: {', '.join(train.class_names) or 'none'}")
show_images(train.images[:20], columns=10, title="The first twenty, as the network will see them")

# %% [markdown]
# ## What happens to a picture
#
# A file is more than its pixels. It may be turned, cut out, of 16 bits, printed in four colours, not square. Draw one
# small landscape, and save it in each of these ways:

# %%
ODD = WORKBENCH / "odd"
ODD.mkdir(parents=True)


def landscape(width=192, height=128):
    """A house on the left, the sun on the right: one sees at once what is up, and what was cut off."""
    picture = Image.new("RGB", (width, height), (120, 180, 240))
    pen = ImageDraw.Draw(picture)
    unit, ground = min(width, height) / 16, 0.75 * height
    middle = width / 2
    pen.rectangle((0, ground, width, height), (70, 140, 60))
    pen.rectangle((middle - 6 * unit, ground - 5 * unit, middle, ground + unit), (235, 225, 200))
    pen.polygon(
        [(middle - 7 * unit, ground - 5 * unit), (middle + unit, ground - 5 * unit), (middle - 3 * unit, 2 * unit)],
        (190, 40, 40),
    )
    pen.rectangle((middle - 2 * unit, ground - 2 * unit, middle - unit, ground + unit), (90, 60, 40))
    pen.ellipse((middle + 3 * unit, unit, middle + 6 * unit, 4 * unit), (250, 220, 60))
    return picture


square = landscape(128, 128)
landscape().save(ODD / "wide.png")
landscape(128, 192).save(ODD / "tall.png")
turned = Image.Exif()
turned[0x0112] = 6  # "turn me clockwise to see me upright", as a phone writes it that was held upright
square.transpose(Image.Transpose.ROTATE_90).save(ODD / "turned.jpg", exif=turned, quality=90)
cutout = Image.new("RGBA", square.size, (255, 0, 255, 0))  # transparent; the colour that is hidden is pink
cutout.paste(square.crop((16, 8, 72, 104)), (16, 8))
cutout.save(ODD / "cutout.png")
grey = np.asarray(square.convert("L")).astype(np.uint16)
Image.fromarray(grey * 257).save(ODD / "deep.png")  # 16 bits: 0 .. 65,535
square.convert("CMYK").save(ODD / "print.jpg", quality=90)
square.quantize(8).save(ODD / "palette.gif")
square.resize((12, 12)).save(ODD / "tiny.bmp")

# %% [markdown]
# The upper row below is what a first attempt makes of them, one line of Pillow:
# `Image.open(file).convert("RGB").resize((32, 32))`. The lower row is the loader.
#
# > **Predict before you run.** Which of the eight will differ between the rows, and in what?

# %%


def first_attempt(file):
    """One line, and four mistakes."""
    return np.asarray(Image.open(file).convert("RGB").resize((32, 32)))


def by_name(*splits):
    """The image of each file, by the file's name."""
    return {path: image for split in splits for path, image in zip(split.files, split.images, strict=True)}


NAMES = ["wide.png", "tall.png", "turned.jpg", "cutout.png", "deep.png", "print.jpg", "palette.gif", "tiny.bmp"]
loaded = by_name(*datasets.load("folder", str(ODD), FolderConfig(image_size=32)))
show_images(
    np.stack([first_attempt(ODD / name) for name in NAMES] + [loaded[name] for name in NAMES]),
    columns=len(NAMES),
    titles=NAMES,
    rows=["one line", "the loader"],
)

# %% [markdown]
# *What to see:*
#
# * **wide, tall**: one line squeezes the house. The loader cuts the largest square out of the middle. What lies
#   outside is lost: of the tall one, the tip of the roof and the sun.
# * **turned**: the pixels of a phone lie on their side, and a note (EXIF) says how to turn them. One line forgets it.
# * **cutout**: what is transparent still has a colour, here pink, which nobody was meant to see. The loader lays the
#   picture on white.
# * **deep**: 65,536 grey levels do not fit into 256. One line cuts all above 255 off, and that is nearly everything.
#   The loader takes the upper 8 of the 16 bits.
# * **print, palette**: the same in both rows, and right.
# * **tiny**: smaller than 32, so it is enlarged, and no detail comes with that.
#
# And the shrinking itself: the loader takes the **mean** over the area that becomes a pixel. Colour or grey is decided
# for all together: if one picture has colour, all images have three channels (`channels="grey"` makes them grey).
#
# Now one that cannot be read: half a file, as a broken transfer leaves it.

# %%
whole = (ODD / "print.jpg").read_bytes()
(ODD / "broken.jpg").write_bytes(whole[: len(whole) // 2])
try:
    datasets.load("folder", str(ODD), FolderConfig())
except UserError as error:
    print(str(error).replace(str(ODD), "odd"))

# %% [markdown]
# Nothing is left out in silence. Whoever has read the names may go on without those files:

# %%
with contextlib.redirect_stderr(io.StringIO()) as said:
    some, others = datasets.load("folder", str(ODD), FolderConfig(skip_bad=True))
print(said.getvalue().replace(str(ODD), "odd"))
print(f"{len(some.images) + len(others.images)} images")

# %% [markdown]
# ## Is so small an image enough?
#
# Everything that a network of 16 × 16 can learn is in 16 × 16 pixels. So look at them before it does.
#
# > **Predict before you run.** From which size on can you tell a square from a circle? And what, in pictures of your
# > own, has to be seen: a face, a letter, a kind of leaf?

# %%
SIZES = (4, 8, 16, 32)
chosen = list(train.files)[:8]
rows = []
for size in SIZES:
    images = by_name(*datasets.load("folder", PICTURES, dataclasses.replace(settings, image_size=size)))
    shown = np.stack([images[name] for name in chosen])
    rows.append(shown.repeat(32 // size, axis=1).repeat(32 // size, axis=2))
show_images(
    np.concatenate(rows), columns=len(chosen), rows=[f"{size} × {size}" for size in SIZES], title="The same files"
)

# %% [markdown]
# *What to see:* with 4 × 4 there is a colour, and no shape. With 8 × 8 the large ones can be told apart, with 16 × 16
# the small ones, too. From there to 32 × 32 only the edges gain, and a step of training takes three to four times as
# long. So take no fewer pixels than you need, and no more.
#
# ## The check list
#
# Before the first step of training there are questions that no loss will ask. The **passport** answers the simple ones:
# how many, how even, how bright, and how many exact copies.

# %%
card = passport(train, test)
print(text(card))

# %% [markdown]
# Read it line by line.
#
# * **classes**: are they even? A network that is shown a class ten times as often draws it ten times as often.
# * **standard deviation** (sigma_data) and **distance**: of pixels in $[-1, 1]$. A process of continuous time is
#   scaled by the one, and its largest noise has to drown the other.
# * **copies**: in training, in the test set, and, the worst, **test images of training images**.
#
# How can a test image be a training image? The loader splits by the *path*: the hash of the path, as a number between
# 0 and 1, is below `test_share` or not. So a new file moves no other from one split to the other (exercise 1). But
# `007.png` and `007 (copy).png` are two paths, and each goes its own way.
#
# > **Predict before you run.** The passport counts exact copies, after shrinking. Files that were saved again, as JPEG
# > and smaller, have other pixels. How many grey levels will they be from their originals? Will you see two hills?

# %%
index, distance = neighbours.nearest(test.images, train.images)
figure, axes = plt.subplots(figsize=(7.5, 2.8))
axes.hist(distance, np.arange(0, distance.max() + 2, 1))
axes.set(title="Each test image: how far is its nearest training image?", ylabel="test images")
axes.set(xlabel="root-mean-square difference, grey levels")
plt.show()
order = np.argsort(distance)
alike = order[distance[order] > 0][:16]
show_images(
    np.concatenate([test.images[alike], train.images[index[alike]]]),
    columns=len(alike),
    titles=[f"{value:.1f}" for value in distance[alike]],
    rows=["test", "nearest"],
    title="The most alike that are no exact copies, and how many grey levels they are apart",
)

# %% [markdown]
# *What to see:* a hill at the left edge, a gap, and the rest. The limit lies in the gap: on its left are copies,
# exact ones at 0 and those that were saved again a little above it; on its right are pictures that are alike. For
# pictures of your own the gap is elsewhere, or there is none. Then look at the pairs, and set the limit where *you*
# would say "this is the same picture". Photographs that were taken within a second of each other belong to the left.

# %%
LIMIT = 6.0  # grey levels; look at the histogram, and at the pairs
leaked = distance <= LIMIT
names_of_test, names_of_train = list(test.files), list(train.files)
print(f"{leaked.sum()} of {len(test.images)} test images are training images, {np.sum(distance == 0)} of them exactly:")
for i in np.flatnonzero(leaked)[:8]:
    print(f"  {names_of_test[i]:24} is {names_of_train[index[i]]:24} {distance[i]:.1f} grey levels apart")

# %% [markdown]
# ## What a leak does
#
# Two measurements that a test set is for.
#
# **How good is a classifier?** The simplest one has learned everything by heart: it gives a test image the class of the
# nearest training image.
#
# **Does the model remember?** [07](07_evaluating.ipynb) compares drawn images with the training images, and calls them
# too close if they are closer than 99 % of the test images, which nobody can have copied. Nobody?
#
# > **Predict before you run.** How does the leak change the first number? And the second?

# %%
parts = {"all test images": leaked | True, "the leaked ones": leaked, "those that are new": ~leaked}
for name, part in parts.items():
    if part.any():
        mark = f"too close is below {np.quantile(distance[part], 0.01):.1f} grey levels"
        right = np.mean(train.labels[index[part]] == test.labels[part])
        by_heart = f"the nearest image's class is right for {right:.0%}, " if train.class_names else ""
        print(f"{name:>18} ({part.sum()}): {by_heart}{mark}")

# %% [markdown]
# *What to see:* the learner by heart is never wrong on what it has seen. That is no merit, and it lifts the number
# for all. Here it does so by little, for even new shapes are easy; the harder they are, the more a leak flatters. The
# second measurement is worse hit. With the leak the mark for "too close" is at 0, so a model that copies every
# training image with the least change passes as honest. **A leak makes the test say what you would like to hear.**
#
# ## Put it right
#
# The leak is mended where it comes from, in the folder: of pictures that are the same, one stays. Which pictures are
# the same has to be asked of *all* pairs, not only of those between test and training. The cell below goes through
# the pictures and takes what is near to none that it has taken. It copies; your folder stays as it is. (With ten
# times as many pictures it takes a hundred times as long.)

# %%
everything = by_name(train, test)
taken, twins = [], []
for name in sorted(everything, key=lambda name: (len(name), name)):  # the shorter name is the original's
    image = everything[name][None]
    nearest = neighbours.nearest(image, np.stack([everything[each] for each in taken]))[1] if taken else [np.inf]
    (twins if nearest[0] <= LIMIT else taken).append(name)
CLEAN = WORKBENCH / "clean"
for name in taken:
    (CLEAN / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(PICTURES).expanduser() / name, CLEAN / name)
print(f"{len(taken)} pictures are taken, {len(twins)} are left out: {', '.join(twins[:3])} ...")

before = {path: split.split for split in (train, test) for path in split.files}
train, test = datasets.load("folder", str(CLEAN), settings)
moved = sum(before[path] != split.split for split in (train, test) for path in split.files)
index, distance = neighbours.nearest(test.images, train.images)
print(f"{len(train.images)} to train and {len(test.images)} to test; {moved} pictures have changed sides")
print(f"the nearest training image of a test image is {distance.min():.1f} grey levels away, or more")

# %% [markdown]
# *What to see:* sixty pictures were planted, and 61 are left out. One, `circle/441.png`, is nobody's copy: two
# circles happened to be as alike as that. A limit makes mistakes of both kinds, and to lose a picture is the cheaper
# one.
#
# And no picture has changed sides. With a split by chance, or by the order of the files, a test image of yesterday
# would be a training image of today, and the scores of before and after could not be compared.
#
# ## Mirrored?
#
# `horizontal_flip` shows the network every image mirrored, too, in half of all cases. It is like twice as many
# pictures, for nothing, **if a mirrored picture could be one of yours**. The loader cannot know that, so for a folder
# it is off.
#
# > **Predict before you run.** For which of these is a mirrored picture wrong?

# %%
emoji, _ = datasets.load("emoji")  # 2,313 colour pictures in nine classes: a data set that is in the package
of_class = {name: emoji.images[emoji.labels == label] for label, name in enumerate(emoji.class_names)}
for name, images in {
    "yours": train.images,
    "emoji: Symbols": of_class["Symbols"],
    "emoji: Animals": of_class["Animals"],
}.items():
    some = images[np.linspace(0, len(images) - 1, 10).astype(int)]
    show_images(np.concatenate([some, some[:, :, ::-1]]), columns=10, rows=[name, "mirrored"])

# %% [markdown]
# *What to see:* a mirrored shape is a shape, and a mirrored animal an animal. Among the symbols there are letters,
# digits and arrows, and their mirror images are nobody's. A network that is shown them learns to draw them.
#
# ## Train
#
# As in [04](04_training.ipynb), with two differences. `fitted` gives the network the shape of the images; here they
# have three channels. And the learning rate is higher, as this is a short run. The cell takes about a minute.
#
# > **Predict before you run.** What will be right first: the colours, the paper, or the corners?

# %%
STEPS, COUNT = 600, 160
FLIP = True  # False, where a mirrored picture is wrong


def trained(data, title, flip):
    """Train `tiny` on the images of `data`, mirrored in half of all cases or not, and draw COUNT images."""
    config = dataclasses.replace(
        with_preset(Config(device="cpu"), "tiny"),
        data=dataclasses.replace(Config().data, horizontal_flip=flip),
        training=TrainingConfig(batch_size=32, max_steps=STEPS, warmup_steps=20, learning_rate=3e-3),
    )
    config = fitted(config, data.images.shape[1:])
    learner, curve = duet.learner.Learner(config, STEPS), LiveCurve(title, STEPS)
    for step in range(STEPS):
        curve.add(learner.train_step(batches.training_batch(data, config, step), step)[0])
    return learner.sample(COUNT, lambda t: None)


drawn = trained(train, f"{duet.name}: the loss, {len(train.images)} pictures", FLIP)

# %%
show_images(drawn[:40], columns=10, title=f"{duet.name}: forty that were drawn after {STEPS} steps")

# %% [markdown]
# *What to see:* the paper is right, and so are the colours, mostly one to a picture. The shapes are not there yet:
# some are a circle or a triangle, many are none of the three. Corners come last. More steps and a larger network are
# the usual remedy.
#
# ## Drawn, or remembered?
#
# Hundreds of pictures are few. What would it look like if the network knew them by heart? Make it happen: the same
# network, the same number of steps, and **four pictures**.
#
# > **Predict before you run.** Will its pictures look better or worse? How far will the nearest training image be?

# %%
few = dataclasses.replace(train, images=np.tile(train.images[:4], (25, 1, 1, 1)), labels=np.tile(train.labels[:4], 25))
remembered = trained(few, f"{duet.name}: the loss, four pictures", flip=False)
pairs = []
for images, real in ((drawn, train.images), (remembered, few.images)):
    index, _ = neighbours.nearest(images[:12], real)
    pairs += [images[:12], real[index]]
show_images(
    np.concatenate(pairs),
    columns=12,
    rows=[f"drawn, from {len(train.images)}", "nearest", "drawn, from four", "nearest"],
    title=f"{duet.name}: the same noise, and the nearest training image of each",
)

# %%
figure, axes = plt.subplots(figsize=(7.5, 3))
bins = np.arange(0, 82, 4)
for name, images, real, line in (
    ("test images", test.images, train.images, "-"),
    (f"drawn, from {len(train.images)}", drawn, train.images, "--"),
    ("drawn, from four", remembered, few.images, ":"),
):
    distance = neighbours.nearest(images, real)[1]
    share = np.full(len(images), 100 / len(images))
    axes.hist(distance, bins, weights=share, histtype="step", ls=line, lw=2, label=name)
    print(f"{name:>20}: nearest training image {np.median(distance):.1f} grey levels away, in the median")
axes.set(title="How far is the nearest training image?", ylabel="% of the images")
axes.set(xlabel="root-mean-square difference, grey levels")
axes.legend()
plt.show()

# %% [markdown]
# *What to see:* the pictures from four are the better ones, with corners and clean colours, and most are not drawn:
# they are one of the four, with a little noise. Their nearest training image is 9 grey levels away in the median,
# that of a test image 25. Those from hundreds look worse, and are new. They are at 35, further away than test images,
# since a blot is like no circle. **Beauty after a short time, from few pictures, is a warning.** The loss gives a
# hint: it falls further with four pictures than with hundreds. But that of a better network does so, too, so look at
# the pairs.
#
# ## In whose eyes?
#
# A distance of features ([07](07_evaluating.ipynb)) needs eyes. Those of Fashion-MNIST's classifier know clothes. For
# a folder with classes `make judge` trains a classifier of its own; for one without, and for this cell, there is a
# fixed network of **random weights**. It was taught nothing, and still sees edges, colours and where they are. Its
# numbers are its own: they compare with no others, neither with those of 07 nor with those of a paper.
#
# > **Predict before you run.** Which is nearer to the training images: the drawings from hundreds of pictures, or those
# > from four? And where are new pictures, which nobody has trained on?

# %%
judge = Judge(train, test, extractor=spaces.of(train, test, "random"))
print(f"features: {judge.extractor.name}")
shown = {"test images": test.images, f"drawn, from {len(train.images)}": drawn, "drawn, from four": remembered}
for name, images in shown.items():
    if len(images) < 128:
        print(f"{name:>20}: {len(images)} images are too few for 128 features")
        continue
    score = judge.scores(judge.extractor(images[:COUNT]))
    numbers = ", ".join(f"{key} {score[key]:.2f}" for key in ("precision", "recall"))
    print(f"{name:>20}: {score['num_images']} images, distance {score['fid']:.2f}, {numbers}")

# %% [markdown]
# *What to see:* from four, the images lie where real ones do (precision about 0.95), and hardly a real one lies where
# they do (recall below 0.1); the distance is nearly seven times that of new pictures. From hundreds, it is a quarter
# more than that of new pictures, but you saw that these are no shapes. Random eyes care for colours and places, and
# little for corners; precision, about 0.56 against 0.93 for new pictures, notices. **A number is only as good as its eyes**, and
# numbers of different eyes do not compare: the commands refuse to.
#
# ## By the command line
#
# All of this is a flag of the commands, in both frameworks. `DIR` is your folder:
#
#     make data ARGS="--dataset folder --data-dir DIR --image-size 32"        # the passport, and a sheet of examples
#     make train-torch ARGS="--dataset folder --data-dir DIR --minutes 20"    # or train-tf
#     make sample-torch ARGS="--checkpoint latest"                            # or sample-tf
#     make judge ARGS="--dataset folder --data-dir DIR"                       # a classifier, where there are classes
#     make evaluate RUN=runs/...
#
# The run notes the hash of every picture, so that a run is resumed on the pictures that it began with, or not at all:
# it names the file that has changed. With classes, `--class-conditional` lets you ask for one of them
# ([09](09_draw_what_i_ask_for.ipynb)). No pictures at hand? `--dataset emoji --preset colour` needs no download. The
# rules of a folder are in [docs/pictures.md](../docs/pictures.md), all data sets in
# [docs/datasets.md](../docs/datasets.md).
#
# ## The list
#
# | before you train | where | if not |
# |---|---|---|
# | Is what matters still seen at this size? | the same files at four sizes | a larger `--image-size`; crop the files yourself |
# | Was every file read, upright, and cut where it should be? | the sheet of `make data` | mend the files it names; `--skip-bad` |
# | How many, and are the classes even? | the passport | more pictures; fewer classes |
# | Exact copies? | the passport, "copies" | keep one of each |
# | Near copies: saved again, taken in the same second? | nearest training image, the left of the gap | keep one of each, or one folder a group, and split by groups |
# | Does a test image have a twin in training? | the same | no score is worth anything before |
# | Could a mirrored picture be one of yours? | look | `--horizontal-flip` only then |
# | **after** | | |
# | Does it draw, or remember? | nearest training image of each sample, beside that of the test images | more pictures, or fewer steps |
# | May you use these pictures? | who made them, under which licence | ask |
#
# ## Exercises
#
# Each has a check that tells you what is off.
#
# **1 · A split that stays.** (easy) `paths` are N texts such as `"owls/007.png"`. For each, take the SHA-256 of its
# UTF-8 bytes (`hashlib.sha256(path.encode()).digest()`), read the first 8 bytes of that as one whole number, the
# first byte the largest (`int.from_bytes`), and divide by $2^{64}$. The picture is in the test split if that is below
# `share`.


# %%
def my_split(paths, share):
    """Return N times True or False."""
    ...


check.split(my_split)

# %% [markdown]
# **2 · Find the leaks.** (medium) `train` is [N, H, W, C] and `test` [M, H, W, C], both `uint8`. Which test images
# have a training image, at whatever place, within `limit` grey levels, by the root of the mean square of their
# difference?


# %%
def my_leaks(train, test, limit):
    """Return [M] times True or False."""
    ...


check.leaks(my_leaks)

# %% [markdown]
# **3 · Cut, lay, shrink.** (harder) `picture` is [H, W, 4] `uint8`: red, green, blue, and alpha, 255 where it is
# opaque. Cut the largest square out of its middle, lay it on white, and take the mean over equal blocks, so that
# [size, size, 3] are left. The side of the square is a multiple of `size`. Do not round.


# %%
def my_shrink(picture, size):
    """Return numbers 0 .. 255, [size, size, 3]."""
    ...


check.shrink(my_shrink)

# %% [markdown]
# ## Questions
#
# Think first, then unfold.
#
# <details><summary>You have 40 photographs of your cat. From each you cut 100 squares at random. How many pictures do
# you have, and how would you split them?</summary> Forty, as far as chance and memory go; 4,000, as far as edges and
# fur go. All squares of one photograph belong into one split, or nearly every test image has a neighbour in training
# that overlaps it. Split the photographs, then cut.</details>
#
# <details><summary>A friend's model of 300 portraits draws perfect faces after a night. What do you ask to
# see?</summary> The nearest training image of each, beside it, and the same distance for portraits that were held
# back. Then ask how the portraits were held back.</details>
#
# <details><summary>You add a thousand pictures to your folder and want to go on with the run of yesterday. It is
# refused. Why is that right, and what now?</summary> What a run has learned, its batches and its losses are those of
# the old folder; the two halves would be one run of nothing. Train a new one on the new folder, or keep the old
# pictures in a folder of their own.</details>
#
# <details><summary>Why is a picture laid on white before it is shrunk, and not after?</summary>
# Shrinking takes means. The mean of a red pixel and a transparent one, whose hidden colour may be anything, mixes that
# colour in. On white, what is hidden is white already. (Or weigh each colour with its alpha: exercise 3 accepts
# both.)</details>
#
# ## What you have now
#
# | here | in the code | source |
# |---|---|---|
# | a folder as a data set | `datasets.load("folder", DIR, FolderConfig())` | [docs/pictures.md](../docs/pictures.md) |
# | upright, on white, cut, shrunk | `datasets.picture.read` | |
# | the split by hash | `datasets.listing.Entry.rank`, `--test-share` | |
# | the passport | `datasets.passport`, `make data` | [docs/datasets.md](../docs/datasets.md) |
# | copies and near copies | `neighbours.copies`, `neighbours.nearest` | |
# | eyes without classes | `evaluation.spaces`, random features | [docs/evaluation.md](../docs/evaluation.md) |
#
# Next: [13, many workers](13_many_workers.ipynb): one run by several processes, equal to the last bit.
