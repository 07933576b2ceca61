"""``flashjax prepare``: the postcards, offline, from code, fonts and artwork that packages carry; or prompts of one's
own."""

import argparse

from flashjax.commands import in_pixels, non_negative, seed
from flashjax.data.manifest import read_manifest

# What is for postcards alone and for prompts of one's own, and what each is where it is not given.
_OF_POSTCARDS = dict(split="train", count=2000, edits=False, prompts_only=False, seed=0, categories=None)
_OF_OWN = dict(source_size=None, name="prompts", skip_limit=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder to write SPLIT.arrayrecord and SPLIT.json to")
    parser.add_argument(
        "--split", choices=("train", "teacher", "heldout", "heldout_words"),
        help="train: captions leave most things open; teacher: they say more; heldout: pictures and captions that "
        "training never shows; heldout_words: signs with words that it never shows (default train)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, help="postcards a category (default 2000)")
    parser.add_argument(
        "--size", type=in_pixels, help="side of the pictures in pixels (default 32; with --encoder 1024)"
    )
    parser.add_argument(
        "--edits", action="store_true", default=None, help="pictures, instructions, results: SPLIT_edits"
    )
    parser.add_argument(
        "--prompts-only", action="store_true", default=None, help="no pictures: all that distillation needs"
    )
    parser.add_argument("--seed", type=seed, help="another seed makes another set (default 0)")
    parser.add_argument(
        "--categories", nargs="+", help="landscape, portrait, text (default: all); one named twice gets twice as many"
    )
    own = parser.add_argument_group("prompts of your own")
    own.add_argument(
        "--from", dest="files", nargs="+", metavar="FILE",
        help=".jsonl or .parquet with prompt and category a row; with the path of a picture as image, one to learn "
        "from; with one as source, or a list of several, edits",
    )  # fmt: skip
    own.add_argument("--source-size", type=in_pixels, help="side of the pictures to edit in pixels (default: --size)")
    own.add_argument("--name", help="of the set in --out (default prompts)")
    own.add_argument(
        "--encoder",
        help="write the text states of a released family, such as qwen_image_21, and pictures as latents of its "
        "autoencoder (default: MiniLM's, and pixels)",
    )  # fmt: skip
    own.add_argument(
        "--encoder-weights", metavar="DIR", help="its pipeline's folder: text_encoder/, tokenizer/; for pictures vae/"
    )
    own.add_argument("--also", nargs="+", default=[], metavar="TEXT", help="encode negative prompts of teachers too")
    own.add_argument(
        "--skip-limit", type=non_negative, help="rows to leave out whose pictures cannot be read (default 0)"
    )


def run(args: argparse.Namespace) -> None:
    from pathlib import Path

    from flashjax.errors import UserError, refuse_options

    if not args.out:
        raise UserError("--out is empty; give the folder of the set, or . for this one.")
    if bool(args.encoder) != bool(args.encoder_weights):
        raise UserError("--encoder and --encoder-weights go together: a family, and the folder of its pipeline.")
    if (args.encoder and not args.files) or (args.also and not args.encoder):
        raise UserError("--encoder is for prompts of your own (--from), and --also for what it encodes beside them.")
    others = _OF_POSTCARDS if args.files else _OF_OWN
    refuse_options(args, dict.fromkeys(others), "with --from" if args.files else "without --from")
    for name, value in (_OF_POSTCARDS | _OF_OWN).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.size is not None and args.prompts_only:
        raise UserError("--size is for pictures, and --prompts-only makes none; leave one of them out.")
    args.size = args.size or (1024 if args.encoder else 32)
    if not args.files:
        return _postcards(args)
    if not args.name or Path(args.name).name != args.name:
        raise UserError(f"--name is {args.name!r}; it has to be the name of a file in --out, without a folder.")
    from flashjax.data.prompts import prepare_prompts

    path = prepare_prompts(
        args.out, args.files, name=args.name, size=args.size, source_size=args.source_size,
        skip_limit=args.skip_limit, **_encoder(args),
    )  # fmt: skip
    for line in read_manifest(path)["skipped"]:
        print(f"left out: {line}")
    print(path)


def _encoder(args: argparse.Namespace) -> dict:
    """What encodes the texts, and what training will say itself where no encoder is beside it."""
    from flashjax.models import text

    if not args.encoder:
        encoder = text.default_encoder()
        return dict(encode=encoder.encode, encoder_name="all-MiniLM-L6-v2")
    from pathlib import Path

    from flashjax import released
    from flashjax.data.prompts import read_rows
    from flashjax.data.records import sources
    from flashjax.errors import UserError
    from flashjax.pictures import PROMPTS

    encoder = released.load_encoder(args.encoder_weights, args.encoder)
    # All rows of a set are edits or none, all have pictures or none, which prepare_prompts checks: the first one tells.
    first = next((row["pictures"] for file in args.files for row in read_rows(Path(file))), {})
    named = dict(encoder_name=f"{args.encoder} of {args.encoder_weights}")
    fewest, most = released.FAMILIES[args.encoder].references
    if fewest or (sources(first) and most != 0):
        if args.also:
            raise UserError("Every edit has a null of its own; leave --also out.")
        both = _picture_encoder(args)
        return named | dict(encode=both.encode, see=both.record, autoencoder=both.autoencoder.name)
    named["said"] = {"": encoder.rules.null} | {text: text for text in (*PROMPTS, *args.also)}
    if "image" in first:
        both = _picture_encoder(args)
        return named | dict(encode=both.encode, latents=both.latents, autoencoder=both.autoencoder.name)
    return named | dict(encode=encoder.encode)


def _picture_encoder(args: argparse.Namespace):
    """The encoder with the autoencoder of the family. Raises UserError for sizes that do not fit it."""
    from flashjax import released
    from flashjax.errors import UserError

    both = released.load_picture_encoder(args.encoder_weights, args.encoder)
    stride = both.autoencoder.config.stride
    if wrong := [size for size in (args.size, args.source_size or args.size) if size % stride]:
        raise UserError(f"Pictures of {wrong[0]} px do not fit the autoencoder; take a multiple of {stride}.")
    return both


def _postcards(args: argparse.Namespace) -> None:
    from flashjax.data import postcards
    from flashjax.data.prepare import prepare
    from flashjax.errors import about_settings
    from flashjax.models import text

    with about_settings():
        for category in args.categories or ():
            postcards.make(category, args.split, 0, args.seed)  # names one that there is not, before anything is loaded
    encoder = text.default_encoder()
    path = prepare(
        args.out, split=args.split, count_per_category=args.count, size=None if args.prompts_only else args.size,
        seed=args.seed, categories=args.categories, encode=encoder.encode, encoder_name="all-MiniLM-L6-v2",
        edits=args.edits,
    )  # fmt: skip
    print(path)
