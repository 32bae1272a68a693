"""What runs inside a sandbox: reads frames (one JSON value a line) from the host and answers one a frame.

A sandbox plays one of two parts, and starts afresh for each. As *program* (program.py) it loads an answer and does
what it is asked with what the answer defines, or runs it with text on standard input. Everything that it sends is
the program's word: the host treats it as values, never as a verdict, and right answers never come in here. As
*judge* (judge.py) it runs the test code of a data row, whose use of the program goes through the host to the
program's sandbox; its verdict never crosses the program's sandbox.

Isolation is the host's: this file only sets the limits that a process sets on itself. Its argument is
{"limits", "path"}: limits in bytes and seconds, and the folders of the interpreter's modules, since the start
of Python's `site` is skipped: it costs more than all the rest.
"""

import json
import os
import resource
import sys

STACK = 64 * 2**20


def close_inherited():
    """Descriptors that whoever started Troupe left open would be a way out."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass


def limit(what, value, final=True):
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value if final else hard))


def set_limits(limits):
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, limits["memory"])
    limit(resource.RLIMIT_CPU, limits["cpu"])
    limit(resource.RLIMIT_FSIZE, limits["file"])
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_NPROC, limits["processes"])
    # Programs that recurse deeply raise it themselves; the address space bounds it.
    limit(resource.RLIMIT_STACK, STACK, final=False)


def use_path(path):
    """What `site` does and programs rely on: folders of modules, exit() and quit()."""
    sys.path[:] = ["/tmp"] + [folder for folder in path if folder not in ("", "/opt/troupe")]
    import site

    site.setquit()


def main():
    close_inherited()
    settings = json.loads(sys.argv[1])
    set_limits(settings["limits"])

    from channel import Channel, problem
    from judge import Judge
    from program import Program
    from prelude import NAMES  # noqa: F401  imported ahead, while nobody waits

    # An answer's own `import values` must not find these.
    for name in ("channel", "values", "remote", "judge", "program", "prelude", "leetcode"):
        sys.modules.pop(name, None)
    use_path(settings["path"])
    channel = Channel()
    program, judge = Program(channel), Judge(channel)
    operations = {**program.operations(), "judge": judge.judge}
    channel.send({"ready": True})
    while True:
        frame = channel.receive()
        if frame is None:
            return
        try:
            reply = operations[frame["operation"]](frame)
        except BaseException as error:
            reply = problem(error)
        channel.send(reply)


main()
