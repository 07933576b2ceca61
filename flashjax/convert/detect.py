"""Which model a folder holds, from its config.json, and the form of that model's parameters."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashjax.convert import MODELS
from flashjax.convert.lora import PREFIXES
from flashjax.convert.reader import ConversionError
from flashjax.convert.table import Table
from flashjax.errors import UserError
from flashjax.files import read_object


def model_of(config: Mapping[str, Any]) -> str | None:
    """The key of `MODELS` for a config.json of diffusers (``_class_name``) or transformers (``architectures``)."""
    names = {name: model for model, module in MODELS.items() for name in module.CLASSES}
    return names.get(class_of(config))


def class_of(config: Mapping[str, Any]) -> str | None:
    """The PyTorch class that a config.json names."""
    listed = config.get("architectures")
    found = config.get("_class_name") or (listed[0] if isinstance(listed, list) and listed else None)
    return found if isinstance(found, str) else None


def choose(wanted: str | None, config: Mapping[str, Any], file: Path) -> str:
    """The model to convert to: ``wanted`` (--model) or what ``config``, read from ``file``, says.

    Raises:
      ConversionError: the two disagree, or the architecture is unknown.
    """
    found = model_of(config)
    if wanted and found and wanted != found:
        raise ConversionError(f"{file} is of a {class_of(config)}, which is --model {found}, not {wanted}.")
    if not (wanted or found):
        known = ", ".join(name for module in MODELS.values() for name in module.CLASSES)
        kind = f"the architecture {class_of(config)!r}" if class_of(config) else "no architecture"
        raise ConversionError(
            f"{file} names {kind}, and flashjax knows {known}; give --model if it is one of these by another name."
        )
    return wanted or found


def fitting(layers: Sequence[str]) -> list[str]:
    """The models whose tables know all these layers of a LoRA (`lora.modules`). kohya's names, whose dots are lost, are
    known to none."""

    def known(table: Table, layer: str) -> bool:
        names = [layer]
        for prefix in PREFIXES:
            names.append(names[-1].removeprefix(prefix))
        pytorch = any(rule.place(f"{name}.weight") for rule in table.rules for name in dict.fromkeys(names))
        return pytorch or any(rule.sources(name, 0) for rule in table.native for name in names)

    return [name for name, module in MODELS.items() if all(known(module.TABLE, layer) for layer in layers)]


def form(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters' shapes and dtypes, from the model itself: the table is checked against what will be run.

    Every model's ``Config`` reads the config.json of its PyTorch class: ``from_diffusers`` or ``from_transformers``.

    Raises:
      UserError: the config.json is of another model, or of a variant that is not built here.
    """
    module = importlib.import_module(f"flashjax.models.{model}")
    return module.abstract(sizes(model, config))


def sizes(model: str, config: Mapping[str, Any], **overrides) -> Any:
    """The model's own ``Config`` for a config.json. Raises UserError as `form`."""
    from flashjax.models import checks  # JAX takes a while to import

    checks.values(config)
    made = importlib.import_module(f"flashjax.models.{model}").Config
    kind = "diffusers" if hasattr(made, "from_diffusers") else "transformers"
    return getattr(made, f"from_{kind}")(config, **overrides)


@contextlib.contextmanager
def about(file: Path) -> Iterator[None]:
    """What models say of "config.json" is said of ``file``: a pipeline has several."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("config.json", str(file), 1)) from error


def read_config(file: Path) -> dict[str, Any]:
    """The object in a config.json. Raises UserError: there is none, or it is no JSON object."""
    if not file.is_file():
        raise ConversionError(f"There is no {file}; the sizes of the model are read from it.")
    return read_object(file, "fetch it again")


def component(folder: Path, wanted: str | None) -> Path:
    """The folder itself, or the part of a whole diffusers pipeline to convert: the one of the model ``wanted``, or the
    denoiser in transformer/."""
    if (folder / "config.json").is_file():
        return folder
    parts = sorted(file.parent for file in folder.glob("*/config.json"))
    models = {part: model_of(read_config(part / "config.json")) for part in parts} if wanted else {}
    fitting = [part for part, model in models.items() if model == wanted]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and models.get(folder / "transformer"):
        told = ", ".join(f"{model} in {part.name}/" for part, model in models.items() if model)
        raise ConversionError(f"{folder} is a pipeline without {wanted}; it has {told}.")
    return folder / "transformer" if (folder / "transformer").is_dir() else folder
