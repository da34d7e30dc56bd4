"""Access reviews: attributes, validation and status."""

from typing import Any

import pytest

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization import reviews
from miniapiserver.authorization.always import AlwaysAllow, AlwaysDeny, PrivilegedGroup
from miniapiserver.authorization.chain import AuthorizerChain
from miniapiserver.authorization.interface import Attributes, Decision, RulesInfo, Verdict
from miniapiserver.errors import BadRequest, Invalid

JSON = dict[str, Any]
PODS = {"verb": "get", "resource": "pods", "namespace": "golden"}
ADA = UserInfo("ada", groups=("staff",))


class Fixed:
    """Says always the same and remembers the question."""

    def __init__(self, verdict: Verdict, rules: RulesInfo | None = None) -> None:
        self.verdict, self.rules = verdict, rules or RulesInfo()
        self.asked: list[Attributes] = []

    async def authorize(self, attributes: Attributes) -> Verdict:
        self.asked.append(attributes)
        return self.verdict

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        return self.rules


def test_a_subject_access_review_asks_for_somebody_else() -> None:
    review = {"spec": {"user": "u", "groups": ["g"], "uid": "1", "extra": {"Key": ["v"]}, "resourceAttributes": PODS | {
        "subresource": "log", "name": "n", "group": "apps"}}}
    asked = reviews.attributes_of_subject(review)
    assert asked == Attributes(UserInfo("u", "1", ("g",), {"key": ("v",)}), "get", True, "golden", "apps", "*", "pods",
                               "log", "n")


def test_groups_are_not_added_to_a_subject() -> None:
    assert reviews.attributes_of_subject({"spec": {"user": "u", "resourceAttributes": PODS}}).user.groups == ()


