"""Every reader of the project, each with a small good file: what READERS has no entry for, the fuzzer does not reach.

Files without a checksum of their own, of which other damage than a broken form cannot be noticed: metrics.jsonl,
metrics.json, parity.json, evaluation.json, config.json, pictures, ONNX files of users, checkpoints of format /1. Of
these, what is read must still be valid: the readers here use it as the commands do.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from fuzz import Reader
from PIL import Image

from ddpm_shared import cache, compare, config, files, images, machine, pictures
from ddpm_shared.commands import batchwise, bits, sample
from ddpm_shared.compare import parity_table
from ddpm_shared.config import PRESETS, Config, FolderConfig, ModelConfig, to_dict
from ddpm_shared.datasets import Split, archives, folder_cache, idx, own_idx, picture
from ddpm_shared.datasets.listing import Entry, Listing
from ddpm_shared.datasets.verified import BadFileError
from ddpm_shared.demo import folder as demo
from ddpm_shared.demo import page
from ddpm_shared.errors import UserError
from ddpm_shared.evaluation import samples
from ddpm_shared.evaluation.extractor import BATCH, Extractor
from ddpm_shared.exchange import convert, layouts, sizes, weights
from ddpm_shared.records import checkpoint, history, picture_list
from ddpm_shared.records.scores import completed

CONFIG = config.with_preset(Config(), "tiny")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (3, 28, 28, 1), np.uint8)
ORIGIN = {
    **{"checkpoint": "ab" * 32, "weights": "ema", "seed": 3, "precision": "fp32", "compile": False},
    **{"framework": "torch", "sampler": "ddim", "steps": 20, "eta": 0.5, "spacing": "trailing", "clip_x_0": True},
    **{"dynamic_threshold": None, "interpolate": None},
    "data": {"dataset": "idx", "data_dir": "x", "folder": {"image_size": 32, "channels": "auto", "skip_bad": False}},
}
SCORES = {
    **{"num_images": 256, "fid_fashion": 1.25, "kid_fashion": -0.1, "kid_fashion_std": 0.01},
    **{"inception_score_fashion": 8.5, "precision": 0.5, "recall": 0.25, "density": 1.5, "coverage": 1.0},
    **{"class_histogram": [256, *[0] * 9]},
}
SCORES_OF_CLASS = {"num_images": 99, "accuracy": 0.5, "fid_fashion": None, "precision": 0.5, "recall": 0.25}
STEPS = 8


def _plain(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays, so that they can be compared."""
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


# --- Checkpoints --------------------------------------------------------------------------------------------

TENSORS = {f"{prefix}/x": RNG.standard_normal((3, 5)).astype(np.float32) for prefix in checkpoint.PREFIXES}


def _checkpoint(folder: Path) -> Path:
    path = folder / "step_00000007.safetensors"
    known = {"framework": "torch", "step": 7, "config": CONFIG, "dataset_sha256": "ab" * 32}
    checkpoint.save(path, TENSORS, **known)
    return path


def _first_format(folder: Path) -> Path:
    metadata = {"format": "ddpm-duet/1", "framework": "torch", "step": 7, "dataset_sha256": "ab" * 32}
    metadata["config"] = to_dict(CONFIG)
    path = folder / "old.safetensors"
    safetensors.numpy.save_file(TENSORS, path, {"ddpm-duet": json.dumps(metadata)})
    return path


def _load(path: Path) -> Any:
    loaded = checkpoint.load(path, ("model", "ema"))
    assert type(loaded.step) is int
    whole = (loaded.framework, loaded.step, loaded.config, loaded.dataset_sha256, loaded.codec)
    return whole, _plain(loaded.tensors)


# --- Records of a run ---------------------------------------------------------------------------------------


