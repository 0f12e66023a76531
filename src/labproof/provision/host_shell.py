"""Files and commands of one host over SSH. A file is replaced whole, and only if it is still what was read."""

from __future__ import annotations

import base64
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from labproof.provision.changes import FileState
from labproof.provision.failure import ChangedSince, StepFailed

if TYPE_CHECKING:
    from labproof.clients.ssh import CommandResult, SshSession

_CHANGED, _ODD = 75, 76
#: A host that goes down may leave a connection half open that answers never and fails never (seen on a real guest's
#: reboot): whoever waits for the next boot asks again after this long, however patient other commands are.
_BOOT_ID_S = 60.0
_DIGEST = """digest() { if [ -L "$1" ]; then echo link; elif [ -f "$1" ]; then sha256sum < "$1" | cut -d ' ' -f 1
  elif [ -e "$1" ]; then echo odd; else echo absent; fi; }
"""
_READ = """if [ -L "$path" ] || { [ -e "$path" ] && [ ! -f "$path" ]; }; then exit 76; fi
if [ ! -e "$path" ]; then echo absent; exit 0; fi
stat -c 'mode %a' "$path" && base64 < "$path"
"""
#: Write beside it, compare, rename: a reader sees the old file or the new. The temporary name ends in no suffix that
#: modprobe, modules-load or grub-mkconfig reads.
_WRITE = """set -e
umask 077
folder=${path%/*}
mkdir -p "$folder"
rm -f "$folder"/.labproof.??????
temporary=$(mktemp "$folder/.labproof.XXXXXX")
trap 'rm -f "$temporary"' EXIT
base64 -d > "$temporary" <<'LABPROOF_END'
@CONTENT@
LABPROOF_END
[ ! -f "$path" ] || chown --reference="$path" "$temporary"
chmod "$mode" "$temporary"
sync "$temporary"
[ "$(digest "$path")" = "$expected" ] || exit 75
mv -f "$temporary" "$path"
trap - EXIT
sync "$folder"
"""
_REMOVE = """set -e
[ "$(digest "$path")" = "$expected" ] || exit 75
rm -f "$path"
sync "${path%/*}"
"""


class HostShell:
    """One host: its files and its commands.

    Args:
        session: an SSH session as root.
        command_s: longest time for reading or writing a file, seconds.
    """

    def __init__(self, session: SshSession, command_s: float) -> None:
        self.session = session
        self._command_s = command_s

    def read(self, path: str) -> FileState:
        """The file as it is now.

        Raises:
            StepFailed: it is a symlink or no regular file, or cannot be read.
            TransportFailure: the host did not answer.
        """
        result = self._script(f"path={shlex.quote(path)}\n{_READ}")
        if result.exit_status == _ODD:
            raise StepFailed(f"{path} is a symlink or no regular file; labproof changes regular files only")
        if result.exit_status != 0:
            raise StepFailed(f"{path} cannot be read: {_said(result)}")
        head, _, body = result.stdout.decode("ascii", "replace").partition("\n")
        if head == "absent":
            return FileState(None)
        return FileState(base64.b64decode(body), int(head.removeprefix("mode "), 8))

    def replace(self, path: str, before: FileState, after: FileState) -> None:
        """Make the file `after`, provided that its content is still `before`'s.

        Raises:
            ChangedSince: it is another by now; nothing was written.
            StepFailed: it could not be written.
        """
        head = f"path={shlex.quote(path)} expected={before.digest} mode={after.mode:o}\n{_DIGEST}"
        if after.content is None:
            result = self._script(head + _REMOVE)
        else:
            content = base64.encodebytes(after.content).decode("ascii").rstrip("\n")
            result = self._script(head + _WRITE.replace("@CONTENT@", content))
        if result.exit_status == _CHANGED:
            raise ChangedSince(f"{path} was changed by somebody else since it was read; nothing was written")
        if result.exit_status != 0:
            raise StepFailed(f"{PurePosixPath(path)} could not be written: {_said(result)}")

    def run(self, command: str, limit_s: float) -> None:
        """Run a command to its end.

        Raises:
            StepFailed: it ended with another status than 0, with its last words.
        """
        result = self.session.run(command, timeout_s=limit_s)
        if result.exit_status != 0:
            raise StepFailed(f"`{command}` ended with status {result.exit_status}: {_said(result)}")

    def boot_id(self) -> str:
        """Identity of the running boot, by a connection of its own."""
        self.session.reconnect()
        result = self.session.run("cat /proc/sys/kernel/random/boot_id", timeout_s=min(self._command_s, _BOOT_ID_S))
        return result.stdout.decode("ascii", "replace").strip()

    def _script(self, text: str) -> CommandResult:
        return self.session.run("sh -s", stdin=text.encode(), timeout_s=self._command_s)


def _said(result: CommandResult) -> str:
    words = (result.stderr or result.stdout).decode("utf-8", "replace").split()
    return " ".join(words)[-300:] or "it said nothing"
