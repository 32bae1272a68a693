"""Runs the test code of a data row. Names that it does not define itself are the program's (remote.py)."""

import ast
import builtins
import importlib.util
import sys
import types

import leetcode
from channel import problem
from prelude import MODULES, NAMES
from remote import OPERATIONS, Record, Remote
from values import Values

# Data and tests may nest and recurse deeper than Python allows by itself.
DEPTH = 3000
TRUSTED = {**{name: value for name, value in vars(leetcode).items() if not name.startswith("_")}, "inf": float("inf")}


class Judge:
    def __init__(self, channel):
        self.channel = channel
        self.namespace = {"__name__": "tests"}
        self.values = Values(self.export, self.resolve, Remote, leetcode.list_node, leetcode.tree_node)
        self.remotes = {}
        self.exceptions = {}
        self.names = {}
        self.stated, self.functions = set(), set()
        self.foreign = []
        self.asked = 0

    def judge(self, frame):
        """Executes the tests; correct if nothing fails and the program was used at all."""
        sys.setrecursionlimit(DEPTH)
        names = self.stated = set(frame["names"])
        self.functions = set(frame["functions"])
        shown = self.shown(frame["context"], names)
        tree = ast.parse(frame["code"])
        own = {**MODULES, **TRUSTED, **shown}
        if names:
            # Where the answer's names are known, others that the environment imports are the tests'.
            own = {**NAMES, **own}
        free = free_names(tree)
        wanted = (free - set(dir(builtins)) - set(own)) | imported_answers(tree) | names
        if not wanted and len(free) == 1:
            # All that the tests use is one name of Python's: the answer has to define it anew.
            wanted = free
        tree = ast.fix_missing_locations(AnswerNames(wanted).visit(tree))
        self.namespace.update({**own, ANSWER: self.named, UNUSED: self.unused})
        try:
            # An answer without them must not pass where a test expects an exception.
            for name in wanted:
                self.named(name)
            self.asked = 0
            exec(compile(tree, "tests.py", "exec", dont_inherit=True), self.namespace)
            self.run_test_functions(tree)
            self.run_test_classes()
        except AssertionError:
            return {"verdict": "wrong"}
        except BaseException as error:
            return {"verdict": "error", **problem(error)}
        return {"verdict": "correct" if self.asked > 0 else "error"}

    def shown(self, context, names):
        """Imports and helpers that the question shows: the judge's own, whatever the answer makes of them."""
        shown = {}
        try:
            exec(compile(context, "context.py", "exec", dont_inherit=True), shown)
        except Exception:
            pass
        return {name: value for name, value in shown.items() if name not in names and not name.startswith("__")}

    def run_test_functions(self, tree):
        """Functions test_…() that the test code leaves to pytest to call."""
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and is_name(node.func)}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and node.name not in called:
                self.namespace[node.name]()

    def run_test_classes(self):
        """Classes that the test code leaves to unittest to run."""
        unittest = sys.modules.get("unittest")
        for kind in list(self.namespace.values()) if unittest else []:
            if isinstance(kind, type) and issubclass(kind, unittest.TestCase) and kind.__module__ == "tests":
                result = unittest.TestResult()
                unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(result)
                if not result.wasSuccessful():
                    raise AssertionError

    def named(self, name):
        """The answer's value of a name. Functions and classes are fetched once, data each time."""
        if name not in self.names:
            value = self.ask("name", [name])
            if type(value) is Remote:
                value._remote.known = self.is_meant(name, value._remote.kind)
                value._remote.returned = 0
            elif not isinstance(value, type):
                return value
            self.names[name] = value
        return self.names[name]

    def is_meant(self, name, kind):
        """Whether tests want a class, or an object, under a name: an answer may make one of the function it has to write."""
        if kind == "class":
            return name not in self.functions and (name in self.stated or name[:1].isupper())
        return kind == "object" and name not in self.functions

    def unused(self, value):
        """The value of a statement that is nothing but a call."""
        if type(value) is Remote and value._remote.returned == self.asked:
            value._remote.returned = 0

    def ask(self, what, args, named={}):
        """Has the program do something; raises what it raises."""
        self.asked += 1
        frame = {"what": what, "args": [self.values.encode(arg) for arg in args], "changes": what == "call"}
        self.channel.send({"ask": {**frame, "named": {key: self.values.encode(v) for key, v in named.items()}}})
        reply = self.channel.receive()
        while reply is not None and reply["operation"] == "callback":
            self.channel.send({"returned": self.called_back(reply)})
            reply = self.channel.receive()
        if reply is None:
            raise SystemExit
        self.touch(what, args)
        if "error" in reply:
            raise self.as_exception(reply["error"])
        for place, value in reply.get("changed", []):
            replace(named[place] if isinstance(place, str) else args[place], self.values.decode(value))
        if isinstance(reply["value"], dict) and "$arg" in reply["value"]:
            place = reply["value"]["$arg"]
            return self.given_back(named[place] if isinstance(place, str) else args[place])
        seen = len(self.remotes)
        value = self.values.decode(reply["value"])
        old = seen == len(self.remotes)
        if what == "call" and type(value) is Remote and args[0]._remote.kind == "class" and args[0]._remote.known:
            value._remote.made = [*args[1:], *named.values()]
            value._remote.known = True
            value._remote.shared = old and value._remote.made != []
        return value

    def given_back(self, value):
        if type(value) is Remote:
            value._remote.returned = self.asked
        return value

    def touch(self, what, args):
        """Notes objects that may have changed: those given to a call, and the one whose method it is."""
        for arg in args if what in ("call", "set", "set_item", "delete_item", "next", "enter", "exit") else []:
            if type(arg) is Remote:
                arg._remote.touched = True
                if arg._remote.owner is not None:
                    arg._remote.owner.touched = True

    def resolve(self, tag, content):
        if tag == "$foreign":
            return self.foreign[content]
        if tag == "$own":
            return self.given_back(self.remotes[content])
        if tag != "$object":
            raise ValueError(f"unknown value {tag}")
        number, kind = content["number"], content["kind"]
        if number not in self.remotes:
            shape = [self.values.decode(part) for part in content.get("shape", [])]
            remote = Remote(Record(self, number, kind, shape, len(self.remotes)))
            if kind == "exception":
                remote = self.exception(content["bases"], remote)
            self.remotes[number] = remote
            return remote
        return self.given_back(self.remotes[number])

    def exception(self, bases, remote=None):
        """A class of this process for an exception class of the answer's, so that `except` can name it."""
        if not bases:
            return RuntimeError
        name, *others = bases[:20]
        known = getattr(builtins, name, None)
        if is_exception(known):
            return known
        if name not in self.exceptions:
            self.exceptions[name] = type(name, (self.exception(others),), {})
        if remote is not None:
            self.exceptions[name]._remote = remote._remote
        return self.exceptions[name]

    def as_exception(self, error):
        """An exception of the program."""
        kind = self.exception(error["bases"])
        try:
            raised = kind(*self.values.decode(error.get("args", [error["message"]])))
            for name, value in error.get("fields", {}).items():
                if not hasattr(BaseException, name) and not name.startswith("_"):
                    setattr(raised, name, self.values.decode(value))
            return raised
        except Exception:
            return RuntimeError(error["message"])

    def export(self, value):
        if type(value) is Remote:
            return {"$own": value._remote.number}
        if isinstance(value, type) and "_remote" in vars(value):
            return {"$own": vars(value)["_remote"].number}
        path = import_path(value)
        if path is not None:
            return {"$import": path}
        if not any(value is one for one in self.foreign):
            self.foreign.append(value)
        return {"$foreign": next(i for i, one in enumerate(self.foreign) if one is value)}

    def called_back(self, frame):
        """Does for the program what `frame` says with an object that the test gave it."""
        try:
            what = frame["what"]
            target, *args = [self.values.decode(arg) for arg in frame["args"]]
            if not any(target is one for one in self.foreign) or not may(what, target, args):
                raise TypeError("not an object of the tests that allows this")
            named = {key: self.values.decode(value) for key, value in frame["named"].items()}
            return {"value": self.values.encode(OPERATIONS[what](target, *args, **named))}
        except Exception as error:
            return problem(error)