def _history() -> dict[str, Any]:
    steps = [
        {
            **{"step": step, "epoch": (step + 3) // 4, "images_seen": 128 * step, "loss": 1 / step, "grad_norm": 2.5},
            **{"learning_rate": 1e-3, "wall_s": 0.5 * step},
        }
        for step in range(1, STEPS + 1)
    ]
    ends = [{"epoch": 1, "step": 4, "wall_s": 3.5}, {"epoch": 2, "step": 8, "wall_s": 7.5}]
    losses = {"train_loss": 0.5, "validation_loss": 0.25, "images_per_s": None}
    judged = {**SCORES, "extractor_sha256": "c" * 64, "class_accuracy": 0.5, "floor": SCORES}
    return {"steps": steps, "epochs": [end | losses for end in ends], "evaluations": [end | judged for end in ends]}


def _log(folder: Path) -> Path:
    whole = _history()
    events = [{"event": "start", "step": 0}]
    for record in whole["steps"]:
        events.append({"event": "step", **record})
        for kind in ("epoch", "evaluation"):
            events += [{"event": kind, **each} for each in whole[f"{kind}s"] if each["step"] == record["step"]]
    events += [{"event": "checkpoint", "step": 4, "file": "step_00000004.safetensors"}]
    events += [{"event": "resume", "step": 8, "checkpoint": "x", "framework": "torch"}]
    events += [{"event": "end", "step": 8, "status": "completed"}]
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def _read_log(path: Path) -> Any:
    read = history.read_history(path.parent, STEPS)
    numbers = [record["step"] for record in read["steps"]]
    assert numbers == list(range(STEPS + 1 - len(numbers), STEPS + 1)), "a step is missing, or there twice"
    if read["evaluations"]:
        history.best_evaluation(read["evaluations"])
    return read


def _metrics(folder: Path, framework: str = "torch") -> Path:
    whole = _history()
    final = {"step": STEPS, "images_seen": 128 * STEPS, "loss": 0.1, "train_loss": 0.5, "validation_loss": 0.25}
    metrics = {
        **{"schema_version": 1, "framework": framework, "status": "completed", "config": to_dict(CONFIG)},
        "environment": machine.environment("cpu", 2) | {"argv": ["train"]},
        "dataset": {"name": "fashion-mnist", "split": "train", "num_images": 60_000, "sha256": "a" * 64},
        **{"parameters": 10, "history": whole, "final": final | {"wall_s": 8.0}},
        "evaluation": whole["evaluations"][-1] | {"best": {"step": 4, "fid_fashion": 1.25, "checkpoint": None}},
    }
    files.write_json(folder / "metrics.json", metrics)
    return folder / "metrics.json"


def _two_runs(folder: Path) -> Path:
    (folder / "other").mkdir()
    _metrics(folder / "other", "tensorflow")
    return _metrics(folder)


def _compare(path: Path) -> Any:
    damaged, other = compare.read_run(path), compare.read_run(path.parent / "other")
    with contextlib.suppress(UserError):  # no step in common
        comparison = compare.compare([damaged, other], allow_different=True)
        assert compare.text(comparison).replace("\n", "").isprintable()
        json.dumps(comparison, allow_nan=False)
    compare.compare([damaged, other])
    return damaged.metrics


def _settings(folder: Path) -> Path:
    files.write_json(folder / "config.json", to_dict(CONFIG))
    return folder / "config.json"


def _read_settings(path: Path) -> Any:
    read = config.read(path)
    assert config.from_dict(to_dict(read), "again") == read
    return read


def _parity(folder: Path) -> Path:
    row = {"subject": "engine", "quantity": "betas", "precision": "fp64", "torch_oracle": 0.0, "tf_oracle": 1e-16}
    rows = [row | {"torch_tf": None, "tolerance": 1e-9, "passed": True}]
    head = {"schema_version": 1, "created_utc": "2026-01-01T00:00:00+00:00", "device": "cpu"}
    files.write_json(folder / "parity.json", {**head, "rows": 3 * rows, "mutations": [{"caught_by": "x"}]})
    return folder / "parity.json"


# --- Images and what is made of them ------------------------------------------------------------------------


def _samples(folder: Path) -> Path:
    files.write_npz(folder / "samples.npz", images=PIXELS, origin=json.dumps(ORIGIN), labels=np.array([9, 0, 1]))
    return folder / "samples.npz"


def _read_samples(path: Path) -> Any:
    pixels, origin, labels = samples.read(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 4
    assert pixels.shape[-1] in (1, 3)
    json.dumps(origin, allow_nan=False)
    assert labels is None or (len(labels) == len(pixels) and all(label >= 0 for label in labels))
    with contextlib.suppress(UserError):
        samples.data_of(samples.Samples(pixels, origin, labels), path)
    return pixels.shape, pixels.tobytes(), origin, labels is not None and labels.tolist()


def _evaluation(folder: Path) -> Path:
    where = folder / "boxed-torch"
    (where / "evaluation").mkdir(parents=True)
    _samples(where)
    split = {"name": "fashion-mnist", "split": "train", "num_images": 60_000, "sha256": "0" * 64}
    memorised = {
        **{"median_distance": 39.7, "median_distance_of_test_images": 35.6},
        **{"share_closer_than_99_percent_of_test_images": 0.01, "copies_of_training_images": 0},
        **{"copies_of_test_images": 0, "copies_of_each_other": 3},
    }
    digest = hashlib.sha256((where / "samples.npz").read_bytes()).hexdigest()
    path = where / "evaluation" / "evaluation.json"
    of_class = SCORES_OF_CLASS | {"label": 8, "name": "Bag"}
    evaluation = {
        **{"schema_version": 1, "created_utc": "2026", "feature_space": "x", "extractor_sha256": "c" * 64},
        **{"samples": {"path": "x", "sha256": digest, "origin": ORIGIN}, "reference": split, **SCORES},
        **{"fid_floor": 1.0, "floor": {**SCORES, "split": "test"}, "memorised": memorised, "notes": ["x"]},
        "classes": {"accuracy": 0.5, "worst": "Bag", "per_class": [of_class | {"floor": SCORES_OF_CLASS}]},
        **{"inception": None, "seconds": 1.5},
    }
    files.write_json(path, evaluation)
    return path


def _evaluation_of_today(folder: Path) -> Path:
    """The same as it is written now, of images of Fashion-MNIST."""
    path = _evaluation(folder)
    files.write_json(path, completed(json.loads(path.read_text())))
    return path


def _read_evaluation(path: Path) -> Any:
    read = demo.evaluation(path.parents[2])
    for row in page.scores(read):
        assert f"{row['value']:.3g}"
        assert f"{row['floor']:.3g}"
    return read


def _cached(folder: Path) -> Path:
    _read_cached(folder / "evaluation" / "x")  # makes the file, as the judge does
    (path,) = folder.rglob("*.npz")
    return path


def _read_cached(path: Path) -> Any:
    def compute() -> cache.Arrays:
        return {"features": np.arange(12.0).reshape(3, 4)}

    find, files.cache_dir = files.cache_dir, lambda name: path.parents[1] / name
    try:
        return _plain(cache.cached("x", ("y",), compute, {"features": (3, 4)}))
    finally:
        files.cache_dir = find


PLAN: Any = SimpleNamespace(
    checkpoint=SimpleNamespace(config=CONFIG),
    config=CONFIG,
    command=SimpleNamespace(num_images=100, stride=100, overwrite=False),
)
TERMS = {"prior": RNG.standard_normal(3), "terms": RNG.standard_normal((3, 10))}
NO_TERMS = {"prior": np.empty(0), "terms": np.empty((0, 10))}


def _partial_samples(folder: Path) -> Path:
    files.write_npz(folder / sample.PARTIAL, images=PIXELS, origin="{}")
    return folder / sample.PARTIAL


def _partial_bits(folder: Path) -> Path:
    files.write_npz(folder / bits.PARTIAL, origin="{}", seconds=1.5, **TERMS)
    return folder / bits.PARTIAL


def _go_on_sampling(path: Path) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        pixels = sample._finished(SimpleNamespace(**vars(PLAN), out=path.parent), "{}")
    assert (pixels.dtype, pixels.shape[1:]) == (np.uint8, (28, 28, 1))
    return pixels.tobytes()


def _go_on_with_bits(path: Path) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        done = batchwise.finished(path, "{}", NO_TERMS)
    prior, terms = done.values["prior"], done.values["terms"]
    assert terms.shape == (len(prior), 10)
    assert np.isfinite([*prior, *terms.ravel(), done.seconds]).all()
    return prior.tobytes(), terms.tobytes(), done.seconds


def _png(folder: Path) -> Path:
    images.write_png(folder / "x.png", images.grid(PIXELS))
    return folder / "x.png"


def _read_png(path: Path) -> Any:
    pixels = pictures.read_png(path, "the way out")
    assert (pixels.ndim, pixels.dtype) == (3, np.uint8)
    return pixels.shape, pixels.tobytes()


def _gif(folder: Path) -> Path:
    images.write_gif(folder / "x.gif", [images.grid(PIXELS[:1] + level) for level in range(3)])
    return folder / "x.gif"


def _read_gif(path: Path) -> Any:
    frames = page.gif_frames(pictures.read_gif(path, "the way out"))
    page.strip(frames, images.grid(PIXELS[:1]).shape[1])
    return [frame.tobytes() for frame in frames]


def _onnx(folder: Path) -> Path:
    """A network of the right ends that sums up rows of pixels."""
    given = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["n", 28, 28, 1])
    made = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("features", 128), ("logits", 10))
    ]
    bounds = {"zero": [0], "ten": [10], "many": [128], "axis": [1], "flat": [0, -1]}
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Reshape", ["floats", "flat"], ["rows"]),
        onnx.helper.make_node("Slice", ["rows", "zero", "many", "axis"], ["features"]),
        onnx.helper.make_node("Slice", ["rows", "zero", "ten", "axis"], ["logits"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in bounds.items()]
    graph = onnx.helper.make_graph(nodes, "rows", [given], made, constants)
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.save(model, folder / "x.onnx")
    return folder / "x.onnx"


def _extract(path: Path) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        return _plain(vars(Extractor(path)(PIXELS[:BATCH])))


# --- Data ---------------------------------------------------------------------------------------------------

IDX = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in PIXELS.shape[:3]) + PIXELS.tobytes()


