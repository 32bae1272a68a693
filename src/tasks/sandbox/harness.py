"""What runs inside a sandbox: reads frames (one JSON value a line) from the host, answers one a frame.

A sandbox plays one of two parts, and starts afresh for each. As *program* it loads an answer and calls its
functions, or runs it with text on standard input. Everything that it sends is the program's word: the host
treats it as values, never as a verdict, and right answers never come in here. As *judge* it runs the test code
of a data row, whose calls of the program go through the host to the program's sandbox and come back as plain
values; its verdict never crosses the program's sandbox.

Values travel as JSON; what JSON lacks is tagged: {"$tuple": [...]}, {"$int": "0x..."}, ... Isolation is the
host's: this file only sets the limits that a process sets on itself.
"""

import json
import os
import resource
import sys

SAFE_INTEGER = 2**53
MOST_NODES = 100_000
MEMORY_STATUS = 86


def limit(what, value):
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def set_limits(limits):
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, limits["memory"])
    limit(resource.RLIMIT_CPU, limits["cpu"])
    limit(resource.RLIMIT_FSIZE, limits["file"])
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_NPROC, limits["processes"])


class Channel:
    """Frames to and from the host, on descriptors that standard input and output no longer name."""

    def __init__(self):
        self.descriptors = [os.dup(0), os.dup(1)]
        self.reader = open(self.descriptors[0], "rb", closefd=False)
        nothing = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)

    def receive(self):
        line = self.reader.readline()
        return json.loads(line) if line else None

    def send(self, frame):
        data = memoryview(json.dumps(frame).encode() + b"\n")
        while data:
            data = data[os.write(self.descriptors[1], data) :]

    def close(self):
        for descriptor in self.descriptors:
            os.close(descriptor)


class Values:
    """Turns Python values into JSON and back. `objects` keeps what has no JSON form, by number."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.objects = []

    def encode(self, value):
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < SAFE_INTEGER else {"$int": hex(value)}
        if isinstance(value, float):
            finite = value - value == 0
            return float(value) if finite else {"$float": repr(float(value))}
        if isinstance(value, str):
            return str(value)
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, dict):
            return {"$dict": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        for tag, wanted in (("$tuple", tuple), ("$set", set), ("$frozenset", frozenset)):
            if isinstance(value, wanted):
                return {tag: [self.encode(item) for item in value]}
        if isinstance(value, (bytes, bytearray)):
            return {"$bytes": value.hex()}
        if isinstance(value, complex):
            return {"$complex": [self.encode(value.real), self.encode(value.imag)]}
        if isinstance(value, range):
            return {"$range": [value.start, value.stop, value.step]}
        return self.encode_object(value, kind)

    def encode_object(self, value, kind):
        if isinstance(value, Name):
            return {"$target": value._target}
        if kind.__name__ == "ListNode" and hasattr(value, "next"):
            return {"$list_node": self.chain(value)}
        if kind.__name__ == "TreeNode" and hasattr(value, "left"):
            return {"$tree_node": self.levels(value)}
        if kind.__name__ == "deque":
            return {"$deque": [self.encode(item) for item in value]}
        if kind.__name__ in ("Fraction", "Decimal"):
            return {"$" + kind.__name__.lower(): str(value)}
        if callable(getattr(value, "tolist", None)):
            return self.encode(value.tolist())
        if hasattr(value, "__next__") or kind.__name__ in ("dict_keys", "dict_values", "dict_items"):
            return {"$iterator": [self.encode(item) for item in value]}
        self.objects.append(value)
        return {"$object": len(self.objects) - 1}

    def chain(self, node):
        values = []
        while node is not None and len(values) < MOST_NODES:
            values.append(self.encode(node.val))
            node = node.next
        return values

    def levels(self, root):
        """Level order with null for a missing child, as LeetCode writes trees."""
        values, nodes = [], [root]
        for node in nodes:
            values.append(None if node is None else self.encode(node.val))
            if node is not None and len(values) < MOST_NODES:
                nodes += [node.left, node.right]
        while values and values[-1] is None:
            values.pop()
        return values

    def decode(self, value):
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((tag, content),) = value.items()
        if tag == "$dict":
            return {self.decode(key): self.decode(item) for key, item in content}
        if tag in ("$list_node", "$tree_node"):
            return self.namespace[tag[1:]]([self.decode(item) for item in content])
        if tag in SEQUENCES:
            return SEQUENCES[tag]([self.decode(item) for item in content])
        if tag == "$object":
            return self.object(content)
        if tag == "$target":
            return self.target(content)
        return SCALARS[tag](content)

    def object(self, number):
        return self.objects[number]

    def target(self, target):
        """{"name"}, {"object"} or {"object", "member"}: what a judge's placeholder stands for."""
        if "name" in target:
            return self.named(target["name"])
        found = self.objects[target["object"]]
        return getattr(found, target["member"]) if "member" in target else found

    def named(self, name):
        """A function of the answer, or a method of its class Solution."""
        if name in self.namespace or "Solution" not in self.namespace:
            return self.namespace[name]
        return getattr(self.namespace["Solution"](), name)


def deque_of(items):
    from collections import deque

    return deque(items)


def fraction(text):
    from fractions import Fraction

    return Fraction(text)


def number(text):
    from decimal import Decimal

    return Decimal(text)


SEQUENCES = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$iterator": iter,
    "$deque": deque_of,
    "$range": lambda bounds: range(*bounds),
    "$complex": lambda parts: complex(*parts),
}
SCALARS = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$bytes": bytes.fromhex,
    "$fraction": fraction,
    "$decimal": number,
}


