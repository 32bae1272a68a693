"""Python values as JSON and back, types kept. JSON itself stands for None, truth values, text, lists, whole numbers
below 2^53 and floats with a fraction; everything else is an object of one tag: {"$tuple": [...]}, {"$float": "3.0"},
{"$make": ["datetime.date", [2024, 5, 1]]}, ... What has no form as data (functions, classes, objects of own classes)
crosses by reference: see remote.py.
"""

import collections
import datetime
import decimal
import fractions
import importlib
import keyword
import sys

SAFE_INTEGER = 2**53
MOST_NODES = 100_000
MOST_DEPTH = 150


def fields(*names):
    return lambda value: [getattr(value, name) for name in names]


DAY = ("year", "month", "day")
TIME = ("hour", "minute", "second", "microsecond", "tzinfo")

# Types that are made again from plain arguments: how to get them, by type.
MAKERS = {
    datetime.datetime: fields(*DAY, *TIME),
    datetime.date: fields(*DAY),
    datetime.time: fields(*TIME),
    datetime.timedelta: fields("days", "seconds", "microseconds"),
    datetime.timezone: lambda value: [value.utcoffset(None)],
    decimal.Decimal: lambda value: [str(value)],
    fractions.Fraction: fields("numerator", "denominator"),
    collections.Counter: lambda value: [dict(value)],
    collections.OrderedDict: lambda value: [list(value.items())],
    collections.defaultdict: lambda value: [getattr(value.default_factory, "__name__", ""), dict(value)],
    collections.deque: lambda value: [list(value), value.maxlen],
    bytearray: lambda value: [bytes(value)],
    slice: fields("start", "stop", "step"),
}
MADE = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in MAKERS}
FACTORIES = {kind.__name__: kind for kind in (int, float, str, list, dict, set)}
MADE["collections.defaultdict"] = lambda name, items: collections.defaultdict(FACTORIES.get(name), items)


# Types of modules that few programs import, made again from their text.
TEXTS = {"pathlib.PosixPath", "pathlib.PurePosixPath", "uuid.UUID", "ipaddress.IPv4Address", "ipaddress.IPv6Address"}


def made_of_text(name, text):
    if name not in TEXTS:
        raise ValueError(f"unknown type {name}")
    module, kind = name.split(".")
    return getattr(importlib.import_module(module), kind)(text)


class Values:
    """`export` gives a frame for a value that is no data, `resolve` the value of a frame that names one. `stand_in` is
    the class that stands for objects of the other side: it claims to be of any class."""

    def __init__(self, export, resolve, stand_in, list_node=None, tree_node=None):
        self.export = export
        self.resolve = resolve
        self.stand_in = stand_in
        self.nodes = {"$list_node": list_node, "$tree_node": tree_node}
        self.named = {}

    def encode(self, value, depth=0):
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is self.stand_in:
            return self.export(value)
        if depth > MOST_DEPTH:
            raise ValueError("a value is nested too deeply")
        scalar = self.encode_scalar(value)
        return self.encode_container(value, depth + 1) if scalar is NONE else scalar

    def encode_scalar(self, value):
        if isinstance(value, int):
            value = int.__int__(value)
            return value if abs(value) < SAFE_INTEGER else {"$int": hex(value)}
        if isinstance(value, float):
            value = float.__float__(value)
            return {"$float": repr(value)} if value - value != 0 or value == int(value) else value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bytes):
            return {"$bytes": bytes.hex(value)}
        if isinstance(value, complex):
            return {"$complex": [repr(value.real), repr(value.imag)]}
        if type(value) is range:
            return {"$range": [hex(value.start), hex(value.stop), hex(value.step)]}
        return NONE

    def encode_container(self, value, depth):
        kind = type(value)
        items = lambda values: [self.encode(item, depth) for item in values]
        if kind in MAKERS:
            return {"$make": [f"{kind.__module__}.{kind.__qualname__}", items(MAKERS[kind](value))]}
        if isinstance(value, list):
            return items(list.__iter__(value))
        if isinstance(value, dict):
            return {"$dict": [items(pair) for pair in dict.items(value)]}
        if isinstance(value, tuple):
            return self.encode_tuple(value, kind, items)
        for tag, wanted in (("$set", set), ("$frozenset", frozenset)):
            if isinstance(value, wanted):
                return {tag: items(wanted.__iter__(value))}
        if kind.__module__ == "numpy" and hasattr(value, "dtype"):
            tag = "$array" if kind.__name__ == "ndarray" else "$scalar"
            return {tag: [value.dtype.str, list(value.shape), self.encode(value.tolist(), depth)]}
        if f"{kind.__module__}.{kind.__qualname__}" in TEXTS:
            return {"$text": [f"{kind.__module__}.{kind.__qualname__}", str(value)]}
        if kind.__name__ == "ListNode" and hasattr(value, "next"):
            return {"$list_node": items(chain(value))}
        if kind.__name__ == "TreeNode" and hasattr(value, "left"):
            return {"$tree_node": items(levels(value))}
        return self.export(value)

    def encode_tuple(self, value, kind, items):
        names = getattr(kind, "_fields", None)
        content = items(tuple.__iter__(value))
        if kind is tuple or type(names) is not tuple or len(names) != len(content):
            return {"$tuple": content}
        return {"$named": [kind.__name__, [str(name) for name in names], content]}

    def decode(self, value):
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        ((tag, content),) = value.items()
        if tag == "$dict":
            return {self.decode(key): self.decode(item) for key, item in content}
        if tag in SEQUENCES:
            return SEQUENCES[tag]([self.decode(item) for item in content])
        if tag in SCALARS:
            return SCALARS[tag](content)
        if tag in self.nodes:
            return self.nodes[tag]([self.decode(item) for item in content])
        if tag == "$make":
            return MADE[content[0]](*[self.decode(item) for item in content[1]])
        if tag == "$named":
            return self.decode_named(*content)
        if tag == "$text":
            return made_of_text(*content)
        if tag in ("$array", "$scalar"):
            return decode_array(tag, *content[:2], self.decode(content[2]))
        return self.resolve(tag, content)

    def decode_named(self, name, names, content):
        key = (name, *names)
        if key not in self.named:
            if not all(part.isidentifier() and not keyword.iskeyword(part) for part in key):
                raise ValueError("a named tuple without proper names")
            self.named[key] = collections.namedtuple(name, names)
        return self.named[key](*[self.decode(item) for item in content])


NONE = object()


def decode_array(tag, dtype, shape, items):
    import numpy

    array = numpy.array(items, dtype=numpy.dtype(dtype)).reshape(shape)
    return array if tag == "$array" else array[()]


def chain(node):
    values = []
    while node is not None and len(values) < MOST_NODES:
        values.append(node.val)
        node = node.next
    return values


def levels(root):
    """Level order with None for a missing child, as LeetCode writes trees."""
    values, nodes = [], [root]
    for node in nodes:
        values.append(None if node is None else node.val)
        if node is not None and len(values) < MOST_NODES:
            nodes += [node.left, node.right]
    while values and values[-1] is None:
        values.pop()
    return values


SEQUENCES = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
SCALARS = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$bytes": bytes.fromhex,
    "$complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "$range": lambda bounds: range(*[int(text, 16) for text in bounds]),
}

# Whole numbers of any length may be read and written.
if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
