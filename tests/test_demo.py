"""demo.html: one file that says what lies in the demo's folder, and nothing that does not."""

import hashlib
import html.parser
import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import draw_cover
import numpy as np
import pytest

from ddpm_shared import files, images, machine
from ddpm_shared.config import Config
from ddpm_shared.datasets import Split
from ddpm_shared.demo import command, folder, page, whole
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import picture
from ddpm_shared.evaluation.records import SCHEMA_VERSION
from ddpm_shared.frameworks import FRAMEWORKS
from ddpm_shared.images import Pixels
from ddpm_shared.records import run as run_folder

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "<script>alert(1)</script>&\"'"
SPLIT = Split("fashion-mnist-10k", "train", np.zeros((5, 28, 28, 1), np.uint8), np.zeros(5, np.uint8), "0" * 64)
ORIGIN = {
    **{"checkpoint": "0123456789abcdef" * 4, "weights": "ema", "seed": 7, "precision": "fp32", "compile": False},
    **{"sampler": "dpmpp_2m_sde", "steps": 20, "eta": 0.0, "spacing": "trailing", "interpolate": None},
}
DRAWN = np.random.default_rng(0).integers(0, 200, (20, 28, 28, 1), np.uint8)
# Every piece that the page needs, and the command that makes it.
PIECES = {
    "boxed-torch/samples.npz": "ddpm_torch.inference",
    "boxed-tensorflow/samples.npz": "ddpm_tf.inference",
    "boxed-torch/denoising.gif": "ddpm_torch.inference",
    "boxed-torch/evaluation/evaluation.json": "ddpm_shared.evaluation",
    "torch/metrics.json": "ddpm_torch.train",
    "tensorflow/metrics.json": "ddpm_tf.train",
    "samples-torch/samples.npz": "ddpm_torch.inference",
    "samples-tensorflow/samples.npz": "ddpm_tf.inference",
    "compare/report.html": "ddpm_shared.compare",
}


def write_drawing(where: Path, framework: str, pixels: Pixels, **changed: Any) -> None:
    origin = json.dumps(ORIGIN | {"framework": framework} | changed)
    files.write_npz(where / "samples.npz", images=pixels, origin=origin)


def write_run(where: Path, framework: str, losses: list[float]) -> None:
    """A run folder as training makes it, but for the checkpoints."""
    environment = machine.environment("cpu", 2) | {"platform": HOSTILE}
    books = run_folder.Run(where, framework, Config(), environment, SPLIT, 159_697)
    for step, loss in enumerate(losses, start=1):
        place = {"step": step, "epoch": 1, "images_seen": 128 * step, "learning_rate": 1e-3, "wall_s": 0.5 * step}
        books.history["steps"].append(place | {"loss": loss, "grad_norm": 2 * loss})
    books.finish("completed", len(losses))


# A number of each score, no two of them equal; those of real images are a hundredth more.
SCORES = {key: round(0.11 * (1 + index), 2) for index, (key, _, _) in enumerate(picture.ROWS)}
FLOOR = {key: round(value + 0.01, 2) for key, value in SCORES.items()}


def write_evaluation(where: Path) -> None:
    """A judgement as ddpm_shared.evaluation writes it, with made-up numbers."""
    digest = hashlib.sha256((where / "samples.npz").read_bytes()).hexdigest()
    classes = [256, *[0] * 9]
    record = {
        "schema_version": SCHEMA_VERSION,
        "created_utc": "2026-01-01T00:00:00+00:00",
        "samples": {"path": "samples.npz", "sha256": digest, "origin": ORIGIN},
        "feature_space": "features",
        "features": "the classifier of Fashion-MNIST",
        "extractor_sha256": "c" * 64,
        "reference": {"name": HOSTILE, "split": "train", "num_images": 10_000, "sha256": "0" * 64},
        "num_images": 256,
        **SCORES,
        "class_histogram": classes,
        "fid_floor": FLOOR["fid"],
        "floor": {"num_images": 255, "split": "test", "class_histogram": classes, **FLOOR},
        "memorised": {
            **{"median_distance": 39.7, "median_distance_of_test_images": 35.6},
            "share_closer_than_99_percent_of_test_images": 0.01,
            **{"copies_of_training_images": 0, "copies_of_test_images": 0, "copies_of_each_other": 3},
        },
        "notes": ["3 of the 256 images repeat another one exactly."],
        "inception": None,
        "seconds": 1.5,
    }
    files.write_json(where / "evaluation" / "evaluation.json", record)


