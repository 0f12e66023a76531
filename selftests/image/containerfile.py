"""Reads a Containerfile, and says what is wrong with one that is to run unattended, without root, read-only."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One stage: what it is built from, its name, its instructions in order."""

    base: str
    name: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word):
        """Text of the last instruction of that name, empty when there is none."""
        return next((text for name, text in reversed(self.steps) if name == word), "")


def read(text):
    """Stages of a Containerfile; ARGs before the first FROM are filled in.

    Raises:
        ValueError: an instruction before the first FROM, or a word that is none.
    """
    arguments, stages = {}, []
    plain = re.sub(r"(?m)^\s*#.*\n?", "", text)
    for line in re.sub(r"\\\n", " ", plain).splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = " ".join(rest.split()) if word != "RUN" else rest.strip()
        if not word:
            continue
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest).partition(" AS ")
            stages.append(Stage(base, name))
        elif stages and word in WORDS:
            stages[-1].steps.append((word, rest))
        else:
            raise ValueError(f"not understood: {line}")
    return stages


WORDS = ("ARG", "CMD", "COPY", "ADD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "RUN", "STOPSIGNAL", "USER", "VOLUME",
         "WORKDIR")  # fmt: skip


def copied(text):
    """Options, sources and target of a COPY."""
    words = shlex.split(text)
    options = dict(w[2:].partition("=")[::2] for w in words if w.startswith("--"))
    paths = [w for w in words if not w.startswith("--")]
    return options, paths[:-1], paths[-1]


def environment(stage):
    """ENV of a stage, with `$PATH` of the base left as it is."""
    return dict(pair.partition("=")[::2] for name, text in stage.steps if name == "ENV" for pair in shlex.split(text))


def lint(text, context: Path):
    """What is wrong, one line each; empty when nothing is."""
    stages = read(text)
    names = [s.name for s in stages]
    wrong = []
    for stage in stages:
        tag = stage.base.rpartition("/")[2].partition(":")[2]
        if stage.base not in names and tag in ("", "latest"):
            wrong.append(f"FROM {stage.base}: say which tag")
        for word, rest in stage.steps:
            if word == "ADD":
                wrong.append(f"ADD {rest}: COPY says what it does")
            if word == "RUN" and re.search(r"\b(curl|wget)\b[^|]*\|\s*(ba)?sh\b", rest):
                wrong.append(f"RUN {rest}: what is fetched is run unseen")
            if word == "RUN" and re.search(r"\bsudo\b", rest):
                wrong.append(f"RUN {rest}: no sudo")
            if word == "RUN" and "pip install" in rest and "--no-cache-dir" not in rest:
                wrong.append("RUN pip install: --no-cache-dir, the cache would stay in the layer")
            if word == "RUN" and "apt-get install" in rest and "rm -rf /var/lib/apt/lists" not in rest:
                wrong.append("RUN apt-get install: the package lists would stay in the layer")
            if word in ("ENV", "ARG") and re.search(r"(?i)\b\w*(password|secret|token)\w*=\S", rest):
                wrong.append(f"{word} {rest.partition('=')[0]}: a secret would stay in the image")
            if word == "WORKDIR" and not rest.startswith("/"):
                wrong.append(f"WORKDIR {rest}: absolute")
            if word in ("CMD", "ENTRYPOINT") and not _is_list(rest):
                wrong.append(f"{word} {rest}: a JSON list, or a shell becomes process 1 and SIGTERM never arrives")
            if word == "COPY":
                options, sources, _ = copied(rest)
                origin = options.get("from")
                if origin is not None and origin not in names:
                    wrong.append(f"COPY --from={origin}: no such stage")
                wrong += [f"COPY {s}: not there" for s in sources if origin is None and not (context / s).exists()]
    user = stages[-1].last("USER").partition(":")[0]
    if not user.isdigit() or int(user) == 0:
        wrong.append("the last stage needs a numeric USER that is not root: runAsNonRoot reads only numbers")
    if not stages[-1].last("ENTRYPOINT"):
        wrong.append("no ENTRYPOINT")
    return wrong


def _is_list(text):
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False
