"""Label and field selectors: parsing in upstream's words, matching at speed.

My job: text → `LabelSelector` / `FieldSelector` → a predicate over anything that has labels and fields. No I/O. Grammar
and error texts: apimachinery `pkg/labels/selector.go`, `pkg/fields/selector.go`. Used by endpoints, watch cache,
authorization.
"""

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from miniapiserver.errors import BadRequest, quote


class Selectable(Protocol):
    """What a selector looks at."""

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def fields(self) -> Mapping[str, str]: ...


class Operator(enum.Enum):
    IN = "in"
    NOT_IN = "notin"
    EQUALS = "="
    DOUBLE_EQUALS = "=="
    NOT_EQUALS = "!="
    GREATER = "gt"
    LESS = "lt"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"


_POSITIVE = (Operator.IN, Operator.EQUALS, Operator.DOUBLE_EQUALS)
_NEGATIVE = (Operator.NOT_IN, Operator.NOT_EQUALS)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. `values` is empty for EXISTS and DOES_NOT_EXIST."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator in _POSITIVE:
            return value is not None and value in self.values
        if self.operator in _NEGATIVE:
            return value is None or value not in self.values
        if self.operator is Operator.EXISTS:
            return value is not None
        if self.operator is Operator.DOES_NOT_EXIST:
            return value is None
        return value is not None and _compare(self.operator, value, self.values[0])


