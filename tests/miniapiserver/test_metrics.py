"""The metrics page: every line parses, and no stranger can make it grow."""

import re

from filters_server import CONFIGMAPS, Server, config_map

from miniapiserver.metrics import Counter, Gauge, Histogram, Metrics

LINE = re.compile(
    r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? '
    r"(?P<value>[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|Inf)|NaN)"
)


def samples(page: str) -> dict[str, float]:
    """Every sample; an AssertionError where a line is no Prometheus text."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in typed, f"{name} twice"
            typed.add(name)
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        assert re.sub("_(bucket|sum|count)$", "", match["name"]) in typed | {match["name"]}, line
        key = line.rpartition(" ")[0]
        assert key not in found, f"{key} twice"
        found[key] = float(match["value"])
    assert page.endswith("\n")
    return found


def test_label_values_of_any_kind_stay_on_their_line() -> None:
    counter = Counter("c", "help", ("a",))
    counter.add(('quote " backslash \\ newline \n end',))
    assert list(counter.lines()) == ['c{a="quote \\" backslash \\\\ newline \\n end"} 1']


def test_buckets_are_cumulative_and_end_in_the_count() -> None:
    histogram = Histogram("h", "help", (), (1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 99.0):
        histogram.observe((), seconds)
    assert list(histogram.lines()) == [
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 102",
        "h_count 4",
    ]


def test_a_gauge_without_labels_and_one_with_a_source() -> None:
    metrics = Metrics()
    metrics.add(Gauge("g", "help", source=lambda: [((), 3.0)]))
    assert samples(metrics.page())["g"] == 3.0


async def test_the_page_of_a_used_server_parses(server: Server) -> None:
    await server.ask("POST", CONFIGMAPS, config_map())
    await server.get(f"{CONFIGMAPS}?watch=1&timeoutSeconds=1")
    page = samples((await server.get("/metrics")).raw.decode())
    created = 'verb="CREATE",group="",version="v1",resource="configmaps",subresource="",scope="namespace"'
    assert page[f'apiserver_request_total{{{created},code="201"}}'] == 1
    assert page[f"apiserver_request_duration_seconds_count{{{created}}}"] == 1
    assert page['apiserver_longrunning_requests{verb="WATCH",resource="configmaps",subresource=""}'] == 0
    assert page['apiserver_current_inflight_requests{request_kind="mutating"}'] == 0


async def test_made_up_names_leave_no_labels_behind(server: Server) -> None:
    async def names() -> int:
        return len(samples((await server.get("/metrics")).raw.decode()))

    paths = (
        "/api/v1/made{}",
        "/apis/made{}/v1/x",
        "/api/vx{}/pods",
        "/api/v1/namespaces/default/pods/p/made{}",
        "/made{}",
        "/api/v1/namespaces/default/pods/p/made{}?watch=1",
        "/api/v1/made{}?watch=1",
    )
    for path in paths:
        await server.get(path.format("x"))
        await server.ask("GET", path.format("x"), token="")
    await names()  # the page itself is counted from its second time on
    before = await names()
    for number in range(20):
        for path in paths:
            await server.get(path.format(number))
            await server.ask("GET", path.format(number), token="")
    assert await names() - before < 5
