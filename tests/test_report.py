"""report.html: one file that a real browser shows whole, on paper and on a phone, to eyes and to screen readers."""

import dataclasses
import html.parser
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddpm_shared import images, machine, pages
from ddpm_shared.compare import charts, command, gaps, parity_table, sample_grids, verdict
from ddpm_shared.config import Config, TrainingConfig
from ddpm_shared.datasets import Split
from ddpm_shared.errors import UserError
from ddpm_shared.images import Pixels
from ddpm_shared.records import run as run_folder

Record = dict[str, Any]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONFIG = Config(training=TrainingConfig(sample_images=4))
SPLIT = Split("fashion-mnist", "train", np.zeros((5, 28, 28, 1), np.uint8), np.zeros(5, np.uint8), "0" * 64)
HOSTILE = "<script>alert(1)</script>&\"'"

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Makes a run folder as training does."""

    def made(
        framework: str,
        losses: Sequence[float],
        samples: dict[int, Pixels] | None = None,
        epochs: int = 2,
        message: str | None = None,
        seed: int = 0,
    ) -> Path:
        folder = tmp_path_factory.mktemp("runs") / framework
        config = dataclasses.replace(CONFIG, seed=seed)
        books = run_folder.Run(folder, framework, config, machine.environment("cpu", 2), SPLIT, 10)
        for step, loss in enumerate(losses, start=1):
            place = {"step": step, "epoch": 1, "images_seen": 128 * step, "learning_rate": 1e-3, "wall_s": 0.5 * step}
            books.history["steps"].append(place | {"loss": float(loss), "grad_norm": 2 * float(loss)})
        for epoch in range(1, epochs + 1):
            step = len(losses) * epoch // epochs
            ended = {"epoch": epoch, "step": step, "train_loss": 0.5, "validation_loss": losses[step - 1]}
            books.record_epoch(ended | {"images_per_s": None})
        books.finish("failed" if message else "completed", len(losses), message)
        for step, pixels in (samples or {}).items():
            images.write_png(folder / "samples" / f"step_{step:08d}.png", images.grid(pixels))
        return folder

    return made


def four(value: int = 100) -> Pixels:
    """Four grey images of one value."""
    return np.full((4, 28, 28, 1), value, np.uint8)


PARITY = {
    "schema_version": 1,
    "created_utc": "2026-01-01T00:00:00+00:00",
    "device": "cpu",
    "environment": {},
    "passed": False,
    "rows": [
        {
            **{"subject": "engine", "quantity": HOSTILE, "precision": "fp64", "tolerance": 1e-14, "passed": passed},
            **{"torch_oracle": 1.5e-16, "tf_oracle": None, "torch_tf": 0.0},
        }
        for passed in (True, True, False)
    ],
    "mutations": None,
}


def built(out: Path, folders: Sequence[Path], *more: str) -> tuple[str, Record]:
    """The page and comparison.json of the command."""
    assert command.main([*map(str, folders), "--out", str(out), *more]) == 0
    return (out / "report.html").read_text(), json.loads((out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def page(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Record]:
    """A demanding report: three runs of 1,200 steps, one failed with a hostile message; samples; a parity table."""
    losses = np.linspace(1.0, 0.05, 1200)
    grown = losses * (1 + np.minimum(2.0**-23 * 10 ** (np.arange(1200) / 20 - 5), 0.02))
    almost = four()
    almost[0, 5, 5, 0] += 3
    folders = [
        make_run("torch", losses, {600: four(7), 1200: four()}, epochs=20),
        make_run("tensorflow", grown, {600: four(7), 1200: almost}, epochs=20),
        make_run("torch", losses[:700] * 1.1, {600: four(7)}, message=HOSTILE + 150 * "x"),
    ]
    out = tmp_path_factory.mktemp("report")
    (out / "parity.json").write_text(json.dumps(PARITY))
    text, comparison = built(out, folders, "--parity", str(out / "parity.json"))
    return out / "report.html", text, comparison


# The file.


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, and the open ones that nothing closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that opens."""
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "use", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, if the tag is its."""
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_one_sound_file(page: tuple[Path, str, Record]) -> None:
    """Otherwise it shows half of itself on a machine without a network, or under a browser that mends it otherwise."""
    _, text, _ = page
    elements = Elements(text)
    assert elements.open == []
    assert [tag for tag, _ in elements.found if tag in ("script", "link", "iframe", "object", "embed")] == []
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "url(http" not in text
    assert "@import" not in text
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r"(?:href=\"|url\()#([^\")]+)", text)
    referred += [
        str(attributes["aria-labelledby"]) for _, attributes in elements.found if "aria-labelledby" in attributes
    ]
    assert set(referred) <= set(ids)
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later <= level + 1 for level, later in pairwise(levels))


def test_text_from_files_stays_text(page: tuple[Path, str, Record]) -> None:
    """Otherwise a run's message or another's parity.json runs as code in the reader's browser."""
    _, text, _ = page
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") >= 4  # the message once, the quantity thrice


