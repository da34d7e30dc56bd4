"""Who asks on the insecure port: nobody knows, so everybody may do everything.

My job: the one user of `--insecure-port`, as kube-apiserver had it until 1.20 (`system:unsecured`, in
`system:masters`). Credentials are not looked at. `server` listens on loopback only and says loudly that it does.
"""

from miniapiserver.authentication.interface import AUTHENTICATED, MASTERS, Credentials, UserInfo

UNSECURED = UserInfo("system:unsecured", groups=(MASTERS, AUTHENTICATED))
#: Never another: whatever listens beyond loopback authenticates.
ADDRESS = "127.0.0.1"


class UnsecuredAuthenticator:
    async def authenticate(self, credentials: Credentials) -> UserInfo | None:
        return UNSECURED
