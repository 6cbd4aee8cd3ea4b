"""Colour through what both trees share: a pixel is one pixel, however many channels it has, and red stays red."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_shared import config as configs
from ddpm_shared import datasets, images, pictures
from ddpm_shared.commands import bits_estimate, invert
from ddpm_shared.compare import sample_grids
from ddpm_shared.config import PRESETS, Config
from ddpm_shared.demo import page

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def squares(*colours: tuple[int, ...]) -> np.ndarray:
    """[N, 4, 4, 3], each of one colour."""
    return np.array(colours, np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)


def test_the_preset_is_fitted_to_the_emoji_and_to_any_size() -> None:
    """Otherwise `--preset colour` needs flags that nobody guesses, or attends at a level that is too large."""
    source = datasets.DATASETS["emoji"]
    fitted = configs.fitted(configs.with_preset(Config(), "colour"), source.shape, len(source.class_names))
    assert fitted.model == PRESETS["colour"]
    assert fitted.model.resolutions == (32, 16, 8)
    assert configs.fitted(fitted, (48, 48, 3)).model.attention_resolutions == (12,)


def test_red_is_red_in_png_and_gif(tmp_path: Path) -> None:
    """Otherwise every picture of a run in colour has the wrong colours, or none."""
    grid = images.grid(squares(RED, GREEN, BLUE), 3)
    images.write_png(tmp_path / "grid.png", grid)
    np.testing.assert_array_equal(pictures.read_png(tmp_path / "grid.png", ""), grid)
    images.write_gif(tmp_path / "grid.gif", [grid, grid[::-1]])
    with Image.open(tmp_path / "grid.gif") as moving:
        assert [moving.convert("RGB").getpixel((3 + 10 * i, 3)) for i in range(3)] == [RED, GREEN, BLUE]


def test_a_grid_by_class_has_its_colours_beside_black_names() -> None:
    """Otherwise the pictures of each class's row are grey, or their names coloured."""
    names = ("warm", "cold")
    picture = images.by_class(squares(RED, BLUE), np.array([0, 1]), names)
    assert [tuple(int(v) for v in row[-4]) for row in (picture[4], picture[-5])] == [RED, BLUE]
    margin = picture[:, : picture.shape[1] - 12]
    assert (margin == margin[..., :1]).all()


def test_the_pages_strip_shows_a_gif_in_its_colours_and_a_grey_one_in_grey() -> None:
    """Otherwise the demo's page of a colour model is grey, or that of a grey one three times as large."""
    for channels in (3, 1):
        grid = images.grid(squares(RED, GREEN)[..., :channels], 2)
        buffer = io.BytesIO()
        Image.fromarray(grid[..., 0] if channels == 1 else grid).save(buffer, "GIF")
        (frame,) = page.gif_frames(buffer.getvalue())
        np.testing.assert_array_equal(frame, grid)


def test_a_pixel_differs_once_however_many_of_its_channels_differ() -> None:
    """Otherwise a report says "of the 96 pixels 3 differ" of one pixel in two images of 4 x 4."""
    a = squares(RED, BLUE)
    b = a.copy()
    b[0, 1, 2] = (250, 9, 1)
    record, amplified = sample_grids.difference(a, b)
    assert (record["pixels"], record["differing_pixels"], record["largest_difference"]) == (32, 1, 9)
    assert amplified.shape == a.shape
    assert amplified[0, 1, 2].tolist() == [140, 252, 28]
    assert page.dots(amplified[0]).max() == 252


def test_grids_in_colour_are_counted_by_the_pixels_of_their_images(tmp_path: Path) -> None:
    """Otherwise what is between the images, or each copy of an enlarged pixel, counts as equal."""
    pixels = squares(RED, GREEN, BLUE, RED)
    for name in ("a", "b"):
        (tmp_path / name / "samples").mkdir(parents=True)
        images.write_png(tmp_path / name / "samples" / "step_00000001.png", images.grid(pixels))
        pixels = pixels.copy()
        pixels[2, 0, 0] = (7, 0, 0)
    settings = {"model": {"image_size": 4, "image_channels": 3}, "training": {"sample_images": 4}}
    record = sample_grids.compare(tmp_path / "a", tmp_path / "b", ("A", "B"), settings).record
    assert (record["pixels"], record["differing_pixels"], record["largest_difference"]) == (64, 1, 255)


def test_a_pixel_comes_back_unchanged_only_with_all_its_channels() -> None:
    """Otherwise an inversion that loses all blue is said to bring two thirds of the pixels back."""
    pixels = squares(RED, BLUE)
    back = pixels / 127.5 - 1
    back[0, ..., 2] = 1.0
    found = invert.errors(pixels, np.zeros(pixels.shape), back)
    assert found["pixels_equal"] == 0.5
    assert found["round_trip_rms_per_image"] == pytest.approx([np.sqrt(4 / 3), 0.0])
    assert invert.picture(pixels, np.zeros(pixels.shape), back).shape[-1] == 3


class Uniform:
    """A bound by which every value of an image costs eight bits at t = 0, and nothing later."""

    device_name, threads = "cpu", 1

    def prior(self, pixels: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.zeros(len(pixels))

    def term(self, arrays: tuple[np.ndarray, ...], labels: np.ndarray | None = None) -> np.ndarray:  # noqa: D102
        pixels, t, eps = arrays
        assert eps.shape == pixels.shape == (len(pixels), 4, 4, 3)
        return np.where(t == 0, 8.0, 0.0)


def test_bits_per_dimension_count_every_channel_of_every_pixel() -> None:
    """Otherwise colour images seem to cost three times the bits of grey ones, and no figure of a paper compares."""
    terms = bits_estimate.terms_of(Uniform(), squares(RED, BLUE), 0, seed=0, stride=2, timesteps=4)
    assert bits_estimate.estimate(np.zeros(2), terms, 2, 4)["bits_per_dim"] == 8.0
