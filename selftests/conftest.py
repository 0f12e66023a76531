"""Selftests: tests of the suite itself."""


def pytest_addoption(parser):
    parser.addoption("--run-realssh", action="store_true", help="judge this machine over Debian's own sshd")
    parser.addoption(
        "--run-realhost", nargs="?", const="short", choices=("short", "full"),
        help="judge and provision a Debian guest with a real kernel in QEMU: the short set, or all",
    )  # fmt: skip
    parser.addoption("--realhost-record", action="store_true", help="write what the guest's probe printed to captures/")


def pytest_configure(config):
    config.addinivalue_line("markers", "realhost_full: belongs to the full set of the real-kernel lane")


pytest_plugins = ("pytester",)
