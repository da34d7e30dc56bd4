"""Which representation a client wants (apiserver `endpoints/handlers/negotiation`).

My job: an Accept header → Representation, or NotAcceptable in upstream's words. Pure, remembered per header value.
"""

import enum
from dataclasses import dataclass
from functools import lru_cache

from miniapiserver.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
MEDIA_TYPES = (JSON, YAML, PROTOBUF)


class View(enum.Enum):
    OBJECT = ""
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"


#: (as, g, v) → view; a client lists Table in v1 and v1beta1.
VIEWS = {("Table", "meta.k8s.io", "v1"): View.TABLE, ("Table", "meta.k8s.io", "v1beta1"): View.TABLE,
         ("PartialObjectMetadata", "meta.k8s.io", "v1"): View.PARTIAL,
         ("PartialObjectMetadata", "meta.k8s.io", "v1beta1"): View.PARTIAL,
         ("PartialObjectMetadataList", "meta.k8s.io", "v1"): View.PARTIAL_LIST,
         ("PartialObjectMetadataList", "meta.k8s.io", "v1beta1"): View.PARTIAL_LIST}


@dataclass(frozen=True, slots=True)
class Representation:
    """`version` is the meta.k8s.io version of a transformed view."""

    media_type: str = JSON
    view: View = View.OBJECT
    version: str = "v1"


@dataclass(frozen=True, slots=True)
class _Range:
    media_type: str
    parameters: tuple[tuple[str, str], ...]
    quality: float


@lru_cache(maxsize=512)
def negotiate(accept: str, *, transformable: bool = False) -> Representation:
    """`transformable`: this endpoint can answer as Table or PartialObjectMetadata. Raises NotAcceptable."""
    if not accept.strip():
        return Representation()
    found = [match for item in _ranges(accept) if (match := _match(item, transformable)) is not None]
    if found:
        # Clients that put protobuf first always take JSON too, and JSON is what the cache already has.
        others = (match for match in found if match.media_type != PROTOBUF and match.view is found[0].view)
        return found[0] if found[0].media_type != PROTOBUF else next(others, found[0])
    if "as=" in accept:
        raise NotAcceptable(f"only the following media types are accepted: {', '.join(MEDIA_TYPES)}", details={})
    raise NotAcceptable("406: Not Acceptable\n\nAvailable representations: " + ", ".join(MEDIA_TYPES), details={})


def _match(item: _Range, transformable: bool) -> Representation | None:
    parameters = dict(item.parameters)
    if item.media_type in ("*/*", "application/*"):
        media_type = JSON
    elif item.media_type in MEDIA_TYPES:
        media_type = item.media_type
    else:
        return None
    wanted = parameters.get("as", "")
    if not wanted:
        return Representation(media_type)
    version = parameters.get("v", "")
    view = VIEWS.get((wanted, parameters.get("g", ""), version))
    return Representation(media_type, view, version) if view is not None and transformable else None


def _ranges(accept: str) -> list[_Range]:
    """Media ranges, best quality first, in the order given among equals."""
    ranges = []
    for part in accept.split(","):
        media_type, *rest = (word.strip() for word in part.split(";"))
        pairs = [tuple(word.partition("=")[::2]) for word in rest]
        quality = 1.0
        parameters = []
        for key, value in pairs:
            if key == "q":
                quality = _quality(value)
            else:
                parameters.append((key, value.strip('"')))
        if quality > 0:
            ranges.append(_Range(media_type.lower(), tuple(parameters), quality))
    return sorted(ranges, key=lambda item: -item.quality)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0
