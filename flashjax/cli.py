"""The command line. Sub-commands import what they need when they run, so that ``flashjax --help`` is instant."""

import argparse
import errno
import importlib
import os
import sys
import types

# name -> (module with add_arguments and run, what it does)
COMMANDS = {
    "prepare": ("flashjax.commands.prepare", "make the postcards data set: pictures, captions, text states"),
    "train": ("flashjax.commands.train", "train a teacher (flow matching) or distil a student (DMD)"),
    "plan": ("flashjax.commands.plan", "compile a run for TPUs that are not here: does it fit, what does it cost"),
    "table": ("flashjax.commands.table", "print the step table of a configuration"),
    "sample": ("flashjax.commands.sample", "draw pictures from prompts, and edit pictures"),
    "evaluate": ("flashjax.commands.evaluate", "measure a student against its teacher and write report.html"),
    "evaluate-edits": ("flashjax.commands.evaluate_edits", "measure edits: done as told, and nothing else touched"),
    "study": ("flashjax.commands.study", "run a grid of runs times seeds, and write its tables"),
    "bench": ("flashjax.commands.bench", "prompts, pictures, judges behind endpoints, and their report"),
    "guidance": ("flashjax.commands.guidance", "measure which guidance inside the loss reproduces a guided teacher"),
    "export": ("flashjax.commands.export", "write a checkpoint as a diffusers folder"),
    "convert": ("flashjax.convert.command", "bring PyTorch weights over"),
    "inspect": ("flashjax.commands.inspect", "say what a folder or file of weights is"),
}


def parser(name: str | None) -> argparse.ArgumentParser:
    """The parser; only sub-command ``name`` gets its options, as only its module is imported."""
    from flashjax import __version__

    top = argparse.ArgumentParser(prog="flashjax", description="Few-step distillation of image models in JAX.")
    top.add_argument("--version", action="version", version=f"flashjax {__version__}")
    subs = top.add_subparsers(dest="command", metavar="COMMAND")
    for command, (module, summary) in COMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        sub = subs.add_parser(command, help=summary, description=description, allow_abbrev=False)
        if command == name:
            importlib.import_module(module).add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return top


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command; returns 0, an error's status for one that a person can mend (one sentence; 2 mostly), 130 for
    Ctrl-C.

    ``argv`` None is the process's own command line; a caller that gives one keeps its process and its allocator."""
    own_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    name = next((a for a in argv if a in COMMANDS), None)
    top = parser(name)
    args, rest = top.parse_known_args(argv)
    if name is None or args.command is None:
        top.print_help()
        return 2 if argv else 0
    if rest and not getattr(args, "takes_settings", False):
        top.error(f"not understood: {' '.join(rest)} (see flashjax {name} --help)")
    args.settings = rest
    if own_process:
        from flashjax.host import keep_memory, take_gpu_memory

        keep_memory()
        take_gpu_memory()
        sys.excepthook = _ends
    # No accelerator plugin and a chatty backend would otherwise bury our own lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from flashjax.errors import UserError

    try:
        return importlib.import_module(COMMANDS[name][0]).run(args) or 0
    except (UserError, FloatingPointError, OSError) as error:
        if args.debug:
            raise
        # With its end in one piece: print writes it by itself, and another process's sentence gets in between.
        sys.stderr.write(f"flashjax {name}: {_sentence(error)}\n")
        status = error.status if isinstance(error, UserError) else UserError.status
        _leave(status)
        return status
    except KeyboardInterrupt:
        print(f"flashjax {name}: stopped.", file=sys.stderr)
        _leave(130)
        return 130


def _ends(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """What nobody foresaw is told whole, and a process of several leaves with 1: waited for by the others, and they by
    it, all would abort after minutes, with the status of a lost host, after which runs are started again."""
    sys.__excepthook__(kind, error, trace)
    _leave(getattr(error, "status", 1))


def _leave(code: int) -> None:
    """Of several processes one that fails must not wait for the others, which wait for it."""
    if "jax" in sys.modules:
        from flashjax.parallel.hosts import leave

        leave(code)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # the disk's, or one's share of it


def _sentence(error: Exception) -> str:
    """An error of the operating system says what and where; all others are sentences already."""
    if isinstance(error, OSError) and error.strerror:
        then = "; make room and start again" if error.errno in _NO_ROOM else ""
        return f"{error.filename}: {error.strerror}{then}." if error.filename else f"{error.strerror}{then}."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