def test_the_page_says_what_the_comparison_says(page: tuple[Path, str, Record]) -> None:
    """Otherwise report and comparison.json tell two stories."""
    _, text, comparison = page
    for pair in comparison["pairs"]:
        for part in ("lead", "details"):
            assert pair["verdict"][part] in text
        assert verdict.KINDS[pair["verdict"]["kind"]] in text
    assert "2 of 3 quantities agree" in text
    assert "Of the 3,136 pixels of its images 1 differs, by 3 of 255 grey levels at most." in text
    assert "amplified 85 times" in text
    assert "All 3,136 pixels of its images are equal." in text  # of A and C at step 600
    assert "step_00000600.png" in text

    strip = re.sub(r"<(style|svg|header)\b.*?</\1>", " ", text, flags=re.DOTALL)
    cells = [cell.strip() for cell in re.findall(r'<td class="number">(.*?)</td>', strip, flags=re.DOTALL)]
    known = shown_numbers(comparison) | {"–"}
    assert len(cells) > 100
    assert set(cells) <= known


def shown_numbers(value: Any) -> set[str]:
    """Every number of nested JSON in each way that the page writes numbers."""
    if isinstance(value, dict | list):
        return set().union(*map(shown_numbers, value.values() if isinstance(value, dict) else value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {str(value), pages.shown(value), verdict.gap(value), pages.duration(value), f"{value:.1e}", f"{value:.2f}"}


def test_a_long_run_makes_no_monster(make_run: MakeRun, tmp_path: Path) -> None:
    """Otherwise a day's training gives a page of tens of megabytes that no mail carries."""
    rng = np.random.default_rng(0)
    losses = 0.05 + 0.01 * rng.random(9400)
    folders = [make_run(name, losses * (1 + 1e-3 * rng.random(9400))) for name in ("torch", "tensorflow", "torch")]
    text, comparison = built(tmp_path / "long", folders)
    assert len(text) < 1_000_000
    assert comparison["steps_a_mark"] == 24
    assert "the mean of 24 neighbouring steps" in text
    assert "Neighbouring steps share a mark" in text


def test_a_short_run_is_drawn_step_by_step(make_run: MakeRun, tmp_path: Path) -> None:
    """Otherwise single steps vanish from the figures, or the captions tell of a thinning that was not done."""
    text, comparison = built(
        tmp_path / "short", [make_run(name, [1.0, 0.5], epochs=0) for name in ("torch", "tensorflow")]
    )
    assert comparison["steps_a_mark"] == 1
    assert "neighbouring steps" not in text.lower()
    assert "None of the runs ended an epoch." in text
    assert "No pictures to lay side by side: A and B left no grid of samples." in text


def test_runs_of_two_seeds_are_not_said_to_share_their_noise(make_run: MakeRun, tmp_path: Path) -> None:
    """Otherwise samples that had to differ are taken for a fault."""
    folders = [make_run("torch", [1.0, 0.5], {2: four()}, seed=seed) for seed in (0, 1)]
    text, _ = built(tmp_path / "seeds", folders, "--allow-different")
    assert "each from its own noise" in text
    assert "from the same noise" not in text


# The figures.


def test_an_epoch_has_no_fractions() -> None:
    """Otherwise the axis of a run of one epoch reads 0.94, 0.96, 0.98."""
    axes = Figure().subplots()
    charts.draw_epochs(axes, [charts.Curve(0, "A", "A", np.array([1]), np.array([0.5]))], "title", "loss")
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_a_thin_curve_lies_within_a_broad_one() -> None:
    """Otherwise a run that equals the baseline hides it, and the figure shows one run."""
    widths = [charts.width(run, 4, 4.0, 0.9) for run in range(4)]
    assert widths[0] == 4.0
    assert widths[-1] == pytest.approx(0.9)
    assert all(inner < 0.75 * outer for outer, inner in pairwise(widths))
    assert len({charts.style(run) for run in range(16)}) == 16  # no two runs look alike


def test_groups_lose_no_value() -> None:
    """Otherwise the figure of a long run leaves out just the step that matters."""
    steps = np.array([1, 2, 3, 50, 51, 999, 1000])
    middle, groups = charts.grouped(steps, steps / 10, np.arange(1, 1011, 10))
    assert [list(group) for group in groups] == [[0.1, 0.2, 0.3], [5.0], [5.1], [99.9, 100.0]]
    assert list(middle) == [2, 50, 51, 999]
    assert charts.grouped(steps[:0], steps[:0] / 10, np.arange(3))[1] == []
    assert gaps.steps_a_mark(gaps.ALL_STEPS) == 1
    assert gaps.steps_a_mark(gaps.ALL_STEPS + 1) == 3


def test_figures_take_the_page_s_colours() -> None:
    """Otherwise the axes are black on black in a dark page, or one figure's rules change another's."""
    curve = charts.Curve(0, "A", "A: PyTorch", np.arange(1, 4), np.array([1.0, 0.5, 0.25]))
    figure = charts.svg(lambda axes: charts.draw_values(axes, [curve], "Loss", "loss"), "loss", 'a "b" <c>')
    assert "currentColor" in figure
    assert "var(--run-0)" in figure
    assert not re.findall(
        r"#[0-9a-f]{6}\b|<style|<metadata|font: |\bpt\"", figure.split(">", 1)[1].replace("#ffffff", "")
    )
    assert 'aria-label="a &quot;b&quot; &lt;c>"' in figure
    assert all(name.startswith("loss-") for name in re.findall(r'\bid="([^"]*)"', figure))


# The samples.


def write_grid(folder: Path, step: int, pixels: Pixels) -> None:
    images.write_png(folder / "samples" / f"step_{step:08d}.png", images.grid(pixels))


def config_of(count: int) -> Record:
    return {"model": {"image_size": 28, "image_channels": 1}, "training": {"sample_images": count}}


def test_differing_pixels_are_counted_once(tmp_path: Path) -> None:
    """Otherwise the white between the images dilutes the count, or each pixel counts four times as it is drawn."""
    a, b = tmp_path / "a", tmp_path / "b"
    pixels = four()
    write_grid(a, 10, pixels)
    pixels[1, 3, 4, 0] += 20
    pixels[3, 27, 27, 0] -= 5
    write_grid(b, 10, pixels)
    found = sample_grids.compare(a, b, ("A", "B"), config_of(4))
    assert found.record == {
        "absent": None,
        "file": "step_00000010.png",
        "pixels": 4 * 28 * 28,
        "differing_pixels": 2,
        "largest_difference": 20,
        "amplification": 255 // 19,  # by the 95th percentile of 5 and 20
    }
    assert found.pictures["difference"].max() == 255
    assert np.count_nonzero(found.pictures["difference"]) == 2 * 4


@pytest.mark.parametrize("names", [("Bag", "Coat"), ("Trouser", "Pullover", "Dress")])  # margins odd and even
def test_of_a_grid_by_class_the_images_alone_are_counted(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Otherwise the names beside the rows, and each pixel four times, are counted as images that agree."""
    pixels, labels = four(), np.arange(4) % len(names)
    for folder in ("a", "b"):
        picture = images.by_class(pixels, labels, names)
        images.write_png(tmp_path / folder / "samples" / "step_00000001.png", picture)
        pixels[1, 3, 4, 0] += 20
        pixels[3, 27, 27, 0] -= 5
    config = config_of(4) | {"class_conditional": True}
    record = sample_grids.compare(tmp_path / "a", tmp_path / "b", ("A", "B"), config, names).record
    assert (record["pixels"], record["differing_pixels"]) == (4 * 28 * 28, 2)


def test_the_newest_common_grid_is_shown(tmp_path: Path) -> None:
    """Otherwise samples of different steps are laid side by side."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, steps in ((a, (5, 10, 15)), (b, (5, 10, 20))):
        for step in steps:
            write_grid(folder, step, four(step))
    found = sample_grids.compare(a, b, ("A", "B"), config_of(4))
    assert (found.record["file"], found.record["differing_pixels"]) == ("step_00000010.png", 0)


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        ({}, "B left no grid of samples"),
        ({20: four()}, "A and B drew no samples at a common step"),
        (
            {10: four().repeat(3, axis=0)},
            "the grids step_00000010.png have different shapes, 118 x 118 and 234 x 176 pixels",
        ),
        ({10: None}, "a grid step_00000010.png cannot be read: "),
    ],
)
def test_absent_samples_are_reported_in_a_line(tmp_path: Path, b: dict[int, Pixels | None], reason: str) -> None:
    """Otherwise a comparison of hours of training fails for a picture."""
    write_grid(tmp_path / "a", 10, four())
    for step, pixels in b.items():
        write_grid(tmp_path / "b", step, four() if pixels is None else pixels)
        if pixels is None:
            file = tmp_path / "b" / "samples" / f"step_{step:08d}.png"
            file.write_bytes(file.read_bytes()[:-60])
    found = sample_grids.compare(tmp_path / "a", tmp_path / "b", ("A", "B"), config_of(4))
    assert found.record["absent"].startswith(reason)
    assert set(found.record.values()) == {found.record["absent"], None}


def test_a_grid_of_another_kind_is_counted_whole(tmp_path: Path) -> None:
    """Otherwise a picture in samples/ that this version did not draw ends in a traceback."""
    for name, value in (("a", 0), ("b", 9)):
        (tmp_path / name / "samples").mkdir(parents=True)
        Image.new("RGB", (30, 20), (value, 0, 0)).save(tmp_path / name / "samples" / "step_00000001.png")
    found = sample_grids.compare(tmp_path / "a", tmp_path / "b", ("A", "B"), config_of(4))
    assert (found.record["pixels"], found.record["differing_pixels"]) == (30 * 20, 30 * 20)


# The parity table.


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON with finite numbers"),
        (json.dumps(PARITY).replace("1.5e-16", "NaN"), "NaN is not finite"),
        (json.dumps(PARITY | {"schema_version": 2}), "at schema_version, 1 was expected"),
        (json.dumps(PARITY | {"rows": [{"subject": "engine"}]}), "at rows[0], "),
        ("[]", "at its top level, "),
    ],
)
def test_a_malformed_parity_file_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    """Otherwise it is a traceback, or a table that claims what was not checked."""
    path = tmp_path / "parity.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        parity_table.read(path)
    assert str(caught.value).startswith(f"{path} is not ")
    assert complaint in str(caught.value)


