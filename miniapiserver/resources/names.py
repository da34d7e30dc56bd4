"""The syntaxes of names, labels and keys, with upstream's words for what is wrong.

My job: one function per syntax, giving a list of texts (empty when the value is fine), as apimachinery
`pkg/util/validation` and `pkg/api/validate/content`. I own no field path: callers say where the value stood.
"""

import re
from collections.abc import Callable
from functools import lru_cache

NameRule = Callable[[str, bool], list[str]]  # (name, is it a prefix that gets a suffix) -> what is wrong

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_KEY_NAME})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_HEADER = "[-A-Za-z0-9]+"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_PERCENT = "[0-9]+%"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_dns1035 = re.compile(_DNS1035).fullmatch
_key_name = re.compile(_KEY_NAME).fullmatch
_label_value = re.compile(_LABEL_VALUE).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_env_name = re.compile(_ENV_NAME).fullmatch
_header = re.compile(_HEADER).fullmatch
_http_path = re.compile(_HTTP_PATH).fullmatch
_wildcard = re.compile(_WILDCARD).fullmatch
_percent = re.compile(_PERCENT).fullmatch
_port_charset = re.compile("[-a-z0-9]+").fullmatch
_letter = re.compile("[a-z]").search

_KEY_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def regex_words(words: str, pattern: str, *examples: str) -> str:
    """How upstream words a failed pattern, doubled spaces of its examples included."""
    if not examples:
        return f"{words} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {listed}regex used for validation is '{pattern}')"


def max_length_words(limit: int) -> str:
    return f"must be no more than {limit} characters"


def range_words(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def byte_length(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))


_LABEL_WORDS = regex_words(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
    "start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_WORDS = regex_words(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_DNS1035_WORDS = regex_words(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character",
    _DNS1035,
    "my-name",
    "abc-123",
)
_KEY_NAME_WORDS = regex_words(_KEY_WORDS, _KEY_NAME, "MyName", "my.name", "123-abc")
_LABEL_VALUE_WORDS = regex_words(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY_WORDS = regex_words(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_C_IDENTIFIER_WORDS = regex_words(
    "a valid C identifier must start with alphabetic character or '_', followed by a string of "
    "alphanumeric characters or '_'",
    _C_IDENTIFIER,
    "my_name",
    "MY_NAME",
    "MyName",
)
_HEADER_WORDS = regex_words(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
)
_WILDCARD_WORDS = regex_words(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which "
    "must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric "
    "character",
    r"\*\." + _SUBDOMAIN,
    "*.example.com",
)
_PERCENT_WORDS = regex_words("a valid percent string must be a numeric string followed by an ending '%'", _PERCENT,
                             "1%", "93%")
_ENV_WORDS = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def dns_label(value: str) -> list[str]:
    if _label(value) and len(value) <= 63:
        return []
    errors = [max_length_words(63)] if byte_length(value) > 63 else []
    if not _label(value):
        errors.append("must not contain dots" if _subdomain(value) else _LABEL_WORDS)
    return errors


def dns_subdomain(value: str) -> list[str]:
    if _subdomain(value) and len(value) <= 253:
        return []
    errors = [max_length_words(253)] if byte_length(value) > 253 else []
    if not _subdomain(value):
        errors.append(_SUBDOMAIN_WORDS)
    return errors


def wildcard_dns_subdomain(value: str) -> list[str]:
    errors = [max_length_words(253)] if byte_length(value) > 253 else []
    if not _wildcard(value):
        errors.append(_WILDCARD_WORDS)
    return errors


def dns1035_label(value: str) -> list[str]:
    errors = [max_length_words(63)] if byte_length(value) > 63 else []
    if not _dns1035(value):
        errors.append(_DNS1035_WORDS)
    return errors


def label_key(value: str) -> list[str]:
    """A label key, which is also a "qualified name": `[prefix/]name`."""
    return [] if _is_label_key(value) else _label_key_errors(value)


@lru_cache(maxsize=4096)
def _is_label_key(value: str) -> bool:
    return not _label_key_errors(value)


def _label_key_errors(value: str) -> list[str]:
    parts = value.split("/")
    if len(parts) > 2:
        return [
            f"a valid label key {_KEY_NAME_WORDS} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    name, errors = parts[-1], []
    if len(parts) == 2:
        errors = (
            [f"prefix part {words}" for words in dns_subdomain(parts[0])]
            if parts[0]
            else ["prefix part must be non-empty"]
        )
    if not name:
        errors.append("name part must be non-empty")
    elif byte_length(name) > 63:
        errors.append(f"name part {max_length_words(63)}")
    if not _key_name(name):
        errors.append(f"name part {_KEY_NAME_WORDS}")
    return errors


def label_value(value: str) -> list[str]:
    if _label_value(value) and len(value) <= 63:
        return []
    errors = [max_length_words(63)] if byte_length(value) > 63 else []
    if not _label_value(value):
        errors.append(_LABEL_VALUE_WORDS)
    return errors


def _parent_directory(value: str) -> list[str]:
    if value == ".":
        return ["must not be '.'"]
    if value == "..":
        return ["must not be '..'"]
    return ["must not start with '..'"] if value.startswith("..") else []


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    errors = [max_length_words(253)] if byte_length(value) > 253 else []
    if not _config_key(value):
        errors.append(_CONFIG_KEY_WORDS)
    return errors + _parent_directory(value)


def c_identifier(value: str) -> list[str]:
    return [] if _c_identifier(value) else [_C_IDENTIFIER_WORDS]


def env_name(value: str) -> list[str]:
    """Since 1.34 every printable ASCII character but `=` may stand in a variable's name."""
    if not value:
        return ["environment variable name must be non-empty"]
    return [] if value.isascii() and value.isprintable() and "=" not in value else [_ENV_WORDS]


def http_header(value: str) -> list[str]:
    return [] if _header(value) else [_HEADER_WORDS]


def port_name(value: str) -> list[str]:
    errors = [max_length_words(15)] if byte_length(value) > 15 else []
    if not _port_charset(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _letter(value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [range_words(1, 65535)]


def percent(value: str) -> list[str]:
    return [] if _percent(value) else [_PERCENT_WORDS]


def path_segment(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def domain_path(value: str) -> list[tuple[str, str]]:
    """`acme.io/foo`: what is wrong, as (part, words) pairs."""
    host, slash, path = value.partition("/")
    if not slash or not host or not path:
        return [(value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = [(host, words) for words in dns_subdomain(host)]
    if not _http_path(path):
        errors.append((path, regex_words("Invalid path", _HTTP_PATH)))
    return errors


def _unmask(name: str, prefix: bool) -> str:
    """A prefix may end in a dash, because something will follow."""
    return name[:-2] + "a" if prefix and len(name) > 1 and name.endswith("-") else name


def subdomain_name(name: str, prefix: bool = False) -> list[str]:
    return dns_subdomain(_unmask(name, prefix))


def label_name(name: str, prefix: bool = False) -> list[str]:
    return dns_label(_unmask(name, prefix))


def path_segment_name(name: str, prefix: bool = False) -> list[str]:
    """RBAC names and everything else that only has to survive in a URL."""
    if prefix:
        return [f"may not contain '{char}'" for char in "/%" if char in name]
    return path_segment(name)