def test_a_self_review_asks_for_the_caller() -> None:
    assert reviews.attributes_of_self({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/x"}}}, ADA) == (
        Attributes(ADA, "get", is_resource=False, path="/x"))


@pytest.mark.parametrize(("selector", "text"), [
    ({"rawSelector": "spec.nodeName=n"}, "spec.nodeName=n"),
    ({"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}, "a=b"),
    ({"requirements": [{"key": "a", "operator": "NotIn", "values": ["b"]}, {"key": "c", "operator": "Exists"}]},
     "a!=b,c"),
    ({"requirements": [{"key": "a", "operator": "Odd"}]}, "")])
def test_selectors_become_their_text(selector: JSON, text: str) -> None:
    review = {"spec": {"resourceAttributes": PODS | {"fieldSelector": selector}}}
    assert reviews.attributes_of_self(review, ADA).field_selector == text


@pytest.mark.parametrize(("spec", "metadata", "message"), [
    ({"user": "u"}, {}, "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or "
                        "resourceAttributes must be specified"),
    ({"user": "u", "resourceAttributes": PODS, "nonResourceAttributes": {"path": "/"}}, {},
     'spec.nonResourceAttributes: Invalid value: {"Path":"/","Verb":""}: cannot be specified in combination with '
     "resourceAttributes"),
    ({"resourceAttributes": PODS}, {}, 'spec.user: Invalid value: "": at least one of user or group must be specified'),
    ({"user": "u", "resourceAttributes": PODS}, {"labels": {"a": "b"}},
     'metadata: Invalid value: {"labels":{"a":"b"}}: must be empty'),
    ({"user": "u", "resourceAttributes": PODS | {"fieldSelector": {}}}, {},
     "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector "
     "is specified, requirements or rawSelector is required"),
])
def test_a_malformed_review_is_refused_in_upstreams_words(spec: JSON, metadata: JSON, message: str) -> None:
    with pytest.raises(Invalid) as error:
        reviews.attributes_of_subject({"metadata": metadata, "spec": spec})
    assert error.value.message == (
        f'.authorization.k8s.io "" is invalid: {message}')


def test_managed_fields_are_tolerated() -> None:
    reviews.attributes_of_subject({
        "metadata": {"managedFields": [{}]}, "spec": {"user": "u", "resourceAttributes": PODS}})


def test_a_local_review_stays_in_its_namespace() -> None:
    def ask(url_namespace: str, **metadata: str) -> Attributes:
        return reviews.attributes_of_local_subject(
            {"metadata": metadata, "spec": {"user": "u", "resourceAttributes": PODS}}, url_namespace)

    assert ask("golden").namespace == "golden"
    assert ask("golden", namespace="golden").namespace == "golden"
    with pytest.raises(Invalid, match=r"spec\.resourceAttributes\.namespace: .* must match metadata\.namespace"):
        ask("other")
    with pytest.raises(BadRequest, match="must match namespace: other"):
        ask("other", namespace="golden")
    with pytest.raises(Invalid, match="disallowed on this kind of request"):
        reviews.attributes_of_local_subject({"spec": {"user": "u", "nonResourceAttributes": {"path": "/"}}}, "golden")


@pytest.mark.parametrize(("verdict", "status"), [
    (Verdict(Decision.ALLOW, "because"), {"allowed": True, "reason": "because"}),
    (Verdict(Decision.NO_OPINION), {"allowed": False}),
    (Verdict(Decision.DENY, "no"), {"allowed": False, "denied": True, "reason": "no"}),
    (Verdict(Decision.NO_OPINION, "", "broken"), {"allowed": False, "evaluationError": "broken"})])
async def test_a_verdict_becomes_a_status(verdict: Verdict, status: JSON) -> None:
    answered = await reviews.answer(Fixed(verdict), Attributes(ADA, "get"), {"kind": "SubjectAccessReview"})
    assert answered == {"kind": "SubjectAccessReview", "status": status}


async def test_a_rules_review_lists_what_can_be_listed() -> None:
    chain = AuthorizerChain([PrivilegedGroup(), AlwaysAllow(), Fixed(
        Verdict(Decision.NO_OPINION), RulesInfo(incomplete=True, error="cannot say"))])
    answered = await reviews.rules(chain, {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
                                           "spec": {"namespace": "x"}}, ADA)
    assert answered["status"] == {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": True, "evaluationError": "cannot say"}
    with pytest.raises(BadRequest):
        await reviews.rules(chain, {"spec": {}}, ADA)


# --- the chain


async def decide(*authorizers: Any, user: UserInfo = ADA) -> Verdict:
    return await AuthorizerChain(authorizers).authorize(Attributes(user, "get"))


async def test_the_first_that_decides_decides() -> None:
    allow, deny = Fixed(Verdict(Decision.ALLOW, "a")), Fixed(Verdict(Decision.DENY, "d"))
    nothing = Fixed(Verdict(Decision.NO_OPINION, "n"))
    assert (await decide(nothing, allow, deny)).decision is Decision.ALLOW
    assert (await decide(nothing, deny, allow)).decision is Decision.DENY
    assert not (await decide(allow, deny)).error
    assert len(deny.asked) == 1


async def test_when_none_decides_all_reasons_are_told() -> None:
    verdict = await decide(Fixed(Verdict(Decision.NO_OPINION, "one", "e1")), Fixed(Verdict(Decision.NO_OPINION)),
                           Fixed(Verdict(Decision.NO_OPINION, "two", "e2")))
    assert verdict == Verdict(Decision.NO_OPINION, "one\ntwo", "e1, e2")


async def test_masters_come_before_every_mode() -> None:
    root = UserInfo("root", groups=("system:masters",))
    assert (await decide(PrivilegedGroup(), AlwaysDeny(), user=root)).decision is Decision.ALLOW
    refused = await decide(PrivilegedGroup(), AlwaysDeny())
    assert refused == Verdict(Decision.NO_OPINION, "Everything is forbidden.")
    assert (await decide(PrivilegedGroup(), AlwaysAllow())).decision is Decision.ALLOW
