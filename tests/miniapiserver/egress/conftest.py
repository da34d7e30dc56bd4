"""What all tests here may use."""

from tests.miniapiserver.egress.sshds import make_sshd, sshd

__all__ = ["make_sshd", "sshd"]
