"""`--token-auth-file`: a CSV of `token,user,uid[,"group,group"]`, read once at start.

My job: the file → a token table, with a clear error naming the line. Format: upstream `token/tokenfile`.
"""

import csv
from pathlib import Path

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.config import ConfigError


class TokenFileAuthenticator:
    def __init__(self, users: dict[str, UserInfo]) -> None:
        self._users = users

    @classmethod
    def read(cls, path: Path) -> "TokenFileAuthenticator":
        """Raises ConfigError."""
        users: dict[str, UserInfo] = {}
        with path.open(newline="") as file:
            for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
                if not row or not row[0].strip():
                    continue
                if len(row) < 3:
                    raise ConfigError(f"--token-auth-file {path}:{number}: want token,user,uid[,groups], "
                                      f"found {len(row)} columns")
                groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
                users[row[0]] = UserInfo(row[1], row[2], groups)
        return cls(users)

    async def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> UserInfo | None:
        return self._users.get(token)
