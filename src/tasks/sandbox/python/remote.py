"""Objects of the other sandbox. A value that is no data crosses as a number; on the other side a Remote stands for
it, and what is done with the Remote is asked of the owner: {"what": "len", "args": [{"$own": 3}]}.

The judge holds Remotes of the program's objects and must not believe them: an object of the program that claims
to equal, contain or exceed a right value is worth nothing. So a Remote never equals data, never computes with data,
and its comparison with another Remote counts only as far as their fields bear it out. What it tells about itself
(an attribute, an item, a length) comes over as data and is compared on the judge's side.
"""

import builtins
import operator
import random

BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
ORDER = ("lt", "le", "gt", "ge")
UNARY = ("neg", "pos", "invert", "abs", "index")

# What an owner is asked to do with its objects.
OPERATIONS = {
    "call": lambda function, *args, **named: function(*args, **named),
    "get": getattr,
    "set": setattr,
    "item": operator.getitem,
    "set_item": operator.setitem,
    "delete_item": operator.delitem,
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *error: type(value).__exit__(value, *error),
    "contains": operator.contains,
    "eq": operator.eq,
    "ne": operator.ne,
    **{name: getattr(builtins, name) for name in ("len", "iter", "next", "str", "repr", "bool", "float", "int")},
    **{name: getattr(builtins, name) for name in ("hash", "reversed", "isinstance", "issubclass", "dir", "round")},
    **{name: getattr(operator, f"__{name}__") for name in BINARY + ORDER + UNARY},
}

SPECIAL = {
    "__call__": "call",
    "__getitem__": "item",
    "__setitem__": "set_item",
    "__delitem__": "delete_item",
    "__enter__": "enter",
    "__exit__": "exit",
    "__instancecheck__": "isinstance",
    "__subclasscheck__": "issubclass",
    **{f"__{name}__": name for name in ("len", "iter", "next", "str", "repr", "bool", "float", "int", "hash", "round")},
    **{f"__{name}__": name for name in ("reversed", "dir") + UNARY},
}

# Special attributes that tell something; the others are protocols that libraries would trust with memory.
TOLD = {"__class__", "__name__", "__qualname__", "__doc__", "__module__", "__dict__", "__annotations__", "__wrapped__"}

# What tells truths of its argument: of an object that is told what is right it is worth nothing.
TRUTHS = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint"}
BUILTIN_METHODS = {name for kind in (str, bytes, int, float, list, tuple, dict, set) for name in dir(kind)}


def told(name):
    return property(lambda self: self._remote.get(self, name))


class Remote:
    # Stands for an object of another process. `_remote`: a Record.
    __slots__ = ("_remote",)
    __doc__ = told("__doc__")
    __module__ = told("__module__")
    __class__ = told("__class__")

    def __init__(self, record):
        object.__setattr__(self, "_remote", record)

    def __getattr__(self, name):
        return self._remote.get(self, name)

    def __setattr__(self, name, value):
        self._remote.peer.ask("set", [self, name, value])

    def __eq__(self, other):
        if self is other and not self._remote.shared:
            return True
        return type(other) is Remote and self._remote.equals(self, other)

    def __ne__(self, other):
        return type(other) is not Remote or not (self == other) and self._remote.peer.ask("ne", [self, other]) is True

    def __contains__(self, item):
        return self._remote.contains(self, item)


def forwarded(what):
    def method(self, *args, **named):
        # isinstance(value, class) and issubclass name the class second.
        order = [*args, self] if what in ("isinstance", "issubclass") else [self, *args]
        return self._remote.peer.ask(what, order, named)

    return method


def binary(what, reflected=False):
    """Between two objects of the other side; with data only where the test itself made the object."""

    def method(self, other):
        if type(other) is not Remote and not self._remote.trusted:
            return NotImplemented
        return self._remote.peer.ask(what, [other, self] if reflected else [self, other])

    return method


def ordered(what):
    def method(self, other):
        if type(other) is not Remote:
            return NotImplemented
        ask = self._remote.peer.ask
            # Below and above something at once is no order.
        strict = what in ("lt", "gt")
        return ask(what, [self, other]) is True and not (strict and ask(what, [other, self]) is True)

    return method


