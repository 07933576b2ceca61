"""Pickled weights (.bin, .pt) as safetensors, in a process of their own that may do nothing else.

A pickle is a program for a small machine inside of Python. ``torch.load(weights_only=True)`` lets that program make
tensors only, but has been got around before (CVE-2025-32434, CVE-2026-24747), so it runs apart: without environment and
network, without other processes, and with one file that it may write. This keeps out what goes through Python; it is no
wall against code that corrupts memory. Run as a script, this file does not import flashjax.
"""

import json
import os
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.remove", "os.rename",
    "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.putenv", "shutil.",
    "ctypes.dlopen", "ctypes.dlsym", "pty.", "signal.pthread_kill", "os.kill",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MAX_SIZE = 1 << 40


def convert(files: list[Path], folder: Path) -> None:
    """Write every pickle as a numbered safetensors file into ``folder``, one process after the other.

    Raises:
      ConversionError: PyTorch is missing, or a file holds anything but named tensors.
    """
    from flashjax.convert.reader import ConversionError

    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files, 1):
        target = folder / f"model-{number:05}-of-{len(files):05}.safetensors"
        command = [sys.executable, "-I", __file__, str(file.resolve()), str(target.resolve())]
        ended = subprocess.run(command, env={"OMP_NUM_THREADS": "1"}, cwd=folder, capture_output=True, text=True)
        if ended.returncode:
            raise ConversionError(f"{file} could not be read as weights: {_reason(ended)}")


def _reason(ended: subprocess.CompletedProcess) -> str:
    """The line that says what happened, of a sentence or of a traceback."""
    lines = ended.stderr.strip().splitlines() or [f"the process ended with status {ended.returncode}"]
    return next((line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)), lines[-1])[:300]


def restrict(target: str) -> None:
    """From here on this process writes ``target`` and nothing else, and starts and reaches nothing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_SIZE, _MAX_SIZE))

    def hook(event: str, args: tuple) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"the file tried to do more than hold weights ({event})")
        if event == "open" and args[0] != target:
            mode, flags = args[1] or "", args[2] or 0
            if any(letter in mode for letter in "wax+") or flags & _WRITING:
                raise PermissionError(f"the file tried to write {args[0]!r}")

    sys.addaudithook(hook)


def _main(source: str, target: str) -> None:
    try:
        import torch
    except ImportError:
        sys.exit("--allow-pickle needs PyTorch (pip install torch)")
    names = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
        torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    }  # fmt: skip
    restrict(target)
    found = torch.load(source, map_location="cpu", weights_only=True, mmap=_is_zip(source))
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        sys.exit("it holds no named tensors")
    fields, end = {}, 0
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.dtype not in names:
            sys.exit(f"{str(name)[:80]!r} is no tensor of a known dtype")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        fields[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(fields).encode()
    header += b" " * (-len(header) % 8)
    with open(target, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in found.values():
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _is_zip(source: str) -> bool:
    """Files of before PyTorch 1.6 are no archives, and cannot be mapped."""
    with open(source, "rb") as file:
        return file.read(4) == b"PK\3\4"


if __name__ == "__main__":
    _main(*sys.argv[1:])
