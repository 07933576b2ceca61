"""``flashjax bench judge`` as a command: the key stays hidden, bad input is one sentence, nothing is asked twice."""

import importlib.util
import io
import json
import logging
import pickle
import re
import struct
import subprocess
import sys
import time
import traceback
import zlib

import aiohttp
import numpy as np
import pytest
from fake_judge import FakeJudge, Running, completion
from PIL import ExifTags, Image

from flashjax import cli
from flashjax.bench import calls as calls_module
from flashjax.bench import config, endpoint, plan
from flashjax.bench import report as bench_report
from flashjax.bench.calls import Judge, read_picture
from flashjax.bench.journal import Journal
from flashjax.bench.secret import Secret, read_secret
from flashjax.data import prompts
from flashjax.errors import UserError
from flashjax.evaluate import ocr

CANARY = "sk-canary-5f2b9c71e04d"


def test_a_secret_does_not_print(monkeypatch, tmp_path):
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {secret:>40} {[secret]} {Judge('n', 'http://a/v1', 'm', key=secret)}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    monkeypatch.setenv("KEY", f" {CANARY}\n")
    assert read_secret("KEY", None).bearer() == f"Bearer {CANARY}"
    for text in ("", "short", "two words here"):
        monkeypatch.setenv("KEY", text)
        with pytest.raises(UserError, match="variable KEY"):
            read_secret("KEY", None)
    with pytest.raises(UserError, match="cannot be read"):
        read_secret(None, str(tmp_path / "none"))


@pytest.mark.parametrize("secret", [CANARY, "sk-a/b+c=d.e*f(g"])
def test_a_secret_is_hidden_in_every_spelling_of_json(secret):
    everything = "".join(f"\\u{ord(c):04x}" for c in secret)
    for spelt in (secret, secret.replace("-", "\\u002d"), secret.replace("-", "\\\\u002D"), everything):
        assert Secret(secret).hide(f'"a {spelt}."') == '"a ***."'
    assert Secret(secret).hide(json.dumps(secret).replace("/", "\\/")) == '"***"'
    assert Secret(secret).hide(secret[:-1]) == secret[:-1]


def bench(tmp_path, server, key: bool = True) -> list[str]:
    (tmp_path / "pictures").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), np.uint8)).save(tmp_path / "pictures" / f"p{i}_0.png")
    lines = [json.dumps(dict(id=f"p{i}", category="text", prompt=f"prompt {i} ", facts=["a"])) for i in range(6)]
    (tmp_path / "bench.jsonl").write_text("\n".join(lines))
    entry = dict(name="j", url=server.url, model="m", concurrency=2, tries=2, timeout=2.0)
    entry |= dict(key_env="JUDGE_KEY") if key else {}
    (tmp_path / "judges.json").write_text(json.dumps({"judges": [entry]}))
    (tmp_path / "prices.json").write_text(json.dumps({"m": dict(input=2, output=10, image_tokens=500)}))
    return [
        "bench", "judge", f"--bench={tmp_path}/bench.jsonl", "--pictures", f"s={tmp_path}/pictures",
        f"t={tmp_path}/pictures", "--reference=t", f"--judges={tmp_path}/judges.json",
        f"--prices={tmp_path}/prices.json", f"--out={tmp_path}/out", "--probes=2",
    ]  # fmt: skip


def crash(argv, expected=ZeroDivisionError) -> str:
    """The traceback of a command that crashes, with the locals of all its frames, as debuggers and pytest show them."""
    with pytest.raises(expected) as caught:
        cli.main(argv)
    below = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # not this test's own locals
    return "".join(traceback.TracebackException.from_exception(below, capture_locals=True).format())


def report(argv, tmp_path) -> list[str]:
    """The arguments of bench report after those of bench judge."""
    kept = [a for a in argv[2:] if not a.startswith(("--judges", "--prices", "--out", "--probes"))]
    return ["bench", "report", *kept, f"--judged={tmp_path}/out", f"--out={tmp_path}/report/r.html"]


def crashing(*_, **__):
    raise ZeroDivisionError


