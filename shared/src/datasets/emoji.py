"""Emoji: small colour pictures that are in the package, so that colour needs no download.

Four IDX files of 32 x 32 RGB pictures over white; the groups of Unicode's list of emoji are the classes. The variants
of one emoji (skin tone, gender, hair) are all in the training set or all in the test set. shared/tools/embed_emoji.py
draws them from the font and says what is taken.

Source: Noto Color Emoji 2.042 (Google), and the groups of Unicode's emoji-test.txt 15.0.
"""

from functools import partial

from ddpm_shared.datasets import packaged
from ddpm_shared.datasets.idx import IdxFile
from ddpm_shared.datasets.mnist import splits
from ddpm_shared.datasets.source import Facts, Source
from ddpm_shared.datasets.verified import Verified

EMOJI = "emoji"
SHAPE = (32, 32, 3)
CLASS_NAMES = ("Smileys", "People", "Animals", "Food", "Travel", "Activities", "Objects", "Symbols", "Flags")

NUM_TRAIN, NUM_TEST = 2_313, 460
FILES = (  # printed by shared/tools/embed_emoji.py
    IdxFile(
        "train-images-idx4-ubyte",
        (NUM_TRAIN, *SHAPE),
        "9f5be5ded6b45bab1adcc163b78fae043a2a7b11f1d1b0ecc940f34c280b9b6a",
    ),
    IdxFile(
        "train-labels-idx1-ubyte", (NUM_TRAIN,), "24d1d5e223d28b8763c171663a5423940877abf6b70451ff5d6d18f7118a3ee2"
    ),
    IdxFile(
        "t10k-images-idx4-ubyte", (NUM_TEST, *SHAPE), "57395919ffe1f08401c617603615adfbd29caf87d7d5c8d6675897644fbb29ca"
    ),
    IdxFile("t10k-labels-idx1-ubyte", (NUM_TEST,), "5d01bd027bc6d2690c1d48c0771e790f54629e0f37e573539936531f9233d03c"),
)


def _fetch(data_dir: str | None) -> list[Verified]:
    return packaged.fetch(EMOJI, FILES, "embedded", EMOJI)


SOURCE = Source(
    name=EMOJI,
    facts=Facts(
        title="Emoji (drawn from Noto Color Emoji)",
        licence="SIL Open Font License 1.1, (c) 2022 Google Inc.",
        citation="Google 2023: Noto Color Emoji, version 2.042 (Debian's fonts-noto-color-emoji); "
        "Unicode 2022: emoji-test.txt, version 15.0",
        home="https://github.com/googlefonts/noto-emoji",
        flip=False,  # letters, digits and flags would be wrong
    ),
    shape=SHAPE,
    class_names=CLASS_NAMES,
    fetch=_fetch,
    splits=partial(splits, EMOJI, CLASS_NAMES),
)