def _compare(operator: Operator, value: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator is Operator.GREATER else int(value) < int(bound)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must match; none means everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    value: str
    equal: bool = True


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All terms must match; none means everything. A field an object does not have is the empty string."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(term.field, "") == term.value) is term.equal for term in self.terms)

    def exact(self, field: str) -> str | None:
        """The value that `field` must have, if the selector demands one."""
        return next((term.value for term in self.terms if term.equal and term.field == field), None)


def predicate(labels: LabelSelector, fields: FieldSelector) -> Callable[[Selectable], bool] | None:
    """One function for both; None when they select everything."""
    if labels.requirements and fields.terms:
        return lambda item: fields.matches(item.fields) and labels.matches(item.labels)
    if labels.requirements:
        return lambda item: labels.matches(item.labels)
    if len(fields.terms) == 1:
        name, value, equal = fields.terms[0].field, fields.terms[0].value, fields.terms[0].equal
        return lambda item: (item.fields.get(name, "") == value) is equal
    if fields.terms:
        return lambda item: fields.matches(item.fields)
    return None


# --- labels: text

# An identifier runs to the next blank or special symbol; of the symbols the longest known one is taken.
_TOKENS = re.compile(r"[ \t\r\n]*(?:(?P<symbol>==|=|!=|!|>|<|\(|\)|,)|(?P<word>[^=!(),><\ \t\r\n]+)|(?P<end>\Z))")
_OPERATORS = {"in": Operator.IN, "notin": Operator.NOT_IN, "=": Operator.EQUALS, "==": Operator.DOUBLE_EQUALS,
              "!=": Operator.NOT_EQUALS, ">": Operator.GREATER, "<": Operator.LESS}
_EXPECTED_OPERATORS = "in, notin, =, ==, !=, gt, lt"
_UNARY = (Operator.EXISTS, Operator.DOES_NOT_EXIST)


class _ParseError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    is_word: bool


_END = _Token("", False)


class _Parser:
    """Recursive descent over the tokens of one label selector. Lives for one parse."""

    def __init__(self, text: str) -> None:
        self._tokens = _scan(text)
        self._position = 0

    def peek(self) -> _Token:
        return self._tokens[self._position] if self._position < len(self._tokens) else _END

    def take(self) -> _Token:
        token = self.peek()
        self._position += 1
        return token

    def selector(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while self.peek() is not _END:
            if not (self.peek().is_word or self.peek().text == "!"):
                raise _ParseError(f"found '{self.peek().text}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except _ParseError as error:
                raise _ParseError(f"unable to parse requirement: {error}") from None
            self._separator()
        return requirements

    def _separator(self) -> None:
        token = self.take()
        if token is _END:
            return
        if token.text != ",":
            raise _ParseError(f"found '{token.text}', expected: ',' or 'end of string'")
        following = self.peek()
        if not (following.is_word or following.text == "!"):
            raise _ParseError(f"found '{following.text}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        token = self.take()
        negated = token.text == "!" and not token.is_word
        if negated:
            token = self.take()
        if not token.is_word:
            raise _ParseError(f"found '{token.text}', expected: identifier")
        if problems := label_key_problems(token.text):
            raise _ParseError(f"<nil>: Invalid value: {quote(token.text)}: {'; '.join(problems)}")
        if negated:  # whatever follows: in "!a=b" it is the "=" that is one too many
            return Requirement(token.text, Operator.DOES_NOT_EXIST)
        if self.peek() is _END or self.peek().text == ",":
            return Requirement(token.text, Operator.EXISTS)
        operator = self._operator()
        values = self._values() if operator in (Operator.IN, Operator.NOT_IN) else self._exact_value()
        return _checked(Requirement(token.text, operator, values))

    def _operator(self) -> Operator:
        token = self.take()
        if token.text not in _OPERATORS:
            raise _ParseError(f"found '{token.text}', expected: {_EXPECTED_OPERATORS}")
        return _OPERATORS[token.text]

    def _exact_value(self) -> tuple[str, ...]:
        if self.peek() is _END or self.peek().text == ",":
            return ("",)
        token = self.take()
        if not token.is_word:
            raise _ParseError(f"found '{token.text}', expected: identifier")
        return (token.text,)

    def _values(self) -> tuple[str, ...]:
        token = self.take()
        if token.text != "(":
            raise _ParseError(f"found '{token.text}' expected: '('")
        token = self.peek()
        if token.text == ")":
            self.take()
            return ("",)
        if not (token.is_word or token.text == ","):
            raise _ParseError(f"found '{token.text}', expected: ',', ')' or identifier")
        return self._value_list()

    def _value_list(self) -> tuple[str, ...]:
        """`a,b)`; an empty place between commas is the empty value."""
        values: set[str] = set()
        expecting = True
        while True:
            token = self.take()
            if token.text == ")" and not token.is_word:
                if expecting:
                    values.add("")
                return tuple(sorted(values))
            if token.text == "," and not token.is_word:
                if expecting:
                    values.add("")
                expecting = True
            elif token.is_word and expecting:
                values.add(token.text)
                expecting = False
            elif expecting:
                raise _ParseError(f"found '{token.text}', expected: ',', or identifier")
            else:
                raise _ParseError(f"found '{token.text}', expected: ',' or ')'")


def _scan(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKENS.match(text, position)
        assert match  # symbols, words, blanks and the end cover every character
        position = match.end()
        if match["end"] is not None:
            break
        tokens.append(_Token(match["symbol"] or match["word"], match["word"] is not None))
    return tokens


def _checked(requirement: Requirement) -> Requirement:
    """The requirement, or the errors `NewRequirement` would aggregate."""
    errors = []
    for index, value in enumerate(requirement.values):
        if requirement.operator in (Operator.GREATER, Operator.LESS) and not re.fullmatch(r"[+-]?[0-9]+", value):
            errors.append(f"values[{index}]: Invalid value: {quote(value)}: "
                          "for 'Gt', 'Lt' operators, the value must be an integer")
        if problems := label_value_problems(value):
            errors.append(f"values[{index}][{requirement.key}]: Invalid value: {quote(value)}: {'; '.join(problems)}")
    if errors:
        raise _ParseError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return requirement


def parse_label_selector(text: str) -> LabelSelector:
    """Raises BadRequest in the words of `labels.Parse`."""
    if not text:
        return LabelSelector()
    try:
        return LabelSelector(tuple(sorted(_Parser(text).selector(), key=lambda requirement: requirement.key)))
    except _ParseError as error:
        raise BadRequest(str(error)) from None


_JSON_OPERATORS = {"In": Operator.IN, "NotIn": Operator.NOT_IN, "Exists": Operator.EXISTS,
                   "DoesNotExist": Operator.DOES_NOT_EXIST, "Gt": Operator.GREATER, "Lt": Operator.LESS}


def label_selector_from(obj: Mapping[str, Any] | None) -> LabelSelector | None:
    """A metav1.LabelSelector as found in objects; None (selects nothing) for a missing one, everything for `{}`."""
    if obj is None:
        return None
    requirements = [Requirement(key, Operator.EQUALS, (value,))
                    for key, value in (obj.get("matchLabels") or {}).items()]
    for expression in obj.get("matchExpressions") or ():
        operator = _JSON_OPERATORS[expression["operator"]]
        requirements.append(Requirement(expression["key"], operator, tuple(expression.get("values") or ())))
    return LabelSelector(tuple(requirements))


# --- fields: text


def parse_field_selector(text: str, known: Sequence[str] = ("metadata.name", "metadata.namespace")) -> FieldSelector:
    """Raises BadRequest in upstream's words; `known` are the fields the resource can be selected by."""
    terms = []
    for part in sorted(re.findall(r"(?:\\.|[^\\,]|\\\Z)+", text, re.DOTALL)):
        field, value, equal = _split_term(text, part)
        if field not in known:
            raise BadRequest(_unknown_field(field, known))
        terms.append(FieldTerm(field, _unescape(value), equal))
    return FieldSelector(tuple(terms))


def _split_term(selector: str, part: str) -> tuple[str, str, bool]:
    """The first unescaped operator of a term splits it."""
    match = re.match(r"((?:\\.|[^\\=!]|!(?!=))*)(!=|==|=)(.*)", part, re.DOTALL)
    if match is None:
        raise BadRequest(f"invalid selector: '{selector}'; can't understand '{part}'")
    return match[1], match[3], match[2] != "!="


def _unknown_field(field: str, known: Sequence[str]) -> str:
    if set(known) <= {"metadata.name", "metadata.namespace"}:
        return f"{quote(field)} is not a known field selector: only " + ", ".join(quote(name) for name in known)
    return f"field label not supported: {field}"


def _unescape(value: str) -> str:
    if not re.search(r"[\\,=]", value):
        return value
    result, position = [], 0
    while position < len(value):
        char = value[position]
        if char == "\\":
            escaped = value[position + 1:position + 2]
            if escaped not in ("\\", ",", "=") or not escaped:
                raise BadRequest(f"invalid field selector: invalid escape sequence: {char}{escaped}")
            char = escaped
            position += 1
        elif char in ",=":
            raise BadRequest(f"invalid field selector: unescaped character in value: {char}")
        result.append(char)
        position += 1
    return "".join(result)


# --- what labels may look like (apimachinery pkg/api/validate/content)

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_WORDS = ("must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
               "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
               "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")
_VALUE_WORDS = ("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
                "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
_SUBDOMAIN_WORDS = ("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
                    "and must start and end with an alphanumeric character (e.g. 'example.com', "
                    "regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')")


def label_key_problems(key: str) -> list[str]:
    """What is wrong with a label key, in upstream's words; empty if nothing is."""
    parts = key.split("/")
    if len(parts) > 2:
        return [f"a valid label key {_NAME_WORDS} with an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')"]
    problems = _prefix_problems(parts[0]) if len(parts) == 2 else []
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name.encode()) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _NAME.fullmatch(name):
        problems.append(f"name part {_NAME_WORDS}")
    return problems


def _prefix_problems(prefix: str) -> list[str]:
    if not prefix:
        return ["prefix part must be non-empty"]
    problems = ["prefix part must be no more than 253 bytes"] if len(prefix) > 253 else []
    if not _SUBDOMAIN.fullmatch(prefix):
        problems.append(f"prefix part {_SUBDOMAIN_WORDS}")
    return problems


def label_value_problems(value: str) -> list[str]:
    """What is wrong with a label value, in upstream's words; empty if nothing is."""
    problems = ["must be no more than 63 bytes"] if len(value.encode()) > 63 else []
    if not _VALUE.fullmatch(value):
        problems.append(_VALUE_WORDS)
    return problems
