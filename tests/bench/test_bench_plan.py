"""Which prompts a limit and a probe take."""

from collections import Counter

import pytest

from flashjax.bench import plan
from flashjax.bench.calls import Judge, Picture
from flashjax.bench.prompts import Prompt, read_bench, spread, write_bench
from flashjax.errors import UserError


@pytest.mark.parametrize("sizes", [(13, 13, 13), (60, 60, 60), (5, 40, 1)])
def test_a_spread_is_even_over_categories_nested_and_from_all_over_each(sizes):
    bench = [Prompt(f"{c}-{i}", c, "x") for c, size in zip("abc", sizes, strict=True) for i in range(size)]
    before = set()
    for count in range(len(bench) + 1):
        taken = spread(bench, count)
        assert len(taken) == count
        counts = Counter(p.category for p in taken)
        full = [c for c, size in zip("abc", sizes, strict=True) if counts[c] == size]
        open_ = [counts[c] for c in "abc" if c not in full]
        assert not counts or not open_ or max(counts.values()) - min(open_) <= 1
        assert before < {p.id for p in taken} or not count
        before = {p.id for p in taken}
    assert taken == bench
    half = [int(p.id[2:]) for p in spread(bench, 24) if p.category == "b"]
    assert max(b - a for a, b in zip([-1, *half], [*half, sizes[1]], strict=True)) <= 2.1 * sizes[1] / len(half) + 1


def test_a_limit_takes_from_all_categories(tmp_path):
    write_bench(tmp_path / "b.jsonl", [Prompt(f"p{i}", "abc"[i // 13], "x") for i in range(39)])
    assert Counter(p.category for p in read_bench(tmp_path / "b.jsonl", 20)) == {"a": 7, "b": 7, "c": 6}


def test_pairs_are_of_one_seed():
    """What both systems have; a prompt of which they have none would be missing without a word."""
    prompts, judges = [Prompt("p", "c", "x"), Prompt("q", "c", "x")], [Judge("j", "http://h/v1", "m")]
    shot = {seed: Picture(f"{seed}.png", str(seed)) for seed in range(3)}
    ours, theirs = ({p.id: {s: shot[s] for s in seeds} for p in prompts} for seeds in ((0, 1), (1, 2)))
    calls = plan.pairs(prompts, "s", ours, "t", theirs, judges, {})
    assert [(c.subject["prompt"], c.subject["seed"], c.subject["order"]) for c in calls] == [
        ("p", 1, 0), ("p", 1, 1), ("q", 1, 0), ("q", 1, 1),
    ]  # fmt: skip
    theirs["q"] = {2: shot[2]}
    with pytest.raises(UserError, match=r"1 prompts have no seed of which both s and t have a picture \(q is one\)"):
        plan.pairs(prompts, "s", ours, "t", theirs, judges, {})
