"""The one path language of flashjax: a leaf of a parameter tree is named "a/b/kernel", rules are
regexes over that name.

Sharding, freezing, weight decay, LoRA and conversion all say "which leaves" in this way:

    rules = [(r".*/kernel", "decay"), (r".*", "keep")]
    map_paths(rules, params)      # a tree of the same form with one value per leaf

A regex has to match the whole path (`re.fullmatch`), the first rule that matches wins, and a path
that no rule matches is an error: nothing is decided by falling through.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flashjax.errors import UserError

Rules = Sequence[tuple[str, Any]]


class PathError(UserError):
    """Rules and tree do not fit together, or a tree cannot be written as paths."""


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Write a nested dict as a flat one, in the tree's own order.

    Args:
      tree: nested dicts; whatever is not a dict is a leaf (arrays, `jax.ShapeDtypeStruct`, specs,
        ...).

    Returns:
      {"a/b/kernel": leaf}. Empty sub-dicts have no leaf and so leave no trace.

    Raises:
      PathError: a key is not a string, is empty, or contains "/".
    """
    flat: dict[str, Any] = {}
    _flatten_into(flat, tree, "")
    return flat


def _flatten_into(flat: dict[str, Any], tree: Mapping[str, Any], prefix: str) -> None:
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise PathError(
                f"The key {key!r} under {prefix or 'the root'!r} cannot be part of a path; "
                "use non-empty strings without '/'."
            )
        if isinstance(value, Mapping):
            _flatten_into(flat, value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flatten`: {"a/b": x} becomes {"a": {"b": x}}.

    Raises:
      PathError: a path has an empty part, or one path is a leaf and also the folder of another.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        if not all(folders) or not name:
            raise PathError(f"The path {path!r} has an empty part; write it as 'a/b/kernel'.")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise PathError(f"{folder!r} in the path {path!r} is already a leaf; rename one of the two.")
        if name in node:
            raise PathError(f"The path {path!r} is already the folder of other leaves; rename one of the two.")
        node[name] = leaf
    return tree


def match(rules: Rules, path: str) -> Any:
    """Return the value of the first rule whose regex matches the whole path.

    Raises:
      PathError: no rule matches, or a regex is malformed.
    """
    return rules[_first(_compile(rules), [path])[path]][1]


def map_paths(rules: Rules, tree: Mapping[str, Any], *, every_rule_used: bool = False) -> dict[str, Any]:
    """Replace every leaf of `tree` by the value of its first matching rule.

    Args:
      rules: (regex, value) pairs, first match wins.
      tree: nested dict of any leaves; only their paths count.
      every_rule_used: also refuse rules that decide no leaf (a misspelt regex, or one hidden by an
        earlier rule).

    Raises:
      PathError: naming all the paths that no rule matches, or all the idle rules.
    """
    paths = list(flatten(tree))
    chosen = _first(_compile(rules), paths)
    if every_rule_used and (idle := sorted(set(range(len(rules))) - set(chosen.values()))):
        names = ", ".join(repr(rules[i][0]) for i in idle)
        raise PathError(
            f"These rules decide no path of the tree: {names}. "
            "They match nothing or stand after a rule that takes all they match; correct or remove "
            "them."
        )
    return unflatten({path: rules[chosen[path]][1] for path in paths})


def explain(rules: Rules, tree: Mapping[str, Any]) -> str:
    """Return a table, one line a leaf: its path, its shape, the rule that decides it and the rule's
    value.

    Paths without a rule are shown with "(no rule)" instead of an error, since this is where one
    looks for the error; rules that decide nothing are listed at the end.
    """
    flat, compiled = flatten(tree), _compile(rules)
    rows = [("path", "shape", "rule", "value")]
    used = set()
    for path, leaf in flat.items():
        index = next((i for i, regex in enumerate(compiled) if regex.fullmatch(path)), None)
        used.add(index)
        shape = "x".join(map(str, getattr(leaf, "shape", ()))) or "-"
        regex, value = ("(no rule)", "") if index is None else rules[index]
        rows.append((path, shape, regex, str(value)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"unused rule: {regex}" for i, (regex, _) in enumerate(rules) if i not in used]
    return "\n".join(lines)


def _compile(rules: Rules) -> list[re.Pattern[str]]:
    compiled = []
    for regex, _ in rules:
        try:
            compiled.append(re.compile(regex))
        except re.error as error:
            raise PathError(f"The rule {regex!r} is not a regular expression: {error}.") from error
    return compiled


def _first(compiled: Sequence[re.Pattern[str]], paths: Sequence[str]) -> dict[str, int]:
    """The index of the first matching rule for every path; one error names all the uncovered
    paths."""
    chosen = {}
    for path in paths:
        for index, regex in enumerate(compiled):
            if regex.fullmatch(path):
                chosen[path] = index
                break
    if uncovered := [path for path in paths if path not in chosen]:
        shown = ", ".join(uncovered[:20]) + (f" and {len(uncovered) - 20} more" if len(uncovered) > 20 else "")
        raise PathError(
            f"No rule matches {shown}. Rules match whole paths; add a rule, for instance ('.*', value) at the end."
        )
    return chosen
