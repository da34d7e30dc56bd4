"""Reading: every option against a slow and obvious model, following across rotation, and no way out of the folder."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minikubelet.logs import reader
from minikubelet.logs.cri import parse
from minikubelet.logs.reader import LogOptions, open_beneath, read
from minikubelet.logs.writer import Feed, LogFile, tend

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def line(second: int, content: str, tag: str = "F", stream: str = "stdout") -> bytes:
    stamp = (EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.000000000Z {stream} {tag} {content}\n".encode()


async def text(directory: Path, options: LogOptions, feed: Feed | None = None) -> bytes:
    return b"".join([block async for block in read(directory, "c/0.log", options, feed)])


def put(directory: Path, data: bytes) -> Path:
    path = directory / "c" / "0.log"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def model(data: bytes, options: LogOptions) -> bytes:
    """The facts, one line at a time."""
    lines = [one + b"\n" for one in data.split(b"\n")[:-1]] + [one for one in data.split(b"\n")[-1:] if one]
    if options.tail_lines is not None:
        whole = [one for one in lines if one.endswith(b"\n")]
        rest = [one for one in lines if not one.endswith(b"\n")]
        lines = (whole[-options.tail_lines :] if options.tail_lines else []) + (rest if options.tail_lines else [])
    out, continues = b"", False
    for raw in lines:
        record = parse(raw)
        if record is None:
            continue
        starts, continues = not continues, record.is_partial
        if options.since and datetime.fromisoformat(record.time[:19].decode() + "+00:00") < options.since:
            continue
        if options.stream and record.stream != options.stream:
            continue
        out += (record.time + b" " if options.timestamps and starts else b"") + record.content
    return out if options.limit_bytes is None else out[: options.limit_bytes]


LINES = st.lists(
    st.tuples(
        st.text("ab ZTF:\r", max_size=12),
        st.sampled_from(["F", "F", "F", "P", "F:x"]),
        st.sampled_from(["stdout", "stderr"]),
    ),
    max_size=80,
)
OPTIONS = st.builds(
    LogOptions,
    timestamps=st.booleans(),
    since=st.none() | st.integers(-1, 30).map(lambda second: EPOCH + timedelta(seconds=second)),
    tail_lines=st.none() | st.integers(0, 90),
    limit_bytes=st.none() | st.integers(1, 400),
    stream=st.sampled_from([None, None, "stdout", "stderr"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(LINES, OPTIONS, st.integers(1, 40), st.sampled_from([64, 1000, 1 << 18]), st.booleans(), st.booleans())
def test_every_option_is_what_the_model_says(
    tmp_path: Path,
    lines: list[tuple[str, str, str]],
    options: LogOptions,
    per_second: int,
    block: int,
    garbage: bool,
    unterminated: bool,
) -> None:
    written = [line(index // per_second, *parts) for index, parts in enumerate(lines)]
    if garbage:
        written.insert(len(written) // 2, b"not a log line at all\n")
    data = b"".join(written)
    data = data[:-1] if unterminated else data
    put(tmp_path, data)
    blocks, tails = reader.BLOCK, reader.TAIL_BLOCK
    try:
        reader.BLOCK, reader.TAIL_BLOCK = block, block  # type: ignore[misc]
        assert asyncio.run(text(tmp_path, options)) == model(data, options)
    finally:
        reader.BLOCK, reader.TAIL_BLOCK = blocks, tails  # type: ignore[misc]


async def test_long_runs_of_one_read_are_the_same_as_single_lines(tmp_path: Path) -> None:
    data = b"".join(line(index // 500, f"line {index}") for index in range(5000)) + line(11, "x", stream="stderr")
    put(tmp_path, data)
    for options in (LogOptions(), LogOptions(timestamps=True), LogOptions(since=EPOCH + timedelta(seconds=5))):
        assert await text(tmp_path, options) == model(data, options)


async def test_limit_may_cut_inside_a_time_stamp(tmp_path: Path) -> None:
    put(tmp_path, line(0, "hello"))
    assert await text(tmp_path, LogOptions(timestamps=True, limit_bytes=7)) == b"2024-01"


async def test_pieces_are_joined_and_stamped_once(tmp_path: Path) -> None:
    put(tmp_path, line(0, "ab", "P") + line(0, "cd", "F") + line(1, "e"))
    expected = b"2024-01-01T00:00:00.000000000Z abcd\n2024-01-01T00:00:01.000000000Z e\n"
    assert await text(tmp_path, LogOptions(timestamps=True)) == expected


async def test_following_sees_what_is_written_until_the_log_is_closed(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "c" / "0.log", lambda path: None)
    log.append(line(0, "one"))
    seen = _collect(tmp_path, LogOptions(follow=True), log.feed)
    assert await anext(seen) == b"one\n"
    log.append(line(1, "two"))
    assert await anext(seen) == b"two\n"
    log.append(line(2, "three"))
    log.close()
    assert [block async for block in seen] == [b"three\n"]


async def test_following_with_a_tail_of_nothing_shows_only_what_is_new(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "c" / "0.log", lambda path: None)
    log.append(line(0, "old"))
    seen = _collect(tmp_path, LogOptions(follow=True, tail_lines=0), log.feed)
    waiting = asyncio.ensure_future(anext(seen))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.append(line(1, "new"))
    assert await asyncio.wait_for(waiting, 5) == b"new\n"
    log.close()
    assert [block async for block in seen] == []


async def test_following_goes_on_in_the_new_file_after_rotation(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "c" / "0.log", lambda path: None, max_bytes=100)
    seen = _collect(tmp_path, LogOptions(follow=True), log.feed)
    got = b""
    for number in range(3):
        for part in range(2):
            log.append(line(number, f"{number}.{part} " + "x" * 40))
            got += await asyncio.wait_for(anext(seen), 5)
        for rotated in (tmp_path / "c").glob("0.log.*"):
            rotated.rename(rotated.with_name(f"old-{number}"))  # the name's second is taken otherwise
    log.close()
    got += b"".join([block async for block in seen])
    assert [one.split()[0] for one in got.splitlines()] == [f"{n}.{p}".encode() for n in range(3) for p in range(2)]
    assert len(list((tmp_path / "c").iterdir())) == 4


async def test_following_a_log_nobody_writes_ends_at_its_end(tmp_path: Path) -> None:
    put(tmp_path, line(0, "last"))
    assert await asyncio.wait_for(text(tmp_path, LogOptions(follow=True)), 5) == b"last\n"


async def test_a_reader_that_leaves_closes_the_file(tmp_path: Path) -> None:
    put(tmp_path, line(0, "x") * 10)
    before = len(os.listdir("/proc/self/fd"))
    async with aclosing(read(tmp_path, "c/0.log", LogOptions())) as blocks:
        await anext(blocks)
    assert len(os.listdir("/proc/self/fd")) == before


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = put(tmp_path, b"")
    os.close(open_beneath(tmp_path, "c/0.log"))  # the twin: a plain file is opened
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        open_beneath(tmp_path, "c/0.log")
    (tmp_path / "d").symlink_to(tmp_path)
    with pytest.raises(OSError):
        open_beneath(tmp_path, "d/secret")
    with pytest.raises(PermissionError):
        open_beneath(tmp_path / "c", "../secret")
    os.mkfifo(tmp_path / "c" / "fifo")
    with pytest.raises(PermissionError, match="not a regular file"):
        open_beneath(tmp_path, "c/fifo")


def test_the_file_is_not_for_others(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "c" / "0.log", lambda path: None)
    log.close()
    assert (tmp_path / "c" / "0.log").stat().st_mode & 0o007 == 0
    assert (tmp_path / "c").stat().st_mode & 0o007 == 0


def test_old_files_are_compressed_and_the_oldest_deleted(tmp_path: Path) -> None:
    for second in range(7):
        (tmp_path / f"0.log.20240101-00000{second}").write_bytes(b"x" * 1000)
    (tmp_path / "0.log").write_bytes(b"now")
    tend(tmp_path / "0.log", 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.log", *(f"0.log.20240101-00000{second}.gz" for second in (3, 4, 5)), "0.log.20240101-000006",
    ]  # fmt: skip


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    full = tmp_path / "0.log"
    log = LogFile(full, lambda path: None)
    os.dup2(os.open("/dev/full", os.O_WRONLY), log._descriptor)
    log.append(b"lost\n")
    assert log.lost_bytes == 5
    log.close()


def test_options_are_values() -> None:
    assert replace(LogOptions(), follow=True).follow


async def _collect(directory: Path, options: LogOptions, feed: Feed) -> AsyncGenerator[bytes, None]:
    async for block in read(directory, "c/0.log", options, feed):
        yield block
