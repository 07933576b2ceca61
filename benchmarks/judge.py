"""How busy the client keeps a judge: a server on loopback that answers after 50 ms, 64 calls in flight.

    python benchmarks/judge.py

Busy is the mean number of calls that the server held, from the first call to the last reply, as a share of 64. Client
and server are processes of their own; each call sends a picture of 64 px and is flushed to the journal like any other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from flashjax.bench import judging, rubrics
from flashjax.bench.calls import Call, Judge, read_picture
from flashjax.bench.journal import Journal

SERVER = Path(__file__).parents[1] / "tests" / "bench" / "fake_judge.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency", type=float, default=50.0, help="of the judge, in ms")
    args = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, SERVER, str(args.latency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as book:
        path = Path(folder) / "a.png"
        Image.new("RGB", (64, 64)).save(path)
        url, picture = f"http://127.0.0.1:{int(server.stdout.readline())}/v1", read_picture(path)
        judge = Judge("fake", url, "fake", concurrency=args.in_flight)
        calls = [Call(judge, rubrics.T2I, rubrics.t2i_user(f"prompt {i}"), (picture,)) for i in range(args.calls)]
        start, processor = time.perf_counter(), time.process_time()
        judging.judge(calls, book)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        scored = sum(row["outcome"] == "scored" for row in book.replies.values())
    held = json.loads(server.communicate("")[0])
    print(
        f"{scored} of {args.calls} scored in {seconds:.1f} s, {args.calls / seconds:.0f} calls a second; "
        f"busy {held['mean'] / args.in_flight:.0%} of {args.in_flight} for {held['seconds']:.1f} s; "
        f"{processor / args.calls * 1e3:.2f} ms of the client's processor a call"
    )


if __name__ == "__main__":
    main()
