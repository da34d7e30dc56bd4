"""Image names as container engines read them: `busybox` is `docker.io/library/busybox:latest`. Pure."""

from dataclasses import dataclass

DEFAULT_DOMAIN, DEFAULT_TAG = "docker.io", "latest"
LEGACY_DOMAIN = "index.docker.io"


class InvalidReference(ValueError):
    """Not an image name; the text is the kubelet's `InvalidImageName` message."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A name taken apart. One of `tag` and `digest` is set, or both."""

    repository: str
    """Domain and path: `docker.io/library/busybox`."""
    tag: str
    digest: str

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(name: str) -> Reference:
    """Raises InvalidReference."""
    rest, at, digest = name.partition("@")
    # A colon behind the last slash begins a tag; before it, a port.
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    domain, slash, remainder = path.partition("/")
    is_domain = slash and ("." in domain or ":" in domain or domain == "localhost" or domain != domain.lower())
    if not is_domain:
        domain, remainder = DEFAULT_DOMAIN, path
    domain = DEFAULT_DOMAIN if domain == LEGACY_DOMAIN else domain
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"library/{remainder}"
    if not path or (at and not digest) or not _is_path(remainder):
        raise InvalidReference(f'couldn\'t parse image name "{name}": invalid reference format')
    return Reference(f"{domain}/{remainder}", tag or ("" if digest else DEFAULT_TAG), digest)


def normalise(name: str) -> str:
    return str(parse(name))


def _is_path(path: str) -> bool:
    return all(map(_is_component, path.split("/")))


def _is_component(part: str) -> bool:
    is_plain = part.isascii() and all(character.isalnum() or character in "-_." for character in part)
    return is_plain and part != "" and part == part.lower() and part.strip("-_.") == part
