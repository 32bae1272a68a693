"""The answer under test: loads it, does what is asked with what it defines, or runs it as a program."""

import ast
import builtins
import importlib
import os
import sys
import types

import leetcode
from channel import problem
from prelude import stand_behind_builtins
from remote import OPERATIONS, kind_of, shape
from values import Values

MEMORY_STATUS = 86


class Program:
    def __init__(self, channel):
        self.channel = channel
        self.module = types.ModuleType("answer")
        self.values = Values(self.export, self.resolve, Foreign, self.list_node, self.tree_node)
        self.told = Values(lambda value: {"$tuple": ["object", self.number(value)]}, None, None)
        self.objects = []
        self.numbers = {}
        self.imported = set()
        self.code = None

    def operations(self):
        return {name: getattr(self, name) for name in ("load", "ask", "compile", "run", "packages")}

    def packages(self, frame):
        """Which of the named packages cannot be imported."""
        missing = []
        for name in frame["names"]:
            try:
                importlib.import_module(name)
            except Exception:
                missing.append(name)
        return {"value": missing}

    def load(self, frame):
        """Executes the answer: its functions are called later, its `__main__` part does not run."""
        stand_behind_builtins()
        context = frame.get("context", "")
        code = self.completed(frame["code"].lstrip("\ufeff"), context)
        sys.modules["answer"] = self.module
        self.stand_behind(context, frame.get("names", []))
        exec(compile(code, "answer.py", "exec", dont_inherit=True), self.module.__dict__)
        return {"loaded": True}

    def completed(self, code, context):
        """The answer as a module of its own; an indented one completes the function that the question began."""
        try:
            tree = ast.parse(code)
        except IndentationError:
            if context == "" or code[:1] not in " \t":
                raise
            code = f"{context}\n{code}"
            tree = ast.parse(code)
        self.imported = imported_names(tree)
        return code

    def stand_behind(self, context, names):
        """What the question shows besides the names asked for: an answer may lean on its imports and helpers."""
        shown = {"__name__": "context"}
        try:
            exec(compile(context, "context.py", "exec", dont_inherit=True), shown)
        except Exception:
            pass
        for name, value in shown.items():
            if name not in names and not name.startswith("__") and not hasattr(builtins, name):
                setattr(builtins, name, value)

    def named(self, name):
        """What the answer defines itself under a name, or a method of its class Solution."""
        own = self.module.__dict__
        solution = own.get("Solution")
        if solution is not None and hasattr(solution, name) and (name not in own or name in self.imported):
            return getattr(solution(), name)
        if name not in own:
            raise NameError(f"the answer does not define {name}")
        return own[name]

    def ask(self, frame):
        """Does what the frame says; {"changes": true} asks for what became of the arguments too."""
        what = frame["what"]
        try:
            args = [self.values.decode(arg) for arg in frame["args"]]
            if what == "name":
                result = self.named(*args)
            elif what == "shape":
                return {"value": [self.told.encode(part) for part in shape(*args)]}
            else:
                sent = frame.get("named", {})
                named = {key: self.values.decode(value) for key, value in sent.items()}
                result = OPERATIONS[what](*args, **named)
            if not frame.get("changes"):
                return {"value": self.values.encode(result)}
            places = [*enumerate(args), *named.items()]
            changed = self.changed([*enumerate(frame["args"]), *sent.items()], places)
            for place, arg in places:
                if result is arg and isinstance(arg, (list, dict, set, bytearray)):
                    return {"value": {"$arg": place}, "changed": changed}
            return {"value": self.values.encode(result), "changed": changed}
        except BaseException as error:
            return self.raised(error)

    def changed(self, sent, places):
        """[index or name, value] of each argument that is another than was sent."""
        changed = []
        for (place, old), (_, arg) in zip(sent, places):
            if isinstance(old, (list, dict)) and not is_reference(old):
                new = self.values.encode(arg)
                changed += [[place, new]] if new != old else []
        return changed

    def raised(self, error):
        frame = problem(error)
        try:
            frame["error"]["args"] = self.values.encode(list(error.args))
            frame["error"]["fields"] = {str(key): self.values.encode(value) for key, value in vars(error).items()}
        except Exception:
            pass
        return frame

    def number(self, value):
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def export(self, value):
        if isinstance(value, Foreign):
            return {"$foreign": object.__getattribute__(value, "number")}
        known = id(value) in self.numbers
        kind = kind_of(value)
        frame = {"number": self.number(value), "kind": kind}
        if kind == "exception":
            frame["bases"] = [base.__name__ for base in value.__mro__[:20]]
        if kind == "object" and not known:
            frame["shape"] = [self.told.encode(part) for part in shape(value)]
        return {"$object": frame}

    def resolve(self, tag, content):
        if tag == "$own":
            return self.objects[content]
        if tag == "$name":
            return self.named(content)
        if tag == "$import":
            value = importlib.import_module(content[0])
            for part in content[1]:
                value = getattr(value, part)
            return value
        if tag == "$foreign":
            return Foreign(self, content)
        raise ValueError(f"unknown value {tag}")

    def list_node(self, values):
        return self.rebuilt(leetcode.list_node(values), "ListNode", ("next",))

    def tree_node(self, values):
        return self.rebuilt(leetcode.tree_node(values), "TreeNode", ("left", "right"))

    def rebuilt(self, root, name, links):
        """The same nodes in the answer's own class of that name, where it defines one."""
        own = self.module.__dict__.get(name)
        waiting = [root] if isinstance(own, type) and root is not None else []
        for node in waiting:
            following = [getattr(node, link) for link in links]
            waiting += [child for child in following if child is not None]
        try:
            for node in waiting:
                node.__class__ = own
        except TypeError:
            pass
        return root

    def callback(self, what, args, named):
        """Asks the judge to do something with an object of the test's."""
        encode = self.values.encode
        asked = {"what": what, "args": [encode(a) for a in args], "named": {k: encode(v) for k, v in named.items()}}
        self.channel.send({"callback": asked})
        while True:
            frame = self.channel.receive()
            if frame is None:
                os._exit(1)
            if frame["operation"] != "returned":
                self.channel.send(self.ask(frame))
            elif "error" in frame:
                kind = getattr(builtins, frame["error"]["type"], None)
                known = isinstance(kind, type) and issubclass(kind, Exception)
                raise (kind if known else RuntimeError)(frame["error"]["message"])
            else:
                return self.values.decode(frame["value"])

    def compile(self, frame):
        stand_behind_builtins()
        self.code = compile(frame["code"].lstrip("\ufeff"), "answer.py", "exec", dont_inherit=True)
        return {"loaded": True}

    def run(self, frame):
        """Runs the answer as a program of its own, in a process of its own, with `stdin` to read."""
        with open("/tmp/stdin", "wb") as file:
            file.write(frame["stdin"].encode("utf-8", "surrogatepass"))
        for name, text in frame.get("files", {}).items():
            with open(f"/tmp/{name}", "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
        with open("/tmp/stdout", "wb") as out:
            child = os.fork()
            if child == 0:
                self.be_program(out.fileno(), frame.get("args", []))
        _, status = os.waitpid(child, 0)
        with open("/tmp/stdout", "rb") as out:
            text = out.read(frame["most"] + 1)
        return {"stdout": text.decode("utf-8", "replace"), "status": os.waitstatus_to_exitcode(status)}

    def be_program(self, out, args):
        status = 1
        try:
            os.dup2(os.open("/tmp/stdin", os.O_RDONLY), 0)
            os.dup2(out, 1)
            self.channel.close()
            sys.argv = ["answer.py", *args]
            main = types.ModuleType("__main__")
            main.__file__ = "/tmp/answer.py"
            sys.modules["__main__"] = main
            exec(self.code, main.__dict__)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except MemoryError:
            status = MEMORY_STATUS
        except BaseException:
            pass
        os._exit(finished(status) & 255)


def finished(status):
    """What Python does at the end of a program: threads end, atexit's functions run, output is written."""
    import atexit
    import threading

    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.__stdout__):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        return 1
    return status