ENDINGS = ["success", "refused", "cut", "echoed", "escaped", "crash after", "crash within", "crash of the report"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_canary_key_appears_nowhere(tmp_path, monkeypatch, capfd, caplog, ending):
    echo = json.dumps({"choices": [{"message": {"content": json.dumps({"score": 3, "reasoning": CANARY})}}]})
    escaped = json.dumps({"score": 3, "reasoning": CANARY}).replace("-", "\\u002d")
    script = {
        "refused": lambda r, n: (401, f'{{"error": {{"message": "bad key {CANARY}"}}}}'.encode()),
        "cut": lambda r, n: (400, b"x" * 279 + b" " + CANARY.encode()),
        "echoed": lambda r, n: (200, echo.encode()),
        "escaped": lambda r, n: (200, completion(escaped)),
    }.get(ending, lambda r, n: "good")
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    told = ""
    with Running(FakeJudge(script)) as server:
        argv = bench(tmp_path, server)
        if ending == "crash after":
            monkeypatch.setattr(endpoint.Endpoint, "_complete", crashing)
        if ending == "crash within":  # the library's frames hold the headers
            monkeypatch.setattr(aiohttp.TCPConnector, "connect", crashing)
        if ending in ("crash after", "crash within"):
            told = crash(argv)
            assert "key=***" in told
        else:
            cli.main(argv)
        if ending == "crash within":
            assert "'Authorization': ***" in told
        else:
            assert server.headers[0]["authorization"] == f"bearer {CANARY}"
    if ending in ("success", "echoed", "escaped"):
        assert cli.main(report(argv, tmp_path)) == 0
        assert {p.suffix for p in (tmp_path / "report").iterdir()} == {".html", ".json", ".csv"}
    if ending == "crash of the report":
        monkeypatch.setattr(bench_report, "_blocks", crashing)
        told = crash(report(argv, tmp_path))
    said = capfd.readouterr()
    # "sk-can": a part of the key at the end of a text that was cut
    assert "sk-can" not in told + said.out + said.err + caplog.text
    written = [p for name in ("out", "report") for p in (tmp_path / name).rglob("*") if p.is_file()]
    assert len(written) >= (2 if "crash" in ending else 3)
    assert not [p for p in written if b"sk-can" in p.read_bytes()]


def test_the_command_twice(tmp_path, monkeypatch, capsys):
    """Points of two systems with equal pictures are one question each, and so are their pairs in both orders."""
    with Running(FakeJudge(lambda r, n: "good")) as server:
        argv = bench(tmp_path, server, key=False)
        assert cli.main([*argv, "--dry-run"]) == 0
        assert "j: 16 calls, 0 answered, 16 to ask, about 0.06, at most 0.23 US dollars" in capsys.readouterr().out
        assert not server.seen
        assert not (tmp_path / "out").exists()
        with Journal(tmp_path / "out"):  # another run, whose probes must not be drawn over
            assert cli.main(argv) == 2
        assert not (tmp_path / "out" / "probes").exists()
        cli.main(argv)
        first = sum(server.seen.values())
        assert first == 6 + 6 + 2 + 2
        cli.main(argv)
        assert sum(server.seen.values()) == first
    assert "j: 16 scored, 12 unparsable" in capsys.readouterr().out  # the pairs got scores for an answer


def test_a_report_of_one_prompt_a_category_and_of_pairs_that_only_the_second_judge_answered(tmp_path):
    """There is no interval of one value; the figures are there without."""
    both = completion(json.dumps(dict(score=3.5, winner="A", reasoning="")))
    with Running(FakeJudge()) as server, Running(FakeJudge(lambda r, n: (200, both))) as second:
        argv = bench(tmp_path, server, key=False)
        judges = [dict(name=name, url=s.url, model="m") for name, s in (("j", server), ("k", second))]
        (tmp_path / "judges.json").write_text(json.dumps(dict(judges=judges)))
        assert cli.main([*argv, "--limit=1"]) == 0
    assert cli.main(report(argv, tmp_path)) == 0
    told = json.loads((tmp_path / "report" / "r.json").read_text())
    assert told["table"][0]["cells"]["text"] == dict(value=3.5, low=None, high=None, n=1)
    assert [p["rate"] for p in told["pairs"]] == [None, dict(value=0.5, low=None, high=None, n=1)]
    assert "Pairs, both orders" in (tmp_path / "report" / "r.html").read_text()


def test_nothing_scored_is_no_success(tmp_path, capsys):
    with Running(FakeJudge(lambda r, n: "refusal")) as server:
        assert cli.main([*bench(tmp_path, server, key=False), "--limit=1"]) == 1
    assert "j: 6 refused" in capsys.readouterr().out


def test_a_dry_run_looks_at_the_budget(tmp_path, capsys):
    """Two tries of half a dollar were under way when a run was killed: they are spent."""
    with Running(FakeJudge()) as server:
        argv = [*bench(tmp_path, server, key=False), "--dry-run"]
        (tmp_path / "out").mkdir()
        line = json.dumps(dict(kind="asked", key="a", judge="j", most=0.5)) + "\n"
        (tmp_path / "out" / "journal.jsonl").write_text(2 * line)
        for budget, fits in (("1.01", "will not suffice"), ("1.10", "may not suffice"), ("2.00", "suffices")):
            assert cli.main([*argv, f"--budget={budget}"]) == 0
            told = f"The budget of {budget} {fits}: 1.00 are spent, {float(budget) - 1:.2f} are left"
            assert told in capsys.readouterr().out
        argv.remove(f"--prices={tmp_path}/prices.json")
        assert cli.main([*argv, "--budget=2"]) == 2
        assert "A budget needs prices" in capsys.readouterr().err
        assert not server.seen


def test_a_dry_run_knows_no_highest_price_of_replies_that_nothing_limits(tmp_path, capsys):
    """Such replies counted as nothing: "at most 1.63" where a cap of 1,024 tokens had 11.87."""
    with Running(FakeJudge()) as server:
        argv = [*bench(tmp_path, server, key=False), "--dry-run"]
        judges = json.loads((tmp_path / "judges.json").read_text())
        judges["judges"][0]["params"] = dict(temperature=0)
        (tmp_path / "judges.json").write_text(json.dumps(judges))
        assert cli.main(argv) == 0
    told = capsys.readouterr().out
    assert "16 to ask, about 0.06 US dollars, and no highest price, as its params have no max_tokens" in told
    assert "In all" not in told


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("bench.jsonl", '{"id": "p", "category": "c", "prompt": "x"}\n{"id": 3}', "Line 2 of *: id is no text."),
        ("bench.jsonl", "{", "Line 1 of * is not JSON"),
        ("bench.jsonl", '{"id": "../x", "category": "c", "prompt": "x"}', "its id is missing, or is more than letters"),
        ("bench.jsonl", '{"id": "q", "category": "c", "prompt": "x"}', "1 prompts have no picture in *: q."),
        ("pictures/p3_0.png", "GIF89a", "pictures/p3_0.png is not an image, or is damaged from its beginning on."),
        ("prices.json", '{"m": {"input": 1}}', "the prices of m have to be input and output in US dollars"),
        ("prices.json", '{"m": {"input": true, "output": 1, "image_tokens": 1}}', "three numbers of 0 or more"),
        ("prices.json", "{}", "has no prices of m, the model of judge j; it has none at all"),
        ("prices.json", '{"M": {"input": 1, "output": 1, "image_tokens": 1}}', "has no prices of m, *; it has M."),
        ("prices.json", '{"m": {"input": 1, "output": 1, "image_tokens": 1}, "z": "free"}', "the prices of z have"),
        ("judges.json", "[]", "judges.json is not a JSON object; README"),
        ("judges.json", '{"judges": [{"name": "j", "url": "x", "model": "m"}]}', "url has to begin with http"),
        ("judges.json", '{"judges": [{"name": "j", "url": "http://u:p@h", "model": "m"}]}', "more than an address"),
        ("judges.json", '{"judges": [{"name": "j", "url": "http://h/v1", "model": "m"}, {"name": "k", "url": '
            '"http://h/v1/", "model": "m"}]}', "j and k of * are one judge with two names"),
        ("judges.json", '{"judges": [{"name": "j", "url": "http://h/v1", "model": "m", '
            '"params": {"max_tokens": null}}]}', "max_tokens has to be a whole number of 1 or more"),
        ("judges.json", '{"judges": [{"name": "j", "api_key": "x"}]}', "unknown fields: api_key. Keys go into key_env"),
        ("judges.json", '{"judges": [{"name": "j", "url": "x", "model": "m", "key_env": "NO"}]}', "variable NO is"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, file, content, sentence):
    with Running(FakeJudge()) as server:
        argv = bench(tmp_path, server, key=False)
        (tmp_path / file).write_text(content)
        assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in sentence.split("*")), said
    assert len(said.splitlines()) == 1


