"""``flashjax bench measure``: what can be measured of pictures without a judge, against a reference system."""

import argparse

from flashjax.commands import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bench", required=True, help="prompts, JSONL of flashjax bench prompts")
    parser.add_argument(
        "--pictures", required=True, nargs="+", metavar="NAME=DIR", help="systems and the folders of their pictures"
    )
    parser.add_argument("--reference", required=True, help="name of the system that all others are measured against")
    parser.add_argument("--sources", help="folder of the source pictures of edits that name none")
    parser.add_argument(
        "--extractor",
        help="whose features distributions are compared in, beside the postcards' classifier: clip-l14-336 (for CMMD), "
        "dinov2-l14, inception, or onnx, whose preprocessing is in a JSON file beside its weights",
    )
    parser.add_argument("--weights", help="the extractor as one ONNX file; nothing is fetched")
    parser.add_argument("--sha256", default="", help="of --weights, as their source says it")
    parser.add_argument("--no-ocr", action="store_true", help="read no texts on the pictures")
    parser.add_argument("--limit", type=positive, help="use only so many prompts (default: all)")
    parser.add_argument("--out", required=True, help="folder of measures.json, measures.csv and readings.jsonl")


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from flashjax import __version__
    from flashjax.bench import comparing, plan, prompts
    from flashjax.bench._measures import origin, write_measures
    from flashjax.errors import UserError

    bench = prompts.read_bench(args.bench, args.limit)
    systems = plan.read_systems(args.pictures, bench)
    if args.reference not in systems:
        raise UserError(f"--reference {args.reference} is none of the systems {', '.join(systems)}.")
    # Edits whose sources are not at hand are measured like other pictures.
    sources = plan.find_sources(bench if args.sources else [p for p in bench if p.source], args.bench, args.sources)
    extractors = _extractors(args)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    measured, reading = _measured(args, bench, systems, extractors, sources)
    told = comparing.compare(measured, args.reference, {p.id: p.category for p in bench})
    told["warnings"] += _about(measured[args.reference], extractors, reading)
    facts = dict(flashjax=__version__, bench=args.bench, **origin(args.bench, bench, systems), **reading)
    facts["extractors"] = [
        dict(name=e.name, sha256=e.sha256, dimensions=measured[args.reference].features[e.name].shape[1])
        for e in extractors
    ]
    write_measures(Path(args.out), facts | told)
    for warning in told["warnings"]:
        print(f"NOTE: {warning}")
    print(f"{len(told['rows'])} figures: {args.out}/measures.json")


def _extractors(args: argparse.Namespace) -> list:
    from pathlib import Path

    from flashjax.errors import UserError
    from flashjax.evaluate import extractors

    if not args.extractor and (args.weights or args.sha256):
        raise UserError("--weights and --sha256 belong to an --extractor; say which one it is.")
    if args.extractor == "postcards" and (args.weights or args.sha256):
        raise UserError("The extractor 'postcards' has weights of its own; leave --weights and --sha256 out.")
    if args.extractor in (None, "postcards"):
        return [extractors.load("postcards")]
    found = [extractors.load(args.extractor, args.weights, args.sha256)]
    if Path(extractors.EXTRACTORS["postcards"].weights).is_file():
        return [extractors.load("postcards"), *found]
    print("NOTE: the postcards' classifier is not installed with flashjax's code; its figures are left out.")
    return found


def _measured(args: argparse.Namespace, bench, systems, extractors, sources) -> tuple[dict, dict]:
    """What was measured of each system; the reader of texts and how many of them it read."""
    import contextlib

    from tqdm import tqdm

    from flashjax.bench import measuring
    from flashjax.evaluate import ocr

    texts, left_out, reading = {}, 0, any(p.texts or p.changed_texts for p in bench) and not args.no_ocr
    if reading:
        texts, left_out = measuring.readable_texts(bench, ocr.alphabet())
    total = sum(len(shots) for pictures in systems.values() for shots in pictures.values())
    with measuring.Readings(args.out) if reading else contextlib.nullcontext() as read:
        with tqdm(total=total, desc="measuring", unit="picture") as bar:
            found = {
                name: measuring.measure(bench, pictures, extractors, sources, read, texts, bar.update)
                for name, pictures in systems.items()
            }
        reader = read.reader if read else None
    return found, dict(reader=reader, texts=sum(map(len, texts.values())), texts_left_out=left_out)


def _about(reference, extractors, reading) -> list[str]:
    told = []
    if max(map(max, reference.sizes)) > 64 and len(extractors) == 1:
        told.append(
            "The postcards' classifier sees these pictures at 32 px and knows nothing but postcards; bring an "
            "--extractor for distances that mean something."
        )
    if reading["texts_left_out"]:
        told.append(
            f"{reading['texts_left_out']} texts have letters that {reading['reader']} cannot read; they were left out."
        )
    return told
