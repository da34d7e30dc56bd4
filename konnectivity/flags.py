"""Command lines made from a config dataclass: a field is a flag.

Job: parse arguments into a frozen Config, with Go's ways (`--name=value`, `--name value`, bare booleans, durations
like `1h30m`, comma lists). Rule: a flag upstream has and we do not need is still accepted (see `ignored`), so that
existing manifests start; an unknown flag is an error.
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

C = TypeVar("C")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")


class BadConfiguration(Exception):
    """The flags do not make sense together. The message is one line for the user."""


def parse_duration(text: str) -> float:
    """Seconds, from Go's way to write durations. Every float of a config is one."""
    if text in ("0", ""):
        return 0.0
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"invalid duration {text!r} (want e.g. 30s, 1h, 1m30s)")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false", "1", "0", "t", "f"):
        raise argparse.ArgumentTypeError(f"invalid boolean {text!r}")
    return lowered in ("true", "1", "t")


def parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Any] = {
    str: str,
    int: int,
    bool: parse_bool,
    float: parse_duration,
    tuple[str, ...]: parse_list,
}


def flag(default: Any, text: str) -> Any:
    """A config field: its default and its help."""
    return dataclasses.field(default=default, metadata={"help": text})


def parse(
    config: type[C], program: str, about: str, arguments: Sequence[str] | None, ignored: Mapping[str, str]
) -> C:
    """The config the arguments describe. Exits as argparse does on unknown flags; raises BadConfiguration."""
    parser = argparse.ArgumentParser(prog=program, description=about, allow_abbrev=False)
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        bare = {"nargs": "?", "const": True} if item.type is bool else {}
        parser.add_argument(
            "--" + item.name.replace("_", "-"),
            type=_PARSERS[item.type],
            default=item.default,
            help=item.metadata.get("help", ""),
            **bare,  # type: ignore[arg-type]
        )
    for name, why in ignored.items():
        parser.add_argument("--" + name, nargs="?", help=f"accepted and ignored: {why}", dest=f"_{name}")
    parser.add_argument("-v", "--v", type=int, default=0, dest="_v", help="log level; 4 and more: debug")
    parsed = vars(parser.parse_args(arguments))
    return config(**{name: value for name, value in parsed.items() if not name.startswith("_")})
