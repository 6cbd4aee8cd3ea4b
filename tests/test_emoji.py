"""The emoji in the package: whose they are, that they are the right way round, and that no variant leaks."""

import hashlib
import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ddpm_shared import datasets
from ddpm_shared.datasets import Split, emoji, packaged
from ddpm_shared.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BUILDER = ROOT / "shared/tools/embed_emoji.py"
COMMITTED = ROOT / "shared/src/embedded/emoji"


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    return datasets.load("emoji")


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_emoji", BUILDER)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["embed_emoji"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_has_the_shape_classes_and_hashes_of_its_source(splits: tuple[Split, Split]) -> None:
    """Otherwise a network is built for other images, or a class gets another's name."""
    source = datasets.DATASETS["emoji"]
    for split, which, count in zip(splits, ("train", "test"), (2313, 460), strict=True):
        assert (split.name, split.split) == ("emoji", which)
        assert split.images.shape == (count, *source.shape) == (count, 32, 32, 3)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.class_names == source.class_names
        assert np.bincount(split.labels, minlength=9).min() >= 12, "a class of a handful cannot be judged"
        header = struct.pack(">4B4I", 0, 0, 8, 4, *split.images.shape)
        assert hashlib.sha256(header + split.images.tobytes()).hexdigest() == split.sha256


def test_no_picture_is_there_twice(splits: tuple[Split, Split]) -> None:
    """Otherwise a test image might have been trained on."""
    pictures = [image.tobytes() for split in splits for image in split.images]
    assert len(set(pictures)) == len(pictures)


def test_the_first_images_have_all_classes(splits: tuple[Split, Split]) -> None:
    """Otherwise a figure of the first 64 images shows one class, and an evaluation of the first 200 knows one."""
    assert set(splits[0].labels[:64]) == set(splits[1].labels[:200]) == set(range(9))


def test_smileys_are_yellow_on_white_and_the_right_way_up(splits: tuple[Split, Split]) -> None:
    """Otherwise red and blue have changed places, the background is the font's black, or pictures lie on their side."""
    train = splits[0]
    smileys = train.images[train.labels == 0].astype(int)
    red, green, blue = np.median(smileys[:, 12:20, 12:20], axis=(0, 1, 2))
    assert red > green > 150 > 90 > blue
    assert (np.median(smileys[:, :2, :2], axis=0) == 255).all()
    flags = train.images[train.labels == train.class_names.index("Flags")].astype(int).sum(3) < 3 * 240
    assert flags.any(2).mean() < 0.8 < flags.any(1).mean(), "wider than high"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("👩🏿‍🚀", "👨‍🚀"),  # tone and gender
        ("🏊🏻‍♀️", "🏊"),
        ("👨‍👩‍👧‍👦", "👪"),  # families
        ("👩‍❤️‍👩", "💑"),
        ("👩‍🦰", "👱‍♂️"),  # hair
    ],
)
def test_variants_have_one_base(builder: ModuleType, one: str, other: str) -> None:
    """Otherwise a network is tested on what it was trained on, in another colour."""
    bases = [builder.Emoji(tuple(map(ord, text)), 1).base for text in (one, other)]
    assert bases[0] == bases[1]
    assert len(bases[0]) >= 1


def test_different_emoji_have_different_bases(builder: ModuleType) -> None:
    """Otherwise whole groups fall on one side."""
    texts = ("🏊", "🚀", "👩‍🚀", "👪", "💑", "🇦🇺", "🇺🇦", "#️⃣", "*️⃣", "👩")
    assert len({builder.Emoji(tuple(map(ord, text)), 1).base for text in texts}) == len(texts)


def test_the_files_are_small_and_carry_their_license() -> None:
    """Otherwise every clone and every wheel would grow, or break the terms they are passed on under."""
    assert sorted(path.name for path in COMMITTED.iterdir()) == sorted(
        ["NOTICE", *(f"{file.name}.xz" for file in emoji.FILES)]
    )
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 4_000_000
    notice = (COMMITTED / "NOTICE").read_text()
    assert "SIL OPEN FONT LICENSE Version 1.1" in notice
    assert "Copyright 2022 Google Inc." in notice


def test_a_damaged_package_says_install_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the one colour set that needs no network could be wrong without a word."""
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"does not hold the 4 files of emoji: .* install ddpm-duet again"):
        datasets.load("emoji")


def test_the_builder_writes_the_committed_files(
    builder: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise nobody could say where the embedded bytes come from."""
    if not (builder.FONT.is_file() and builder.EMOJI_TEST.is_file()):
        pytest.skip("the font is not installed: apt-get install fonts-noto-color-emoji unicode-data")
    builder.main(out=tmp_path)
    output = capsys.readouterr().out
    for file in emoji.FILES:
        built, committed = tmp_path / f"{file.name}.xz", COMMITTED / f"{file.name}.xz"
        assert built.read_bytes() == committed.read_bytes(), "another version of the font, or another liblzma"
        assert f"payload sha256 {file.sha256}" in output


def test_the_builder_names_what_is_missing(builder: ModuleType, tmp_path: Path) -> None:
    """Otherwise whoever builds the set meets a traceback of Pillow."""
    with pytest.raises(UserError, match=r"there is no .*Noto.ttf: install Debian's fonts-noto-color-emoji"):
        builder.main(font=tmp_path / "Noto.ttf", out=tmp_path / "out")
