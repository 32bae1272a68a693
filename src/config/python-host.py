"""
The Python side of src/config/python-process.ts: imports one file of the user's and calls its functions, request by
request, for as long as the run lasts. A frame is one line of JSON; requests come on descriptor 3, answers go to
descriptor 4, so that standard output is the user's own (it is the run's standard error).

A request is {"do": NAME, ...}, an answer {"value": ...} or {"error": {type, message, file, line, function}}. A value
is a list. An answer also has "files", the user's files that are loaded, where they are others than before: a function
may import too.
"""

import atexit
import importlib.util
import inspect
import json
import math
import os
import queue
import signal
import sys
import sysconfig
import threading
import time
import traceback
import types

#: Seconds that a call may go on for once nobody waits for its answer.
LAST_SECONDS = 2


class Refused(Exception):
    """What the user's file gives is not what it should: the message says what."""


class Host:
    def __init__(self):
        self.module = None
        self.file = ""
        self.items = []
        self.loop = None
        self.files = []
        self.modules = 0

    def load(self, file):
        self.file = os.path.realpath(file)
        sys.path.insert(0, os.path.dirname(self.file))
        name = os.path.splitext(os.path.basename(file))[0]
        spec = importlib.util.spec_from_file_location(name, self.file)
        self.module = importlib.util.module_from_spec(spec)
        # Pickle, dataclasses and type hints look their module up.
        sys.modules[name] = self.module
        spec.loader.exec_module(self.module)

    def function(self, name):
        found = getattr(self.module, name, None)
        if callable(found):
            return found
        there = [
            key
            for key, value in vars(self.module).items()
            if inspect.isroutine(value) and getattr(value, "__module__", "") == self.module.__name__
        ]
        raise Refused(f"has no function {name}; it has {', '.join(there) or 'none'}.")

    def run(self, result):
        """Waits for what an async function gives."""
        if not inspect.isawaitable(result):
            return result
        import asyncio

        self.loop = self.loop or asyncio.new_event_loop()

        async def awaited():
            return await result

        return self.loop.run_until_complete(awaited())

    def answer(self, request):
        return getattr(self, "do_" + request.pop("do"))(**request)

    def do_load(self, file, functions):
        self.load(file)
        for name in functions:
            self.function(name)
        return []

    def news(self):
        """The user's files, where others are loaded than when it was asked last."""
        if not self.file or len(sys.modules) == self.modules:
            return {}
        self.modules = len(sys.modules)
        before, self.files = self.files, own_files(self.file)
        return {} if before == self.files else {"files": self.files}

    def do_reward(self, function, keywords):
        """TRL's call: lists of one length in, a list of numbers or None out."""
        count = len(keywords["prompts"])
        keywords["trainer_state"] = types.SimpleNamespace(**keywords["trainer_state"])
        return self.values(function, keywords, count)

    def do_problems(self, count, seed, settings):
        """Dicts with "question"; the objects stay here, for grading."""
        found = self.function("problems")
        made = list(self.run(found(**accepted(found, {"count": count, "seed": seed, **settings}))))
        for index, item in enumerate(made):
            if not isinstance(item, dict) or not isinstance(item.get("question"), str):
                raise Refused(f"problems returned {shown(item)} as number {index}; a problem is a dict with a text question.")
        self.items = made
        return [as_problem(item) for item in made]

    def do_grade(self, items, texts, answers, made):
        if not self.items:
            self.do_problems(**made)
        keywords = {"problems": [self.items[index] for index in items], "texts": texts, "answers": answers}
        return self.values("grade", {**keywords, **made["settings"]}, len(texts))

    def values(self, name, keywords, count):
        found = self.function(name)
        result = self.run(found(**accepted(found, keywords)))
        if isinstance(result, (str, bytes, dict)) or not hasattr(result, "__iter__"):
            raise Refused(f"{name} returned {shown(result)}; it takes a list of numbers or None.")
        values = [as_number(value) for value in result]
        if len(values) != count:
            raise Refused(f"{name} returned {len(values)} values for {count} completions.")
        return values


