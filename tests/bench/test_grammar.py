"""The benches as data: shape, determinism, and that every fact and text belongs to its prompt."""

import pytest

from flashjax import cli
from flashjax.bench import grammar, prompts
from flashjax.bench.rubrics import EDITS
from flashjax.errors import UserError


@pytest.fixture(scope="module")
def benches():
    return grammar.t2i_bench(), grammar.editing_bench()


def test_the_papers_shape(benches):
    t2i, edits = benches
    told = grammar.describe(t2i)
    assert {k: v["prompts"] for k, v in told.items()} == dict(landscape=600, portrait=600, text=600)
    assert told["text"]["chinese"] == 200
    assert min(v["length"]["p5"] for v in told.values()) > 50
    assert {k: v["prompts"] for k, v in grammar.describe(edits).items()} == dict.fromkeys(EDITS, 250)
    for bench in benches:
        assert len({(p.prompt, p.source_prompt) for p in bench}) == len({p.id for p in bench}) == len(bench)
        assert all(len(p.facts) >= (3 if p.is_edit else 7) and len(set(p.facts)) == len(p.facts) for p in bench)


def test_no_two_prompts_are_alike(benches):
    """No fact but the standing ones is in more than a fifth of a category's prompts."""
    for category in ("landscape", "portrait", "text"):
        mine = [p for p in benches[0] if p.category == category]
        standing = {"Each visible hand has five fingers, well formed.", "There is no text besides what was asked for."}
        counts = {f: sum(f in p.facts for p in mine) for p in mine[-40:] for f in set(p.facts) - standing}
        assert max(counts.values()) <= 0.35 * len(mine), max(counts, key=counts.get)


def test_every_text_to_render_is_quoted_in_its_prompt_and_is_a_fact(benches):
    for p in [p for bench in benches for p in bench]:
        for text in p.texts:
            quoted = f"“{text}”" if p.language == "zh" else f'"{text}"'
            assert quoted in p.prompt, p
            assert sum(quoted in fact for fact in p.facts) >= 1, p
    assert sum(bool(p.texts) for p in benches[0]) >= 900
    chinese = [p for p in benches[1] if any(not t.isascii() for t in p.texts)]
    assert len(chinese) > 50


def test_counts_are_told_as_they_are_drawn(benches):
    """A fact that says "exactly three boats" stands beside a prompt that says three boats, or is about what is left."""
    for p in (p for p in benches[0] if p.category == "landscape" and "hand" not in p.id):
        for fact in p.facts:
            if "exactly" in fact:
                number, *thing = fact.split("exactly ")[1].rstrip(".").replace(",", " ").split()
                assert f"{number} {thing[0]}" in p.prompt.lower(), (fact, p.prompt)


def test_a_seed_gives_the_same_and_a_smaller_bench_is_the_beginning(benches):
    assert grammar.t2i_bench() == benches[0]
    small = grammar.t2i_bench(20)
    assert small[:20] == benches[0][:20]
    assert small[20:40] == benches[0][600:620]
    assert grammar.t2i_bench(60, seed=1)[:60] != benches[0][:60]


def test_articles_fit(benches):
    assert not [p.id for p in benches[0] + benches[1] if " a olive" in p.prompt + p.source_prompt + str(p.facts)]
    assert any(" an olive" in p.prompt for p in benches[0])


def test_more_than_the_grammar_has(monkeypatch):
    monkeypatch.setattr(grammar.benches, "_TRIES", 1)
    with pytest.raises(UserError, match="The grammar has no 250 different prompts of category scene; ask for"):
        grammar.editing_bench()


def test_the_command_writes_what_judging_reads(tmp_path, capsys):
    argv = ["bench", "prompts", f"--out={tmp_path}", "--t2i=4", "--edits=2"]
    assert cli.main(argv) == 0
    assert "t2i.jsonl: 12 prompts" in capsys.readouterr().out
    assert prompts.read_bench(tmp_path / "t2i.jsonl") == grammar.t2i_bench(4)
    assert prompts.read_bench(tmp_path / "edit.jsonl") == grammar.editing_bench(2)
    assert cli.main(argv) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