ALLOWED = {"call", "len", "iter", "next", "item", "set_item", "contains", "str", "repr", "bool", "hash"}
ALLOWED |= {"eq", "lt", "gt", "le", "ge", "add", "sub", "mul"}


def may(what, target, args):
    """Attributes lead to frames and globals, and from there to right answers: only an own object's public ones."""
    if what in ("get", "set"):
        own = type(target).__module__ == "tests" and not isinstance(target, type)
        return own and isinstance(args[0], str) and not args[0].startswith("_")
    return what in ALLOWED


def is_exception(kind):
    return isinstance(kind, type) and issubclass(kind, BaseException)


def is_name(node):
    return isinstance(node, ast.Name)


def import_path(value):
    """[module, [name, …]] of a function or class that the program can import itself."""
    if isinstance(value, types.ModuleType):
        return [value.__name__, []]
    module = getattr(value, "__module__", None) or "builtins"
    parts = getattr(value, "__qualname__", "").split(".")
    if module in ("tests", "leetcode") or module not in sys.modules:
        return None
    found = sys.modules[module]
    for part in parts:
        found = getattr(found, part, None)
    return [module, parts] if found is value and value is not None else None


ANSWER = "__answer__"
UNUSED = "__unused__"


class AnswerNames(ast.NodeTransformer):
    """Turns each use of an answer's name into a call that fetches it."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        if node.id not in self.names or not isinstance(node.ctx, ast.Load):
            return node
        fetch = ast.Call(ast.Name(ANSWER, ast.Load()), [ast.Constant(node.id)], [])
        return ast.copy_location(fetch, node)

    def visit_Expr(self, node):
        self.generic_visit(node)
        if isinstance(node.value, ast.Call):
            call = ast.Call(ast.Name(UNUSED, ast.Load()), [node.value], [])
            node.value = ast.copy_location(call, node.value)
        return node

    def visit_ImportFrom(self, node):
        return None if is_answer_module(node.module) else node

    def visit_Import(self, node):
        node.names = [alias for alias in node.names if not is_answer_module(alias.name)]
        return node if node.names else None


def is_answer_module(name):
    """Whether nothing but the answer can be meant by a module's name."""
    try:
        return name is not None and importlib.util.find_spec(name.split(".")[0]) is None
    except (ImportError, ValueError):
        return True


def imported_answers(tree):
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and is_answer_module(node.module)]
    return {alias.asname or alias.name for node in nodes for alias in node.names} - {"*"}


def free_names(tree):
    names, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (names if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names - defined


def replace(old, new):
    """Gives a mutable argument the content that the program gave it."""
    if type(old) is Remote:
        return
    if isinstance(old, (list, bytearray)) and type(old) is type(new):
        old[:] = new
    elif isinstance(old, (dict, set)) and type(old) is type(new):
        old.clear()
        old.update(new)
    elif type(old).__name__ == "deque" and type(old) is type(new):
        old.clear()
        old.extend(new)
    elif type(old).__name__ == "ndarray" and type(old) is type(new):
        old[...] = new
    elif hasattr(old, "__dict__") and type(old) is type(new) and type(old).__module__ == "leetcode":
        old.__dict__.update(new.__dict__)
