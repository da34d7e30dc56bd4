"""Reviews: questions about who a caller is and what somebody may do. Answered, never stored.

My job: their rows. What is answered is decided by authentication and authorization.
"""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource

AUTHENTICATION = Group("authentication.k8s.io", "v1", "io.k8s.api.authentication")
AUTHORIZATION = Group("authorization.k8s.io", "v1", "io.k8s.api.authorization")


def authentication_rows() -> tuple[Resource, ...]:
    return (AUTHENTICATION.review("SelfSubjectReview", "selfsubjectreviews"),
            AUTHENTICATION.review("TokenReview", "tokenreviews"))


def authorization_rows() -> tuple[Resource, ...]:
    return (AUTHORIZATION.review("LocalSubjectAccessReview", "localsubjectaccessreviews", namespaced=True),
            AUTHORIZATION.review("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
            AUTHORIZATION.review("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
            AUTHORIZATION.review("SubjectAccessReview", "subjectaccessreviews"))
