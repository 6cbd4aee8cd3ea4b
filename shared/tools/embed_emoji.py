"""Write the data set emoji, shared/src/embedded/emoji/*.xz: small colour pictures from a font.

    apt-get install fonts-noto-color-emoji unicode-data
    python shared/tools/embed_emoji.py [--font FONT] [--emoji-test FILE] [--out DIR]

Needs a Pillow that shapes text by Raqm, as the wheels of Linux and macOS do: it joins the code points of a sequence to
one picture. What is taken, in this order:

1. The sequences of Unicode's emoji-test.txt that are "fully-qualified": 3,655 in version 15.0. Their groups are the
   classes, so the nine pictures of the group "Component", alone skin tones and hair, are not among them.
2. Of the skin tones the default, light, medium and dark, the same for all people of a picture: the tones between
   would be near-duplicates.
3. The middle 128 x 128 of the font's 136 x 128 pixels (the rest is empty), over white; each square of 4 x 4 pixels
   becomes its mean.
4. Of pictures with the same pixels, e.g. the flags of France and Clipperton Island, the first.

A picture is a test image if the hash of its base is among the lowest sixth. The base is the sequence without what makes
a variant: tone, hair, gender, the people of a family. So the variants of one emoji are all on one side. The order is
that of the hashes of the sequences, so any first thousand has all classes.

The hashes it prints stand in FILES of ddpm_shared.datasets.emoji. The same font gives the same bytes every time.
"""

import hashlib
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from embed_fashion_mnist import idx_bytes
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from ddpm_shared import command_line
from ddpm_shared.datasets.emoji import CLASS_NAMES, EMOJI, FILES
from ddpm_shared.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "src" / "embedded" / EMOJI
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
WAY_OUT = "install Debian's fonts-noto-color-emoji and unicode-data, or name the file"

GROUPS = (  # of emoji-test.txt, by label
    *("Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places"),
    *("Activities", "Objects", "Symbols", "Flags"),
)
TONES = range(0x1F3FB, 0x1F400)
TAKEN = {0x1F3FB, 0x1F3FD, 0x1F3FF}  # light, medium, dark
STRIKE, WIDTH, HEIGHT, SIDE = 109, 136, 128, 32  # the one size of the font's pictures, theirs in pixels, and ours
TEST_SHARE = 1 / 6

PERSON, CHILD, HEART, KISS, HANDS = 0x1F9D1, 0x1F9D2, 0x2764, 0x1F48B, 0x1F91D
IGNORED = {0xFE0F, 0x200D, 0x2640, 0x2642, *TONES, *range(0x1F9B0, 0x1F9B4)}  # joiners, gender, tones, hair
SAME: dict[int, tuple[int, ...]] = {  # one code point for what others write as several, or for one of a pair
    **dict.fromkeys((0x1F468, 0x1F469, 0x1F474, 0x1F475, 0x1F9D3, 0x1F9D4, 0x1F471), (PERSON,)),
    **dict.fromkeys((0x1F466, 0x1F467), (CHILD,)),
    **dict.fromkeys((0x1F46B, 0x1F46C, 0x1F46D), (PERSON, HANDS)),
    **dict.fromkeys((0x1F934, 0x1F478, 0x1FAC5), (0x1F934,)),  # prince, princess, person with crown
    **dict.fromkeys((0x1F385, 0x1F936), (0x1F385,)),  # Santa and Mrs. Claus
    0x1F46A: (PERSON, CHILD),
    0x1F48F: (PERSON, HEART, KISS),
    0x1F491: (PERSON, HEART),
}


class Emoji(NamedTuple):
    """A sequence of code points and the label of its group."""

    sequence: tuple[int, ...]
    label: int

    @property
    def base(self) -> tuple[int, ...]:
        """What the variants of an emoji have in common."""
        parts = (part for c in self.sequence if c not in IGNORED for part in SAME.get(c, (c,)))
        return tuple(dict.fromkeys(parts))


