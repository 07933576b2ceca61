"""What an installation brings with it."""

from importlib import metadata

import pytest
from packaging.requirements import Requirement


def brought(name: str, extra: str, seen: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Every (package, extra) that ``name[extra]`` makes pip install, as far as it is installed here."""
    if (name, extra) in seen:
        return seen
    seen.add((name, extra))
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another system
        return seen
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for wanted in ("", *requirement.extras):
                brought(requirement.name.lower(), wanted, seen)
    return seen


@pytest.mark.parametrize("extra", ["", "postcards", "parquet", "judge"])
def test_no_torch(extra):
    """A package of weights asked for it: the quickstart installed five gigabytes of CUDA, and used none."""
    names = {name for name, _ in brought("flashjax", extra, set())}
    assert {"jax", "flax", "transformers"} <= names
    assert names.isdisjoint({"torch", "triton", "sentence-transformers", "tensorflow"})


def test_the_tests_have_it():
    assert "torch" in {name for name, _ in brought("flashjax", "test", set())}