def test_a_missing_parity_file_is_named_only_if_asked_for(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a typing error drops the table in silence, or every comparison needs one."""
    monkeypatch.chdir(tmp_path)
    folders = [make_run(name, [1.0, 0.5]) for name in ("torch", "tensorflow")]
    assert built(tmp_path / "out", folders)[1]["parity"] is None
    with pytest.raises(UserError, match=r"there is no nowhere\.json: --parity names a parity\.json"):
        command.main([*map(str, folders), "--out", str(tmp_path / "no"), "--parity", "nowhere.json"])
    parity_table.DEFAULT.parent.mkdir(parents=True)
    parity_table.DEFAULT.write_text(json.dumps(PARITY | {"mutations": [{"caught_by": "x"}, {"caught_by": None}]}))
    text, comparison = built(tmp_path / "with", folders)
    assert (comparison["parity"]["agreeing"], comparison["parity"]["quantities"]) == (2, 3)
    assert "Of 2 faults planted" in text


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page of a real Chromium, whose messages and requests are on record; skipped where there is none."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip(f"there is none of {', '.join(BROWSERS)} here; Debian's package is chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=chromium, args=FLAGS, headless=True
        )
        yield context
        context.close()


LOOKS = [(width, scheme, media) for width in (1280, 390, 320) for scheme in ("light", "dark") for media in ("screen",)]


@pytest.mark.parametrize(("width", "scheme", "media"), [*LOOKS, (794, "dark", "print"), (794, "light", "print")])
def test_a_browser_shows_the_page_whole(
    browser: Any, page: tuple[Path, str, Record], width: int, scheme: str, media: str
) -> None:
    """Otherwise readers on a phone, at night or on paper miss parts of the evidence, and nobody tells us."""
    messages: list[str] = []
    requests: list[str] = []
    tab = browser.new_page()
    tab.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("requestfailed", lambda request: messages.append(f"failed: {request.url}"))
    tab.on("request", lambda request: requests.append(request.url))
    tab.set_viewport_size({"width": width, "height": 800})
    tab.emulate_media(color_scheme=scheme, media=media)
    tab.goto(page[0].as_uri())
    tab.wait_for_load_state("load")

    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page[0].as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    pictures = tab.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 10])")
    assert len(pictures) == 6
    assert all(loaded and told for loaded, told in pictures)
    figures = (
        "[...document.querySelectorAll('svg')].map(s => [s.getAttribute('role'), s.getAttribute('aria-label').length,"
    )
    sizes = tab.evaluate(f"{figures} s.getBoundingClientRect().width, s.getBoundingClientRect().height])")
    assert len(sizes) == 5
    assert all(role == "img" and told > 40 and wide > 200 and high > 140 for role, told, wide, high in sizes)
    assert contrasts(tab)
    tab.close()


def contrasts(tab: Any) -> bool:
    """Assert that every kind of text stands out from its page by 4.5 to 1 (WCAG AA), lines of runs by 3 to 1."""
    colours = tab.evaluate("""() => {
        const shade = element => {
            for (; element; element = element.parentElement) {
                const colour = getComputedStyle(element).backgroundColor;
                if (!/, 0\\)$/.test(colour)) return colour;
            }
            return 'rgb(255, 255, 255)';  // paper
        };
        const colour = element => getComputedStyle(element)[element.tagName == 'text' ? 'fill' : 'color'];
        const texts = document.querySelectorAll('h1, h2, p, td, th, dt, dd, figcaption, summary, li, svg text');
        const found = [...texts].map(element => [element.tagName, colour(element), shade(element), 4.5]);
        const probe = document.createElement('i');
        document.body.append(probe);
        for (let run = 0; run < 6; run++) {
            probe.style.color = `var(--run-${run})`;
            found.push([`--run-${run}`, colour(probe), shade(document.body), 3]);
        }
        probe.remove();
        return found;
    }""")
    kinds = {tuple(colour) for colour in colours}
    assert len(kinds) > 12
    for name, front, back, least in kinds:
        a, b = sorted(map(luminance, (front, back)))
        assert (b + 0.05) / (a + 0.05) >= least, f"{name}: {front} on {back}"
    return True


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2, of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_dark_and_light_differ_and_paper_is_light(browser: Any, page: tuple[Path, str, Record]) -> None:
    """Otherwise a page at night blinds, or a printer is emptied of black."""
    tab = browser.new_page()
    tab.goto(page[0].as_uri())
    inks = {}
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("light", "print"), ("dark", "print")):
        tab.emulate_media(color_scheme=scheme, media=media)
        inks[scheme, media] = tab.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert luminance(inks["dark", "screen"]) > 0.5 > luminance(inks["light", "screen"])
    assert inks["light", "print"] == inks["dark", "print"] == inks["light", "screen"]
    assert len(tab.pdf(format="A4")) > 10_000
    tab.close()


def test_folded_parts_open_without_scripts(browser: Any, page: tuple[Path, str, Record]) -> None:
    """Otherwise the parity table and the equal settings are in the file and out of reach."""
    tab = browser.new_page()
    tab.goto(page[0].as_uri())
    folded = tab.locator("details.evidence table")
    assert not folded.is_visible()
    tab.locator("details.evidence summary").click()
    assert folded.is_visible()
    assert tab.locator("details.evidence td.fail").count() == 1
    tab.close()
