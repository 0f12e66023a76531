"""--publish commits the rendered files and nothing else, and says clearly why it cannot."""

import subprocess

import pytest

from labproof.report.publish import FILES, NotPublished, publish
from labproof.report.write import render

from .made_runs import green, red


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def rendered(tmp_path):
    folder = tmp_path / "reports" / "runs" / "one"
    folder.mkdir(parents=True)
    render(folder, red())
    return folder


@pytest.fixture
def wiki(tmp_path, monkeypatch):
    folder = tmp_path / "wiki"
    git(tmp_path, "init", "-q", str(folder))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Owner")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "owner@lab.invalid")
    return folder


def test_one_commit_of_the_rendered_files(rendered, wiki):
    (wiki / "mine.md").write_text("not finished")
    (wiki / "staged.md").write_text("not committed")
    git(wiki, "add", "staged.md")
    assert "not pushed" in publish(rendered, wiki, red())
    assert sorted(git(wiki, "show", "--name-only", "--format=").split()) == sorted(FILES)
    assert git(wiki, "log", "--format=%s").strip() == "labproof: moody-good is red (T10), 2026-11-20T20:32"
    assert git(wiki, "status", "--porcelain").splitlines() == ["A  staged.md", "?? mine.md"]
    assert (wiki / "index.html").read_bytes() == (rendered / "index.html").read_bytes()


def test_the_comparison_goes_along_and_goes_with_its_run(rendered, wiki):
    (rendered / "compare.md").write_text("# what changed\n")
    publish(rendered, wiki, red())
    assert sorted(git(wiki, "ls-files").split()) == sorted([*FILES, "compare.md"])
    (rendered / "compare.md").unlink()
    publish(rendered, wiki, red())
    assert sorted(git(wiki, "ls-files").split()) == sorted(FILES)
    assert not (wiki / "compare.md").exists()


def test_a_folder_inside_the_checkout(rendered, wiki):
    (wiki / "gpu").mkdir()
    publish(rendered, wiki / "gpu", red())
    assert "gpu/summary.md" in git(wiki, "ls-files")


def test_the_same_run_again_makes_no_commit(rendered, wiki):
    publish(rendered, wiki, red())
    assert "has this run already" in publish(rendered, wiki, red())
    assert git(wiki, "rev-list", "--count", "HEAD").strip() == "1"
    render(rendered, green())
    publish(rendered, wiki, green())
    assert git(wiki, "rev-list", "--count", "HEAD").strip() == "2"


@pytest.mark.parametrize(("made", "said"), [(True, "no git work tree"), (False, "no such folder")])
def test_a_folder_that_is_no_checkout(rendered, tmp_path, monkeypatch, made, said):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "plain"
    if made:
        folder.mkdir()
    with pytest.raises(NotPublished, match=said):
        publish(rendered, folder, red())
    assert not (folder / "index.html").exists()


def test_a_hook_that_says_no_is_quoted(rendered, wiki):
    hook = wiki / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'wiki is frozen' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(NotPublished, match="wiki is frozen"):
        publish(rendered, wiki, red())


def test_an_ignored_file_is_told(rendered, wiki):
    (wiki / ".gitignore").write_text("*.svg\n")
    with pytest.raises(NotPublished, match="ignored"):
        publish(rendered, wiki, red())


def test_another_repositorys_environment_is_not_followed(rendered, wiki, tmp_path, monkeypatch):
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    publish(rendered, wiki, red())
    monkeypatch.delenv("GIT_DIR")
    assert "index.html" in git(wiki, "ls-files")
    assert git(other, "ls-files") == ""