def write_demo(where: Path, apart: int = 1) -> Path:
    """The folder of a demo whose frameworks drew one pixel `apart` grey levels otherwise."""
    other = DRAWN.copy()
    other[2, 10, 10] += apart
    for framework, pixels in (("torch", DRAWN), ("tensorflow", other)):
        write_drawing(where / f"boxed-{framework}", framework, pixels)
        write_drawing(where / f"samples-{framework}", framework, DRAWN[:4], checkpoint=framework)
    images.write_gif(where / "boxed-torch" / "denoising.gif", frames())
    write_evaluation(where / "boxed-torch")
    write_run(where / "torch", "torch", [1.0, 0.5, 0.25])
    write_run(where / "tensorflow", "tensorflow", [1.0, 0.5, 0.25 * (1 + 1e-6)])
    (where / "compare").mkdir()
    (where / "compare" / "report.html").write_text("")
    return where


def frames(count: int = 20) -> list[Pixels]:
    """Frame k of a GIF shows sixteen images that are 10 k bright."""
    return [images.grid(np.full((16, 28, 28, 1), 10 * frame, np.uint8)) for frame in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole demo's page, and its text."""
    where = write_demo(tmp_path_factory.mktemp("demo") / "x")
    assert command.main([str(where)]) == 0
    return where / "demo.html", (where / "demo.html").read_text()


@pytest.fixture
def copied(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of a whole demo, to spoil."""
    return shutil.copytree(made[0].parent, tmp_path / "copy")


# The page.


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that opens."""
        self.found.append((tag, dict(attrs)))


def test_the_page_is_one_file(made: tuple[Path, str]) -> None:
    """Otherwise whoever gets it by mail, or has no network, sees half of it."""
    _, text = made
    tags = Tags(text).found
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    outside = set()
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name) or "#"
            if not value.startswith(("#", "data:image/png;base64,", "data:image/gif;base64,")):
                outside.add(value)
    assert outside == {"compare/report.html"}
    assert "url(http" not in text
    assert "@import" not in text
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 8
    assert all(len(attributes["alt"] or "") > 25 for attributes in pictures)
    assert text.count("<figure") == text.count("<figcaption>") == 10  # the pictures and two charts, each explained


def test_the_page_says_what_the_files_say(made: tuple[Path, str]) -> None:
    """Otherwise a newcomer's first page tells stories."""
    _, text = made
    text = " ".join(re.sub(r"<(style|svg)\b.*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL).split())
    for said in (
        "One model, two frameworks, the same images",
        "each drew 20 images from the same weights and the same noise. "
        "Of their 15,680 pixels, 1 differs, by one grey level of 255.",
        "SDE-DPM-Solver++(2M), 20 steps, seed 7, fp32; checkpoint 0123456789ab (SHA-256), moving average",
        "20 frames of PyTorch’s drawing",
        "looked at PyTorch’s 256 images",
        "what 255 real images of the test split get",
        "256 images tell only roughly.",
        "is 40 grey levels away (median); to real test images it is 36. 3 of the 256 images repeat",
        "a small network of 159,697 parameters",
        "TensorFlow (B) and PyTorch (A) computed the same, to float32 rounding: over 3 common steps",
        "After 3 steps, each of the two drew 4 images in its own framework, from the same noise. "
        "All 3,136 pixels are equal.",
        "cpu, 2 threads",
    ):
        assert said in text
    for key, name, better in picture.ROWS:
        if better:
            of = ", of 10" if key == "inception_score" else ""
            asked = f"{name}{of} {page.QUESTIONS[key]} {better.capitalize()} is better."
            assert f"{asked} {SCORES[key]:.3g} {FLOOR[key]:.3g} " in text


def test_text_from_files_stays_text(made: tuple[Path, str]) -> None:
    """Otherwise a name in somebody's folder runs as code in the reader's browser."""
    _, text = made
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;") == 2  # a data set's name, a platform


@pytest.mark.parametrize(
    ("apart", "tone", "title"),
    [
        (0, "good", "the very same images"),
        (1, "good", "the same images"),
        (2, "doubt", "almost the same images"),
        (9, "bad", "but not the same images"),
    ],
)
def test_the_headline_follows_from_the_pixels(tmp_path: Path, apart: int, tone: str, title: str) -> None:
    """Otherwise the page boasts of what just failed."""
    text = page.render(folder.read(write_demo(tmp_path / "x", apart)))
    assert f"<h1>One model, two frameworks, {title}</h1>" in text
    assert f'<article class="verdict {tone}">' in text
    assert (f"by {apart} grey levels of 255 at most." in text) == (apart > 1)
    assert ("All 15,680 pixels are equal." in text) == (apart == 0)


def test_every_number_of_the_judge_is_explained() -> None:
    """Otherwise a number that the judge learns to give is silently left out of the page."""
    assert set(page.QUESTIONS) == {key for key, _, better in picture.ROWS if better}


def test_the_strip_goes_from_noise_to_image() -> None:
    """Otherwise it cuts images in two, or leaves out the result."""
    found = page.strip(frames(), images.grid(DRAWN[:1]).shape[1])
    assert found.shape == images.grid(np.zeros((32, 28, 28, 1), np.uint8), columns=8).shape
    brightness = [int(value) for value in found[30, 30::58, 0]]
    assert brightness == sorted(brightness)
    assert (brightness[0], brightness[-1]) == (0, 190)
    assert (found[::58] == 255).all()
    assert (found[:, ::58] == 255).all()
    assert page.strip(frames(1), 60).shape == found.shape


def test_a_differing_pixel_is_a_large_dot() -> None:
    """Otherwise one pixel of 200,000 is not to be seen on a telephone, and the picture seems empty."""
    grid = np.zeros((118, 118, 1), np.uint8)
    grid[50, 60] = 255
    assert np.count_nonzero(page.dots(grid)) == page.DOT**2


# The folder.


@pytest.mark.parametrize("piece", PIECES)
def test_a_missing_piece_is_named_with_its_command(copied: Path, piece: str, guarded: Callable[..., Any]) -> None:
    """Otherwise a demo that was interrupted ends in a traceback, or in a page with holes."""
    (copied / piece).unlink()
    code, message = guarded(lambda: command.main([str(copied)]))
    assert code == 2
    assert message == (
        f"error: there is no {copied / piece}: python -m {PIECES[piece]} makes it, "
        "with the flags that `ddpm-duet demo` shows\n"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Otherwise a typing error asks for the first piece of a demo that never was."""
    with pytest.raises(UserError, match=r"there is no folder .*nowhere: make demo makes one"):
        command.main([str(tmp_path / "nowhere")])


def respell(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda where: write_drawing(where / "boxed-tensorflow", "tensorflow", DRAWN, seed=8),
            "seed is 7 in boxed-torch and 8 in boxed-tensorflow: draw both with the flags",
        ),
        (
            lambda where: write_drawing(where / "boxed-tensorflow", "tensorflow", DRAWN, checkpoint="f" * 64),
            f"checkpoint is '{ORIGIN['checkpoint']}' in boxed-torch and '{'f' * 64}' in boxed-tensorflow",
        ),
        (
            lambda where: write_drawing(where / "samples-tensorflow", "tensorflow", DRAWN[:3], checkpoint="b"),
            "num_images is 4 in samples-torch and 3 in samples-tensorflow",
        ),
        (
            lambda where: write_drawing(where / "boxed-tensorflow", "torch", DRAWN),
            "samples.npz does not say how TensorFlow drew it: python -m ddpm_tf.inference makes it",
        ),
        (
            lambda where: np.savez(where / "boxed-torch" / "samples.npz", images=DRAWN),
            "samples.npz does not say how PyTorch drew it",
        ),
        (
            lambda where: files.write_json(where / "boxed-torch" / "evaluation" / "evaluation.json", []),
            "is not an evaluation.json: at its top level, [] is not of type 'object'; python -m ddpm_shared.evaluation",
        ),
        (
            lambda where: respell(
                where / "boxed-torch" / "evaluation" / "evaluation.json", 'version": 1', 'version": 0'
            ),
            "is not an evaluation.json: at schema_version, 1 was expected",
        ),
        (
            lambda where: shutil.copy(where / "samples-torch" / "samples.npz", where / "boxed-torch"),
            "num_images is 4 in boxed-torch and 20 in boxed-tensorflow",
        ),
        (
            lambda where: [write_drawing(where / f"boxed-{name}", name, 255 - DRAWN) for name in FRAMEWORKS],
            "judges other images than those of",
        ),
        (
            lambda where: (where / "boxed-torch" / "denoising.gif").write_bytes(b"GIF89a"),
            "is not a whole GIF",
        ),
        (
            lambda where: respell(where / "tensorflow" / "metrics.json", '"seed": 0', '"seed": 1'),
            "were set up differently: seed is 0 in A and 1 in B",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(copied: Path, spoil: Callable[[Path], Any], complaint: str) -> None:
    """Otherwise the page compares what was never meant to be the same, and says that the frameworks differ."""
    spoil(copied)
    with pytest.raises(UserError) as caught:
        folder.read(copied)
    assert complaint in str(caught.value)


def test_the_demo_makes_every_piece() -> None:
    """Otherwise the demo trains for minutes and then has no page, or its messages send the reader to no command."""
    commands = [each for _, some in whole.steps(list(FRAMEWORKS), Path("x"), []) for each in some]
    for piece, module in PIECES.items():
        where = str(Path("x", piece.split("/")[0]))
        made_by = [each for each in commands if each[0] == module and where in each]
        assert made_by, piece
        assert "gif" not in piece or "--gif" in made_by[0]


@pytest.mark.parametrize("width", [1280, 320])
def test_a_browser_shows_the_page_whole(made: tuple[Path, str], tmp_path: Path, width: int) -> None:
    """Otherwise a newcomer with a telephone scrolls sideways, or looks at empty frames."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if find_spec("playwright") is None or chromium is None:
        pytest.skip("playwright or a Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options: Record = {"executable_path": chromium, "args": ["--no-sandbox", "--disable-gpu"]}
        context = playwright.chromium.launch_persistent_context(str(tmp_path), headless=True, **options)
        tab = context.new_page()
        requests: list[str] = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.set_viewport_size({"width": width, "height": 800})
        tab.goto(made[0].as_uri())
        tab.wait_for_load_state("load")
        assert [url for url in requests if not url.startswith("data:")] == [made[0].as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.width > 100)")
        context.close()


def test_the_picture_at_the_head_of_the_readme_tells_how_far_apart_they_are(copied: Path, tmp_path: Path) -> None:
    """Otherwise the first thing that anybody sees shows something else than what was drawn."""
    left, right, curve = draw_cover.cover(folder.read(copied)).axes
    assert (left.get_title(), right.get_title()) == ("PyTorch", "TensorFlow")
    np.testing.assert_array_equal(left.images[0].get_array(), images.grid(DRAWN, draw_cover.COLUMNS)[..., 0])
    assert len(curve.lines) == 2
    assert "drew 20 images in both frameworks: 1 of 15,680 pixels differ, by 1 of 255" in left.figure.get_supxlabel()
    out = tmp_path / "cover.png"
    assert draw_cover.main(draw_cover.Options(str(copied), str(out))) == 0
    assert out.stat().st_size > 10_000
