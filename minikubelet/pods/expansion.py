"""`$(VAR)` in commands, arguments and environment values.

My job: upstream's expansion grammar (third_party/forked/golang/expansion): `$(NAME)` becomes the value if there is
one and stays as it is if not; `$$` is one dollar sign, so `$$(NAME)` is the text `$(NAME)`. Pure.
"""

from collections.abc import Mapping


def expand(text: str, values: Mapping[str, str]) -> str:
    if "$" not in text:
        return text
    out: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) != -1 and dollar + 1 < len(text):
        out.append(text[position:dollar])
        replacement, used = _after_dollar(text, dollar + 1, values)
        out.append(replacement)
        position = dollar + 1 + used
    out.append(text[position:])
    return "".join(out)


def _after_dollar(text: str, start: int, values: Mapping[str, str]) -> tuple[str, int]:
    """What stands for the operator at `start`, and how many characters of the text it used up."""
    if text[start] == "$":
        return "$", 1
    if text[start] != "(":
        return "$" + text[start], 1
    end = text.find(")", start)
    if end == -1:
        return "$(", 1
    name = text[start + 1:end]
    return values.get(name, f"$({name})"), end - start + 1
