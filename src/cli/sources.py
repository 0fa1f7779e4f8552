"""The sources of settings: options, the environment, and a file, in this order of precedence."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .options import PREFIX, SETTINGS, Setting

# Variables with the same prefix that are not settings. They select and build the kernels.
OTHERS = {f"{PREFIX}{name}" for name in ("PURE", "BUILD_EXT", "SANITIZE")}
CONFIG = f"{PREFIX}CONFIG"
# The names of types in TOML, for messages.
TYPES: dict[type[object], str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


class SourceError(Exception):
    """The error for a source with an unknown setting or an invalid value, or an unreadable one."""


@dataclass(frozen=True)
class Configuration:
    """The values of settings.

    Attributes:
        values: the values by the name of the setting.
        sources: the names of the options, variables and keys of the values that are not defaults,
            for messages.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        """Return the value of a setting."""
        return self.values[name]

    def explain(self, error: Exception) -> str:
        """Return the text of an error, and the sources of the settings that it names."""
        text = str(error)
        named = [self.sources[name] for name in re.findall(r"\w+", text) if name in self.sources]
        return f"{text} ({', '.join(dict.fromkeys(named))})" if named else text


def resolve(arguments: argparse.Namespace, settings: Collection[Setting]) -> Configuration:
    """Return the values of a command's settings.

    Args:
        arguments: the given options, and ``config``, the name of a file or None.
        settings: the settings of the command. The environment and the file may contain others.

    Raises:
        SourceError: a source is not valid.
    """
    file = arguments.config or os.environ.get(CONFIG)
    found = _from_file(file) if file else {}
    found |= _from_environment()
    for setting in settings:
        value = getattr(arguments, setting.name, None)
        if value is not None:
            found[setting.name] = (value, setting.flag or setting.name)
    _read_redis_file(found)
    values = {setting.name: setting.default for setting in settings}
    values |= {name: value for name, (value, _) in found.items() if name in values}
    return Configuration(values, {name: source for name, (_, source) in found.items()})


def _from_environment() -> dict[str, tuple[object, str]]:
    """Return the values of the variables that are not empty, with their names."""
    variables = {setting.variable: setting for setting in SETTINGS.values()}
    found = {}
    for variable, text in os.environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG or variable in OTHERS:
            continue
        if variable not in variables:
            raise SourceError(
                f"the variable {variable} is not a setting of wsframe{_advice(variable, variables)}"
            )
        if text:
            setting = variables[variable]
            found[setting.name] = (_convert(setting, text, variable), variable)
    return found


def _from_file(name: str) -> dict[str, tuple[object, str]]:
    """Return the values of a file, with its name and their keys."""
    try:
        keys = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {name}: {error.strerror} (--config)") from None
    except ValueError as error:
        raise SourceError(f"{name} is not valid TOML: {error}") from None
    found = {}
    for key, value in keys.items():
        setting = SETTINGS.get(key)
        if setting is None:
            if isinstance(value, dict):
                raise SourceError(f"{name}: settings are not in tables: remove [{key}]")
            raise SourceError(
                f"{name}: {key!r} is not a setting of wsframe{_advice(key, SETTINGS)}"
            )
        source = f"{name}: {key}"
        found[key] = (_convert(setting, _text(setting, value, source), source), source)
    return found


def _text(setting: Setting, value: object, source: str) -> str:
    """Return a value of a TOML file as text."""
    kind = setting.kind
    if type(value) not in kind.types:
        expected = " or ".join(TYPES[each] for each in kind.types)
        shown = "" if kind.secret else f" {value!r}"
        raise SourceError(
            f"{source}: expected {expected}, got {TYPES.get(type(value), 'a time')}{shown}"
        )
    try:
        return kind.text(value)
    except argparse.ArgumentTypeError as error:
        raise SourceError(f"{source}: {error}") from None


def _convert(setting: Setting, text: str, source: str) -> object:
    try:
        return setting.kind.convert(text)
    except argparse.ArgumentTypeError as error:
        raise SourceError(f"{source}: {error}") from None


def _advice(name: str, names: Iterable[str]) -> str:
    similar = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _read_redis_file(found: dict[str, tuple[object, str]]) -> None:
    """Replace the name of a file by the URL that it contains."""
    if "redis_file" not in found:
        return
    file, source = found.pop("redis_file")
    if "redis" in found:
        raise SourceError(
            f"redis and redis_file cannot be combined ({found['redis'][1]}, {source})"
        )
    try:
        url = Path(str(file)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SourceError(f"cannot read {file}: {reason} ({source})") from None
    found["redis"] = (url, source)