def imported_names(tree):
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    for node in imports:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            names |= set(vars(importlib.import_module(node.module))) if node.module in sys.modules else set()
    own = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return names - {node.name for node in tree.body if isinstance(node, own)}


def is_reference(frame):
    return isinstance(frame, dict) and next(iter(frame)) in ("$own", "$foreign", "$import", "$name")


class Foreign:
    """Stands for a function, an iterator or an object of the test's."""

    def __init__(self, program, number):
        object.__setattr__(self, "program", program)
        object.__setattr__(self, "number", number)

    def __getattr__(self, name):
        return foreign(self, "get", name)

    def __setattr__(self, name, value):
        foreign(self, "set", name, value)


def foreign(self, what, *args, **named):
    return object.__getattribute__(self, "program").callback(what, [self, *args], named)


def foreign_method(what):
    return lambda self, *args, **named: foreign(self, what, *args, **named)


for _name, _what in (("call", "call"), ("getitem", "item"), ("setitem", "set_item"), ("contains", "contains")):
    setattr(Foreign, f"__{_name}__", foreign_method(_what))
for _name in ("len", "iter", "next", "str", "repr", "bool", "eq", "lt", "gt", "le", "ge", "hash", "add", "sub", "mul"):
    setattr(Foreign, f"__{_name}__", foreign_method(_name))