def _idx(name: str, content: bytes) -> Reader:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def read(path: Path) -> Any:
        return idx.read_idx(path, PIXELS.shape[:3], hashlib.sha256(IDX).hexdigest()).tobytes()

    return Reader("bytes", make, read, strict=True)


MEMBERS = {"a/images": PIXELS.tobytes(), "b": b"labels", "a": b"beside"}


def _zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    return folder / "x.zip"


def _tar(folder: Path) -> Path:
    with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
        for name, content in MEMBERS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return folder / "x.tar.gz"


def _read_archive(path: Path) -> Any:
    """As if the damaged file were the right one: its hash would refuse it otherwise."""
    sizes = {name: len(content) for name, content in MEMBERS.items() if name != "a"}
    try:
        return archives.members(path, hashlib.sha256(path.read_bytes()).hexdigest(), sizes)
    except BadFileError as bad:
        raise UserError(f"{path} {bad}: replace it with a fresh copy") from None


def _own_idx(folder: Path) -> Path:
    for start in ("train", "t10k"):
        (folder / f"{start}-images-idx3-ubyte").write_bytes(IDX)
        (folder / f"{start}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\3" + bytes([0, 2, 1]))
    (folder / own_idx.CLASSES).write_text("coat\nbag\nshoe\n")
    return folder


