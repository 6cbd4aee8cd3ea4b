"""One validator: what the types say is what is read."""

import ast
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from fuzz import Subject
from fuzz_readers import ORIGIN, PIXELS, READERS

from ddpm_shared import files, validation
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import samples

JSON = [name for name, reader in READERS.items() if reader.form == "json"]
# Parts of files that may hold anything: what they mean depends on the version that wrote them.
OPEN = ("config", "mutations")


def numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The numbers in a JSON value, of lists those in the first element, with the keys that lead to them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, each in inner:
        if key not in OPEN:
            yield from numbers(each, (*place, key))
    if type(value) in (int, float):
        yield place, value


@pytest.mark.parametrize("name", JSON)
def test_true_is_no_number_and_a_float_no_integer(name: str, tmp_path: Path) -> None:
    """Otherwise step true is step 1, and a loss in words ends in a traceback three modules later."""
    subject = Subject(READERS[name], tmp_path / "folder")
    whole = json.loads(subject.good)
    places = list(numbers(whole))
    assert places
    for place, number in places:
        for wrong in (True, False, str(number), [number], *([float(number)] if type(number) is int else [])):
            changed = copy.deepcopy(whole)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            verdict = subject.judge(json.dumps(changed).encode())
            assert verdict.outcome == "refused", (place, wrong, verdict)


@pytest.mark.parametrize("kind", validation.KINDS)
def test_every_schema_is_one(kind: str) -> None:
    """Otherwise a misspelt keyword lets every file pass."""
    jsonschema.Draft202012Validator.check_schema(validation.schema(kind))


def test_every_schema_file_is_known() -> None:
    """Otherwise a kind of file is described, and read without a check."""
    package = Path(validation.__file__).parent
    assert {path.name.removesuffix(".schema.json") for path in package.glob("*.schema.json")} == set(validation.KINDS)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seed": True}, "at seed, True is not of type 'integer'"),
        ({"sampler": ["ddim"]}, "at sampler, ['ddim'] is not of type 'string'"),
        ({"framework": "jax"}, "at framework, 'jax' is not one of ['torch', 'tensorflow']"),
        ({"compile": 0}, "at compile, 0 is not of type 'boolean'"),
        ({"steps": 0}, "at steps, 0 is less than the minimum of 1"),
        ({"eta": "x" * 5000}, "at eta, it breaks the schema's rule 'type'"),
    ],
)
def test_the_origin_of_samples_is_checked(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Otherwise a demo takes a list for the name of a sampler, and ends in a traceback."""
    path = tmp_path / "samples.npz"
    files.write_npz(path, images=PIXELS, origin=json.dumps(ORIGIN | {"of a newer version": [1]}))
    assert samples.read(path)[1]["of a newer version"] == [1]
    files.write_npz(path, images=PIXELS, origin=json.dumps(ORIGIN | changed))
    with pytest.raises(UserError) as error:
        samples.read(path)
    assert str(error.value).startswith(f"the origin of {path} is not an origin: {reason}")


@pytest.mark.parametrize("origin", [np.arange(3), np.array(["{}", "{}"]), np.array(b"{}"), np.array("x" * 300_000)])
def test_an_origin_that_is_no_text_is_refused(origin: np.ndarray, tmp_path: Path) -> None:
    """Otherwise somebody's array of the same name is read as JSON."""
    files.write_npz(tmp_path / "x.npz", images=PIXELS, origin=origin)
    with pytest.raises(UserError, match=r"but must be one text of at most 1,048,576 bytes: draw the images anew"):
        samples.read(tmp_path / "x.npz")


def test_help_does_not_wait_for_the_validator() -> None:
    """Otherwise each --help takes half a second more, and Jupyter's grammar another."""
    program = (
        "import sys; from ddpm_shared.commands import train; from ddpm_shared.records import checkpoint; "
        "print('jsonschema' in sys.modules); checkpoint.load(checkpoint.BOXED); "
        "print('jsonschema' in sys.modules, 'rfc3987_syntax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


# Calls that read foreign content, and the files that may make them: readers, and what was checked before.
CALLS = {
    # Schemas of the package; what json.dumps just made, here or in another worker; TF_CONFIG, with its errors caught.
    "json.loads": {"validation.py", "config/__init__.py", "commands/rounds.py", "workers.py"},
    "json.load": set(),
    "np.load": set(),
    "zipfile.ZipFile": {"npz.py", "datasets/archives.py"},
    "tarfile.open": {"datasets/archives.py"},
    # The page shows what pictures.read_gif read; a passport's picture is what matplotlib just drew.
    "Image.open": {"pictures.py", "datasets/picture.py", "demo/page.py", "passport/picture.py"},
    "safetensors.safe_open": set(),
    "safetensors.deserialize": {"records/tensor_file.py"},
    "safetensors.numpy.load_file": set(),
    "gzip.open": {"datasets/archives.py", "datasets/idx.py"},
    "pickle.load": set(),
}


def test_foreign_content_is_read_in_few_places() -> None:
    """Otherwise the next reader forgets what the others have learned about damaged files."""
    package = Path(validation.__file__).parent
    found: dict[str, set[str]] = {call: set() for call in CALLS}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in CALLS:
                found[name].add(path.relative_to(package).as_posix())
    assert found == CALLS
