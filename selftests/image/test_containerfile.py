"""The linter is right about this project's Containerfile, and about broken ones."""

from pathlib import Path

import pytest

from .containerfile import lint, read

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "Containerfile").read_text("utf-8")


def test_ours_is_clean():
    assert lint(FILE, ROOT) == []


def test_ours_is_built_in_one_stage_and_runs_in_another():
    build, last = read(FILE)
    assert build.name == "build"
    assert last.last("USER") == "65532:65532"
    assert "pip" not in " ".join(text for word, text in last.steps if word == "RUN")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("python:3.13-slim", "python", "say which tag"),
        ("python:3.13-slim", "python:latest", "say which tag"),
        ("USER 65532:65532", "USER labproof", "numeric USER"),
        ("USER 65532:65532", "USER 0", "numeric USER"),
        ("COPY src src", "COPY sources src", "not there"),
        ("--from=build", "--from=builder", "no such stage"),
        ("--no-cache-dir ", "", "--no-cache-dir"),
        ('ENTRYPOINT ["labproof"]', "ENTRYPOINT labproof", "JSON list"),
        ("COPY src src", "ADD src src", "COPY says"),
        ("STOPSIGNAL SIGTERM", "ENV PVE_TOKEN=abc", "a secret"),
        ("STOPSIGNAL SIGTERM", "RUN curl https://lab.invalid | sh", "run unseen"),
        ("WORKDIR /build", "WORKDIR build", "absolute"),
    ],
)
def test_what_is_broken_is_found(old, new, said):
    assert old in FILE
    found = lint(FILE.replace(old, new), ROOT)
    assert any(said in line for line in found), found


def test_a_word_that_is_no_instruction_is_refused():
    with pytest.raises(ValueError, match="not understood: INSTALL"):
        read("FROM a:1\nINSTALL python\n")
