"""What capabilities() claims, each with its negative twin: the same attempt as a plain process succeeds."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from runtimebench import POD, Bench

from minikubelet.runtime.interface import Mount, SandboxSpec, StartFailure
from minikubelet.runtime.process import ProcessRuntime

MARK = Path("/var/lib/miniplane-isolation-test")


async def test_host_files_cannot_be_written(isolated: Bench) -> None:
    target = _writable_host_directory() / "miniplane-isolation-test"
    status, text = await isolated.sh(f"touch {target}")
    assert status.code != 0
    assert "Read-only" in text
    assert not target.exists()


async def test_twin_a_plain_process_writes_host_files(plain_bench: Bench) -> None:
    target = _writable_host_directory() / "miniplane-isolation-test"
    try:
        status, _ = await plain_bench.sh(f"touch {target}")
        assert status.code == 0
        assert target.exists()
    finally:
        target.unlink(missing_ok=True)


async def test_home_and_hidden_directories_are_empty(tmp_path: Path) -> None:
    hidden = _writable_host_directory() / "miniplane-hidden-test"
    hidden.mkdir()
    (hidden / "key").write_text("secret")
    try:
        for paths, expected in (((hidden,), ""), ((), "key\n")):  # the twin: not hidden, it is seen
            async with ProcessRuntime(tmp_path / "r", hidden=paths) as runtime:
                sandbox = await runtime.create_sandbox(SandboxSpec(POD, "h", ""))
                _, text = await Bench(runtime, sandbox, tmp_path / f"{len(paths)}").sh(f"ls {hidden}")
                assert text == expected
    finally:
        (hidden / "key").unlink()
        hidden.rmdir()


async def test_home_directory_is_hidden_by_default(isolated: Bench) -> None:
    home = _home()
    assert os.listdir(home)
    _, text = await isolated.sh(f"ls -A {home}")
    assert text == ""


async def test_password_hashes_of_the_host_are_out_of_reach(isolated: Bench, plain_bench: Bench) -> None:
    _, text = await isolated.sh("cat /etc/shadow")
    assert "root:" not in text
    if os.geteuid() == 0:  # the twin: only user 0 can read it without the protection
        _, text = await plain_bench.sh("cat /etc/shadow")
        assert "root:" in text


async def test_tmp_is_the_containers_own(isolated: Bench, plain_bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    _, text = await isolated.sh(f"ls {tmp_path}/here")
    assert "No such file" in text
    _, text = await plain_bench.sh(f"ls {tmp_path}/here")
    assert text == f"{tmp_path}/here\n"


async def test_processes_of_the_host_are_hidden(isolated: Bench, plain_bench: Bench) -> None:
    script = f"ls -d /proc/{os.getpid()}"
    status, _ = await isolated.sh(script)
    assert status.code != 0
    status, _ = await plain_bench.sh(script)
    assert status.code == 0


async def test_host_pid_shows_processes_of_the_host(isolated: Bench) -> None:
    status, _ = await isolated.sh(f"ls -d /proc/{os.getpid()}", host_pid=True)
    assert status.code == 0


async def test_hostname_and_hosts_file_are_the_pods(isolated: Bench) -> None:
    _, text = await isolated.sh("hostname; cat /etc/hostname; cat /etc/hosts", extra_hosts=(("10.1.2.3", ("a", "b")),))
    assert text.startswith("host-of-p\nhost-of-p\n")
    assert "127.244.9.2\thost-of-p\n" in text
    assert "10.1.2.3\ta\tb\n" in text


async def test_resolv_conf_is_the_specs(isolated: Bench) -> None:
    _, text = await isolated.sh("cat /etc/resolv.conf", resolv_conf="nameserver 10.9.8.7\n")
    assert text == "nameserver 10.9.8.7\n"


@pytest.mark.parametrize(
    "path",
    [
        "/data",
        "/etc/config",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/usr/share/a/b/c",
        "/opt/x",
        "/root/.ssh",
    ],
)
async def test_volume_is_at_its_path_wherever_that_is(isolated: Bench, path: str) -> None:
    volume = _volume(isolated.directory)
    _, text = await isolated.sh(f"cat {path}/file && echo new > {path}/written", mounts=(Mount(volume, path),))
    assert text == "content\n"
    assert (volume / "written").read_text() == "new\n"
    assert not _exists(path, "file")


async def test_what_was_beside_a_mount_point_is_still_there(isolated: Bench) -> None:
    _, text = await isolated.sh("ls -A /etc", mounts=(Mount(_volume(isolated.directory), "/etc/config"),))
    assert set(text.split()) == set(os.listdir("/etc")) | {"config"}


async def test_read_only_volume_cannot_be_written(isolated: Bench) -> None:
    volume = _volume(isolated.directory)
    status, text = await isolated.sh("touch /data/x", mounts=(Mount(volume, "/data", read_only=True),))
    assert status.code != 0 and "Read-only" in text
    status, text = await isolated.sh("touch /data/x", mounts=(Mount(volume, "/data"),))
    assert status.code == 0


async def test_single_file_can_be_mounted_onto_a_file(isolated: Bench) -> None:
    volume = _volume(isolated.directory)
    _, text = await isolated.sh(
        "cat /etc/passwd /app.conf", mounts=tuple(Mount(volume / "file", path) for path in ("/etc/passwd", "/app.conf"))
    )
    assert text == "content\ncontent\n"


async def test_mount_inside_a_mount(isolated: Bench) -> None:
    volume, inner = _volume(isolated.directory), _volume(isolated.directory / "inner")
    mounts = (Mount(inner, "/data/inner"), Mount(volume, "/data"))
    _, text = await isolated.sh("cat /data/file /data/inner/file", mounts=mounts)
    assert text == "content\ncontent\n"


async def test_link_put_in_the_place_of_a_mount_source_is_refused(isolated: Bench) -> None:
    link = isolated.directory / "link"
    link.symlink_to("/etc")
    with pytest.raises(StartFailure, match=r"mount .*link at /data"):
        await isolated.start("true", mounts=(Mount(link, "/data"),))


async def test_missing_mount_source_is_named(isolated: Bench) -> None:
    with pytest.raises(StartFailure, match="No such file"):
        await isolated.start("true", mounts=(Mount(isolated.directory / "none", "/data"),))


async def test_read_only_root_file_system(isolated: Bench) -> None:
    script = "touch /here; touch /tmp/here && echo tmp"
    _, text = await isolated.sh(script, read_only_rootfs=True)
    assert "Read-only" in text and "tmp\n" in text
    _, text = await isolated.sh(script)
    assert text == "tmp\n"


async def test_image_root_is_writable_and_the_image_stays_as_it_is(isolated: Bench) -> None:
    if not isolated.runtime.capabilities().writable_rootfs:
        pytest.skip("no overlay here")
    image = _image(isolated.directory)
    _, text = await isolated.sh("cat /release; echo changed > /release; cat /release; ls /", rootfs=image)
    assert text.startswith("mine\nchanged\n")
    assert "work" not in text.split() or not _exists("/work")
    assert (image / "release").read_text() == "mine\n"


async def test_image_without_overlay_still_takes_mounts(isolated: Bench) -> None:
    level = isolated.runtime._level
    assert level is not None
    isolated.runtime._level = replace(level, overlay=False)
    volume = _volume(isolated.directory)
    mounts = (Mount(volume, "/etc/new/place"),)
    status, text = await isolated.sh(
        "cat /release /etc/new/place/file; touch /bin/x", rootfs=_image(isolated.directory), mounts=mounts
    )
    assert text.startswith("mine\ncontent\n")
    assert status.code != 0


async def test_container_is_root_without_the_powers_of_root(isolated: Bench) -> None:
    _, text = await isolated.sh("id -u; mount -t tmpfs none /mnt; mknod /tmp/disk b 8 0; hostname other")
    assert text.startswith("0\n")
    for refusal in ("mount: ", "mknod: ", "hostname: "):
        assert refusal in text


async def test_run_as_user_and_group(isolated: Bench) -> None:
    _, text = await isolated.sh("id -u; id -g; grep CapEff /proc/self/status", run_as_user=1234, run_as_group=567)
    assert text.split() == ["1234", "567", "CapEff:", "0000000000000000"]


async def test_sysctls_and_devices_of_the_host_are_out_of_reach(isolated: Bench) -> None:
    status, _ = await isolated.sh("echo 1 > /proc/sys/kernel/panic_on_oops || exit 7")
    assert status.code == 7
    _, text = await isolated.sh("ls /dev")
    assert set(text.split()) <= {
        *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"),
        "termination-log",
    }


async def test_first_process_of_a_container_has_a_plain_name(isolated: Bench) -> None:
    _, text = await isolated.sh("tr -d '\\0' < /proc/1/cmdline; echo; cat /proc/1/comm")
    assert text == "miniplane-init\nminiplane-init\n"


async def test_init_of_a_container_cannot_be_inspected_from_inside(isolated: Bench) -> None:
    status, text = await isolated.sh("cat /proc/1/environ >/dev/null && ls /proc/1/fd", run_as_user=1234)
    assert status.code != 0, text


async def test_shared_process_namespace_shows_the_other_container(isolated: Bench) -> None:
    spec = SandboxSpec(POD, "h", "", share_process_namespace=True)
    sandbox = await isolated.runtime.create_sandbox(spec)
    shared = Bench(isolated.runtime, sandbox, isolated.directory / "shared")
    sleeper = await shared.start("sleep", "4242424", share_process_namespace=True)
    _, text = await shared.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", share_process_namespace=True)
    assert "4242424" in text
    _, text = await isolated.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "4242424" not in text
    status = await sleeper.stop(1)
    assert status.code == 143
    await isolated.runtime.remove_sandbox(sandbox)


async def test_ephemeral_container_sees_its_target(isolated: Bench) -> None:
    target = await isolated.start("sleep", "3131313")
    _, text = await isolated.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", target_container_id=target.id)
    assert "3131313" in text
    await target.stop(1)


def _home() -> str:
    return os.path.expanduser("~")


def _exists(*parts: str) -> bool:
    return os.path.exists(os.path.join(*parts))


def _writable_host_directory() -> Path:
    """A directory outside /tmp that we may write."""
    for path in (Path("/var/lib"), Path(__file__).resolve().parent):
        if os.access(path, os.W_OK):
            return path
    pytest.skip("nothing on this host may be written anyway")


def _volume(directory: Path) -> Path:
    volume = directory / "volume"
    volume.mkdir(parents=True, exist_ok=True)
    (volume / "file").write_text("content\n")
    return volume


def _image(directory: Path) -> Path:
    """The host's shell and a few tools, copied; the libraries they need by their real names."""
    image = directory / "image"
    (image / "bin").mkdir(parents=True)
    (image / "etc").mkdir()
    (image / "release").write_text("mine\n")
    for tool in ("sh", "cat", "ls", "touch"):
        program = Path("/bin", tool).resolve()
        (image / "bin" / tool).write_bytes(program.read_bytes())
        (image / "bin" / tool).chmod(0o755)
        for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
            library = next((word for word in line.split() if word.startswith("/")), None)
            if library:
                (image / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                (image / library[1:]).write_bytes(Path(library).read_bytes())
                (image / library[1:]).chmod(0o755)
    return image
