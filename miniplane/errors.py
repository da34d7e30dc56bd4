"""What can go wrong here, as types.

MiniplaneError           one line for the person at the keyboard, exit code 1
├── OptionsError         what was asked for cannot be
├── NotRunning           the cluster is down
├── ControlError         the supervisor is there and refuses
├── StartError           `up` gave up
└── ImageError           an image archive cannot be used
"""


class MiniplaneError(Exception):
    """Root of everything that ends a command with exit code 1."""


class OptionsError(MiniplaneError):
    """What was asked for cannot be."""


class NotRunning(MiniplaneError):
    """The cluster's supervisor does not answer."""


class ControlError(MiniplaneError):
    """The supervisor answered, and refused."""


class StartError(MiniplaneError):
    """The cluster did not become ready."""


class ImageError(MiniplaneError):
    """An image archive is malformed, hostile, or not there."""
