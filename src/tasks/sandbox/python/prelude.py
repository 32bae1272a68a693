"""Names that programs of data sets take for granted: what LiveCodeBench's and LeetCode's environments import.

They stand behind the builtins, so that an answer's own names and Python's come first, and none of them counts as
defined by the answer.
"""

import bisect, builtins, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, random, re, string
import sys, time, typing

import leetcode

MODULES = {
    module.__name__: module
    for module in (bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator)
    + (random, re, string, sys, time, typing)
}


def public(module):
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return {name: getattr(module, name) for name in names if hasattr(module, name)}


NAMES = {}
for _module in (operator, string, re, copy, random, math, itertools, heapq, functools, bisect, collections, typing, datetime):
    NAMES.update(public(_module))
NAMES.update(MODULES)
NAMES["inf"] = math.inf


def stand_behind_builtins():
    """Makes the names, and LeetCode's lists and trees, visible everywhere in this process."""
    for name, value in {**NAMES, **public(leetcode)}.items():
        if not hasattr(builtins, name):
            setattr(builtins, name, value)
