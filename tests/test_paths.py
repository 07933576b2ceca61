"""The path language: what it accepts, what it refuses, and in which words."""

import numpy as np
import pytest

from flashjax import paths

TREE = {
    "blocks": {"attn": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}},
    "norm": {"scale": np.zeros(3)},
}


def test_flatten_and_unflatten_are_inverse():
    flat = paths.flatten(TREE)
    assert list(flat) == ["blocks/attn/kernel", "blocks/attn/bias", "norm/scale"]
    assert paths.flatten(paths.unflatten(flat)) == flat


@pytest.mark.parametrize("tree", [{0: 1}, {"a/b": 1}, {"a": {"": 1}}])
def test_flatten_refuses_keys_that_are_no_path(tree):
    with pytest.raises(paths.PathError, match="cannot be part of a path"):
        paths.flatten(tree)


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a//b": 1}, {"": 1}])
def test_unflatten_refuses_what_is_no_tree(flat):
    with pytest.raises(paths.PathError):
        paths.unflatten(flat)


def test_first_match_wins_and_matches_the_whole_path():
    rules = [(r"blocks/.*", 1), (r".*kernel", 2), (r".*", 3)]
    assert paths.match(rules, "blocks/attn/kernel") == 1
    assert paths.match(rules, "head/kernel") == 2
    assert paths.match(rules, "head/kernel_2") == 3


def test_map_paths_keeps_the_form_of_the_tree():
    mapped = paths.map_paths([(r".*/kernel", "decay"), (r".*", "keep")], TREE)
    assert mapped == {
        "blocks": {"attn": {"kernel": "decay", "bias": "keep"}},
        "norm": {"scale": "keep"},
    }


def test_all_uncovered_paths_are_named_at_once():
    with pytest.raises(paths.PathError, match=r"blocks/attn/bias, norm/scale"):
        paths.map_paths([(r".*/kernel", 0)], TREE)
    with pytest.raises(paths.PathError, match="No rule matches norm/scale"):
        paths.match([], "norm/scale")


def test_idle_rules_are_an_error_only_on_request():
    rules = [(r".*", 0), (r".*/kernel", 1), (r".*/kernl", 2)]
    paths.map_paths(rules, TREE)
    with pytest.raises(paths.PathError, match=r"'\.\*/kernel', '\.\*/kernl'"):
        paths.map_paths(rules, TREE, every_rule_used=True)


def test_a_malformed_regex_is_named():
    with pytest.raises(paths.PathError, match=r"'\(' is not a regular expression"):
        paths.match([("(", 0)], "a")


def test_explain_shows_rule_shape_and_gaps():
    text = paths.explain([(r".*/kernel", "decay"), (r"head/.*", "keep")], TREE)
    assert "blocks/attn/kernel  2x3" in text
    assert "(no rule)" in text
    assert text.endswith("unused rule: head/.*")
