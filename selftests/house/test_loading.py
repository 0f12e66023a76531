"""Loading the plugin costs nothing: whoever has labproof installed runs other projects' tests as before."""

import subprocess
import sys

HEAVY = ("kubernetes", "paramiko", "aiohttp", "asyncssh", "grpclib", "pydantic", "proxmoxer", "requests", "jinja2")


def test_loading_the_plugin_imports_no_client():
    code = (
        "import sys, labproof.plugin, labproof.plugin.clause, labproof.plugin.options\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_pytest_help_in_an_empty_folder_imports_no_client(tmp_path):
    (tmp_path / "conftest.py").write_text(
        f"import sys\ndef pytest_unconfigure(config):\n    print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    (tmp_path / "test_other.py").write_text("def test_one():\n    assert True\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "HEAVY []" in ran.stdout
    assert not (tmp_path / "reports").exists()


def test_an_unrelated_project_keeps_its_own_exit_status(tmp_path):
    (tmp_path / "test_other.py").write_text("def test_one():\n    assert False\n")
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True).returncode == 1
    (tmp_path / "test_other.py").write_text("")
    assert subprocess.run(run, cwd=tmp_path, capture_output=True).returncode == 5
