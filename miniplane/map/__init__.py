"""`miniplane map`: a live picture of the cluster's connections."""

from miniplane.errors import OptionsError
from miniplane.state import StateDir


def serve_map(state: StateDir, port: int, *, simulated: int, browser: bool) -> int:
    raise OptionsError("the map is being drawn")
