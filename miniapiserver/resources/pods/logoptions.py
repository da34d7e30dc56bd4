"""Options of `pods/log`.

My job: PodLogOptions from a query, what is wrong with them, and the query the kubelet is asked with.
"""

from dataclasses import dataclass

from miniapiserver.errors import FieldError, Invalid, forbidden_field, invalid
from miniapiserver.resources.pods.queryvalues import Query, bool_value, int_value, text_value, time_value


@dataclass(frozen=True, slots=True)
class LogOptions:
    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: str | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    insecure_skip_tls_verify_backend: bool = False


def parse_log_options(query: Query) -> LogOptions:
    """Raises BadRequest for values that are of the wrong type."""
    return LogOptions(
        container=text_value(query, "container"),
        follow=bool_value(query, "follow"),
        previous=bool_value(query, "previous"),
        timestamps=bool_value(query, "timestamps"),
        since_seconds=int_value(query, "sinceSeconds"),
        since_time=time_value(query, "sinceTime"),
        tail_lines=int_value(query, "tailLines"),
        limit_bytes=int_value(query, "limitBytes"),
        insecure_skip_tls_verify_backend=bool_value(query, "insecureSkipTLSVerifyBackend"),
    )


def log_option_errors(options: LogOptions) -> list[FieldError]:
    errors: list[FieldError] = []
    if options.tail_lines is not None and options.tail_lines < 0:
        errors.append(invalid("tailLines", options.tail_lines, "must be greater than or equal to 0"))
    if options.limit_bytes is not None and options.limit_bytes < 1:
        errors.append(invalid("limitBytes", options.limit_bytes, "must be greater than 0"))
    if options.since_seconds is not None and options.since_time is not None:
        # Upstream's path of no name prints as [].
        errors.append(forbidden_field("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif options.since_seconds is not None and options.since_seconds < 1:
        errors.append(invalid("sinceSeconds", options.since_seconds, "must be greater than 0"))
    return errors


def check_log_options(pod_name: str, options: LogOptions) -> None:
    """Raises Invalid with all that is wrong."""
    if errors := log_option_errors(options):
        raise Invalid.fields("PodLogOptions", "", pod_name, errors)


def kubelet_log_query(options: LogOptions) -> list[tuple[str, str]]:
    """What the kubelet's containerLogs endpoint is asked, in upstream's alphabetical order."""
    pairs: list[tuple[str, object]] = [
        ("follow", options.follow), ("limitBytes", options.limit_bytes), ("previous", options.previous),
        ("sinceSeconds", options.since_seconds), ("sinceTime", options.since_time), ("tailLines", options.tail_lines),
        ("timestamps", options.timestamps)]
    return [
        (key, "true" if value is True else str(value))
        for key, value in pairs
        if value is not None and value is not False
    ]