def test_an_out_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    """Before a network is loaded, a judge is asked, or thumbnails are made."""
    file, folder = tmp_path / "a.txt", tmp_path / "r.csv"
    file.write_text("kept")
    folder.mkdir()
    systems = ["--bench=b.jsonl", "--pictures", "s=x"]
    actions = dict(
        prompts=[], generate=["--bench=b.jsonl", "--checkpoint=c"], judge=[*systems, "--judges=j.json"],
        measure=[*systems, "--reference=s"],
    )  # fmt: skip
    for action, argv in actions.items():
        assert cli.main(["bench", action, *argv, f"--out={file}"]) == 2
        assert f"--out {file} cannot be written: {file} is a file; give another folder." in capsys.readouterr().err
    assert cli.main(["bench", "report", *systems, f"--judged={tmp_path}", f"--out={tmp_path}/r.html"]) == 2
    assert f"{folder} is a folder; give another name." in capsys.readouterr().err
    assert file.read_text() == "kept"


def test_the_readmes_judges_are_read(request, tmp_path, monkeypatch):
    readme = (request.config.rootpath / "README.md").read_text()
    (told,) = re.findall(r'^    (\{"judges": .*?\]\})$', readme, re.M | re.S)
    (tmp_path / "judges.json").write_text(told)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    local, theirs = config.read_judges(tmp_path / "judges.json")
    assert (bool(local.key), bool(theirs.key), theirs.params) == (False, True, {"max_completion_tokens": 4096})


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("pixels", [b"garbage", zlib.compress(b"\0" * 20)])
def test_a_picture_with_broken_pixels_is_named(tmp_path, pixels):
    """Its checksums are right, and what they are of is no picture, or ends early."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0))
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=r"p\.png is not an image, or is damaged"):
        read_picture(tmp_path / "p.png")


def test_pictures_are_sent_upright_and_on_white(tmp_path):
    """A camera's picture says how it is to be turned; a result is compared with what was edited, which was upright."""
    upright = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3))
    upright.save(tmp_path / "upright.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    upright.convert("RGBA").save(tmp_path / "opaque.png")
    found = [read_picture(tmp_path / f"{name}.png") for name in ("upright", "turned", "opaque")]
    seen = [np.asarray(Image.open(io.BytesIO(picture.png()))) for picture in found]
    assert all((pixels == np.asarray(upright)).all() for pixels in seen)
    assert (prompts.read_square(str(tmp_path / "turned.png"), 4) == prompts.read_square(found[0].path, 4)).all()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = read_picture(tmp_path / "clear.png").png()
    assert Image.open(io.BytesIO(clear)).getpixel((0, 0)) == (255, 255, 255)


def test_a_decompression_bomb(tmp_path, monkeypatch, picture):
    monkeypatch.setattr(calls_module.Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(UserError, match="larger than 40 pixels"):
        read_picture(picture.path)


def test_a_bomb_that_pillow_only_warns_of_is_one_sentence(tmp_path):
    with Running(FakeJudge()) as server:
        argv = bench(tmp_path, server, key=False)
        Image.new("L", (9500, 9500)).save(tmp_path / "pictures" / "p3_0.png")
        ended = subprocess.run([sys.executable, "-m", "flashjax.cli", *argv], capture_output=True, text=True)
        assert not server.seen
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "p3_0.png is larger than 89478485 pixels; no judge takes it." in ended.stderr


def test_a_picture_changed_while_it_is_judged(tmp_path, picture):
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(picture.path)
    with pytest.raises(UserError, match="was changed while it was being judged"):
        picture.png()


def test_why_nothing_came_of_calls_is_said(tmp_path, capsys):
    with Running(FakeJudge(lambda r, n: (400, b'{"error": {"message": "this model takes no images"}}'))) as server:
        assert cli.main([*bench(tmp_path, server, key=False), "--limit=2", "--probes=0"]) == 1
    assert "without an answer: status 400: this model takes no images" in capsys.readouterr().out


def test_some_calls_without_an_answer_are_no_success(tmp_path, capsys):
    def script(request, nth):
        return "500" if "prompt 1" in json.dumps(request["messages"]) else "good"

    with Running(FakeJudge(script)) as server:
        argv = [*bench(tmp_path, server, key=False), "--probes=0"]
        assert cli.main(argv) == 1
        assert "without an answer: status 500: busy" in capsys.readouterr().out
        server.script = lambda request, nth: "good"
        assert cli.main(argv) in (0, None)


@pytest.mark.parametrize("url", ["http://localhost:99999/v1", "http://localhost:abc/v1", "http://[abc/v1"])
def test_an_address_that_is_none_is_told_before_anything_is_asked(tmp_path, capsys, url):
    with Running(FakeJudge()) as server:
        argv = bench(tmp_path, server, key=False)
    told = json.loads((tmp_path / "judges.json").read_text())
    told["judges"][0]["url"] = url
    (tmp_path / "judges.json").write_text(json.dumps(told))
    assert cli.main(argv) == 2
    assert "url has to begin with http:// or https://" in capsys.readouterr().err


def test_a_demand_can_be_read_on_a_small_picture(tmp_path):
    """At 32 px the first word alone was in the picture."""
    Image.new("RGB", (32, 32), (90, 120, 90)).save(tmp_path / "a.png")
    for text in plan._PROBES.values():
        plan._inject(tmp_path / "a.png", tmp_path / "b.png", text)
        image = np.asarray(Image.open(tmp_path / "b.png").convert("RGB"))
        assert image.shape == (256, 256, 3)
        assert text[-5:-1] in "".join(line.text for line in ocr.read([image])[0]).replace(" ", "")


def test_an_extra_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    with Running(FakeJudge()) as server:
        argv = bench(tmp_path, server, key=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda *a: None if a[0] == "aiohttp" else find(*a))
    assert cli.main(argv) == 2
    assert "This needs aiohttp; run `pip install 'flashjax[judge]'`." in capsys.readouterr().err


def test_a_reply_of_backslashes_is_read_at_once():
    begun = time.process_time()
    assert CANARY not in Secret(CANARY).hide("\\" * 400_000 + CANARY)
    assert time.process_time() - begun < 5  # quadratic, it took minutes
