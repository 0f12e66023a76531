"""The small programs of a container: device nodes opened as the pod's user, vectorAdd, images."""

from __future__ import annotations

import pytest

from labproof.simlab.pod import programs

VECTOR_ADD = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0"
OPEN_WRITE = ("dd", "if=/dev/null", "of=/dev/nvidiactl", "count=0", "conv=notrunc,nocreat")


def test_device_nodes_are_listed_with_their_numbers(box):
    lines = box.run("ls", "-ln", "/dev").out.splitlines()
    row = next(line.split() for line in lines if line.endswith(" nvidiactl"))
    assert row[:6] == ["crw-rw-rw-", "1", "0", "0", "195,", "255"]
    assert "nvidia" not in box.without_gpu().run("ls", "/dev").out


def test_libraries_that_exist_are_told_apart(box):
    folder = "/usr/lib/x86_64-linux-gnu"
    ran = box.run("ls", "-d", f"{folder}/libcuda.so.1", f"{folder}/libnothing.so.1")
    assert (ran.status, ran.out) == (2, f"{folder}/libcuda.so.1\n")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b, ""),
        (lambda b: b.change(allowed=frozenset()), "dd: failed to open '/dev/nvidiactl': Operation not permitted"),
        (lambda b: b.change(devices={}), "dd: failed to open '/dev/nvidiactl': No such file or directory"),
    ],
)
def test_opening_a_device(box, change, text):
    ran = change(box).run(*OPEN_WRITE)
    assert ran.status == (1 if text else 0)
    assert ran.err.startswith(text or "0+0 records in\n")


def test_opening_as_another_user(box):
    from dataclasses import replace

    node = replace(box.pod.devices["/dev/nvidiactl"], mode=0o660, gid=44)
    box.change(devices={**box.pod.devices, "/dev/nvidiactl": node}, uid=1000)
    assert "Permission denied" in box.run(*OPEN_WRITE).err
    assert box.change(gids=frozenset({44})).run(*OPEN_WRITE).status == 0


def test_dd_creates_a_file_where_a_device_is_missing(box):
    box.without_gpu()
    assert box.run("dd", "if=/dev/null", "of=/dev/nvidia0", "count=0", "conv=notrunc").status == 0
    assert "-rw-r--r--" in box.run("ls", "-l", "/dev/nvidia0").out


def test_vector_add(make_box):
    box = make_box(image=VECTOR_ADD)
    ran = box.run("/cuda-samples/vectorAdd")
    assert (ran.status, ran.out.splitlines()[-2:]) == (0, ["Test PASSED", "Done"])
    without_uvm = box.change(allowed=box.pod.allowed - {"/dev/nvidia-uvm"}).run("/cuda-samples/vectorAdd")
    assert (without_uvm.status, without_uvm.err) == (
        1, "Failed to allocate device vector A (error code unknown error)!\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "env", "entrypoint"),
    [
        ("docker.io/jellyfin/jellyfin:10.11", "compute,video,utility", "/jellyfin/jellyfin"),
        ("jellyfin/jellyfin@sha256:" + 64 * "0", "compute,video,utility", "/jellyfin/jellyfin"),
        (VECTOR_ADD, "compute,utility", "/cuda-samples/vectorAdd"),
    ],
)
def test_images_by_reference(reference, env, entrypoint):
    config = programs.image_config(reference)
    assert config.env["NVIDIA_DRIVER_CAPABILITIES"] == env
    assert config.entrypoint == (entrypoint,)


def test_image_inputs_change_what_a_tag_holds():
    reference = "docker.io/jellyfin/jellyfin:10.11"
    assert programs.image_config(reference).ffmpeg.nvenc_api == (12, 0)
    assert programs.image_config(reference, {reference: {"ffmpeg": "newest"}}).ffmpeg.nvenc_api == (13, 1)
    assert programs.image_config(reference, {reference: None}) is None
    assert programs.image_config("docker.io/nobody/nothing:1") is None


def test_read_only_root_leaves_the_volumes(box):
    box.change(read_only_root=True)
    assert box.run("touch", "/tmp/x").status == 0
    assert "Read-only file system" in box.run("touch", "/usr/bin/x").err


def test_shell_only_for_plain_commands(box):
    assert box.run("sh", "-c", "id -u").out == "0\n"
    ran = box.run("sh", "-c", "ls /dev/nvidia*; env | grep NVIDIA")
    assert (ran.status, "not simulated" in ran.err) == (1, True)


def test_sleep_lasts_and_can_be_killed(box):
    assert box.run("sleep", "900").seconds == 900
    assert box.run("sleep", "900", kill_at=30).status == 137
