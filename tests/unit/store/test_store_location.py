from __future__ import annotations

from pathlib import Path

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.store.location import check_local_filesystem, filesystem

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:21 / /proc rw - proc proc rw
31 22 0:40 / /home rw shared:5 - nfs4 server:/home rw,vers=4.2
32 31 8:2 / /home/ada/local rw - xfs /dev/sdb1 rw
33 22 0:41 / /mnt/with\\040blank rw shared:7 master:1 - cifs //server/share rw
34 22 0:42 / /mnt/bucket rw - fuse.s3fs s3fs rw
35 22 0:43 / /mnt/plain rw - fuse.something x rw
36 22 0:44 / /over rw - nfs a:/b rw
37 22 8:3 / /over rw - ext4 /dev/sdc1 rw
"""


@pytest.fixture
def mounts(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/x.sqlite", "ext4"),
        ("/home/ada/x.sqlite", "nfs4"),
        ("/home/ada/local/deep/er/x.sqlite", "xfs"),
        ("/homes/x.sqlite", "ext4"),
        ("/mnt/with blank/x.sqlite", "cifs"),
        ("/over/x", "ext4"),
    ],
)
def test_the_deepest_and_newest_mount_counts(mounts, path, kind):
    assert filesystem(Path(path), mounts) == kind


@pytest.mark.parametrize("path", ["/home/ada/x", "/mnt/with blank/x", "/mnt/bucket/x"])
def test_a_network_filesystem_is_refused(mounts, path):
    with pytest.raises(InvalidInput, match=r"network filesystem .* --data-dir"):
        check_local_filesystem(Path(path), mounts)


@pytest.mark.parametrize("path", ["/var/x", "/home/ada/local/x", "/mnt/plain/x", "/over/x"])
def test_a_local_one_is_not(mounts, path):
    check_local_filesystem(Path(path), mounts)


def test_a_link_does_not_hide_where_a_file_lies(mounts, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/home/ada")
    with pytest.raises(InvalidInput):
        check_local_filesystem(link / "x.sqlite", mounts)


def test_where_mounts_are_not_listed_nothing_is_said(tmp_path):
    check_local_filesystem(tmp_path, tmp_path / "absent")


def test_this_machines_own_mounts_can_be_read(tmp_path):
    check_local_filesystem(tmp_path)
