"""Size and opening time of a report of 1,800 prompts by three systems and two judges, in headless Chromium.

    python benchmarks/bench_report.py

Pictures are 512 px of smooth noise. Opening is the time of the whole browser with the report, less that with an empty
page; the report's script has shown the first prompts by then.
"""

import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from flashjax.bench import grammar, report
from flashjax.bench.calls import Picture


def pictures(folder: Path, count: int) -> list[Picture]:
    rng, made = np.random.default_rng(0), []
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        made.append(Picture(folder / f"{i}.png", ""))
    return made


def opening(page: Path) -> float:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    # A picture of the page; its text would be 44 MB through a pipe.
    shot = page.with_suffix(".shot.png")
    argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}", page.as_uri()]
    start = time.perf_counter()
    subprocess.run(argv, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    prompts, rng, systems = grammar.t2i_bench(), random.Random(0), ("base", "teacher", "student")
    reason = "The sign reads well, but the left hand has six fingers and the horizon tilts slightly to the right."
    rows = [
        dict(kind="point", judge=j, system=s, prompt=p.id, category=p.category, seed=0, outcome="scored",
             key=f"{j}{s}{p.id}", value=rng.randint(100, 500) / 100, reason=reason, dollars=0.0)
        for j in ("one", "two") for s in systems for p in prompts
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shots = pictures(folder, 60)
        found = {s: {p.id: {0: rng.choice(shots)} for p in prompts} for s in systems}
        start, page = time.perf_counter(), folder / "report.html"
        report.write_report(page, rows, prompts, found, title="1,800", command="", reference="base")
        written, empty = time.perf_counter() - start, folder / "empty.html"
        empty.write_text("<!doctype html>")
        times = [opening(page) - opening(empty) for _ in range(5)]
        print(
            f"{len(prompts)} prompts, {3 * len(prompts)} pictures: {page.stat().st_size / 1e6:.1f} MB, written in "
            f"{written:.0f} s, opened in {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
        )


if __name__ == "__main__":
    main()
