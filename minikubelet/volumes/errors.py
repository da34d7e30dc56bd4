"""Why a volume cannot be set up or mounted, in the kubelet's words."""


class VolumeError(Exception):
    """Root. `event` is the reason of the event, the text its message."""

    event = "FailedMount"


class SetUpFailed(VolumeError):
    """`MountVolume.SetUp failed for volume "x" : …` (upstream's spaces)."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')
        self.volume, self.why = volume, why


class SubPathFailed(VolumeError):
    """The container cannot be created; upstream's reason for that is CreateContainerConfigError."""

    event = "Failed"


class SourceMissing(Exception):
    """One source of a volume lacks what it is told to show. Becomes part of a SetUpFailed."""
