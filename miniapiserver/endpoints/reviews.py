"""Questions that are asked by creating an object: who is this token, may he do that, who am I.

My job: TokenReview, SelfSubjectReview and the access reviews: decode, ask, answer 201, store nothing. What an
access review means is `authorization.reviews`' to say.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from miniapiserver import managedfields
from miniapiserver.apiserver import APIServer
from miniapiserver.authentication.interface import AuthenticationFailed
from miniapiserver.authorization import reviews as access
from miniapiserver.endpoints import body
from miniapiserver.endpoints.answers import representation_of
from miniapiserver.endpoints.responses import json_object
from miniapiserver.errors import BadRequest, MethodNotAllowed
from miniapiserver.registry.options import WriteOptions, write_options
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from miniapiserver.schema import types

JSON = dict[str, Any]

Answer = Callable[[Request, JSON], Awaitable[JSON]]


class Reviews:
    """Lives as long as the server."""

    def __init__(self, server: APIServer) -> None:
        self._server = server
        self._answers: dict[str, Answer] = {
            "tokenreviews": self._token, "selfsubjectreviews": self._self,
            "subjectaccessreviews": self._access, "localsubjectaccessreviews": self._local_access,
            "selfsubjectaccessreviews": self._self_access, "selfsubjectrulesreviews": self._rules}

    async def serve(self, request: Request, row: Resource) -> web.StreamResponse:
        if request.info.verb != "create" or request.info.name:
            raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
        representation = representation_of(request, transformable=False)
        write = write_options(request, "CreateOptions")
        review = await body.read_object(request, row.group, row.version, row.kind, write)
        review.setdefault("metadata", {})
        answered = await self._answers[row.plural](request, review)
        self._track(answered, row, write)
        return await json_object(request, answered, 201, representation.media_type)

    def _track(self, review: JSON, row: Resource, write: WriteOptions) -> None:
        """Upstream tracks fields of reviews as of any created object, before the status is there."""
        status = review.pop("status", None)
        managedfields.track_update(None, review, types.find(row.type_name), api_version=row.api_version,
                                   manager=write.field_manager, now=self._server.clock.rfc3339())
        if status is not None:
            review["status"] = status

    async def _token(self, request: Request, review: JSON) -> JSON:
        spec = review.get("spec") or {}
        if not spec.get("token"):
            raise BadRequest("token is required for TokenReview in authentication")
        server = self._server
        asked = tuple(spec.get("audiences") or ()) or server.config.audiences
        try:
            user = await server.bearer_tokens.authenticate_token(spec["token"], asked)
        except AuthenticationFailed as error:
            review["status"] = {"user": {}, "error": str(error)}
            return review
        review["status"] = {"authenticated": True, "user": user.with_authenticated().as_json()}
        review["status"]["audiences"] = list(server.bearer_tokens.granted_audiences(spec["token"], asked))
        return review

    async def _self(self, request: Request, review: JSON) -> JSON:
        review["metadata"]["creationTimestamp"] = self._server.clock.rfc3339()
        review["status"] = {"userInfo": request.user.as_json()}
        return review

    async def _access(self, request: Request, review: JSON) -> JSON:
        return await access.answer(self._server.authorizer, access.attributes_of_subject(review), review)

    async def _local_access(self, request: Request, review: JSON) -> JSON:
        attributes = access.attributes_of_local_subject(review, request.info.namespace)
        return await access.answer(self._server.authorizer, attributes, review)

    async def _self_access(self, request: Request, review: JSON) -> JSON:
        return await access.answer(self._server.authorizer, access.attributes_of_self(review, request.user), review)

    async def _rules(self, request: Request, review: JSON) -> JSON:
        return await access.rules(self._server.authorizer, review, request.user)
