"""Judges, calls and a run of them, for the tests of what is asked and of what it costs."""

from flashjax.bench import judging, rubrics
from flashjax.bench.calls import Call, Judge, Prices
from flashjax.bench.journal import Journal

PRICES = Prices(input=2.0, output=10.0, image_tokens=1000)


def make_judge(url: str, name: str = "j", **fields) -> Judge:
    return Judge(**dict(name=name, url=url, model="m", timeout=2.0, tries=4, concurrency=4) | fields)


def make_calls(judge: Judge, picture, count: int) -> list[Call]:
    return [
        Call(judge, rubrics.T2I, rubrics.t2i_user(f"prompt {i}"), (picture,), subject=dict(prompt=str(i)))
        for i in range(count)
    ]


def run(calls, folder, budget=None):
    with Journal(folder) as book:
        unasked = judging.judge(calls, book, budget)
        return judging.results(calls, book, unasked), book.spent


def number(request) -> int:
    return int(request["messages"][1]["content"][0]["text"].split("prompt ")[1].split()[0])
