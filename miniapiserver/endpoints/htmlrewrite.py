"""URLs in an HTML page that passed through a proxy subresource (apimachinery `proxy/transport.go`).

Pure: a page and a rule for one URL in, a page out. Everything that is no URL attribute comes out as it went in.
Works in one pass; a tag that never ends stops the rewriting, not the page.
"""

import html
import re
from collections.abc import Callable

Rewrite = Callable[[str], str]

#: Attribute → elements in which it holds a URL.
URL_ATTRIBUTES: dict[str, frozenset[str]] = {
    "href": frozenset({"a", "area", "base", "link"}),
    "src": frozenset({"img", "input", "audio", "video", "source", "script", "embed", "iframe", "frame"}),
    "codebase": frozenset({"applet", "object"}),
    "classid": frozenset({"object"}),
    "data": frozenset({"object"}),
    "usemap": frozenset({"object", "img", "input"}),
    "longdesc": frozenset({"iframe", "frame", "img"}),
    "poster": frozenset({"video"}),
    "action": frozenset({"form"}),
    "formaction": frozenset({"button", "input"}),
    "cite": frozenset({"blockquote", "q", "ins", "del"}),
    "background": frozenset({"body"}),
    "profile": frozenset({"head"}),
    "manifest": frozenset({"html"}),
    "icon": frozenset({"command"}),
}
RAW_TEXT = frozenset({"script", "style", "textarea", "title", "xmp", "noscript"})

_COMMENT_END = "-->"
_TAG = re.compile(r"<([a-zA-Z][^\s/>]*+)((?:[^>\"']|\"[^\"]*+\"|'[^']*+')*+)>")
_ATTRIBUTE = re.compile(r"([^\s\"'<>/=]++)(\s*+=\s*+)(\"[^\"]*+\"|'[^']*+'|[^\s\"'=<>`]++)")


def rewrite_page(page: str, rewrite: Rewrite) -> str:
    """The page with every URL attribute passed through `rewrite`."""
    out: list[str] = []
    position = 0
    while (start := page.find("<", position)) >= 0:
        out.append(page[position:start])
        if page.startswith("<!--", start):
            end = page.find(_COMMENT_END, start)
            if end < 0:
                position = start
                break
            position = end + len(_COMMENT_END)
            out.append(page[start:position])
            continue
        if not page[start + 1 : start + 2].isalpha():
            out.append("<")
            position = start + 1
            continue
        match = _TAG.match(page, start)
        if match is None:
            position = start
            break
        out.append(_rewrite_tag(match, rewrite))
        position = match.end()
        if (name := match[1].lower()) in RAW_TEXT:
            end = _end_of_raw_text(page, name, position)
            out.append(page[position:end])
            position = end
    out.append(page[position:])
    return "".join(out)


def _rewrite_tag(match: re.Match[str], rewrite: Rewrite) -> str:
    element = match[1].lower()

    def attribute(found: re.Match[str]) -> str:
        if element not in URL_ATTRIBUTES.get(found[1].lower(), ()):
            return found[0]
        quoted = found[3]
        mark = quoted[0] if quoted[0] in "\"'" else ""
        url = html.unescape(quoted[1:-1] if mark else quoted)
        changed = rewrite(url)
        return found[0] if changed == url else f'{found[1]}{found[2]}"{html.escape(changed)}"'

    return f"<{match[1]}{_ATTRIBUTE.sub(attribute, match[2])}>"


def _end_of_raw_text(page: str, name: str, start: int) -> int:
    match = re.compile(rf"</{re.escape(name)}", re.IGNORECASE).search(page, start)
    return match.start() if match else len(page)
