"""YAML bodies: one document, as plain JSON values.

My job: read YAML the way sigs.k8s.io/yaml does: the first document only, keys as strings, dates as text, duplicate
keys named, and no document that grows when its aliases are written out. Raises InvalidYAML and nothing else.
"""

from typing import Any

import yaml

#: Nodes an alias may add in total; what a person writes stays far below.
MAX_ALIAS_NODES = 100_000
_MAX_DEPTH = 500


class InvalidYAML(ValueError):
    """Text that is no YAML, in the words of Go's decoder as far as they can be had."""


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(body: bytes) -> tuple[Any, list[str]]:
    """(value, problems); a problem is `line 3: key "name" already set in map`."""
    try:
        loader = _Loader(body)
        try:
            node = loader.get_node() if loader.check_node() else None
        finally:
            loader.dispose()
        if node is None:
            return None, []
        return _Reader().read(node)
    except InvalidYAML:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidYAML(_words(error)) from error


def _words(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"error converting YAML to JSON: yaml: line {error.problem_mark.line + 1}: {error.problem}"
    return f"error converting YAML to JSON: yaml: {str(error).splitlines()[0] if str(error) else 'invalid document'}"


class _Reader:
    """One pass over a node tree; counts what aliases repeat."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.seen: set[int] = set()
        self.repeated = 0
        self.scalars = yaml.SafeLoader("")

    def read(self, node: yaml.Node) -> tuple[Any, list[str]]:
        return self.value(node, 0), self.problems

    def value(self, node: yaml.Node, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise InvalidYAML("error converting YAML to JSON: yaml: exceeded max depth of 10000")
        if id(node) in self.seen or self.repeated:
            self.repeated += id(node) in self.seen
            if self.repeated > MAX_ALIAS_NODES:
                raise InvalidYAML("error converting YAML to JSON: yaml: document contains excessive aliasing")
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    inner = self.value(source, depth + 1)
                    merged = (inner if isinstance(inner, dict) else {}) | merged
                continue
            key = self.key(key_node)
            if key in found:
                self.problems.append(f'line {key_node.start_mark.line + 1}: key "{key}" already set in map')
            found[key] = self.value(value_node, depth + 1)
        return merged | found

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise InvalidYAML("error converting YAML to JSON: yaml: invalid map key: a key must be a scalar")
        value = self.scalar(node)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(node.value) if value is None or not isinstance(value, str) else value

    def scalar(self, node: yaml.Node) -> Any:
        """Dates and binary stay text: JSON has neither."""
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag in ("int", "float", "bool", "null"):
            value = self.scalars.construct_object(node)
            if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
                raise InvalidYAML("error converting YAML to JSON: json: unsupported value: " + str(node.value))
            return value
        return str(node.value)