def own_files(file):
    """The file, and what it has imported from beside it: neither Python's own nor installed packages."""
    beside = os.path.dirname(file) + os.sep
    installed = tuple(os.path.realpath(path) + os.sep for path in sysconfig.get_paths().values())
    paths = {file}
    for module in list(sys.modules.values()):
        path = vars(module).get("__file__") if isinstance(module, types.ModuleType) else None
        if isinstance(path, str):
            paths.add(os.path.realpath(path))
    return sorted(path for path in paths if path == file or path.startswith(beside) and not path.startswith(installed))


def as_problem(item):
    """What of a problem the run needs to know; columns that JSON has no form for stay here."""
    answer = item.get("answer")
    columns = {}
    for key, value in item.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            continue
        columns[str(key)] = value
    return {"question": item["question"], "answer": None if answer is None else str(answer), "columns": columns}


def accepted(function, keywords):
    """All keywords where the function takes any, else those that it names. Refused where it needs others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return keywords
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default is parameter.empty
        and parameter.name not in keywords
    ]
    if needed:
        name = getattr(function, "__name__", "the function")
        raise Refused(f"{name} asks for {', '.join(needed)}; what there is: {', '.join(keywords)}.")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return keywords
    names = {parameter.name for parameter in parameters}
    return {key: value for key, value in keywords.items() if key in names}


def as_number(value):
    """A finite number, null for None, or {"wrong": what it is}."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return {"wrong": shown(value)}
    return number if math.isfinite(number) and not isinstance(value, str) else {"wrong": shown(value)}


def shown(value):
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def error_of(host, error):
    """The innermost line of the user's file that the error came through."""
    line = function = None
    for frame in traceback.extract_tb(error.__traceback__):
        if os.path.realpath(frame.filename) == host.file:
            line, function = frame.lineno, frame.name
    if isinstance(error, SyntaxError) and line is None:
        line = error.lineno
    if isinstance(error, Refused):
        return {"refused": str(error)}
    return {"type": type(error).__name__, "message": message_of(error), "line": line, "function": function}


def message_of(error):
    """An error of the user's has a text of its own making, which may raise itself."""
    try:
        return str(error)
    except Exception:
        return "its message cannot be read"


def say_closed(host, descriptor):
    """The user's code has closed what it did not open, as programs do that become daemons."""
    print(f"{host.file}: descriptor {descriptor}, which the run needs, was closed", file=sys.stderr)


def read_requests(requests, waiting, host):
    try:
        for line in requests:
            waiting.put(line)
    except OSError:
        say_closed(host, 3)
    # The run has ended.
    waiting.put(None)
    time.sleep(LAST_SECONDS)
    end_group()
    os._exit(1)


def end_group():
    """Ends what the user's code has started and left. This process leads their group; one that it has forked does not."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def main():
    # Who stops the run decides when this process ends, whoever else sends an interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first to be registered is the last to be called.
    atexit.register(end_group)
    for descriptor in (3, 4):
        os.set_inheritable(descriptor, False)
    requests, answers = os.fdopen(3, "rb"), os.fdopen(4, "wb")
    waiting = queue.Queue()
    host = Host()
    threading.Thread(target=read_requests, args=(requests, waiting, host), daemon=True).start()
    while True:
        line = waiting.get()
        if line is None:
            return
        try:
            answer = {"value": host.answer(json.loads(line))}
        except BaseException as error:
            answer = {"error": error_of(host, error)}
        try:
            answers.write(json.dumps({**answer, **host.news()}, allow_nan=False).encode() + b"\n")
            answers.flush()
        except BrokenPipeError:
            # The run is gone.
            os._exit(1)
        except OSError:
            say_closed(host, 4)
            os._exit(1)


# A process that multiprocessing starts anew (spawn, forkserver) runs this file for the sake of the user's functions:
# it answers nobody.
if __name__ == "__main__":
    main()