def share(purpose: str, sequence: tuple[int, ...]) -> float:
    """The hash of a sequence, another for every purpose, as a number in [0, 1)."""
    text = " ".join([purpose, *(f"{c:X}" for c in sequence)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def listed(emoji_test: Path) -> Iterator[Emoji]:
    """The sequences that are taken, in the order of emoji-test.txt."""
    label = -1
    for line in emoji_test.read_text("utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
            label = GROUPS.index(group) if group in GROUPS else -1
        fields = line.partition("#")[0].split(";")
        if len(fields) == 2 and fields[1].strip() == "fully-qualified":
            emoji = Emoji(tuple(int(c, 16) for c in fields[0].split()), label)
            tones = set(emoji.sequence) & set(TONES)
            if tones <= TAKEN and len(tones) <= 1:
                yield emoji


def draw(emoji: Emoji, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8] | None:
    """[32, 32, 3]; None if the font has no picture of this sequence."""
    text = "".join(map(chr, emoji.sequence))
    if font.getbbox(text) != (0, 0, WIDTH, HEIGHT):
        return None
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(canvas).text((0, 0), text, font=font, embedded_color=True)
    left, step = (WIDTH - HEIGHT) // 2, HEIGHT // SIDE
    squares = np.asarray(canvas)[:, left : left + HEIGHT].reshape(SIDE, step, SIDE, step, 3)
    pixels: NDArray[np.uint8] = ((squares.sum((1, 3), dtype=np.int64) + step**2 // 2) // step**2).astype(np.uint8)
    return pixels


def pictures(font: Path, emoji_test: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """By split: images [N, 32, 32, 3] and labels [N]."""
    for path in (font, emoji_test):
        if not path.is_file():
            raise UserError(f"there is no {path}: {WAY_OUT}")
    if not features.check("raqm"):
        raise UserError("this Pillow has no Raqm, which joins the parts of an emoji: install Pillow's wheel from PyPI")
    strike = ImageFont.truetype(str(font), STRIKE, layout_engine=ImageFont.Layout.RAQM)
    once: dict[bytes, tuple[Emoji, NDArray[np.uint8]]] = {}
    count = missing = 0
    for emoji in listed(emoji_test):
        count += 1
        pixels = draw(emoji, strike)
        if pixels is None:
            missing += 1
        else:
            once.setdefault(pixels.tobytes(), (emoji, pixels))
    print(f"{count} sequences: {missing} not in the font, {count - missing - len(once)} with the pixels of another")
    ordered = sorted(once.values(), key=lambda each: share("order", each[0].sequence))
    splits = {}
    for split in ("train", "test"):
        chosen = [each for each in ordered if (share("split", each[0].base) < TEST_SHARE) == (split == "test")]
        labels = np.array([emoji.label for emoji, _ in chosen], np.uint8)
        splits[split] = np.stack([pixels for _, pixels in chosen]), labels
        counts = np.bincount(labels, minlength=len(GROUPS))
        print(f"{split}: {', '.join(f'{n} {name}' for n, name in zip(counts, CLASS_NAMES, strict=True))}")
    return splits


def main(font: Path = FONT, emoji_test: Path = EMOJI_TEST, out: Path = FOLDER) -> int:
    """Write the four files and print their sizes and hashes.

    Args:
        font: Noto Color Emoji with pictures of 136 x 128 pixels in it.
        emoji_test: Unicode's emoji-test.txt.
        out: the folder to write to.
    """
    splits = pictures(font, emoji_test)
    out.mkdir(parents=True, exist_ok=True)
    total = 0
    for file, array in zip(FILES, (*splits["train"], *splits["test"]), strict=True):
        payload = idx_bytes(array)
        packed = lzma.compress(payload, preset=9)
        (out / f"{file.name}.xz").write_bytes(packed)
        total += len(packed)
        digest = hashlib.sha256(payload).hexdigest()
        print(f"{file.name}.xz  {array.shape}  {len(packed)} bytes  payload sha256 {digest}")
    print(f"{total} bytes in {out}")
    return 0


if __name__ == "__main__":
    command_line.guard(lambda: tyro.cli(main))