def _own(name: str) -> Reader:
    def make(folder: Path) -> Path:
        return _own_idx(folder) / name

    def read(path: Path) -> Any:
        splits = own_idx.load(str(path.parent), FolderConfig())
        for split in splits:
            assert split.images.dtype == split.labels.dtype == np.uint8
            assert split.images.shape[0] == len(split.labels)
            assert split.images.shape[1] == split.images.shape[2]
            assert int(split.labels.max()) < len(split.class_names)
        return [(split.images.tobytes(), split.labels.tobytes(), split.class_names, split.sha256) for split in splits]

    return Reader("bytes", make, read)


def _picture(kind: str, **options: Any) -> Reader:
    """A picture of the user's own, of which only PNG's form would show that a bit of it changed."""

    def make(folder: Path) -> Path:
        exif = Image.Exif()
        exif[0x0112] = 6  # of the orientation, held upright
        if kind in ("PNG", "JPEG", "WEBP"):
            options["exif"] = exif
        Image.fromarray(PIXELS[..., 0].transpose(1, 2, 0)).save(folder / "x", kind, **options)
        return folder / "x"

    def read(path: Path) -> Any:
        try:
            pixels = picture.read(path, 8)
        except UserError as reason:
            raise UserError(f"{path}: {reason}") from None
        assert pixels.shape in ((8, 8, 1), (8, 8, 3))
        assert pixels.dtype == np.uint8
        return pixels.tobytes()

    return Reader("bytes", make, read)


OF_FOLDER = FolderConfig(image_size=4)
LISTED = Listing(tuple(Entry(f"{n}.png", f"{n}.png", (n, n, n), bytes([n])) for n in range(3)), (), ())


def _shrunk(folder: Path) -> Path:
    _read_shrunk(folder / "folders" / "x")  # makes the file, as the first start does
    (path,) = folder.rglob("*.npz")
    return path


def _read_shrunk(path: Path) -> Any:
    def make() -> folder_cache.Shrunk:
        return folder_cache.Shrunk(PIXELS[:, :4, :4].copy(), {})

    find, files.cache_dir = files.cache_dir, lambda name: path.parents[1] / name
    try:
        shrunk = folder_cache.cached(Path("/of/pictures"), LISTED, OF_FOLDER, make)
    finally:
        files.cache_dir = find
    assert len(shrunk.images) == len(LISTED.entries) - len(shrunk.bad)
    return shrunk.images.shape, shrunk.images.tobytes(), shrunk.bad