def problem(error):
    return {"error": {"type": type(error).__name__, "message": str(error)[:500]}}


class Program:
    """The answer under test."""

    def __init__(self, channel):
        self.channel = channel
        self.namespace = {"__name__": "answer", "__builtins__": __builtins__}
        self.values = Values(self.namespace)
        self.code = None

    def load(self, frame):
        """Executes the answer: its functions are called later, its `__main__` part does not run."""
        exec(compile(frame["prelude"], "prelude.py", "exec"), self.namespace)
        code = compile(frame["code"], "answer.py", "exec")
        try:
            # What the question shows: an answer may lean on its imports and helpers.
            exec(compile(frame.get("context", ""), "context.py", "exec"), self.namespace)
        except Exception:
            pass
        exec(code, self.namespace)
        return {"loaded": True}

    def call(self, frame):
        values = self.values
        function = values.target(frame["target"])
        args = values.decode(frame["args"])
        named = {key: values.decode(value) for key, value in frame.get("named", {}).items()}
        result = values.encode(function(*args, **named))
        # Functions that change their arguments are told by them.
        changed = [[i, e] for i, e in enumerate(map(values.encode, args)) if e != frame["args"][i]]
        return {"value": result, "changed": changed}

    def compile(self, frame):
        self.code = compile(frame["code"], "answer.py", "exec")
        return {"loaded": True}

    def run(self, frame):
        """Runs the answer as a program of its own, in a process of its own, with `stdin` to read."""
        with open("/tmp/stdin", "wb") as file:
            file.write(frame["stdin"].encode("utf-8", "surrogatepass"))
        with open("/tmp/stdout", "wb") as out:
            child = os.fork()
            if child == 0:
                self.be_program(out.fileno())
        _, status = os.waitpid(child, 0)
        with open("/tmp/stdout", "rb") as out:
            text = out.read(frame["most"] + 1)
        return {"stdout": text.decode("utf-8", "replace"), "status": os.waitstatus_to_exitcode(status)}

    def be_program(self, out):
        status = 1
        try:
            os.dup2(os.open("/tmp/stdin", os.O_RDONLY), 0)
            os.dup2(out, 1)
            self.channel.close()
            sys.argv = ["answer.py"]
            main = type(sys)("__main__")
            sys.modules["__main__"] = main
            exec(self.code, main.__dict__)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except MemoryError:
            status = MEMORY_STATUS
        except BaseException:
            pass
        try:
            sys.stdout.flush()
        except BaseException:
            status = 1
        os._exit(status & 255)


class Name:
    """Stands in test code for something of the program: calling it calls the program."""

    def __init__(self, judge, target):
        self._judge = judge
        self._target = target

    def __call__(self, *args, **named):
        return self._judge.ask(self._target, args, named)


class Thing(Name):
    """An object of the program; its members can be called."""

    def __getattr__(self, member):
        if member.startswith("__"):
            raise AttributeError(member)
        return Name(self._judge, {**self._target, "member": member})


class Judge:
    """Runs test code. Names that it does not define itself are the program's."""

    def __init__(self, channel):
        self.channel = channel
        self.namespace = {"__name__": "tests", "__builtins__": __builtins__}
        self.values = Values(self.namespace)
        # A value that comes from the program never names anything of the judge's.
        self.values.object = lambda number: Thing(self, {"object": number})
        self.values.target = None

    def judge(self, frame):
        exec(compile(frame["prelude"], "prelude.py", "exec"), self.namespace)
        known = set(self.namespace) | set(dir(__builtins__))
        for name in (free_names(frame["code"]) - known) | set(frame["names"]):
            self.namespace[name] = Name(self, {"name": name})
        try:
            exec(compile(frame["code"], "tests.py", "exec"), self.namespace)
        except AssertionError:
            return {"verdict": "wrong"}
        except Exception as error:
            return {"verdict": "error", **problem(error)}
        return {"verdict": "correct"}

    def ask(self, target, args, named):
        values = self.values
        self.channel.send(
            {
                "call": {
                    "target": target,
                    "args": [values.encode(arg) for arg in args],
                    "named": {key: values.encode(value) for key, value in named.items()},
                }
            }
        )
        reply = self.channel.receive()
        if "error" in reply:
            raise as_exception(reply["error"])
        for i, value in reply["changed"]:
            replace(args[i], values.decode(value))
        return values.decode(reply["value"])


def free_names(code):
    import ast

    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        if isinstance(node, ast.arg):
            defined.add(node.arg)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return {node.id for node in names} - defined


def as_exception(error):
    """An exception of the program, of the built-in type of that name where there is one."""
    kind = getattr(__builtins__, str(error["type"]), None)
    usual = isinstance(kind, type) and issubclass(kind, Exception) and kind is not AssertionError
    return (kind if usual else RuntimeError)(str(error["message"]))


def replace(old, new):
    """Gives a mutable argument the content that the program gave it."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif isinstance(old, (dict, set)) and type(old) is type(new):
        old.clear()
        old.update(new)
    elif hasattr(old, "__dict__") and type(old) is type(new):
        old.__dict__.update(new.__dict__)


def main():
    set_limits(json.loads(sys.argv[1]))
    sys.path[0] = "/tmp"
    channel = Channel()
    program, judge = Program(channel), Judge(channel)
    operations = {
        "load": program.load,
        "call": program.call,
        "compile": program.compile,
        "run": program.run,
        "judge": judge.judge,
    }
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
