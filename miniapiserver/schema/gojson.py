"""What Go's JSON decoder says where Python's differs.

My job: the words of `encoding/json` for text that is no JSON, and the paths of object keys that occur twice
(sigs.k8s.io/json, strict). Both are slow paths: `decode` comes here only when the fast parser refused the text or a
count of colons says that a key was dropped. Pure; raises nothing.
"""

import json
from typing import Any

_SPACE = " \t\n\r"
_ESCAPES = '"\\/bfnrt'
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
MAX_DEPTH = 10000


class _SyntaxError(Exception):
    pass


def syntax_error(body: bytes) -> str:
    """Go's message for this text, e.g. `invalid character 'x' looking for beginning of value`."""
    try:
        scanner = _Scanner(body.decode("utf-8", "replace"))
        scanner.document()
    except _SyntaxError as error:
        return str(error)
    except RecursionError:
        return "exceeded max depth"
    return "invalid UTF-8 in string"


class _Scanner:
    """Walks the text the way Go's state machine does, only to find the first character it refuses."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> None:
        self.value()
        self.space()
        if self.at < len(self.text):
            self.refuse("after top-level value")

    def peek(self) -> str:
        if self.at >= len(self.text):
            raise _SyntaxError("unexpected end of JSON input")
        return self.text[self.at]

    def refuse(self, context: str) -> None:
        char = self.peek()
        shown = {"'": r"'\''", '"': "'\"'"}.get(char) or f"'{json.dumps(char, ensure_ascii=False)[1:-1]}'"
        raise _SyntaxError(f"invalid character {shown} {context}")

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def value(self) -> None:
        self.space()
        char = self.peek()
        if char == "{":
            self.object()
        elif char == "[":
            self.array()
        elif char == '"':
            self.string()
        elif char == "-" or char in _DIGITS:
            self.number()
        elif char in "tfn":
            self.literal({"t": "true", "f": "false", "n": "null"}[char])
        else:
            self.refuse("looking for beginning of value")

    def object(self) -> None:
        self.at += 1
        self.space()
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            self.space()
            if self.peek() != '"':
                self.refuse("looking for beginning of object key string")
            self.string()
            self.space()
            if self.peek() != ":":
                self.refuse("after object key")
            self.at += 1
            self.value()
            if self.closes("}", "after object key:value pair"):
                return

    def array(self) -> None:
        self.at += 1
        self.space()
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            self.value()
            if self.closes("]", "after array element"):
                return

    def closes(self, bracket: str, context: str) -> bool:
        self.space()
        char = self.peek()
        if char not in (",", bracket):
            self.refuse(context)
        self.at += 1
        return char == bracket

    def string(self) -> None:
        self.at += 1
        while (char := self.peek()) != '"':
            if char == "\\":
                self.at += 1
                if self.peek() == "u":
                    self.unicode()
                elif self.peek() not in _ESCAPES:
                    self.refuse("in string escape code")
            elif char < " ":
                self.refuse("in string literal")
            self.at += 1
        self.at += 1

    def unicode(self) -> None:
        for _ in range(4):
            self.at += 1
            if self.peek() not in _HEX:
                self.refuse("in \\u hexadecimal character escape")

    def number(self) -> None:
        if self.text[self.at] == "-":
            self.at += 1
            if self.peek() not in _DIGITS:
                self.refuse("in numeric literal")
        if self.text[self.at] == "0":
            self.at += 1
        else:
            self.digits()
        if self.text[self.at:self.at + 1] == ".":
            self.at += 1
            if self.peek() not in _DIGITS:
                self.refuse("after decimal point in numeric literal")
            self.digits()
        if self.text[self.at:self.at + 1] in ("e", "E"):
            self.at += 1
            if self.peek() in "+-":
                self.at += 1
            if self.peek() not in _DIGITS:
                self.refuse("in exponent of numeric literal")
            self.digits()

    def digits(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _DIGITS:
            self.at += 1

    def literal(self, word: str) -> None:
        for index, letter in enumerate(word):
            if self.peek() != letter:
                self.refuse(f"in literal {word} (expecting '{word[index]}')")
            self.at += 1


class _Repeats(dict[str, Any]):
    """An object that remembers which of its keys came twice."""

    __slots__ = ("repeated",)
    repeated: list[str]


def duplicate_fields(body: bytes) -> list[str]:
    """`duplicate field "metadata.name"` for every key that occurs again in its object."""
    try:
        tree = json.loads(body, object_pairs_hook=_remember)
    except (ValueError, RecursionError):
        return []
    problems: list[str] = []
    _collect(tree, "", problems)
    return problems


def _remember(pairs: list[tuple[str, Any]]) -> _Repeats:
    found = _Repeats()
    found.repeated = []
    for key, value in pairs:
        if key in found:
            found.repeated.append(key)
        found[key] = value
    return found


def _collect(tree: Any, path: str, problems: list[str]) -> None:
    if isinstance(tree, _Repeats):
        for key in dict.fromkeys(tree.repeated):
            problems.append(f'duplicate field "{path}{key}"')
        for key, value in tree.items():
            _collect(value, f"{path}{key}.", problems)
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            _collect(item, f"{path.removesuffix('.')}[{index}].", problems)
