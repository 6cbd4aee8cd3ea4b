"""A folder of the user's own pictures: what becomes of one, of all, and of a run whose folder changes."""

import io
import itertools
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from ddpm_shared import datasets, memory
from ddpm_shared.commands import train
from ddpm_shared.config import FolderConfig
from ddpm_shared.datasets import folder_cache, picture
from ddpm_shared.errors import UserError
from ddpm_shared.records import checkpoint, picture_list

RNG = np.random.default_rng(0)
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
SMALL = FolderConfig(image_size=4)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of each test's own."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DDPM_DUET_CACHE", str(path))
    return path


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def some(folder, count=6, kind="png", first=0):
    """So many pictures of 4 x 4, each of another colour."""
    for number in range(first, first + count):
        save(folder / f"{number}.{kind}", np.full((4, 4, 3), (number, 100, 200)))
    return folder


def plain(mode, colour, name, **options):
    """A picture of one colour as the bytes of a file."""
    buffer = io.BytesIO()
    Image.new(mode, (6, 6), colour).save(buffer, name, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(kind, values, extra=b"", side=6):
    """A PNG of 16 bits, every pixel of these values. `kind`: 0 grey, 2 colour, 4 and 6 with alpha."""
    row = b"\0" + struct.pack(f">{len(values)}H", *values) * side
    return png_of(side, side, 16, kind, row * side, extra)


def png_of(width, height, depth, kind, rows, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refusal(folder, config=SMALL):
    """What is said of a folder: one line."""
    with pytest.raises(UserError) as refused:
        datasets.load("folder", str(folder), config)
    message = str(refused.value)
    assert message.isprintable()
    return message


# --- One picture --------------------------------------------------------------------------------------------

PALETTE = Image.new("P", (6, 6), 1)
PALETTE.putpalette([*BLACK, *GREEN, *[0] * 762])


def palette(name, **options):
    buffer = io.BytesIO()
    PALETTE.save(buffer, name, **options)
    return buffer.getvalue()


def frames(name, **options):
    buffer = io.BytesIO()
    red, blue = (Image.new("RGB", (6, 6), colour) for colour in (RED, BLUE))
    red.save(buffer, name, save_all=True, append_images=[blue], **options)
    return buffer.getvalue()


KINDS = {
    "1 bit": (plain("1", 1, "PNG"), [255]),
    "grey": (plain("L", 99, "PNG"), [99]),
    "grey, saved in colour": (plain("RGB", (99, 99, 99), "JPEG"), [99]),
    "colour": (plain("RGB", RED, "PNG"), RED),
    "BMP": (plain("RGB", RED, "BMP"), RED),
    "BMP of 1 bit": (plain("1", 1, "BMP"), [255]),
    "WebP": (plain("RGB", RED, "WEBP", lossless=True), RED),
    "GIF": (palette("GIF"), GREEN),
    "palette": (palette("PNG"), GREEN),
    "palette, one colour transparent": (palette("PNG", transparency=1), [255]),
    "palette, half transparent": (palette("PNG", transparency=bytes([255, 128])), (127, 255, 127)),
    "GIF, transparent": (palette("GIF", transparency=1), [255]),
    "alpha": (plain("RGBA", (*RED, 128), "PNG"), (255, 127, 127)),
    "grey and alpha": (plain("LA", (0, 128), "PNG"), [127]),
    "WebP, transparent": (plain("RGBA", (*BLUE, 0), "WEBP", lossless=True), [255]),
    "one grey transparent": (plain("L", 7, "PNG", transparency=7), [255]),
    "one colour transparent": (plain("RGB", (7, 8, 9), "PNG", transparency=(7, 8, 9)), [255]),
    "16 bits": (png16(0, [0x80FF]), [0x80]),
    "16 bits, white": (png16(0, [0xFFFF]), [255]),
    "16 bits, one grey transparent": (png16(0, [0x80FF], chunk(b"tRNS", b"\x80\xff")), [255]),
    "16 bits, another grey transparent": (png16(0, [0x80FF], chunk(b"tRNS", b"\x80\xfe")), [0x80]),
    "16 bits of colour": (png16(2, [0xFFFF, 0x1234, 0x8000]), (255, 0x12, 0x80)),
    "16 bits of colour, one transparent": (
        png16(2, [0xFFFF, 0x1234, 0x8000], chunk(b"tRNS", b"\xff\xff\x12\x34\x80\x00")),
        [255],
    ),
    "16 bits and alpha": (png16(4, [0x1234, 0]), [255]),
    "16 bits of colour and alpha": (png16(6, [0xFFFF, 0, 0, 0x8000]), (255, 127, 127)),
    "CMYK": (plain("CMYK", (255, 0, 0, 0), "JPEG"), (0, 255, 255)),
    "GIF of frames": (frames("GIF"), RED),
    "WebP of frames": (frames("WEBP", lossless=True), RED),
    "PNG of frames": (frames("PNG"), RED),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_read_as_it_is_seen_on_white(tmp_path, kind):
    """Otherwise the network learns black where the page was, noise for a palette, or a negative."""
    data, colour = KINDS[kind]
    (tmp_path / "a.png").write_bytes(data)  # the content decides what it is, not the name
    for size in (4, 6, 12):
        pixels = picture.read(tmp_path / "a.png", size)
        assert_array_equal(pixels, np.broadcast_to(np.uint8(colour), (size, size, len(colour))))


def by_area(pixels, size):
    """The mean over each new pixel's area, in floating point by another route than ours."""
    side = len(pixels)
    ends = np.arange(size + 1) * side / size
    whole = np.concatenate([np.zeros((1, *pixels.shape[1:])), np.cumsum(pixels.astype(float), axis=0)])
    left = np.minimum(ends.astype(int), side - 1)
    sums = whole[left] + (ends - left)[:, None, None] * pixels[left]
    return np.diff(sums, axis=0) * size / side


@pytest.mark.parametrize(("height", "width", "size"), [(9, 9, 4), (48, 61, 32), (80, 50, 16), (33, 32, 31), (7, 8, 7)])
def test_the_middle_square_is_cut_out_and_then_shrunk_by_area(tmp_path, height, width, size):
    """Otherwise pictures are squeezed or off centre, or, as with Pillow's BOX, pixels count in full or not at all."""
    pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = pixels[top : top + side, left : left + side]
    expected = by_area(by_area(middle, size).swapaxes(0, 1), size).swapaxes(0, 1)
    got = picture.read(save(tmp_path / "a.png", pixels), size)
    assert np.abs(got - expected).max() <= 0.5 + 1e-9


def test_a_smaller_picture_is_enlarged(tmp_path):
    """Otherwise a folder with one small picture cannot be used."""
    ramp = np.arange(0, 250, 25, np.uint8)[:, None].repeat(10, axis=1)
    got = picture.read(save(tmp_path / "a.png", ramp), 40)[..., 0].astype(int)
    assert_array_equal(got, got[:, :1].repeat(40, axis=1))
    assert (np.diff(got[:, 0]) >= 0).all()
    assert np.diff(got[:, 0]).max() < 15  # no blocks, whose steps would be of 25


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_its_camera_was_held(tmp_path, orientation, kind):
    """Otherwise the portraits of a telephone lie on their side."""
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:12, :20], upright[:12, 20:], upright[12:, 20:] = RED, GREEN, BLUE
    # What the camera wrote: the orientation of each number in the EXIF standard, undone.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright[::-1].swapaxes(0, 1)[::-1][::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    path = tmp_path / "a"
    save(path, stored, format=kind, exif=exif, **options)
    got = picture.read(path, 24).astype(int)
    expected = upright[:, 8:32].astype(int)
    assert np.abs(got - expected)[1:-1, 1:-1].max() <= (0 if kind != "JPEG" else 80)
    assert np.abs(got - expected).mean() < (1e-9 if kind != "JPEG" else 5)


def test_a_damaged_note_of_the_camera_harms_no_picture(tmp_path):
    """Otherwise half of what is on the web cannot be read, or a warning of Pillow's ends the command."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.jpg", np.full((8, 8), 200), exif=exif).read_bytes()
    place = data.index(b"Exif") + 12
    (tmp_path / "a.jpg").write_bytes(data[:place] + b"\xff" * 20 + data[place + 20 :])
    assert_array_equal(picture.read(tmp_path / "a.jpg", 4), np.full((4, 4, 1), 200))


def test_grey_of_colour_is_the_eye_s(tmp_path):
    """Otherwise red and green that look unlike become the same grey."""
    stripes = np.array([RED, GREEN, BLUE, WHITE])[None].repeat(4, axis=0)
    save(tmp_path / "a.png", stripes)
    grey = picture.to_channels(picture.read(tmp_path / "a.png", 4), 1)
    assert_array_equal(grey[0, :, 0], [76, 150, 29, 255])
    assert_array_equal(picture.to_channels(np.stack([picture.read(tmp_path / "a.png", 4)] * 3), 1)[2], grey)


BOMB = zlib.compress(bytes(1000))
BAD = {
    "text": (b"hello", "it does not begin as PNG, JPEG, WebP, BMP or GIF"),
    "nothing": (b"", "it does not begin as PNG, JPEG, WebP, BMP or GIF"),
    "half a JPEG": (plain("RGB", RED, "JPEG")[:400], "runcated"),
    "half a PNG": (png_of(6, 6, 8, 0, b"\0" + RNG.bytes(6) + b"\0" + RNG.bytes(6) + bytes(28))[:55], "truncated"),
    "a PNG of noise": (png_of(6, 6, 8, 0, b"\x09" * 42), "unrecognized data stream"),
    "a bomb": (png_of(30_000, 30_000, 8, 0, bytes(1000)), "it has more than 134,217,728 pixels"),
    "a smaller bomb": (png_of(12_000, 11_500, 8, 0, bytes(1000)), "it has 12,000 x 11,500 pixels, more than 134,217"),
    "the largest bomb": (png_of(2**31 - 1, 2**31 - 1, 8, 0, bytes(1000)), "it has more than 134,217,728 pixels"),
    "a bomb of text": (
        png_of(6, 6, 8, 0, bytes(42), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))),
        "Decompressed data too large",
    ),
    "TIFF": (plain("RGB", RED, "TIFF"), "it does not begin as PNG, JPEG, WebP, BMP or GIF"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_refused_in_a_few_words(tmp_path, kind):
    """Otherwise a file takes all memory, or ends the command with a traceback."""
    (tmp_path / "a.png").write_bytes(BAD[kind][0])
    with pytest.raises(UserError, match=BAD[kind][1]):
        picture.read(tmp_path / "a.png", 4)


def test_what_cannot_be_opened_is_refused_in_a_few_words(tmp_path, monkeypatch):
    """Otherwise a pipe is waited for until the end of time."""
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere")
    (tmp_path / "c.png").symlink_to("c.png")
    save(tmp_path / "d.png", np.zeros((4, 4)))
    for name, reason in [("a", "a pipe or a device"), ("b", "No such file"), ("c", "Too many levels")]:
        with pytest.raises(UserError, match=reason):
            picture.read(tmp_path / f"{name}.png", 4)
    monkeypatch.setattr(picture, "FILE", 10)
    with pytest.raises(UserError, match="bytes, more than 10"):
        picture.read(tmp_path / "d.png", 4)


# --- The files of a folder ----------------------------------------------------------------------------------


def test_subfolders_are_classes_and_what_is_hidden_is_passed_over(tmp_path, capsys):
    """Otherwise the thumbnails of a file manager are trained on, or an empty folder is a class."""
    some(tmp_path / "b" / "deep" / "deeper", 3)
    some(tmp_path / "A", 2, "JPG")
    some(tmp_path / "a", 1, "WebP")
    some(tmp_path / ".thumbnails", 1)
    some(tmp_path / "B" / ".hidden", 1)
    (tmp_path / "A" / "._0.png").write_bytes(b"of a Mac")
    (tmp_path / "A" / "notes.txt").write_bytes(b"")
    (tmp_path / "photo.heic").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    train, test = datasets.load("folder", str(tmp_path), SMALL)
    assert train.class_names == test.class_names == ("A", "a", "b")
    for split in (train, test):
        assert [train.class_names[label] for label in split.labels] == [path.split("/")[0] for path in split.files]
    assert {*train.files, *test.files} == {
        *("A/0.JPG", "A/1.JPG", "a/0.WebP"),
        *(f"b/deep/deeper/{number}.png" for number in range(3)),
    }
    assert "2 files passed over: A/notes.txt, photo.heic\n" in capsys.readouterr().err


def test_without_subfolders_there_are_no_classes(tmp_path):
    """Otherwise a run of unlabelled pictures has a class of a name that nobody gave."""
    train, test = datasets.load("folder", str(some(tmp_path)), SMALL)
    assert train.class_names == test.class_names == ()
    assert not train.labels.any()
    assert train.name == test.name == "folder"


def test_pictures_beside_classes_are_refused(tmp_path):
    """Otherwise they get a class by chance, or are left out without a word."""
    some(tmp_path / "cats")
    some(tmp_path, 5)
    assert "holds pictures beside its subfolders, which are classes (0.png, 1.png, 2.png and 2 more)" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("name", [b"two\nlines", b"not \xff UTF-8", b"\x1b[2J"])
def test_names_that_are_no_text(tmp_path, name):
    """Otherwise a file of another system ends a run, or its name writes on the user's terminal."""
    some(tmp_path)
    os.rename(tmp_path / "0.png", os.fsencode(tmp_path) + b"/" + name + b".png")
    train, test = datasets.load("folder", str(tmp_path), SMALL)
    picture_list.write(tmp_path, train, test)
    read = picture_list.read(tmp_path / picture_list.FILE)
    assert {**read["train"], **read["test"]} == {**train.files, **test.files}
    (tmp_path / "1.png").write_bytes(b"")
    os.rename(tmp_path / "1.png", os.fsencode(tmp_path) + b"/" + name + b"1.png")
    assert "1 picture that cannot be read: " in refusal(tmp_path)
    some(Path(os.fsdecode(os.fsencode(tmp_path / "x") + b"/" + name)))
    assert "cannot be a class: rename it in plain text" in refusal(tmp_path / "x")


def test_the_form_of_a_name_s_letters_changes_nothing(tmp_path):
    """Otherwise a folder that was copied from a Mac is another folder, and a run on it cannot go on."""
    one, two = some(tmp_path / "one"), some(tmp_path / "two")
    (one / "0.png").rename(one / "\u00fcber.png")
    (two / "0.png").rename(two / "u\u0308ber.png")
    a, b = (datasets.load("folder", str(each), SMALL) for each in (one, two))
    assert [split.sha256 for split in a] == [split.sha256 for split in b]
    save(one / "u\u0308ber.png", np.zeros((4, 4)))
    assert "holds two pictures called \u00fcber.png: rename one" in refusal(one)


def test_links_are_followed_and_a_loop_ends(tmp_path):
    """Otherwise a folder of links, as many have of a large data set, is empty; or its reading never ends."""
    elsewhere = some(tmp_path / "elsewhere")
    own = some(tmp_path / "own" / "cats", 2, first=50)
    (own / "linked.png").symlink_to(elsewhere / "0.png")
    (own.parent / "dogs").symlink_to(elsewhere)
    train, test = datasets.load("folder", str(own.parent), SMALL)
    assert {"cats/linked.png", "dogs/0.png", "dogs/5.png"} < {*train.files, *test.files}
    assert {**train.files, **test.files}["cats/linked.png"] == {**train.files, **test.files}["dogs/0.png"]
    (own / "again").symlink_to(own.parent)
    message = refusal(own.parent)
    assert message == f"{own / 'again'} is the same folder as {own.parent}: remove the link of the two"


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    """Otherwise the user sees a traceback, or an error of NumPy's about an empty array."""
    with pytest.raises(UserError, match=r"^--dataset folder needs a folder of PNG, .*: name it by --data-dir$"):
        datasets.load("folder")
    (tmp_path / "a.png").write_bytes(b"")
    for no_folder in ("nowhere", "a.png"):
        assert refusal(tmp_path / no_folder).startswith(f"--data-dir {tmp_path / no_folder} is not a folder: name one")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty holds no pictures: there are no files in it; --data-dir takes a folder of PNG" in refusal(empty)
    (empty / "a.tif").write_bytes(b"")
    assert "holds no pictures: by its name, none is one of a.tif; --data-dir takes" in refusal(empty)

    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    assert refusal(empty).startswith(f"cannot read the folder {empty} (Permission denied): mend or remove it")


# --- Grey or colour -----------------------------------------------------------------------------------------


def test_a_picture_with_colour_makes_all_of_them_colour(tmp_path):
    """Otherwise the colour of a picture is lost, or grey digits are trained with three equal channels."""
    for number in range(20):
        save(tmp_path / f"{number}.png", np.full((4, 4, 3), number))  # grey, saved in colour
    grey, _ = datasets.load("folder", str(tmp_path), SMALL)
    assert grey.images.shape[1:] == (4, 4, 1)
    last = list(grey.files)[-1]  # so that there are pictures before it
    pixels = np.full((4, 4, 3), int(last.removesuffix(".png")))
    pixels[2, 1, 2] += 1
    save(tmp_path / last, pixels)
    colour, _ = datasets.load("folder", str(tmp_path), SMALL)
    assert_array_equal(colour.images[-1], pixels)
    assert_array_equal(colour.images[:-1], grey.images[:-1].repeat(3, axis=-1))
    for channels, expected in (("grey", grey.images), ("colour", grey.images.repeat(3, axis=-1))):
        got, _ = datasets.load("folder", str(tmp_path), FolderConfig(image_size=4, channels=channels))
        assert_array_equal(got.images[:-1], expected[:-1])
    assert got.sha256 == colour.sha256


# --- The splits ---------------------------------------------------------------------------------------------


def test_a_picture_stays_in_its_split_when_others_are_added(tmp_path):
    """Otherwise a test image is trained on as soon as the folder grows."""
    some(tmp_path, 200)
    config = FolderConfig(image_size=4, test_share=0.25)
    train, test = datasets.load("folder", str(tmp_path), config)
    assert len(train.images) + len(test.images) == 200
    assert 30 < len(test.images) < 70  # 50 give or take 6
    for split in (train, test):
        for path, image in zip(split.files, split.images, strict=True):
            assert_array_equal(image, np.full((4, 4, 3), (int(path.removesuffix(".png")), 100, 200)))
    some(tmp_path, 20, first=200)
    more_train, more_test = datasets.load("folder", str(tmp_path), config)
    assert train.files.items() < more_train.files.items()
    assert test.files.items() < more_test.files.items()
    fewer, _ = datasets.load("folder", str(tmp_path), FolderConfig(image_size=4, test_share=0.1))
    assert more_train.files.items() < fewer.files.items()


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.9999])
def test_two_pictures_are_enough_and_one_is_not(tmp_path, share):
    """Otherwise a split is empty, and the first epoch ends in a division by zero."""
    config = FolderConfig(image_size=4, test_share=share)
    train, test = datasets.load("folder", str(some(tmp_path, 2)), config)
    assert len(train.images) == len(test.images) == 1
    (tmp_path / "0.png").unlink()
    assert "holds 1 picture that can be read: training and testing take one each, or more" in refusal(tmp_path, config)