def _pictures(folder: Path) -> Path:
    contents = {split: {f"{split}/{n}.png": 32 * str(n) for n in range(3)} for split in ("train", "test")}
    splits = [
        Split("folder", split, PIXELS, np.zeros(3, np.int64), "a" * 64, files=hashes)
        for split, hashes in contents.items()
    ]
    picture_list.write(folder, *splits)
    return folder / picture_list.FILE


# --- Weights of another program, and names for them ---------------------------------------------------------

THEIRS = {
    **{"conv1.weight": RNG.standard_normal((8, 1, 3, 3)), "conv1.bias": RNG.standard_normal(8)},
    **{"conv2.weight": RNG.standard_normal((1, 8, 3, 3)), "conv2.bias": RNG.standard_normal(1)},
    **{"time_proj.weight": RNG.standard_normal((8, 16)), "time_proj.bias": RNG.standard_normal(8)},
}
OURS = {
    **{"time.weight": (8, 16), "time.bias": (8,), "conv_in.weight": (8, 1, 3, 3), "conv_in.bias": (8,)},
    **{"conv_out.weight": (1, 8, 3, 3), "conv_out.bias": (1,)},
}


def _theirs(folder: Path) -> Path:
    safetensors.numpy.save_file(THEIRS, folder / "theirs.safetensors", {"ddpm-duet": "{}"})
    return folder / "theirs.safetensors"


def _mapping(folder: Path) -> Path:
    values = layouts._packaged("denoise_net")
    values["layouts"] = {"mine": values["layouts"]["with-time"]}
    (folder / "mine.json").write_text(json.dumps(values))
    return folder / "mine.json"


def _exchange(source: Path, layout: str | None) -> Any:
    def no_pickle(path: Path) -> Any:
        raise AssertionError(path)

    tensors = THEIRS if source.suffix == ".json" else weights.read(source, None, no_pickle)
    chosen = layouts.recognised(tensors, "denoise_net", layout, str(source))
    shown = sizes.inferred(chosen, {name: value.shape for name, value in tensors.items()})
    model = dataclasses.replace(PRESETS["two-convolutions"], **sizes.with_sizes(ModelConfig(), shown, 28))
    return _plain(convert.converted(chosen, Config(model=model), tensors, OURS, str(source)))


def _read_theirs(path: Path) -> Any:
    return _exchange(path, None)


def _read_mapping(path: Path) -> Any:
    return _exchange(path, str(path))


READERS: dict[str, Reader] = {
    "checkpoint": Reader("safetensors", _checkpoint, _load, strict=True),
    "checkpoint /1": Reader("safetensors", _first_format, _load),
    "metrics.jsonl": Reader("jsonl", _log, _read_log),
    "metrics.json": Reader("json", _two_runs, _compare),
    "config.json": Reader("json", _settings, _read_settings),
    "parity.json": Reader("json", _parity, parity_table.read),
    "evaluation.json": Reader("json", _evaluation_of_today, _read_evaluation),
    "evaluation.json of before": Reader("json", _evaluation, _read_evaluation),
    "samples.npz": Reader("npz", _samples, _read_samples),
    "cached features": Reader("npz", _cached, _read_cached),
    "partial samples": Reader("npz", _partial_samples, _go_on_sampling),
    "partial bits": Reader("npz", _partial_bits, _go_on_with_bits),
    "grid.png": Reader("bytes", _png, _read_png),
    "denoising.gif": Reader("bytes", _gif, _read_gif),
    "extractor.onnx": Reader("bytes", _onnx, _extract),
    "pictures.json": Reader("json", _pictures, picture_list.read),
    "cached pictures": Reader("npz", _shrunk, _read_shrunk),
    "weights of others": Reader("safetensors", _theirs, _read_theirs),
    "mapping of names": Reader("json", _mapping, _read_mapping),
    "own picture, PNG": _picture("PNG"),
    "own picture, JPEG": _picture("JPEG"),
    "own picture, WebP": _picture("WEBP", lossless=True),
    "own picture, BMP": _picture("BMP"),
    "own picture, GIF": _picture("GIF"),
    "idx": _idx("images", IDX),
    "idx.gz": _idx("images.gz", gzip.compress(IDX, mtime=0)),
    "idx.xz": _idx("images.xz", lzma.compress(IDX)),
    "archive.zip": Reader("bytes", _zip, _read_archive),
    "archive.tar.gz": Reader("bytes", _tar, _read_archive),
    "own images": _own("train-images-idx3-ubyte"),
    "own labels": _own("t10k-labels-idx1-ubyte"),
    "own classes.txt": _own(own_idx.CLASSES),
}
