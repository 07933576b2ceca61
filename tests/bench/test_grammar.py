# ruff: noqa: RUF001 (Chinese punctuation)
"""The benches as data: shape, lengths, determinism, and that every fact and text belongs to its prompt."""

import re

import pytest

from flashjax import cli
from flashjax.bench import grammar, prompts
from flashjax.bench.rubrics import EDITS
from flashjax.errors import UserError

# What every person or layout is checked for.
STANDING = {
    "Each visible hand has five fingers, well formed.", "Skin shows pores and fine lines.",
    "There is no text besides what was asked for.",
    "看得见的手都有五根手指，形状正确。", "除要求的文字外没有别的文字。",
}  # fmt: skip


@pytest.fixture(scope="module")
def benches():
    return grammar.t2i_bench(), grammar.editing_bench()


@pytest.fixture(scope="module")
def written(benches):
    """What the grammar wrote."""
    return [p for bench in benches for p in bench if "hand" not in p.id]


def test_the_papers_shape(benches):
    t2i, edits = benches
    told = grammar.describe(t2i)
    assert {k: v["prompts"] for k, v in told.items()} == dict(landscape=600, portrait=600, text=600)
    assert told["text"]["chinese"] >= 190
    assert min(told[k]["chinese"] for k in ("landscape", "portrait")) >= 50
    assert min(v["words"]["p5"] for v in told.values()) > 50
    told = grammar.describe(edits)
    assert {k: v["prompts"] for k, v in told.items()} == dict.fromkeys(EDITS, 250)
    assert told["text"]["chinese"] >= 80
    for bench in benches:
        assert len({(p.prompt, p.source_prompt) for p in bench}) == len({p.id for p in bench}) == len(bench)
        assert all(len(p.facts) >= (3 if p.is_edit else 7) and len(set(p.facts)) == len(p.facts) for p in bench)


def test_a_fifth_is_long(benches):
    for bench, over, longest in ((benches[0], 200, 550), (benches[1], 60, 150)):
        lengths = {p.id: prompts.words(p.prompt) for p in bench}
        for category in dict.fromkeys(p.category for p in bench):
            mine = [p for p in bench if p.category == category]
            assert 0.2 < sum(lengths[p.id] > over for p in mine) / len(mine) < 0.35, category
            assert max(lengths[p.id] for p in mine) < longest
            levels = [prompts.difficulty(p) for p in mine]
            assert 0.2 < levels.count("hard") / len(mine) < 0.35, category
    lengths = [prompts.words(p.prompt) for p in benches[0]]
    assert sum(300 <= n <= 500 for n in lengths) > 0.05 * len(lengths)
    told = grammar.describe(benches[0])["portrait"]
    assert told["over_100"] > told["over_200"] > told["over_300"] > 0
    assert told["easy"] + told["medium"] + told["hard"] == pytest.approx(1, abs=2e-3)


def test_no_two_prompts_are_alike(benches):
    """No fact but the standing ones is in more than a third of a category's prompts."""
    for category in ("landscape", "portrait", "text"):
        mine = [p for p in benches[0] if p.category == category]
        counts = {f: sum(f in p.facts for p in mine) for p in mine[-40:] for f in set(p.facts) - STANDING}
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


def test_what_is_quoted_in_a_written_prompt_has_to_be_rendered(written):
    """Of an edit, what is quoted is rendered or stands in its source."""
    for p in written:
        quoted = re.findall("“([^”]*)”" if p.language == "zh" else '"([^"]*)"', p.prompt)
        assert all(q in p.texts or f"“{q}”" in p.source_prompt or f'"{q}"' in p.source_prompt for q in quoted), p


def test_texts_to_change_stand_in_the_source(benches):
    """Four of five edits of text change the picture where a text stands, and nowhere else."""
    marked = [p for p in benches[1] if p.changed_texts]
    assert {p.category for p in marked} == {"text"}
    assert len(marked) > 200
    for p in marked:
        assert all(f"“{t}”" in p.source_prompt or f'"{t}"' in p.source_prompt for t in p.changed_texts), p


