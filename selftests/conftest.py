"""Selftests: tests of the suite itself."""


def pytest_addoption(parser):
    parser.addoption("--run-realssh", action="store_true", help="judge this machine over Debian's own sshd")


pytest_plugins = ("pytester",)
