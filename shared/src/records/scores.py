"""Scores of earlier versions, which knew one judge: the classifier of Fashion-MNIST, whose name their keys bear."""

from collections.abc import Mapping
from typing import Any

FASHION_FEATURES = "the classifier of Fashion-MNIST"
# The names of scores in any features, and those that they also have in the features of that classifier.
FASHION_KEYS = {
    "fid": "fid_fashion",
    "kid": "kid_fashion",
    "kid_std": "kid_fashion_std",
    "inception_score": "inception_score_fashion",
}


def completed(record: Mapping[str, Any]) -> Any:
    """An evaluation of metrics.json or evaluation.json, checked against its schema, with the names of today.

    What has them already is returned equal; of what earlier versions wrote, the old names stay beside.
    """
    floor, classes = record.get("floor"), record.get("classes")
    more: dict[str, Any] = {"features": record.get("features", FASHION_FEATURES)}
    if floor:
        more["floor"] = _named(floor)
    if classes:
        per_class = [_named(each) | {"floor": _named(each["floor"])} for each in classes["per_class"]]
        more["classes"] = {**classes, "per_class": per_class}
    if best := record.get("best"):
        more["best"] = _named(best)
    return {**_named(record), **more}


def with_fashion_keys(scores: Mapping[str, Any]) -> Any:
    """Scores in the features of the classifier of Fashion-MNIST under their old names as well."""
    return {**scores, **{old: scores[new] for new, old in FASHION_KEYS.items() if new in scores}}


def _named(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {**{new: scores[old] for new, old in FASHION_KEYS.items() if old in scores}, **scores}