def test_the_words_of_a_fact_come_from_its_prompt(written):
    """Four of five words of all facts of a picture, by their first four letters; of Chinese ones, of characters."""
    frame = {"there", "exactly", "person", "reads", "that", "with", "looks", "picture", *"人物这是准确为"}
    for p in (p for p in written if not p.is_edit):
        told, facts = p.prompt.lower(), " ".join(f for f in p.facts if f not in STANDING).lower()
        parts = re.findall("[\u4e00-\u9fff]", facts) if p.language == "zh" else re.findall(r"\w{4,}", facts)
        mine = [w for w in parts if w not in frame]
        assert sum(w[:4] in told for w in mine) >= 0.8 * len(mine), (p, [w for w in mine if w[:4] not in told])


def test_templates_are_filled_and_sentences_whole(written):
    for p in written:
        for text in (p.prompt, p.source_prompt, *p.facts):
            assert not re.search(r"[{}]|None|\(\)|  |\.\.|。。|，，|；；|”的的|的的", text), (p.id, text)
            assert not text or text.endswith((".", '."', '!"', '?"', "。")), (p.id, text)
        if p.language == "zh":
            assert not re.search(r"[\u4e00-\u9fff] [\u4e00-\u9fff]", re.sub("“[^”]*”", "", p.prompt)), p


def test_counts_are_told_as_they_are_drawn(benches):
    """A fact that says "exactly three boats" stands beside a prompt that says three boats, or is about what is left."""
    for p in (p for p in benches[0] if p.category == "landscape" and "hand" not in p.id):
        for fact in p.facts:
            if "exactly" in fact and "reads exactly" not in fact:
                number, *thing = fact.split("exactly ")[1].rstrip(".").replace(",", " ").split()
                assert f"{number} {thing[0]}" in p.prompt.lower(), (fact, p.prompt)
            if "恰好有" in fact:
                assert re.split("恰好有|，|。", fact)[1] in p.prompt, (fact, p.prompt)


def test_what_a_prompt_names_it_does_not_deny(written):
    for p in written:
        for fact in p.facts:
            if absent := re.fullmatch(r"There are no ([a-z ]+) in the picture\.", fact):
                rest = p.prompt.replace(f"there are no {absent[1]}", "").replace(f"There are no {absent[1]}", "")
                assert absent[1] not in rest, p.prompt


def test_a_seed_gives_the_same_and_a_smaller_bench_is_the_beginning(benches):
    small = grammar.t2i_bench(100)
    assert small[:100] == benches[0][:100]
    assert small[100:200] == benches[0][600:700]


def test_another_seed_shares_no_id_but_of_what_was_written_by_hand(benches):
    """Pictures are found by ids: those of one bench must not pass for another's."""
    other = [p for p in grammar.t2i_bench(100, seed=1) + grammar.editing_bench(40, seed=1) if "hand" not in p.id]
    assert len(other) > 100
    assert not {p.id for p in other} & {p.id for bench in benches for p in bench}


def test_articles_fit(written):
    wrong = r"\ba (?!uni|use|one\b|eu)[aeiou]|\ban (?![aeiou8]|hour|11\b|18\b)"
    for p in (p for p in written if p.language == "en"):
        told = " ".join([p.prompt, p.source_prompt, *p.facts])
        assert not re.search(wrong, told, re.IGNORECASE), (p.id, re.search(wrong, told, re.IGNORECASE))
    assert any(" an olive" in p.prompt for p in written)


def test_more_than_the_grammar_has(monkeypatch):
    monkeypatch.setattr(grammar.benches, "_TRIES", 1)
    with pytest.raises(UserError, match="The grammar has no 250 different prompts of category [a-z]+; ask for"):
        grammar.editing_bench()


def test_the_command_writes_what_judging_reads(tmp_path, capsys):
    argv = ["bench", "prompts", f"--out={tmp_path}", "--t2i=4", "--edits=2"]
    assert cli.main(argv) == 0
    assert "t2i.jsonl: 12 prompts" in (said := capsys.readouterr().out)
    assert "over 200" in said
    assert prompts.read_bench(tmp_path / "t2i.jsonl") == grammar.t2i_bench(4)
    assert prompts.read_bench(tmp_path / "edit.jsonl") == grammar.editing_bench(2)
    assert cli.main(argv) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
