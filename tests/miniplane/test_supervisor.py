"""The supervisor with real processes: started, started again, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_cluster import SLEEPER, STUBBORN, WITH_ORPHAN, FakeCluster, program, until

from miniplane import launch
from miniplane.control import ask, is_running
from miniplane.errors import ControlError, NotRunning, OptionsError, StartError
from miniplane.state import StateDir


def sleepers(state: StateDir) -> list:
    return [program("one", SLEEPER, state, layer=1), program("two", SLEEPER, state, layer=2)]


def test_every_program_of_the_table_runs(make_fake) -> None:
    cluster = make_fake(sleepers)
    assert [cluster.process(name)["state"] for name in ("one", "two")] == ["running", "running"]


def test_down_leaves_no_process_behind(make_fake) -> None:
    cluster = make_fake(lambda state: [program("parent", WITH_ORPHAN, state)])
    everyone = [cluster.supervisor(), cluster.identity("parent"), cluster.orphan()]
    assert launch.down(cluster.state)
    assert not [one for one in everyone if one.is_alive]
    assert not is_running(cluster.state) and not cluster.state.control_socket.exists()


def test_a_killed_supervisor_leaves_no_process_behind(make_fake) -> None:
    cluster = make_fake(lambda state: [program("parent", WITH_ORPHAN, state)])
    everyone = [cluster.identity("parent"), cluster.orphan()]
    os.kill(cluster.supervisor().pid, signal.SIGKILL)
    until(lambda: not any(one.is_alive for one in everyone))
    launch.down(cluster.state)
    assert not cluster.state.control_socket.exists()


def test_the_orphan_outlives_its_parent_where_there_is_no_guardian(tmp_path: Path) -> None:
    """The twin of the two tests above: nothing else than the guardian ends that child."""
    quiet = "start_new_session=True, stdout=-3, stderr=-3"
    code = f"import subprocess; print(subprocess.Popen(['sleep', '1000'], {quiet}).pid)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_down_after_a_killed_guardian_and_supervisor_finds_the_programs_gone(make_fake) -> None:
    cluster = make_fake(sleepers)
    programs = [cluster.identity("one"), cluster.identity("two")]
    supervisor = cluster.supervisor()
    guardian = int(Path(f"/proc/{supervisor.pid}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (guardian, supervisor.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(one.is_alive for one in programs))
    launch.down(cluster.state)
    assert not cluster.state.pids.exists()


def test_a_crashed_program_is_started_again_with_growing_delays(make_fake) -> None:
    cluster = make_fake(lambda state: [program("crash", "import sys; sys.exit(3)", state)])
    until(lambda: cluster.process("crash")["restarts"] >= 2)
    until(lambda: cluster.process("crash")["state"] == "backing off")
    seen = cluster.process("crash")
    assert seen["lastExit"] == "exit code 3" and seen["retryAt"] is not None
    log = cluster.log("crash")
    assert "again in 0.2 s" in log and "again in 0.4 s" in log


def test_a_killed_program_is_started_again_and_status_says_by_what(make_fake) -> None:
    cluster = make_fake(sleepers)
    before = cluster.identity("one")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: cluster.process("one")["restarts"] == 1)
    seen = cluster.process("one")
    assert (seen["state"], seen["lastExit"]) == ("running", "killed by SIGKILL")


def test_a_program_that_cannot_be_started_backs_off_like_a_crash(make_fake) -> None:
    from miniplane.program import Program

    cluster = make_fake(lambda state: [Program("none", ("/no/such/program",), str(state.log("none")), 1)])
    until(lambda: cluster.process("none")["restarts"] >= 1)
    assert "/no/such/program: No such file or directory" in cluster.log("none")


def test_restart_is_at_once_and_counts(make_fake) -> None:
    cluster = make_fake(sleepers)
    before = cluster.identity("one")
    ask(cluster.state, {"do": "restart", "process": "one"})
    until(lambda: cluster.process("one")["pid"] not in (None, before.pid), seconds=2)
    assert cluster.process("one")["restarts"] == 1 and not before.is_alive


def test_restart_cuts_a_back_off_short(make_fake) -> None:
    cluster = make_fake(lambda state: [program("crash", "import sys; sys.exit(3)", state)])
    until(lambda: (cluster.process("crash")["retryAt"] or 0) > time.time() + 1)
    count = cluster.process("crash")["restarts"]
    ask(cluster.state, {"do": "restart", "process": "crash"})
    until(lambda: cluster.process("crash")["restarts"] > count, seconds=0.7)


def test_a_stubborn_program_is_killed_after_its_grace(make_fake) -> None:
    cluster = make_fake(lambda state: [program("stubborn", STUBBORN, state, grace=0.2)])
    until(lambda: "up" in cluster.log("stubborn"))
    stubborn = cluster.identity("stubborn")
    launch.down(cluster.state)
    assert not stubborn.is_alive
    assert "did not end within 0.2 s: killed" in cluster.log("stubborn")


def test_the_highest_layer_stops_first(make_fake) -> None:
    code = """
        import signal, sys, time
        def end(*_):
            print(f"{time.time()} {sys.argv[0]}", flush=True); time.sleep(0.1); sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("up", flush=True)
        time.sleep(1000)
    """
    cluster = make_fake(lambda state: [program("low", code, state, layer=0), program("high", code, state, layer=2)])
    until(lambda: all("up" in cluster.log(name) for name in ("low", "high")))
    launch.down(cluster.state)
    ended = {name: float(cluster.log(name).splitlines()[1].split()[0]) for name in ("low", "high")}
    assert ended["high"] + 0.1 <= ended["low"]


def test_up_twice_is_harmless(make_fake) -> None:
    cluster = make_fake(sleepers)
    before = cluster.identity("one")
    assert cluster.up().was_running
    assert cluster.identity("one") == before


def test_up_with_other_settings_on_a_running_cluster_is_refused(make_fake) -> None:
    cluster = make_fake(sleepers)
    with pytest.raises(OptionsError, match=r"nodes=3.*miniplane down"):
        launch.up(cluster.state, {"nodes": 3}, lambda line: None)


def test_two_clusters_run_side_by_side_on_ranges_of_their_own(make_fake) -> None:
    one, two = make_fake(sleepers, "a"), make_fake(sleepers, "b")
    places = [cluster.state.require_record().place for cluster in (one, two)]
    assert places[0].slot != places[1].slot and places[0].port != places[1].port
    launch.down(one.state)
    assert is_running(two.state)


def test_a_state_directory_deeper_than_a_socket_address_is_long(make_fake) -> None:
    deep = "/".join(["a-folder-with-a-rather-long-name"] * 4)
    cluster = make_fake(sleepers, deep)
    assert len(str(cluster.state.control_socket)) > 108 and cluster.process("one")["state"] == "running"


def test_what_the_person_has_in_the_environment_stays_out(make_fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    dump = "import json, os; print(json.dumps(dict(os.environ)), flush=True); import time; time.sleep(1000)"
    cluster = make_fake(lambda state: [program("dump", dump, state)])
    until(lambda: cluster.log("dump").endswith("\n"))
    seen = json.loads(cluster.log("dump"))
    assert "PATH" in seen and not {"AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE"} & set(seen)


def test_certificates_that_cannot_be_issued_end_the_supervisor_again(make_fake, tmp_path: Path) -> None:
    cluster = make_fake(sleepers)
    launch.down(cluster.state)
    (cluster.state.path / "pki" / "ca.key").unlink()
    with pytest.raises(StartError, match=r"certificates: .*ca\.crt exists without"):
        FakeCluster(cluster.state.path, sleepers).up()
    with pytest.raises(NotRunning):
        ask(cluster.state, {"do": "status"})


def test_a_running_cluster_keeps_its_addresses_from_another_that_had_them(make_fake) -> None:
    first = make_fake(sleepers, "first")
    launch.down(first.state)
    slot = first.state.require_record().place.slot
    second = make_fake(sleepers, "second")
    if second.state.require_record().place.slot != slot:
        pytest.skip("another cluster of this machine has come between")
    with pytest.raises(OptionsError, match="used by another that runs now"):
        first.up()


@pytest.mark.parametrize("request_", [{"do": "nothing"}, {}, {"do": "restart", "process": "none"}])
def test_a_request_nobody_knows_is_an_error(make_fake, request_: dict[str, str]) -> None:
    cluster = make_fake(sleepers)
    with pytest.raises(ControlError):
        ask(cluster.state, request_)


def test_the_control_socket_is_its_owners_only(make_fake) -> None:
    cluster = make_fake(sleepers)
    assert cluster.state.control_socket.stat().st_mode & 0o077 == 0
    until(cluster.state.log("one").exists)
    assert cluster.state.log("one").stat().st_mode & 0o077 == 0


def test_purge_removes_what_the_cluster_wrote_and_nothing_else(make_fake) -> None:
    cluster = make_fake(sleepers)
    (cluster.state.path / "mine.txt").write_text("keep")
    launch.down(cluster.state)
    launch.purge(cluster.state)
    assert [path.name for path in cluster.state.path.iterdir()] == ["mine.txt"]