def test_the_hash_is_that_of_everything_in_both_splits(tmp_path):
    """Otherwise a run goes on with pictures, classes or a split that it was not trained with."""
    for name in ("a", "b"):
        some(tmp_path / "one" / name, 20)

    def hashes(config=SMALL):
        return [split.sha256 for split in datasets.load("folder", str(tmp_path / "one"), config)]

    seen = [hashes(), hashes(FolderConfig(image_size=5)), hashes(FolderConfig(image_size=4, test_share=0.5))]
    (tmp_path / "one" / "b").rename(tmp_path / "one" / "c")
    seen.append(hashes())
    (tmp_path / "one" / "a" / "3.png").rename(tmp_path / "one" / "c" / "33.png")
    seen.append(hashes())
    save(tmp_path / "one" / "a" / "4.png", np.full((4, 4, 3), (4, 100, 201)))
    seen.append(hashes())
    (tmp_path / "one" / "a" / "5.png").unlink()
    seen.append(hashes())
    flat = list(itertools.chain(*seen))
    assert len(set(flat)) == len(flat) == 14
    assert all(len(each) == 64 for each in flat)


def test_a_copy_of_the_folder_is_the_same_data(tmp_path):
    """Otherwise a run cannot go on on another machine, or after the pictures were packed in another way."""
    some(tmp_path / "one", 10)
    some(tmp_path / "two", 10)
    Image.open(tmp_path / "one" / "0.png").save(tmp_path / "two" / "0.png", compress_level=0)
    (tmp_path / "two" / "notes.txt").write_text("others")
    a, b = (datasets.load("folder", str(tmp_path / name), SMALL) for name in ("one", "two"))
    assert [(split.sha256, split.files) for split in a] == [(split.sha256, split.files) for split in b]