for _name, _what in SPECIAL.items():
    setattr(Remote, _name, forwarded(_what))
for _what in BINARY:
    setattr(Remote, f"__{_what}__", binary(_what))
    setattr(Remote, f"__r{_what}__", binary(_what, reflected=True))
for _what in ORDER:
    setattr(Remote, f"__{_what}__", ordered(_what))


class Record:
    """What the judge knows of an object of the program's.

    kind: "class", "callable", "iterator" or "object". shape: its class and fields when it was first seen. seen: in
    which order objects were. made: the arguments if the test made it by calling a class. shared: a class gave it out
    more than once. owner: whose method it is. touched: whether the test did anything with it since. known: made or
    named by the test, so that it may be of any class. returned: since which request the answer has passed it off as a
    result, 0 if it has not.
    """

    def __init__(self, peer, number, kind, shape, seen):
        self.peer = peer
        self.number = number
        self.kind = kind
        self.shape = shape
        self.seen = seen
        self.made = None
        self.owner = None
        self.touched = False
        self.shared = False
        self.known = False
        self.returned = 0

    @property
    def trusted(self):
        """Whether what it says of plain data counts."""
        return self.known and not self.returned

    def get(self, remote, name):
        if name.startswith("__") and name.endswith("__") and name not in TOLD:
            raise AttributeError(name)
        value = self.peer.ask("get", [remote, name])
        # Where a test calls a method of text or lists, it wants text or a list, not what answers to the name.
        bears = self.trusted if name in TRUTHS else self.known
        if not bears and self.kind == "object" and name in BUILTIN_METHODS and type(value) is Remote:
            raise AttributeError(name)
        if type(value) is Remote and value._remote.kind == "callable":
            value._remote.owner = self
        if type(value) is Remote and value._remote.kind == "class" and self.known and name[:1].isupper():
            value._remote.known = True
        return value

    def contains(self, remote, item):
        try:
            items = iter(remote)
        except TypeError:
            if not self.trusted:
                raise
            # Nothing contains a number drawn here and now.
            drawn = random.SystemRandom().getrandbits(52)
            ask = self.peer.ask
            return ask("contains", [remote, drawn]) is False and ask("contains", [remote, item]) is True
        return any(item is one or item == one for one in items)

    def equals(self, a, b):
        """Equal by the program's word, which their fields have to bear out: else it is an error, not a verdict."""
        claimed = self.peer.ask("eq", [a, b]) is True
        if claimed and not self.borne_out(a, b):
            raise TypeError("objects that claim to be equal do not show it")
        return claimed

    def borne_out(self, a, b):
        """Fields are compared as they were seen first, unless the test changed them since."""
        first, second = sorted((a._remote, b._remote), key=lambda record: record.seen)
        shapes = [self.peer.ask("shape", [remote]) for remote in (a, b)]
        if shapes[0] != shapes[1] or (first.shape != shapes[0] and not first.touched):
            return False
        if second.made is not None and (first.made is None or first.shared):
            # The test made the right one: it has to show what it was made of, and not among guesses.
            parts = [("object", arg._remote.number) if type(arg) is Remote else arg for arg in second.made]
            fields = (len(shapes[0]) - 1) // 2
            return fields <= len(parts) + MOST_OTHER_FIELDS and all(part in shapes[0] for part in parts)
        return first.made is not None or second.made is None


MOST_OTHER_FIELDS = 8


def shape(value):
    """[class, field, value, field, value, ...] of an object, for comparison."""
    names = getattr(value, "__dict__", None)
    fields = dict(names) if isinstance(names, dict) else {}
    for kind in type(value).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if hasattr(value, name):
                fields[name] = getattr(value, name)
    return [type(value).__qualname__, *[part for pair in sorted(fields.items()) for part in pair]]


def kind_of(value):
    if isinstance(value, type):
        return "exception" if issubclass(value, BaseException) else "class"
    if hasattr(type(value), "__next__"):
        return "iterator"
    return "callable" if type(value).__name__ in CALLABLES else "object"


CALLABLES = {"function", "method", "builtin_function_or_method", "method-wrapper", "partial", "_lru_cache_wrapper"}
