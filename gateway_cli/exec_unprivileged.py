"""Become a program that refuses to run as root, on a directory that may lie where only root gets in.

Run as a script: ``exec_unprivileged.py <directory> <program> <arguments>...``; ``{directory}`` in the arguments
stands for the directory. It is its own program because it gives up rights for good. Whoever is not root just
becomes the program. Root becomes ``nobody``, who is given the directory and what is in it, and gets there through
an open descriptor: no folder above is opened to anybody. Where ``nobody`` can't reach the program itself (an
installation below ``/root``), root enters a user namespace in which it is called ``nobody`` and has no rights over
the system: what belongs to root stays root's, and the program finds a user that is not root.

On Linux the program is told to stop (SIGINT: PostgreSQL's fast shutdown) when the process that started it is gone.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

USER = "nobody"
DIRECTORY = "{directory}"
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def main() -> None:
    """Give up root's rights, then become the program."""
    path, program, *arguments = sys.argv[1:]
    parent = os.getppid()
    os.umask(0o077)
    directory = _give_up_root(path, program) if os.geteuid() == 0 else path
    if sys.platform == "linux":  # not earlier: whoever changes its user is no longer told
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program, [program, *(word.replace(DIRECTORY, directory) for word in arguments)])  # noqa: S606 - no shell


def _give_up_root(path: str, program: str) -> str:
    """Go on as ``nobody``, or as root without its rights; what the directory is now called.

    Raises:
        SystemExit: neither is possible here; the text says what to do.
    """
    user = pwd.getpwnam(USER)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if _may_run(user, program):
        _own(descriptor, user.pw_uid, user.pw_gid)
        _become(user)
        os.set_inheritable(descriptor, True)
        return f"/proc/self/fd/{descriptor}"
    _own(descriptor, 0, 0)
    try:
        _enter_user_namespace(user)
    except OSError as error:
        remedy = "install the gateway where others can read it, run it as another user, or set DATABASE_URL"
        sys.exit(f"{USER} can't run {program}, and there is no user namespace ({error.strerror}): {remedy}")
    return path


def _may_run(user: pwd.struct_passwd, program: str) -> bool:
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        return os.access(program, os.R_OK | os.X_OK, effective_ids=True)
    finally:
        os.seteuid(0)
        os.setegid(0)


def _own(descriptor: int, uid: int, gid: int) -> None:
    """Give the directory and all in it to a user; links are not followed."""
    if os.fstat(descriptor).st_uid != uid:
        os.fchown(descriptor, uid, gid)
    for _, folders, names, folder in os.fwalk(".", dir_fd=descriptor):
        for name in (*folders, *names):
            if os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid != uid:
                os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _become(user: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.chdir("/")


def _enter_user_namespace(user: pwd.struct_passwd) -> None:
    """Be called ``user`` from now on, with root's files and no rights outside of the namespace.

    Raises:
        OSError: the kernel or the container forbids it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWUSER):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number) if number else "only Linux has them")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")  # the kernel wants it before gid_map
    Path("/proc/self/uid_map").write_text(f"{user.pw_uid} 0 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{user.pw_gid} 0 1", encoding="ascii")


if __name__ == "__main__":
    main()