# --- Files that cannot be read ------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named_and_left_out_on_request_only(tmp_path, capsys):
    """Otherwise a run is trained on fewer pictures than its user believes, or stops at each of them in turn."""
    some(tmp_path, 30)
    good = datasets.load("folder", str(tmp_path), SMALL)[0].sha256
    for number in range(12):
        (tmp_path / f"bad{number:02}.png").write_bytes(b"hello")
    message, reason = refusal(tmp_path), "(it does not begin as PNG, JPEG, WebP, BMP or GIF)"
    assert f"{tmp_path}: 12 pictures that cannot be read: bad00.png {reason}, bad01.png {reason}, " in message
    assert f"bad09.png {reason} and 2 more: mend or remove them, or leave them out with --skip-bad" in message
    for _ in range(2):  # read, and from the cache
        capsys.readouterr()
        split, _ = datasets.load("folder", str(tmp_path), FolderConfig(image_size=4, skip_bad=True))
        assert split.sha256 == good
        assert "left out, 12 pictures that cannot be read: bad00.png" in capsys.readouterr().err
    for file in tmp_path.glob("[0-9]*"):
        file.write_bytes(b"")
    message = refusal(tmp_path, FolderConfig(image_size=4, skip_bad=True))
    assert "holds 0 pictures that can be read: training and testing take one each, or more" in message


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Otherwise a cache says that it holds pictures that were never read."""
    some(tmp_path)
    read = picture.read

    def and_change(path, size):
        os.utime(tmp_path / "3.png", ns=(1, 1))
        return read(path, size)

    monkeypatch.setattr(picture, "read", and_change)
    assert f"{tmp_path} changed while it was read: begin again when nothing writes to it" in refusal(tmp_path)


def test_more_than_fits_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """Otherwise the system kills the command after an hour of reading."""
    some(tmp_path, 100)
    monkeypatch.setattr(memory, "total", lambda: 100 * 512**2 * 3 - 1)
    monkeypatch.setattr(picture, "read", None)
    message = refusal(tmp_path, FolderConfig(image_size=512, channels="colour"))
    assert message.startswith(
        "100 images of 512 x 512 take 0.1 GiB of memory or more, and there are 0.1 GiB: lower --i"
    )


# --- The cache ----------------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch):
    """The names of the pictures that are read, as they are."""
    names, read = [], picture.read

    def noted(path, size):
        names.append(path.name)
        return read(path, size)

    monkeypatch.setattr(picture, "read", noted)
    return names


def load(path, **settings):
    """Everything in both splits, and with nothing left in `reads`."""
    splits = datasets.load("folder", str(path), FolderConfig(**{"image_size": 4, **settings}))
    return [(split.images.tobytes(), split.labels.tobytes(), split.sha256, dict(split.files)) for split in splits]


def test_pictures_are_read_once(tmp_path, reads, cache):
    """Otherwise every start of a run begins with minutes of decoding; or old caches fill the disk."""
    some(tmp_path)
    first = load(tmp_path)
    assert len(reads) == 6
    assert load(tmp_path) == first
    load(tmp_path, test_share=0.5)
    assert len(reads) == 6
    some(tmp_path, 1, first=6)
    load(tmp_path)
    assert len(reads) == 6 + 7
    assert len(list(cache.rglob("*.npz"))) == 1
    for settings in ({"image_size": 5}, {"channels": "grey"}, {"skip_bad": True}):
        reads.clear()
        load(tmp_path, **settings)
        assert len(reads) == 7
    assert len(list(cache.rglob("*.npz"))) == 4
    assert not [file for file in cache.rglob("*") if file.suffix in (".tmp", ".lock")]


def test_a_changed_picture_is_seen_though_its_size_and_time_are_as_before(tmp_path, reads):
    """Otherwise a run trains on a picture that is no longer there."""
    some(tmp_path)
    before = load(tmp_path)
    path = tmp_path / "3.png"
    status, data = path.stat(), path.read_bytes()
    changed = (tmp_path / "4.png").read_bytes()
    assert len(changed) == len(data)
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(tmp_path) != before


@pytest.mark.parametrize("damage", ["cut", "bits", "other", "empty", "folder"])
def test_a_damaged_cache_is_made_anew(tmp_path, reads, cache, damage):
    """Otherwise a full disk or a dying one ends in wrong pictures, or in no run at all until the cache is removed."""
    some(tmp_path)
    first = load(tmp_path)
    (file,) = cache.rglob("*.npz")
    data = bytearray(file.read_bytes())
    if damage == "bits":
        data[len(data) // 2] ^= 255
    elif damage == "other":
        arrays = dict(np.load(file))
        arrays["images"] = arrays["images"][:3]
        np.savez(file, **arrays)
        data = bytearray(file.read_bytes())
    file.write_bytes({"cut": data[:200], "empty": b""}.get(damage, data))
    if damage == "folder":
        file.unlink()
        file.mkdir()
    reads.clear()
    assert load(tmp_path) == first
    assert len(reads) == 6


def test_a_full_disk_and_a_locked_cache_stop_nothing(tmp_path, monkeypatch, reads):
    """Otherwise a run cannot begin although it needs no cache."""
    some(tmp_path)
    first = load(tmp_path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder_cache, "VERSION", 2)  # whatever was cached is of no use
        patch.setattr(np, "savez", full)
        assert load(tmp_path) == first
    monkeypatch.setenv("DDPM_DUET_CACHE", str(some(tmp_path / "x") / "0.png"))
    (tmp_path / "x").rename(tmp_path.parent / f"{tmp_path.name}-x")
    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path.parent / f"{tmp_path.name}-x" / "0.png"))  # a file
    assert load(tmp_path) == first


# --- A run --------------------------------------------------------------------------------------------------


class Learner:
    """A learner that learns nothing: what is tested is around it, and common to both trees."""

    device_name, threads, num_parameters, whole = "cpu", 1, 1, True

    def __init__(self, config, num_steps, workers=None):
        self.state = {f"{prefix}/x": np.zeros(1) for prefix in checkpoint.PREFIXES}

    def train_step(self, batch, step):  # noqa: D102
        assert batch.pixels.shape == (8, 8, 8, 3)
        return 1.0, 0.5, 1e-4

    def validation_losses(self, batches):  # noqa: D102
        return [(sum(len(batch.pixels) for batch in batches), 1.0)]

    def tensors(self):  # noqa: D102
        return self.state

    def load(self, resumed):  # noqa: D102
        self.state = dict(resumed.tensors)


FLAGS = ["--preset", "tiny", "--dataset", "folder", "--image-size", "8", "--batch-size", "8", "--sample-every", "0"]


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_a_resumed_run_names_the_picture_that_changed(tmp_path, framework):
    """Otherwise a run goes on with other pictures, or its user must find one in thousands."""
    own, run = some(tmp_path / "own", 20), tmp_path / "run"

    def main(*argv):
        return train.run(train.parse(framework, list(map(str, argv))), join=None, make_learner=Learner)

    assert main(*FLAGS, "--data-dir", own, "--run-dir", run, "--max-steps", 2) == 0
    record = json.loads((run / "metrics.json").read_text())["dataset"]
    training, test = datasets.load("folder", str(own), FolderConfig(image_size=8))
    assert record == training.record
    listed = picture_list.read(run / "pictures.json")
    assert (listed["sha256"], listed["train"], listed["test"]) == (training.sha256, training.files, test.files)

    def refused():
        with pytest.raises(UserError) as refused:
            main("--resume", run, "--max-steps", 4)
        return str(refused.value)

    save(own / "20.png", np.zeros((4, 4)))
    assert refused().startswith("the pictures are not those that ")
    assert " was trained on: 20.png is new; undo this, " in refused()
    (own / "3.png").rename(tmp_path / "3.png")
    assert ": 3.png is missing, and 1 more; " in refused()
    (own / "20.png").rename(own / "3.png")
    assert ": 3.png has other pixels; " in refused()
    (run / "pictures.json").rename(tmp_path / "pictures.json")
    for other in (None, "{", (tmp_path / "pictures.json").read_text().replace(training.sha256, "0" * 64)):
        if other:
            (run / "pictures.json").write_text(other)
        assert " was trained on data with SHA-256 " in refused()
    (tmp_path / "3.png").replace(own / "3.png")
    assert main("--resume", run, "--max-steps", 4) == 0
    assert (run / "pictures.json").read_bytes() == (tmp_path / "pictures.json").read_bytes()
    with pytest.raises(UserError, match=r"data\.folder\.image_size was 8, now 9\. Leave these flags out"):
        main("--resume", run, "--max-steps", 5, "--image-size", 9)
