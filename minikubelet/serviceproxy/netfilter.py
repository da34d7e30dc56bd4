"""The kernel's nftables, by the library that `nft` itself is made of.

My job: run one transaction. I own one libnftables context per call. Neighbours: `proxy` hands me `nftables.text`. No
process is started for it: the kubelet's forks belong to its runtime alone.
"""

import asyncio
import ctypes

LIBRARY = "libnftables.so.1"


class NetfilterError(Exception):
    """The ruleset could not be put in place; the text is what nft would have said."""


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NetfilterError(f"{LIBRARY}: {error}; install nftables or use --proxy-mode userspace") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    for function in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_get_error_buffer"):
        getattr(library, function).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    return library


def _run(text: str, dry_run: bool) -> None:
    library = _library()
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    if not context:
        raise NetfilterError("nftables cannot be used here (is this root?)")
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_set_dry_run(context, dry_run)
        if library.nft_run_cmd_from_buffer(context, text.encode()) != 0:
            said = library.nft_ctx_get_error_buffer(context) or b""
            raise NetfilterError(said.decode(errors="replace").strip() or "refused without a reason")
    finally:
        library.nft_ctx_free(context)


async def apply(text: str) -> None:
    """Put the transaction in place, whole or not at all. Raises NetfilterError."""
    await asyncio.to_thread(_run, text, False)


async def check(text: str) -> None:
    """Whether the kernel would take it. Raises NetfilterError."""
    await asyncio.to_thread(_run, text, True)
