"""The Kubernetes version this server implements.

My job: the `/version` document. Clients compare major and minor with their own.
"""

import platform

MAJOR, MINOR = "1", "36"
GIT_VERSION = "v1.36.2"
#: 2026-11-01, the day of this release of miniplane: fixed, so that builds are reproducible.
BUILD_DATE = "2026-11-01T00:00:00Z"


def document() -> dict[str, str]:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {"major": MAJOR, "minor": MINOR, "emulationMajor": MAJOR, "emulationMinor": MINOR,
            "minCompatibilityMajor": MAJOR, "minCompatibilityMinor": str(int(MINOR) - 1), "gitVersion": GIT_VERSION,
            "gitCommit": "miniplane", "gitTreeState": "clean", "buildDate": BUILD_DATE,
            "goVersion": f"python{platform.python_version()}", "compiler": platform.python_implementation().lower(),
            "platform": f"{platform.system().lower()}/{arch}"}
