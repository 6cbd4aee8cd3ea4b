"""What is written for people: that its links lead somewhere, and that what it names exists."""

import re
from pathlib import Path

import nbformat
import pytest

from ddpm_course import build

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("shared/src/*/*.md")]
)
SAVED = [build.target(source, framework) for source in build.sources() for framework in ("torch", "tensorflow")]


def name_of(path):
    return str(path.relative_to(ROOT))


def links(path):
    """Every link and picture of a page that leads into the repository, without its anchor."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "markdown")
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    targets = {markdown or html for markdown, html in found}
    return sorted(target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target))


@pytest.mark.parametrize("page", [*PAGES, *SAVED], ids=name_of)
def test_links_lead_somewhere(page):
    """Otherwise a reader stands before a page that is not there."""
    for target in links(page):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_holds_no_traces_of_a_merge(page):
    """Otherwise a row stands there twice, between lines of arrows."""
    assert not re.search(r"^(<{7}|={7}|>{7})( |$)", page.read_text(), re.MULTILINE)


def test_every_notebook_is_on_the_first_page_with_its_time():
    """Otherwise a lesson is written that nobody finds, or takes longer than the teacher was told."""
    rows = re.findall(r"\((notebooks/[^)]+)\).* \|.*\| (\d+) \|", (ROOT / "README.md").read_text())
    time = re.compile(r"\*\*Time:\*\* (\d+) minutes")
    assert dict(rows) == {
        name_of(build.target(source, "torch")): time.search(source.read_text())[1] for source in build.sources()
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_has_the_targets_that_are_named(page):
    """Otherwise the first command that somebody copies fails."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]*[a-z])(?![a-z*-])", page.read_text(), re.MULTILINE))
    assert named <= targets


def test_symbols_are_those_of_the_code(tree):
    """Otherwise the glossary translates into a language that nobody speaks."""
    page = (ROOT / "docs" / "symbols.md").read_text()
    named = re.findall(r"`((?:networks\.)?[a-z]+)\.([A-Za-z_0-9]+)(?:\.([a-z_]+))?`", page)
    assert len(named) > 20
    for module, name, attribute in named:
        found = getattr(getattr(tree, module), name)
        assert not attribute or attribute in found.__annotations__
