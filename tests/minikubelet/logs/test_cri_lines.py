"""CRI lines: what is framed comes back, however the output was cut."""

from hypothesis import given
from hypothesis import strategies as st

from minikubelet.logs.cri import PIECE_BYTES, Clock, Framer, parse

STAMP = b"2024-01-02T03:04:05.000000006Z"


def framed(chunks: list[bytes]) -> bytes:
    framer = Framer("stdout")
    return b"".join(framer.feed(chunk, STAMP) for chunk in chunks) + framer.finish(STAMP)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"\n\n", b"x" * 20000, b"y" * PIECE_BYTES])))
def test_output_comes_back_byte_for_byte(chunks: list[bytes]) -> None:
    lines = framed(chunks).split(b"\n")[:-1]
    records = [parse(line + b"\n") for line in lines]
    assert all(records)
    assert b"".join(record.content for record in records if record) == b"".join(chunks)
    assert all(len(record.content) <= PIECE_BYTES + 1 for record in records if record)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_cutting_the_output_elsewhere_changes_no_whole_line(data: bytes, size: int) -> None:
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert framed(chunks) == framed([data] if data else [])


def test_a_line_of_exactly_one_piece_is_full() -> None:
    line = b"x" * PIECE_BYTES
    assert framed([line + b"\n"]) == STAMP + b" stdout F " + line + b"\n"


def test_a_longer_line_is_pieces_and_a_last_one() -> None:
    tags = [line.split(b" ")[2] for line in framed([b"x" * (2 * PIECE_BYTES + 1) + b"\n"]).splitlines()]
    assert tags == [b"P", b"P", b"F"]


def test_an_empty_line_keeps_its_space() -> None:
    assert framed([b"\n"]) == STAMP + b" stdout F \n"


def test_output_that_ends_without_a_newline_is_a_piece() -> None:
    assert framed([b"prompt> "]) == STAMP + b" stdout P prompt> \n"


def test_foreign_times_get_nine_digits_and_keep_their_zone() -> None:
    record = parse(b"2024-01-02T03:04:05.5+02:00 stderr F:x hello\n")
    assert record is not None
    assert (record.time, record.stream, record.is_partial, record.content) == (
        b"2024-01-02T03:04:05.500000000+02:00", "stderr", False, b"hello\n",
    )  # fmt: skip


def test_what_is_not_cri_is_nothing() -> None:
    for line in (b"hello\n", b"\n", b"2024-01-02T03:04:05Z stdxxx F a\n", b"2024-01-02T03:04:05Z stdout Q a\n"):
        assert parse(line) is None


def test_the_clock_of_a_log_never_goes_back() -> None:
    clock = Clock()
    first = clock.stamp(1_700_000_000_000_000_005)
    assert first == b"2023-11-14T22:13:20.000000005Z"
    assert clock.stamp(1_600_000_000_000_000_000) == first
